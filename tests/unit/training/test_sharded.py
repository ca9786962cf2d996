"""The strategy that writes checkpoints of sharded models: which way of writing is whose."""

import pytest
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from caopd.errors import ConfigError
from caopd.training.sharded import AtomicModelParallelStrategy, move_aside, put_in_place, take_strategy

OWN = "caopd.training.sharded.AtomicModelParallelStrategy"


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        ("lightning.pytorch.strategies.ModelParallelStrategy", OWN),
        (OWN, OWN),
        ("somebody.elses.ModelParallelStrategy", "somebody.elses.ModelParallelStrategy"),
    ],
)
def test_a_config_that_names_lightnings_strategy_gets_the_packages(named, taken):
    arguments = {"data_parallel_size": 2}
    trainer = Namespace(strategy=Namespace(class_path=named, init_args=arguments))
    take_strategy(trainer)
    assert trainer.strategy == Namespace(class_path=taken, init_args=arguments)


def test_a_strategy_that_goes_by_a_name_stays():
    trainer = Namespace(strategy="ddp")
    take_strategy(trainer)
    assert trainer.strategy == "ddp"


def test_a_way_of_writing_that_would_not_be_used_is_refused():
    strategy = AtomicModelParallelStrategy(1, 1)
    trainer = Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False, plugins=[AsyncCheckpointIO()])
    with pytest.raises(ConfigError, match=r"no CheckpointIO.*AsyncCheckpointIO.*`trainer.plugins`"):
        strategy.setup(trainer)


@pytest.mark.parametrize("before", ["file", "folder"])
def test_a_checkpoint_of_shards_takes_the_place_of_one_of_either_kind(before, tmp_path):
    path, part = tmp_path / "last.ckpt", tmp_path / "last.ckpt.part"
    if before == "file":
        path.write_text("one file")
    else:
        path.mkdir()
    part.mkdir()
    for name in (".metadata", "meta.pt"):
        (part / name).touch()
    put_in_place(part, path)
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
    assert (path / "checksums.json").is_file()


def test_what_is_moved_aside_replaces_what_was_there_before(tmp_path):
    path, aside = tmp_path / "last.ckpt", tmp_path / "previous-last.ckpt"
    aside.mkdir()
    path.write_text("newer")
    move_aside(path)
    assert aside.read_text() == "newer"
    assert not path.exists()
