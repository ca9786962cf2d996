"""How little of what is read is padding, on real rows: 64 groups of 8 rollouts, as long as a task's completions are."""

import random

import pytest

from caopd.confidence import InlineConfidence
from caopd.methods import SDFT
from caopd.models import ModelSource
from caopd.models.layout import PackingCost
from caopd.models.packing import pack
from caopd.rounds.encoding import SampleEncoder
from caopd.rounds.filling import TokenizedSample, fill
from caopd.rounds.splice import Completion
from caopd.tasks import ScienceQA, ToolUse
from caopd.tasks.loading import DataSource
from tests.needs import needs_smollm2

SMOLLM2 = PackingCost(4.6e-4)
UNREADABLE = ["107", "111", "112", "113"]


def samples_of(task, shortest, longest):
    tokenizer = ModelSource("smollm2-135m-instruct").load_tokenizer()
    encoder = SampleEncoder(tokenizer, InlineConfidence(), {}, max_length=8192, max_new_tokens=64)
    rng = random.Random(0)
    rows = list(task.examples("train"))
    rng.shuffle(rows)
    rows = rows[:64]
    taught = encoder.teacher_prompts([(row, SDFT().known_context(row)) for row in rows])
    return [
        TokenizedSample(student, teacher, written(rng.randint(shortest, longest)), (), copies_context=False)
        for student, teacher in zip(encoder.student_prompts(rows), taught, strict=True)
        for _ in range(8)
    ]


def written(length):
    return Completion((0,) * length, (False,) * length, (None,) * length)


def share_of_tokens(samples, limit):
    held = read = 0.0
    for share in fill(samples, limit):
        completions = [each.completion.token_ids for each in share]
        for side in ("student_prompt_ids", "teacher_prompt_ids"):
            rows = pack([getattr(each, side) for each in share], completions, 0, SMOLLM2)
            held += float(rows.share_of_tokens) * rows.num_positions
            read += rows.num_positions
    return held / read


@needs_smollm2
@pytest.mark.parametrize(
    ("task", "file", "completion", "at_8000"),
    [
        (ScienceQA, "science/physics.train.jsonl", (20, 64), 0.95),
        (lambda source: ToolUse(source, exclude_ids=UNREADABLE), "tooluse/train.jsonl", (10, 48), 0.94),
    ],
    ids=["science", "tool use"],
)
def test_filled_micro_batches_are_hardly_padded(task, file, completion, at_8000, request):
    data = request.config.rootpath.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the questions are not part of the project: no ../shared/data")
    samples = samples_of(task(DataSource(files={"train": str(data / file)})), *completion)
    found = {limit: share_of_tokens(samples, limit) for limit in (2_000, 4_000, 8_000, 16_000)}
    print(found)
    assert min(found[2_000], found[4_000]) > 0.95
    assert found[8_000] > at_8000
