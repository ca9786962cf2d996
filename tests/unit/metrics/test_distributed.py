"""Two processes over gloo give what one process gives."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from caopd.metrics import (
    BrierScore,
    CalibrationMetrics,
    ExpectedCalibrationError,
    OverconfidenceGap,
    SmoothCalibrationError,
    StrictPairwiseRanking,
)

SPLIT = 70  # of 100: the processes hold shares of different sizes
SINGLES = (ExpectedCalibrationError, BrierScore, OverconfidenceGap, SmoothCalibrationError, StrictPairwiseRanking)


def completions():
    generator = torch.Generator().manual_seed(7)
    confidence = torch.randint(0, 21, (100,), generator=generator).float() / 20
    correct = torch.rand(100, generator=generator) < 0.2 + 0.5 * confidence
    confidence[torch.rand(100, generator=generator) < 0.2] = float("nan")
    return confidence, correct


def updated(metric, confidence, correct):
    metric.update(confidence, correct)
    return metric


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)  # the parent's thread pool does not survive the fork
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    confidence, correct = completions()
    share = slice(0, SPLIT) if rank == 0 else slice(SPLIT, None)
    parsed = ~confidence[share].isnan()
    metrics = updated(CalibrationMetrics(), confidence[share], correct[share])
    # The second process has no completions at all. Trainers move metrics to a device, which resets their dtype.
    lopsided = CalibrationMetrics().to("cpu")
    if rank == 0:
        updated(lopsided, confidence, correct)
    singles = [updated(single(), confidence[share][parsed], correct[share][parsed]) for single in SINGLES]
    result = {
        "shares": metrics.compute(),
        "lopsided": lopsided.compute(),
        "singles": [metric.compute() for metric in singles],
        "bins": (metrics.bins().counts, metrics.bins().ece),
        "local_n": int(metrics.stated().total + metrics.n_missing),
    }
    torch.save(result, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    # Forked, since a fresh interpreter spends several seconds importing torchmetrics.
    context = mp.start_processes(work, args=(folder,), nprocs=2, join=False, start_method="fork")
    if not context.join(timeout=60) and not context.join(timeout=60):
        for process in context.processes:
            process.kill()
        pytest.fail("The two processes did not end within 120 seconds.")
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["shares", "lopsided"])
def test_the_collection_reduces_to_one_pass(results, name, rank):
    whole = updated(CalibrationMetrics(), *completions())
    for key, value in whole.compute().items():
        got = float(results[rank][name][key])
        assert got == pytest.approx(float(value), abs=1e-13, nan_ok=True), key


@pytest.mark.parametrize("rank", [0, 1])
def test_the_single_metrics_reduce_to_one_pass(results, rank):
    confidence, correct = completions()
    parsed = ~confidence.isnan()
    for single, value in zip(SINGLES, results[rank]["singles"], strict=True):
        whole = updated(single(), confidence[parsed], correct[parsed])
        assert float(value) == pytest.approx(float(whole.compute()), abs=1e-13)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_bins_are_reduced_and_the_local_state_comes_back(results, rank):
    whole = updated(CalibrationMetrics(), *completions()).bins()
    counts, ece = results[rank]["bins"]
    assert counts == whole.counts
    assert ece == pytest.approx(whole.ece, abs=1e-13)
    assert results[rank]["local_n"] == (SPLIT, 100 - SPLIT)[rank]
