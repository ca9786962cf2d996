"""The certainty of a part's calibration error against the function of all its completions at once."""

import math
import random

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from caopd.evaluation import PartScores
from caopd.metrics.functional import calibration_certainty, debiased_calibration_error

NAMES = ("ece", "ece_low", "ece_high", "noise_floor", "noise_floor_low", "noise_floor_high", "calibration_p_value")


def completions(num_prompts, per_prompt, seed=0):
    """Confidences and verdicts: completions of a prompt state the same or nothing, and are often right together."""
    generator = torch.Generator().manual_seed(seed)
    size = (num_prompts, per_prompt)
    confidence = (torch.randint(0, 11, (num_prompts, 1), generator=generator).float() / 10).repeat(1, per_prompt)
    shared = torch.rand(size, generator=generator) < 0.95
    chance = torch.where(
        shared, torch.rand((num_prompts, 1), generator=generator), torch.rand(size, generator=generator)
    )
    confidence[torch.rand(size, generator=generator) < 0.1] = math.nan
    return confidence, chance < 0.8 * confidence.nan_to_num(0.5)


def scored(*batches, several=True):
    part = PartScores(torch.device("cpu"), several)
    for confidence, correct in batches:
        prompt = torch.arange(len(confidence)).repeat_interleave(confidence.shape[1])
        part.update(confidence.flatten(), correct.flatten(), prompt)
    return part


def split(pair, *sizes):
    return zip(*(column.split(sizes) for column in pair), strict=True)


@pytest.mark.parametrize("per_prompt", [1, 4])
def test_the_interval_and_the_floor_are_those_of_all_completions_with_their_prompts(per_prompt):
    confidence, correct = completions(90, per_prompt)
    prompt = torch.arange(90).repeat_interleave(per_prompt)
    stated = ~confidence.flatten().isnan()
    found = calibration_certainty(*(column.flatten()[stated] for column in (confidence, correct, prompt)))
    values = scored((confidence, correct), several=per_prompt > 1).compute()
    expected = (found.ece, found.low, found.high, found.floor, found.floor_low, found.floor_high, found.p_value)
    assert [values[name] for name in NAMES] == pytest.approx(expected, abs=2e-3)
    independent = debiased_calibration_error(confidence.flatten()[stated], correct.flatten()[stated])
    assert values["debiased_ece"] == pytest.approx(found.debiased if per_prompt > 1 else float(independent), abs=1e-6)
    if per_prompt > 1:  # completions of a prompt count as fewer
        alone = calibration_certainty(confidence.flatten()[stated], correct.flatten()[stated])
        assert values["noise_floor"] > alone.floor + 0.01
        assert values["debiased_ece"] < independent - 0.01


def test_batches_and_their_order_change_no_digit():
    pair = completions(90, 4)
    whole = str(scored(pair).compute())  # NaN is not equal to itself
    order = torch.tensor(random.Random(1).sample(range(90), 90))
    assert str(scored(*split(tuple(column[order] for column in pair), 7, 50, 33)).compute()) == whole
    reversed_within = tuple(column.flip(1) for column in pair)
    assert str(scored(*split(reversed_within, 89, 1)).compute()) == whole


def test_further_completions_change_the_certainty():
    first, second = completions(30, 2, seed=1), completions(30, 2, seed=2)
    part = scored(first)
    before = part.certainty()
    part.update(second[0].flatten(), second[1].flatten(), torch.arange(30).repeat_interleave(2))
    assert part.certainty() == scored(first, second).certainty() != before


def test_without_a_stated_confidence_nothing_is_known():
    part = scored((torch.full((5, 2), math.nan), torch.ones(5, 2, dtype=torch.bool)))
    values = part.compute()
    assert all(math.isnan(values[name]) for name in (*NAMES, "debiased_ece"))
    assert values["accuracy"] == 1.0


def test_one_prompt_has_no_interval():
    values = scored((torch.full((1, 4), 0.5), torch.tensor([[True, True, True, False]]))).compute()
    assert math.isnan(values["ece_low"])
    assert math.isnan(values["ece_high"])
    assert values["ece"] == pytest.approx(0.25)


def work(rank, folder):
    """Both processes have some prompts; then the second one has none."""
    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    pair = completions(90, 4)
    shared = list(split(pair, 60, 30))[rank]
    found = [str(part.compute()) for part in (scored(shared), scored(*[pair][rank:]))]
    (folder / f"rank{rank}").write_text("\n".join(found))
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds_to_the_last_digit(tmp_path):
    context = mp.start_processes(work, args=(tmp_path,), nprocs=2, join=False, start_method="fork")
    if not context.join(timeout=60) and not context.join(timeout=60):
        for process in context.processes:
            process.kill()
        pytest.fail("The two processes did not end within 120 seconds.")
    whole = str(scored(completions(90, 4)).compute())
    assert [(tmp_path / f"rank{rank}").read_text().split("\n") for rank in (0, 1)] == [[whole] * 2] * 2
