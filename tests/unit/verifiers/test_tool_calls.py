import itertools
import json
import time
from dataclasses import replace

import pytest

from caopd.errors import DataError
from caopd.types import AnswerOutcome, Verdict
from caopd.verifiers import ToolCalls


def calls_text(*calls):
    return "\n".join(f"Thought: next\nAction: {name}\nAction Input: {arguments}" for name, arguments in calls)


def target_of(*calls):
    return json.dumps([{"Action": name, "Action_Input": arguments} for name, arguments in calls])


ONE = target_of(("search", '{"page": 1, "exact": true, "size": "small"}'))
TWO = target_of(("search", {"page": 1}), ("open", {"id": "7"}))


@pytest.mark.parametrize(
    "arguments",
    [
        '{"page": 1, "exact": true, "size": "small"}',
        '{"size":"small","exact":true,"page":1}',
        '{"size": "small", "exact": true, "page": 1.0}',
        '{"size": "small", "exact": true, "page": 10e-1}',
        '{"size": "sm\\u0061ll", "exact": true, "page": 1}',
        '\n{\n  "size": "small",\n  "exact": true,\n  "page": 1\n}\n',
        '```json\n{"size": "small", "exact": true, "page": 1}\n```',
        '```{"size": "small", "exact": true, "page": 1}```',
    ],
)
def test_equal_inputs_in_any_spelling_are_correct_and_one_answer(arguments):
    verdict = ToolCalls().verify(calls_text(("search", arguments)), ONE)
    answer = '[{"Action": "search", "Action_Input": {"exact": true, "page": 1, "size": "small"}}]'
    assert verdict == Verdict(True, answer, AnswerOutcome.PARSED)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Search", '{"page": 1, "exact": true, "size": "small"}'),
        ("search", '{"page": 2, "exact": true, "size": "small"}'),
        ("search", '{"page": "1", "exact": true, "size": "small"}'),
        ("search", '{"page": true, "exact": true, "size": "small"}'),
        ("search", '{"page": 1, "exact": 1, "size": "small"}'),
        ("search", '{"page": 1, "exact": true}'),
        ("search", '{"page": 1, "exact": true, "size": "small", "more": null}'),
        ("search", "{}"),
    ],
)
def test_other_calls_are_parsed_and_wrong(name, arguments):
    verdict = ToolCalls().verify(calls_text((name, arguments)), ONE)
    assert not verdict.correct
    assert verdict.outcome == AnswerOutcome.PARSED


@pytest.mark.parametrize(
    ("calls", "all_correct", "first_correct"),
    [
        ([("search", '{"page": 1}'), ("open", '{"id": "7"}')], True, True),
        ([("open", '{"id": "7"}'), ("search", '{"page": 1}')], False, False),
        ([("search", '{"page": 1}')], False, True),
        ([("search", '{"page": 1}'), ("open", '{"id": "8"}')], False, True),
        ([("search", '{"page": 1}'), ("open", '{"id": "7"}'), ("open", '{"id": "7"}')], False, True),
        ([("search", '{"page": 2}'), ("open", '{"id": "7"}')], False, False),
    ],
)
def test_all_calls_in_order_or_the_first_alone(calls, all_correct, first_correct):
    text = calls_text(*calls)
    assert ToolCalls().verify(text, TWO).correct is all_correct
    verdict = ToolCalls(first_call_only=True).verify(text, TWO)
    assert verdict.correct is first_correct
    assert len(json.loads(verdict.answer)) == 1


@pytest.mark.parametrize(
    ("names", "all_correct", "first_correct"),
    [
        (["a", "b", "c"], True, True),
        (["a", "c"], True, True),
        (["b", "c"], False, False),
        (["a", "b"], False, True),
        (["a", "b", "b", "c"], False, True),
    ],
)
def test_an_optional_call_may_be_left_out(names, all_correct, first_correct):
    target = target_of(("a", {}), ("[Optional]b", {}), ("c", {}))
    text = calls_text(*[(name, "{}") for name in names])
    assert ToolCalls().verify(text, target).correct is all_correct
    assert ToolCalls(first_call_only=True).verify(text, target).correct is first_correct


