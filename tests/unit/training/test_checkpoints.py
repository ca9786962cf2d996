import os
import zipfile

import pytest
import torch
import torch.distributed.checkpoint
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy

from caopd.errors import ConfigError
from caopd.training.checkpoints import check_checkpoint, check_sharding, newest_checkpoint, run_folders

WHOLE = {
    "state_dict": {"weight": torch.arange(5000.0)},
    "pytorch-lightning_version": "2.6",
    "optimizer_states": [{}],
}


@pytest.fixture
def whole(tmp_path):
    torch.save(WHOLE, tmp_path / "whole.ckpt")
    return tmp_path / "whole.ckpt"


def refusal(path, training=True):
    with pytest.raises(ConfigError) as raised:
        check_checkpoint(path, training)
    message = str(raised.value)
    assert str(path) in message
    assert len(message) < 1500
    return message


def test_a_whole_checkpoint_passes(whole):
    check_checkpoint(whole, training=True)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99, 0.9999])
def test_a_checkpoint_that_was_cut_is_named(whole, share):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    message = refusal(whole)
    assert "empty" in message if share == 0 else "cut or damaged" in message


def test_one_changed_byte_of_a_weight_is_seen(whole):
    content = bytearray(whole.read_bytes())
    place = content.index(torch.tensor([2500.0]).numpy().tobytes())
    content[place] ^= 1
    whole.write_bytes(bytes(content))
    assert torch.load(whole, weights_only=True)["state_dict"]["weight"][2500] != 2500  # torch itself does not see it
    assert "damaged at" in refusal(whole)


def test_other_files_are_no_checkpoints(tmp_path):
    (tmp_path / "text").write_text("trainer: {max_epochs: 3}")
    assert "another kind of file" in refusal(tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    assert "damaged" in refusal(tmp_path / "archive.zip")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "Tensor" in refusal(tmp_path / "tensor.pt")
    torch.save({"state_dict": {}}, tmp_path / "weights.pt")
    assert "lacks pytorch-lightning_version" in refusal(tmp_path / "weights.pt")


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("CODE_HAS_RUN",))


def test_a_checkpoint_that_would_run_code_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**WHOLE, "callbacks": Payload()}, tmp_path / "hostile.ckpt")
    assert "could run code" in refusal(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "CODE_HAS_RUN").exists()


def test_weights_alone_can_be_evaluated_but_not_gone_on_with(tmp_path):
    path = tmp_path / "weights_only.ckpt"
    torch.save({key: value for key, value in WHOLE.items() if key != "optimizer_states"}, path)
    check_checkpoint(path, training=False)
    assert "save_weights_only" in refusal(path)


@pytest.fixture
def sharded(tmp_path):
    torch.distributed.checkpoint.save(WHOLE["state_dict"], checkpoint_id=tmp_path / "sharded", no_dist=True)
    torch.save({"pytorch-lightning_version": "2.6"}, tmp_path / "sharded" / "meta.pt")
    return tmp_path / "sharded"


def test_a_folder_must_be_a_sharded_checkpoint(tmp_path, sharded):
    check_checkpoint(sharded, training=True)
    (sharded / "meta.pt").unlink()
    assert "without meta.pt" in refusal(sharded)
    (tmp_path / "folder").mkdir()
    assert "without .metadata and meta.pt" in refusal(tmp_path / "folder")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("pattern", [".metadata", "*.distcp"])
def test_a_sharded_checkpoint_that_was_cut_is_named(sharded, pattern, share):
    (file,) = sharded.glob(pattern)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert file.name in refusal(sharded)
    file.unlink()
    assert file.name in refusal(sharded)


def test_a_sharded_checkpoint_needs_a_strategy_that_loads_one(tmp_path, whole):
    one_device = Trainer(accelerator="cpu", devices=1, logger=False)
    check_sharding(whole, one_device)
    with pytest.raises(ConfigError, match=r"ModelParallelStrategy.*SingleDeviceStrategy"):
        check_sharding(tmp_path, one_device)
    sharding = Trainer(accelerator="cpu", strategy=ModelParallelStrategy(1, 1), devices=1, logger=False)
    check_sharding(tmp_path, sharding)


def test_the_checkpoint_written_last_is_found_below_every_folder(tmp_path):
    assert newest_checkpoint([tmp_path / "nowhere", tmp_path]) is None
    files = [tmp_path / name for name in ("a/version_0/x.ckpt", "b/version_3/checkpoints/y.ckpt", "a/version_1/z.ckpt")]
    for file, seconds in zip(files, (30, 20, 10), strict=True):
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (seconds, seconds))
    assert newest_checkpoint([tmp_path]) == files[0]
    assert newest_checkpoint([tmp_path / "b", tmp_path / "nowhere"]) == files[1]


def test_runs_are_looked_for_where_loggers_and_checkpoints_keep_them(tmp_path):
    checkpoints = ModelCheckpoint(dirpath=tmp_path / "mine")
    logger = CSVLogger(str(tmp_path / "logs"))
    trainer = Trainer(default_root_dir=tmp_path / "root", logger=logger, callbacks=[checkpoints], accelerator="cpu")
    assert set(run_folders(trainer)) == {tmp_path / "root", tmp_path / "logs", tmp_path / "mine"}
