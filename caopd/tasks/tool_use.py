"""Tool use with textual calls: ToolAlpaca (arXiv 2306.05301)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from caopd.errors import DataError
from caopd.tasks.base import Task
from caopd.tasks.loading import DataSource, load_rows, select_examples
from caopd.tasks.rows import Row, given_demonstration, made_of, row_id
from caopd.types import Example
from caopd.verifiers import ToolCalls
from caopd.verifiers.tool_calls import parse_target, written_name

_TOOL_NAME = re.compile(r"^Name:[ \t]*(.*)$", re.MULTILINE)
_MAX_LISTED = 50


@dataclass(frozen=True)
class ToolUse(Task):
    """Requests to a documented tool, answered with ``Thought`` / ``Action`` / ``Action Input`` calls.

    Two forms of rows are read, each recognised by its columns:

    - prepared: ``prompt``, ``answer`` (JSON list of {``Action``, ``Action_Input``}), and where given
      ``system``, ``idx`` and ``demonstration``.
    - ToolAlpaca's own files, one tool a row: ``Name``, ``Description``, ``NLDocumentation``, and
      ``Instructions`` and ``Golden_Answers`` of equal length; one example for every instruction.

    A row without a demonstration gets one made of its calls. The category is the tool's name.

    Args:
        source: Where the rows are.
        first_call_only: Judge the first call alone.
        exclude_ids: Ids of rows to leave out. A row whose golden answer is not JSON cannot be judged and is
            an error, which lists the ids to put here.

    Examples:
        >>> files = {"train": "train.jsonl", "test": "test.jsonl"}
        >>> task = ToolUse(DataSource(files=files, splits={"validation": "test"}), exclude_ids=["107"])
    """

    source: DataSource
    first_call_only: bool = False
    exclude_ids: list[str] | None = None
    verifier: ToolCalls = field(default=ToolCalls(), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verifier", ToolCalls(self.first_call_only))

    def examples(self, split: str) -> Sequence[Example]:
        """Return the requests of ``train``, ``validation`` or ``test``, in the order of the data.

        Raises:
            ConfigError: The split has another name, or the source does not have it.
            DataError: A row lacks something, an answer cannot be read, or an id repeats.
        """
        excluded = set(self.exclude_ids or ())
        rows = load_rows(self.source, split)
        read = made_of(rows, lambda row: list(_requests(row)))
        requests = [each for of_row in read for each in of_row if each.id not in excluded]
        _check_targets(requests)
        return select_examples(self.source, split, [(r.row, _example(r)) for r in requests])


@dataclass(frozen=True, slots=True)
class _Request:
    id: str
    prompt: str
    target: str
    row: Row


def tool_prompt(name: str, description: str, documentation: str, question: str) -> str:
    """Return the prompt of the prepared data, made of the fields of ToolAlpaca's files.

    Args:
        name: The tool's name.
        description: One line on the tool.
        documentation: Its functions, in natural language.
        question: The user's request.
    """
    return (
        "Your task is to answer the user's question using available tools. \n"
        "You have access to the following tools:\n"
        f"Name: {name}\nDescription: {description}\nDocumentation:\n{documentation}\n"
        "Use the following format:\n"
        "Thought: you should always think about what to do\n"
        "Action: the action to take, should be one of the tool names.\n"
        "Action Input: the input to the action, must be in JSON format. "
        "All of the action input must be realistic and from the user.\n\n"
        f"Begin!\nQuestion: {question}"
    )


def _requests(row: Row) -> Iterator[_Request]:
    """Yield the requests of a row: one in the prepared form, one for every instruction in ToolAlpaca's."""
    if "NLDocumentation" not in row.values:
        yield _Request(row_id(row, ""), row.text("prompt"), _target(row, row.values.get("answer")), row)
        return
    questions, answers = row.values.get("Instructions"), row.values.get("Golden_Answers")
    if not isinstance(questions, list) or not isinstance(answers, list) or len(questions) != len(answers):
        raise row.error("Expected `Instructions` and `Golden_Answers` to be lists of equal length.")
    name, description, documentation = map(row.text, ("Name", "Description", "NLDocumentation"))
    for number, (question, calls) in enumerate(zip(questions, answers, strict=True)):
        prompt = tool_prompt(name, description, documentation, str(question))
        yield _Request(f"{name}-{number}", prompt, _target(row, calls), row)


def _target(row: Row, calls: object) -> str:
    if not calls:
        raise row.error("Expected an answer with at least one call in column 'answer', but got none.")
    return calls if isinstance(calls, str) else json.dumps(calls)


def _check_targets(requests: Sequence[_Request]) -> None:
    problems: dict[str, str] = {}
    for request in requests:
        try:
            parse_target(request.target)
        except DataError as error:
            problems[request.id] = f"{request.row.where}: {error}"
    if problems:
        listed = "\n".join([*list(problems.values())[:3], *(["..."] if len(problems) > 3 else [])])
        raise DataError(
            f"{len(problems)} of {len(requests)} rows have an answer that cannot be read:\n{listed}\n"
            f"Correct them, or leave them out with `exclude_ids: {json.dumps(list(problems)[:_MAX_LISTED])}`."
        )


def _example(request: _Request) -> Example:
    tool = _TOOL_NAME.search(request.prompt)
    return Example(
        id=request.id,
        question=request.prompt,
        target=request.target,
        system=request.row.optional_text("system"),
        demonstration=given_demonstration(request.row) or _demonstration(json.loads(request.target)),
        category="" if tool is None else tool[1].strip(),
    )


def _demonstration(calls: Sequence[Mapping[str, object]]) -> str:
    steps = []
    for call in calls:
        name = written_name(str(call["Action"]))
        arguments = call["Action_Input"]
        text = arguments.strip() if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        steps.append(f"Thought: I should call {name}.\nAction: {name}\nAction Input: {text}")
    return "\n".join(steps)