def test_an_optional_call_that_equals_the_next_is_matched_either_way():
    target = target_of(("[Optional]a", {}), ("a", {}), ("b", {}))
    assert ToolCalls().verify(calls_text(("a", "{}"), ("b", "{}")), target).correct
    assert ToolCalls().verify(calls_text(("a", "{}"), ("a", "{}"), ("b", "{}")), target).correct


def test_braces_and_markers_within_strings_are_part_of_the_input():
    arguments = {"code": 'if (a) { "x" }\nAction: none\nAction Input: {}', "brace": "}"}
    text = calls_text(("run", json.dumps(arguments)), ("run", json.dumps(arguments, indent=1)))
    assert ToolCalls().verify(text, target_of(("run", arguments), ("run", arguments))).correct


@pytest.mark.parametrize(
    "text",
    [
        '**Action:** search\n**Action Input:** {"page": 1}\n**Action:** open\n**Action Input:** {"id": "7"}',
        '  Action: search\n  Action Input: {"page": 1}\n\nAction: `open`\n\nAction Input:\n{"id": "7"}',
        'Action:search\r\nAction Input:{"page": 1}\r\nAction:open\r\nAction Input:{"id": "7"}\r\n',
        '<think>\nAction: drop\nAction Input: {\n</think>\nAction: search\nAction Input: {"page": 1}\n'
        'Observation: found\nAction: open\nAction Input: {"id": "7"}\nThought: done',
        '> Action: search\n> Action Input: {"page": 1}\n> Action: open\n> Action Input: {"id": "7"}',
        '1. Action: search\n   Action Input: {"page": 1}\n2. Action: open\n   Action Input: {"id": "7"}',
        'ACTION: search\nACTION INPUT: {"page": 1}\naction: open\nAction_Input: {"id": "7"}',
        'Action: search Action Input: {"page": 1}\nAction: open, Action Input: {"id": "7"}',
        'Action: search()\nAction Input: `{"page": 1}`\nAction: [open]\nAction Input: json\n{"id": "7"}',
        'Action: Use the search tool\nAction Input: {"page": 1}.\nAction: open (the first)\nAction Input: {"id": "7"}',
        'Action:\nsearch\nAction Input:\n```python\n{"page": 1}\n```\nAction 2: open\nAction Input 2: {"id": "7"}',
        'Action: search\nAction Input: {"page": 1}\nAction: open\nAction Input: {"id": "7"}\nAction: None',
        'Action: drop\nAction Input: {\n</think>\nAction: search\nAction Input: {"page": 1}\n'
        'Action: open\nAction Input: {"id": "7"}<|im_end|>',
    ],
)
def test_usual_dress_of_calls(text):
    assert ToolCalls().verify(text, TWO).correct


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "search", "arguments": {"page": 1}}</tool_call>\n'
        '<tool_call>{"name": "open", "arguments": "{\\"id\\": \\"7\\"}"}</tool_call>',
        '[search(page=1), open(id="7")]',
        '{"name": "search", "parameters": {"page": 1}}; {"name": "open", "parameters": {"id": "7"}}',
        'Action: search\nAction Input: {"page": 1}\nAction: open(id="7")',
    ],
)
def test_calls_in_other_forms_are_judged_alike(text):
    asked = ToolCalls().verify(calls_text(("search", '{"page": 1}'), ("open", '{"id": "7"}')), TWO)
    assert asked.outcome is AnswerOutcome.PARSED
    assert ToolCalls().verify(text, TWO) == replace(asked, outcome=AnswerOutcome.OTHER_FORM)


def test_values_of_a_form_without_types_are_compared_as_text():
    text = "<function=open>\n<parameter=id>\n7\n</parameter>\n<parameter=new>true</parameter>\n</function>"
    for arguments in ({"id": "7", "new": True}, {"id": 7, "new": "true"}, {"id": 7.0, "new": True}):
        assert ToolCalls().verify(text, target_of(("open", arguments))).correct
    for arguments in ({"id": "8", "new": True}, {"id": "7"}, {"id": "7", "new": True, "more": 1}, {"id": 7, "new": 1}):
        assert not ToolCalls().verify(text, target_of(("open", arguments))).correct


