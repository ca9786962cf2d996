import pytest
from lightning import Trainer
from lightning.pytorch.plugins import HalfPrecision

from caopd.errors import ConfigError
from caopd.models import check_precision


def trainer(**settings):
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **settings)


@pytest.mark.parametrize("precision", [None, 32, "32-true", "bf16-mixed", "16-mixed"])
def test_full_and_mixed_precision_are_taken(precision):
    check_precision(trainer(precision=precision))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", 64])
def test_precisions_that_convert_weights_are_refused(precision):
    with pytest.raises(ConfigError, match=rf"`precision` .* but got {precision}.* take bf16-mixed"):
        check_precision(trainer(precision=precision))


def test_a_plugin_that_converts_is_refused_like_its_name():
    with pytest.raises(ConfigError, match=r"bf16-true \(HalfPrecision\)"):
        check_precision(trainer(plugins=HalfPrecision("bf16-true")))
