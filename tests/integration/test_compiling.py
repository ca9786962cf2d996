"""A run whose layers are compiled trains as one whose layers are not."""

import pytest
import torch


@pytest.mark.slow
def test_compiled_layers_train_to_the_same_losses(fit, tmp_path):
    settings = {"model.source.torch_compile_backend": "aot_eager"}
    plain, compiled = fit(tmp_path / "plain"), fit(tmp_path / "compiled", **settings)
    torch.compiler.reset()
    assert compiled.scalars("train/loss")[0] == pytest.approx(plain.scalars("train/loss")[0], rel=1e-5)
    assert compiled.scalars("train/loss") == pytest.approx(plain.scalars("train/loss"), rel=2e-3)
    assert compiled.scalars("rollout/accuracy")[0] == plain.scalars("rollout/accuracy")[0]