@pytest.mark.parametrize("name", ["[Optional]open", "[optional] open", "open", "`[Optional]open`"])
def test_the_mark_of_an_optional_call_is_no_part_of_its_name(name):
    target = target_of(("search", {}), ("[Optional]open", {}))
    assert ToolCalls().verify(calls_text(("search", "{}"), (name, "{}")), target).correct
    assert ToolCalls().verify(json.dumps([{"Action": "search", "Action_Input": {}}]), target).correct


@pytest.mark.parametrize(
    "text",
    ["", "Thought: nothing to do", "Action Input: {}", "The Action: search", "Actions: x", "Action: None"],
)
def test_without_a_call_the_answer_is_missing(text):
    verdict = ToolCalls().verify(text, ONE)
    assert replace(verdict, feedback=None) == Verdict(False, None, AnswerOutcome.MISSING)
    assert "There is no call" in verdict.feedback


@pytest.mark.parametrize(
    "text",
    [
        "Action: search",
        "Action:\nAction Input: {}",
        "Action: search\nThought: wait\nAction Input: {}",
        "Action: search\nAction Input: none",
        "Action: search\nAction Input: {'page': 1}",
        'Action: search\nAction Input: {"page": 1',
        'Action: search\nAction Input: {"page": 1}}',
        'Action: search\nAction Input: {"page": 1} and so on',
        "Action: search\nAction Input: [1]",
        'Action: search\nAction Input: "{}"',
        'Action: search\nAction Input: {"page": NaN}',
        'Action: search\nAction Input: {"page": -Infinity}',
        'Action: search\nAction Input: {"page": 1e999}',
        'Action: search\nAction Input: {"page": ' + "9" * 5000 + "}",
        'Action: search\nAction Input: {"page": 1}\nAction: open',
    ],
)
def test_one_call_that_cannot_be_read_makes_the_answer_malformed(text):
    verdict = ToolCalls().verify(text, ONE)
    assert replace(verdict, feedback=None) == Verdict(False, None, AnswerOutcome.MALFORMED)
    assert "could not be read" in verdict.feedback


@pytest.mark.parametrize("text", ["<think>{}", "[THINK]{}", "{}\n</think>\nNo, better not."])
def test_a_thought_is_no_call(text):
    verdict = ToolCalls().verify(text.replace("{}", calls_text(("search", '{"page": 1}'))), ONE)
    assert verdict.outcome is AnswerOutcome.MISSING


@pytest.mark.parametrize("name", ["Do not use search", "search or open", "research", "search.all"])
def test_what_stands_around_a_name_makes_no_other_name_of_it(name):
    assert ToolCalls().verify(calls_text((name, '{"page": 1}')), target_of(("search", {"page": 1}))).correct is False


def test_names_of_the_target_are_read_as_those_of_the_completion():
    assert ToolCalls().verify(calls_text(("use coupon", "{}")), target_of(("use coupon", {}))).correct


@pytest.mark.parametrize(
    "target",
    [
        "",
        "search",
        "{}",
        "[]",
        "[1]",
        '[{"Action": "search"}]',
        '[{"Action": 1, "Action_Input": {}}]',
        '[{"Action": "search", "Action_Input": "{\\"page\\": }"}]',
        '[{"Action": "search", "Action_Input": 1}]',
        "[" * 100_000,
    ],
)
def test_a_target_that_cannot_be_read_is_an_error(target):
    with pytest.raises(DataError, match="JSON list of"):
        ToolCalls().verify("Action: search\nAction Input: {}", target)


