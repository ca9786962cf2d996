"""Numbers that are not finite end a run: in words, with a status that schedulers see, with a good checkpoint left."""

import io
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.filesystem import FileSystemReader

from caopd.cli import main
from caopd.models import ModelSource

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
SHARDED = {
    "trainer.strategy": "lightning.pytorch.strategies.ModelParallelStrategy",
    "trainer.strategy.data_parallel_size": 1,
    "trainer.strategy.tensor_parallel_size": 1,
    "trainer.inference_mode": "false",
}
CLOSING = """
from __future__ import annotations
from pathlib import Path
from caopd.rollouts import TransformersEngine

class Closing(TransformersEngine):
    def close(self) -> None:
        super().close()
        Path(__file__).with_name("closed").touch()
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
    (tmp_path / "closing.py").write_text(CLOSING)
    (tmp_path / "surge.yaml").write_text(
        "model: {optimizer: {class_path: surging.Surge, init_args: {lr: 0.01}}}\n"
        "data: {engine: {class_path: closing.Closing}}\n"
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args:"
        " {every_n_epochs: 1, save_on_train_epoch_end: true, save_on_exception: true, save_top_k: -1}}]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "surge.yaml"


def test_weights_that_are_not_finite_are_never_written(surge, tmp_path, capsys):
    """Not even by a callback that saves when an error ends the run, and which does not keep the rest from closing."""
    message = failure(capsys, fit_arguments(tmp_path / "run", (QUICKSTART, surge), {}))
    assert "step 5, in round 1, has weights that are not" in message
    assert (tmp_path / "closed").exists()
    (saved,) = (Run(tmp_path / "run").directory / "nonfinite").iterdir()
    assert len(torch.load(saved, weights_only=True)["weights_not_finite"]) == 1
    (kept,) = Run(tmp_path / "run").directory.rglob("*.ckpt")
    checkpoint = torch.load(kept, weights_only=True)
    assert checkpoint["global_step"] == 4
    assert all_finite(checkpoint)


def test_every_process_stops_when_one_loss_is_not_finite(forked, tmp_path):
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
    result = forked(fit_arguments(tmp_path / "run", (QUICKSTART,), settings), tmp_path, 2)
    assert result.statuses == [1, 1], result.stderr[-3000:]
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


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A model directory, one weight of which is infinite."""
    directory = tmp_path_factory.mktemp("broken")
    shutil.copytree(ModelSource().location, directory, dirs_exist_ok=True)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.inf
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_a_models_files_whose_weights_are_not_finite_are_refused(subcommand, broken, tmp_path, capsys):
    settings = {"model.source.name_or_path": broken}
    arguments = [subcommand, *fit_arguments(tmp_path, (QUICKSTART,), settings)[1:]]
    message = failure(capsys, arguments, status=2)
    assert f"Expected the weights of '{broken}' to be finite, but 1 of 30 are not" in message
    assert "model.layers.0.mlp.up_proj.weight" in message


@pytest.mark.parametrize(("subcommand", "kind"), [("fit", "whole"), ("predict", "whole"), ("test", "shards")])
def test_a_checkpoint_that_a_sharding_strategy_loads_is_refused_too(subcommand, kind, tmp_path, capsys):
    """Lightning gives a whole one to the layers one by one, past the module's own check."""
    sharded = {**SHARDED, "trainer.strategy.save_distributed_checkpoint": json.dumps(kind == "shards")}
    assert main(fit_arguments(tmp_path / "run", (QUICKSTART,), {**sharded, "trainer.max_epochs": 1})) == 0
    (checkpoint,) = (tmp_path / "run").rglob("*.ckpt")
    name = "student.hf.model.layers.0.mlp.up_proj.weight"
    (poison if kind == "shards" else poison_whole)(checkpoint, name)
    arguments = fit_arguments(tmp_path / "again", (QUICKSTART,), {**sharded, "ckpt_path": checkpoint})
    message = failure(capsys, [subcommand, *arguments[1:]], status=2)
    assert re.search(rf"Expected the weights of .* to be finite, but 1 of \d+ are not, such as {name}", message)


def poison_whole(checkpoint, name):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"][name][0, 0] = torch.nan
    torch.save(content, checkpoint)


def poison(checkpoint, name):
    """Write a NaN over a weight in a sharded checkpoint, in place."""
    stored = FileSystemReader(checkpoint).read_metadata().storage_data
    (part,) = [part for index, part in stored.items() if index.fqn.endswith(name) and "optim" not in index.fqn]
    with open(checkpoint / part.relative_path, "r+b") as file:
        file.seek(part.offset)
        weight = torch.load(io.BytesIO(file.read(part.length)), weights_only=True)
        weight.view(-1)[0] = torch.nan
        content = io.BytesIO()
        torch.save(weight, content)
        assert len(content.getvalue()) == part.length
        file.seek(part.offset)
        file.write(content.getvalue())
