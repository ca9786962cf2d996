import json

import pytest

from caopd.errors import ConfigError, DataError
from caopd.runs import read_config, read_metrics, run_of_checkpoint


def test_a_checkpoint_belongs_to_the_directory_with_a_config(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    assert run_of_checkpoint(checkpoint) == tmp_path / "run"
    (checkpoint.parent / "config.yaml").write_text("model: {}\n")
    assert run_of_checkpoint(checkpoint) == checkpoint.parent


def test_metrics_are_read_as_they_stand(tmp_path):
    assert read_metrics(tmp_path) == (None, None)
    final = {"ece": 0.1, "spr": None, "step": 8, "n": 24}
    (tmp_path / "metrics.json").write_text(json.dumps({"initial": None, "final": final}))
    assert read_metrics(tmp_path) == (None, final)


BAD = ("{}", "3", '{"step": 1}', '{"step": null, "n": 2}', '{"step": 1, "n": 2, "ece": "0.1"}')


@pytest.mark.parametrize(
    "text", ["", "[]", '{"initial": null}', "\x00", *(f'{{"initial": null, "final": {x}}}' for x in BAD)]
)
def test_metrics_of_another_making_are_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.json.*`caopd fit`"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: b: c"])
def test_a_config_without_settings_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_config(path)