HOSTILE = {
    "nested lists": 'Action: a\nAction Input: {"a": ' + "[" * 1_000_000,
    "nested objects": "Action: a\nAction Input: " + '{"a":' * 300_000 + "1" + "}" * 300_000,
    "closed nesting": 'Action: a\nAction Input: {"a": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "actions": "Action: a\n" * 200_000,
    "inputs": "Action Input: {\n" * 100_000,
    "spaces": "Action: a\n" + " " * 2_000_000,
    "stars": "*" * 2_000_000 + "Action: a",
    "open string": 'Action: a\nAction Input: {"' + "\\\\" * 1_000_000,
    "NUL": "Action: \0\nAction Input: \0" + "\0" * 1_000_000,
    "long name": "Action: a" + " (" * 1_000_000,
    "no actions": "Action: None\n" * 100_000,
    "marks": "Action: None\n" + "*-" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_neither_crashes_nor_stalls(name):
    begun = time.process_time()
    assert ToolCalls().verify(HOSTILE[name], ONE).answer is None
    assert time.process_time() - begun < 3.0  # seconds


def test_many_calls_take_linear_time():
    calls = [("a", {"n": n}) for n in range(10_000)]
    text = calls_text(*[(name, json.dumps(arguments)) for name, arguments in calls])
    begun = time.process_time()
    assert ToolCalls().verify(text, target_of(*calls)).correct
    assert time.process_time() - begun < 3.0  # seconds


OPTIONAL = target_of(("[Optional]login", {"user": "ada"}), ("search", {"page": 1}), ("open", {"id": "7"}))
SEARCH, OPEN = ("search", '{"page": 1}'), ("open", '{"id": "7"}')


@pytest.mark.parametrize(
    ("calls", "target", "feedback"),
    [
        ([("search", '{"page": 2}'), OPEN], TWO, "Call 1, 'search', has a wrong input."),
        ([SEARCH, ("open", '{"id": "8"}')], TWO, "Call 2, 'open', has a wrong input."),
        ([("close", "{}"), OPEN], TWO, "Call 1, 'close', is not the tool that is needed there."),
        ([OPEN, SEARCH], TWO, "Call 1, 'open', is not the tool that is needed there."),
        ([SEARCH, OPEN, OPEN], TWO, "Call 3, 'open', is not the tool that is needed there."),
        ([SEARCH], TWO, "1 call is not enough: at least one more is needed."),
        ([("login", '{"user": "bob"}'), SEARCH, OPEN], OPTIONAL, "Call 1, 'login', has a wrong input."),
        ([("login", '{"user": "ada"}'), SEARCH], OPTIONAL, "2 calls are not enough: at least one more is needed."),
        ([SEARCH, ("login", '{"user": "ada"}')], OPTIONAL, "Call 2, 'login', is not the tool that is needed there."),
    ],
)
def test_feedback_names_the_first_call_that_is_not_right(calls, target, feedback):
    verdict = ToolCalls().verify(calls_text(*calls), target)
    assert not verdict.correct
    assert verdict.feedback == feedback


@pytest.mark.parametrize("calls", [[SEARCH, OPEN], [("login", '{"user": "ada"}'), SEARCH, OPEN]])
def test_a_correct_answer_has_no_feedback(calls):
    assert ToolCalls().verify(calls_text(*calls), OPTIONAL).feedback is None


def test_feedback_on_the_first_call_alone():
    assert ToolCalls(first_call_only=True).verify(calls_text(SEARCH, SEARCH), TWO).feedback is None
    verdict = ToolCalls(first_call_only=True).verify(calls_text(OPEN, SEARCH), TWO)
    assert verdict.feedback == "Call 1, 'open', is not the tool that is needed there."


def test_feedback_does_not_give_the_target_away():
    """Whatever is wrong, no name or input of the target is said that the completion did not say."""
    secret = target_of(("findTreasure", {"island": "Tortuga"}), ("dig", {"depth": "3141"}))
    names = ["findTreasure", "dig", "sail"]
    completions = [[(name, arguments)] for name in names for arguments in ("{}", '{"island": "Tortuga"}')]
    completions += [[*first, second] for first in completions for (second,) in completions]
    for calls in completions:
        text = calls_text(*calls)
        feedback = ToolCalls().verify(text, secret).feedback
        for word in ("findTreasure", "dig", "island", "Tortuga", "depth", "3141"):
            assert word not in feedback or word in text
        assert "Tortuga" not in feedback


def test_there_is_feedback_exactly_where_the_answer_is_wrong():
    names = ["login", "search", "open"]
    arguments = {"login": '{"user": "ada"}', "search": '{"page": 1}', "open": '{"id": "7"}'}
    for length in (1, 2, 3, 4):
        for chosen in itertools.product(names, repeat=length):
            verdict = ToolCalls().verify(calls_text(*((name, arguments[name]) for name in chosen)), OPTIONAL)
            assert (verdict.feedback is None) == verdict.correct
