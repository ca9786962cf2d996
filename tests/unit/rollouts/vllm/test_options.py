import pytest

from caopd.errors import ConfigError
from caopd.rollouts import ServerOptions, VLLMOptions


@pytest.mark.parametrize("name", ["start_seconds", "timeout_seconds"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_time_limits_are_positive(name, value):
    with pytest.raises(ConfigError, match=f"`{name}` of VLLMOptions to be positive"):
        VLLMOptions(**{name: value})
    with pytest.raises(ConfigError, match=f"`{name}` of ServerOptions to be positive"):
        ServerOptions(["http://localhost:8000"], **{name: value})


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="`api_key_variable`") as caught:
        ServerOptions(["http://me:secret@localhost:8000"])
    assert "secret" not in str(caught.value)
