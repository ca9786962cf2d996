"""A divergence of a user's own, as the page on methods writes it and names it in a config."""

import re
import textwrap

import yaml

from .conftest import ROOT

CLASS = re.compile(r"    from caopd\.losses import Divergence\n.*?(?=\n    caopd fit)", re.DOTALL)
OWN = "my_divergences.Hellinger"
TWO_STEPS = {"trainer.max_epochs": 1, "data.batch_size": 8}


def test_a_divergence_of_ones_own_joins_by_its_class_path(fit, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "methods.md").read_text()
    assert f"--model.loss.body={OWN}" in page
    (tmp_path / "my_divergences.py").write_text(textwrap.dedent(CLASS.search(page)[0]))
    monkeypatch.syspath_prepend(tmp_path)
    around = {"class_path": "TopK", "init_args": {"divergence": OWN, "k": 2}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"model": {"loss": {"init_args": {"confidence": around}}}}))
    run = fit(tmp_path, tmp_path / "own.yaml", **TWO_STEPS, **{"model.loss.body": OWN})
    loss = yaml.safe_load((run.directory / "config.yaml").read_text())["model"]["loss"]["init_args"]
    assert loss["body"]["class_path"] == loss["confidence"]["init_args"]["divergence"]["class_path"] == OWN
    assert len(run.scalars("train/loss")) == run.checkpoint("round0")["global_step"] == 2
    for segment in ("body", "confidence"):
        assert 0 < run.scalars(f"train/kl_{segment}")[0] < 1, "a Hellinger distance is below 1"
