"""What holds for every accumulating metric: batches, forward, pickle, reset, inference mode, plot."""

import copy
import math
import pickle

import pytest
import torch
from matplotlib.figure import Figure
from torchmetrics import MetricCollection

from caopd.errors import ConfigError, DataError
from caopd.metrics import (
    BrierScore,
    DebiasedCalibrationError,
    ExpectedCalibrationError,
    OverconfidenceGap,
    SmoothCalibrationError,
    StrictPairwiseRanking,
)
from caopd.metrics.catalogue import CATALOGUE
from caopd.metrics.functional import (
    brier_score,
    debiased_calibration_error,
    expected_calibration_error,
    overconfidence_gap,
    smooth_calibration_error,
    strict_pairwise_ranking,
)

PAIRS = [
    (ExpectedCalibrationError, expected_calibration_error),
    (DebiasedCalibrationError, debiased_calibration_error),
    (BrierScore, brier_score),
    (OverconfidenceGap, overconfidence_gap),
    (SmoothCalibrationError, smooth_calibration_error),
    (StrictPairwiseRanking, strict_pairwise_ranking),
]
every_metric = pytest.mark.parametrize(("metric_class", "function"), PAIRS)


def completions(n=1000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(0, 101, (n,), generator=generator).double() / 100
    return confidence, torch.rand(n, generator=generator) < 0.3 + 0.4 * confidence


def accumulated(metric, confidence, correct, size=37):
    for batch in zip(confidence.split(size), correct.split(size), strict=True):
        metric.update(*batch)
    return metric


@every_metric
@pytest.mark.parametrize("width", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_batches_equal_one_pass(metric_class, function, width):
    confidence, correct = completions()
    confidence = confidence.to(width)
    value = accumulated(metric_class(), confidence, correct).compute()
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


@every_metric
def test_forward_gives_the_batch_and_keeps_the_whole(metric_class, function):
    confidence, correct = completions(200)
    metric = metric_class()
    for q, r in zip(confidence.split(50), correct.split(50), strict=True):
        assert float(metric(q, r)) == pytest.approx(float(function(q, r)), abs=1e-13)
    assert float(metric.compute()) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


@every_metric
def test_pickle_and_copy_keep_the_state(metric_class, function):
    confidence, correct = completions(200)
    metric = accumulated(metric_class(), confidence[:100], correct[:100])
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        twin.update(confidence[100:], correct[100:])
        assert float(twin.compute()) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


@every_metric
def test_reset_forgets_everything(metric_class, function):
    metric = accumulated(metric_class(), *completions(200, seed=1))
    metric.reset()
    metric.update(*completions(50, seed=2))
    assert float(metric.compute()) == pytest.approx(float(function(*completions(50, seed=2))), abs=1e-13)


@every_metric
def test_inference_tensors_and_normal_tensors_mix(metric_class, function):
    confidence, correct = completions(90)
    metric = metric_class()
    with torch.inference_mode():
        metric.update(confidence[:30] * 1, correct[:30].clone())
        metric.compute()
    metric.update(confidence[30:60], correct[30:60])
    with torch.inference_mode():
        metric.update(confidence[60:] * 1, correct[60:].clone())
    value = float(copy.deepcopy(metric).compute())
    assert value == float(metric.compute()) == pytest.approx(float(function(confidence, correct)), abs=1e-13)
    metric.reset()
    metric.update(confidence, correct)
    assert float(metric.compute()) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


@every_metric
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_without_completions_the_value_is_missing(metric_class, function):
    metric = metric_class()
    assert math.isnan(metric.compute())
    metric.update(torch.zeros(0), torch.zeros(0))
    assert math.isnan(metric.compute())


@every_metric
def test_a_refused_batch_leaves_the_state_as_it_was(metric_class, function):
    confidence, correct = completions(40)
    metric = accumulated(metric_class(), confidence, correct)
    with pytest.raises(DataError, match="1 NaN of 2 values"):
        metric.update(torch.tensor([0.5, float("nan")]), torch.tensor([1, 0]))
    assert float(metric.compute()) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


@every_metric
def test_half_precision_of_the_module_leaves_the_state_alone(metric_class, function):
    confidence, correct = completions(100)
    metric = accumulated(metric_class().half().bfloat16(), confidence, correct)
    assert float(metric.compute()) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


@every_metric
def test_memory_grows_with_the_distinct_confidences_alone(metric_class, function):
    metric = accumulated(metric_class(), *completions(1010), size=10)
    assert sum(part.numel() for part in metric.values) <= 101


@every_metric
def test_direction_and_range_are_those_of_the_catalogue(metric_class, function):
    spec = CATALOGUE[metric_class.metric]
    assert metric_class.higher_is_better == {"largest": True, "smallest": False}.get(spec.best)
    assert (metric_class.plot_lower_bound, metric_class.plot_upper_bound) == (spec.lowest, spec.highest)


@every_metric
def test_plot_shows_the_value_into_the_axes(metric_class, function):
    metric = accumulated(metric_class(), *completions(100))
    axes = Figure().subplots()
    _, plotted = metric.plot(ax=axes)
    assert plotted is axes
    assert float(axes.lines[0].get_ydata()[0]) == pytest.approx(float(metric.compute()))


def test_the_metrics_form_a_collection():
    confidence, correct = completions(300)
    collection = MetricCollection([metric_class() for metric_class, _ in PAIRS])
    accumulated(collection, confidence, correct, size=100)
    values = collection.compute()
    for metric_class, function in PAIRS:
        assert float(values[metric_class.__name__]) == pytest.approx(float(function(confidence, correct)), abs=1e-13)


def test_bins_of_the_metric_give_back_its_value():
    metric = accumulated(ExpectedCalibrationError(n_bins=15), *completions(400))
    assert metric.bins().ece == pytest.approx(float(metric.compute()), abs=1e-12)
    assert metric.bins().n_completions == 400


def test_n_bins_is_checked_at_construction():
    with pytest.raises(ConfigError, match="Expected argument `n_bins` to be an integer larger than 0, but got 0"):
        ExpectedCalibrationError(n_bins=0)
