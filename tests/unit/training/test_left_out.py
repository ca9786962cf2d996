import pytest

from caopd.errors import ConfigError
from caopd.training.left_out import LeftOut, NonFinite


def test_a_limit_that_leaves_out_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"`limit` of `model.nonfinite` to be at least 1, but got 0.*`action: stop`"):
        NonFinite("skip", 0)


def test_only_the_scalers_steps_are_counted_in_a_row():
    numbers = LeftOut()
    for step in ("scaler", "scaler", "setting", "scaler"):
        numbers = numbers.after(step)
    assert numbers == LeftOut(by_setting=1, by_scaler=3, by_scaler_in_a_row=3)
    assert numbers.after(None) == LeftOut(by_setting=1, by_scaler=3, by_scaler_in_a_row=0)
    assert numbers.num_steps == 4
