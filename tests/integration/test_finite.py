"""Numbers that are not finite end a run: in words, with a status that schedulers see, with a good checkpoint left."""

import pytest
import torch

from caopd.cli import main

from .conftest import QUICKSTART, Run, fit_arguments

SURGE = """
import torch

class Surge(torch.optim.SGD):
    # Finite gradients, and weights that are not: in the second step of round 1.
    num_steps = 0

    def step(self, closure=None):
        loss = super().step(closure)
        self.num_steps += 1
        if self.num_steps == 6:
            self.param_groups[0]["params"][3].data[0] = float("inf")
        return loss
"""


def all_finite(checkpoint):
    return all(bool(torch.isfinite(weight).all()) for weight in checkpoint["state_dict"].values())


def failure(capsys, arguments, status=1):
    assert main(arguments) == status
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("error: ") :]


def test_a_learning_rate_that_is_too_high_stops_at_the_step(tmp_path, capsys):
    """Clipping hides the first overflow: the step after it has a gradient that is no number."""
    message = failure(capsys, fit_arguments(tmp_path, (QUICKSTART,), {"model.optimizer.init_args.lr": 3e4}))
    assert "optimizer step" in message
    assert "in round" in message
    assert "`model.optimizer.init_args.lr`" in message
    assert all(all_finite(torch.load(path, weights_only=True)) for path in tmp_path.rglob("*.ckpt"))


@pytest.fixture
def surge(tmp_path, monkeypatch):
    (tmp_path / "surging.py").write_text(SURGE)
    (tmp_path / "surge.yaml").write_text(
        "model: {optimizer: {class_path: surging.Surge, init_args: {lr: 0.01}}}\n"
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args:"
        " {every_n_epochs: 1, save_on_train_epoch_end: true, save_on_exception: true, save_top_k: -1}}]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "surge.yaml"


def test_weights_that_are_not_finite_are_never_written(surge, tmp_path, capsys):
    """Not even by a callback that saves when an error ends the run."""
    message = failure(capsys, fit_arguments(tmp_path / "run", (QUICKSTART, surge), {}))
    assert "step 5, in round 1, has weights that are not" in message
    (kept,) = Run(tmp_path / "run").directory.rglob("*.ckpt")
    checkpoint = torch.load(kept, weights_only=True)
    assert checkpoint["global_step"] == 4
    assert all_finite(checkpoint)


def test_every_process_stops_when_one_loss_is_not_finite(command, tmp_path):
    """The loss of process 1 alone is infinite, and its gradient is 0: none but the loss itself can say so."""
    (tmp_path / "lonely.py").write_text(
        "from torch import distributed\n"
        "from caopd.losses import DistillationLoss\n"
        "class Lonely(DistillationLoss):\n"
        "    def __call__(self, *arguments):\n"
        "        output = super().__call__(*arguments)\n"
        "        return output._replace(loss=output.loss + float('inf')) if distributed.get_rank() else output\n"
    )
    settings = {"model.loss": "lonely.Lonely", "trainer.devices": 2, "trainer.strategy": "ddp"}
    result = command(*fit_arguments(tmp_path / "run", (QUICKSTART,), settings), cwd=tmp_path)
    assert result.returncode == 1, result.stderr[-3000:]
    assert "optimizer step 0, in round 0, has a loss of inf" in result.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_a_checkpoint_whose_weights_are_not_finite_is_refused(subcommand, fit, tmp_path, capsys):
    run = fit(tmp_path / "run", **{"trainer.max_epochs": 1})
    checkpoint = run.checkpoint("round0")
    name = "student.hf.model.layers.0.mlp.up_proj.weight"
    checkpoint["state_dict"][name][0, 0] = torch.nan
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    arguments = [f"--config={run.directory / 'config.yaml'}", f"--ckpt_path={tmp_path / 'bad.ckpt'}"]
    message = failure(capsys, [subcommand, *arguments, f"--trainer.default_root_dir={tmp_path}"], status=2)
    assert name in message
    assert "1 of 60 are not" in message
