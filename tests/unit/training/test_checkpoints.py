import os
import shutil
import zipfile

import pytest
import torch
import torch.distributed.checkpoint
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from caopd.errors import ConfigError
from caopd.training.checkpoint_io import AtomicCheckpointIO
from caopd.training.checkpoints import (
    check_checkpoint,
    check_sharding,
    newest_first,
    sound_checkpoints,
)
from caopd.training.sharded import put_in_place

WHOLE = {
    "state_dict": {"weight": torch.arange(5000.0)},
    "pytorch-lightning_version": "2.6",
    "optimizer_states": [{}],
    "lr_schedulers": [],
    "caopd": {"format": 2},
}

OF_TRAINING = ("optimizer_states", "lr_schedulers")


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
    torch.save({key: value for key, value in WHOLE.items() if key not in OF_TRAINING}, path)
    check_checkpoint(path, training=False)
    assert "save_weights_only" in refusal(path)


@pytest.fixture
def sharded(tmp_path):
    torch.distributed.checkpoint.save(WHOLE["state_dict"], checkpoint_id=tmp_path / "sharded", no_dist=True)
    meta = {key: value for key, value in WHOLE.items() if key not in ("state_dict", "optimizer_states")}
    torch.save(meta, tmp_path / "sharded" / "meta.pt")
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


def test_a_sharded_checkpoint_needs_a_reader_of_shards(tmp_path, whole):
    one_device = Trainer(accelerator="cpu", devices=1, logger=False)
    check_sharding(whole, one_device)
    with pytest.raises(ConfigError, match=r"TorchCheckpointIO.*AtomicModelParallelStrategy.*AtomicCheckpointIO\(\)"):
        check_sharding(tmp_path, one_device)
    sharding = Trainer(accelerator="cpu", strategy=ModelParallelStrategy(1, 1), devices=1, logger=False)
    reading = Trainer(accelerator="cpu", devices=1, logger=False, plugins=[AtomicCheckpointIO()])
    for trainer in (sharding, reading):
        check_sharding(tmp_path, trainer)


def test_checkpoints_below_every_folder_come_in_the_order_of_their_writing(tmp_path):
    assert newest_first([tmp_path / "nowhere", tmp_path]) == []
    files = [tmp_path / name for name in ("a/version_0/x.ckpt", "b/version_3/checkpoints/y.ckpt", "a/version_1/z.ckpt")]
    for file, seconds in zip(files, (30, 20, 10), strict=True):
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (seconds, seconds))
    assert newest_first([tmp_path, tmp_path / "a"]) == files
    assert newest_first([tmp_path / "b", tmp_path / "nowhere"]) == files[1:2]


def aged(path, seconds):
    os.utime(path, (seconds, seconds))
    return path


@pytest.fixture
def run(tmp_path, whole, sharded):
    """A run with four checkpoints: a cut one, the newest; a sharded one without its end; a whole and an older one."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").touch()
    content = whole.read_bytes()
    for name, part, seconds in (("old", content, 10), ("whole", content, 20), ("cut", content[:-300], 40)):
        (folder / f"{name}.ckpt").write_bytes(part)
        aged(folder / f"{name}.ckpt", seconds)
    sharded.rename(folder / "shards.ckpt")
    (folder / "shards.ckpt" / "meta.pt").unlink()
    aged(folder / "shards.ckpt", 30)
    return folder


def test_a_runs_checkpoints_come_newest_first_with_what_is_wrong_with_them(run):
    found = {path.stem: reason for path, reason in sound_checkpoints(run.parent)}
    assert list(found) == ["cut", "shards", "whole", "old"]
    assert "cut or damaged" in found["cut"]
    assert "without meta.pt" in found["shards"]
    assert (found["whole"], found["old"]) == (None, None)
    assert list(sound_checkpoints(run / "nowhere")) == []


def test_the_newest_sound_checkpoint_of_the_run_is_offered(run):
    assert f"--ckpt_path={run / 'whole.ckpt'}`" in refusal(run / "cut.ckpt")
    for name in ("whole", "old"):
        (run / f"{name}.ckpt").unlink()
    assert "Take another one" in refusal(run / "cut.ckpt")


def test_no_folder_is_searched_that_is_no_runs(run):
    (run.parent / "config.yaml").unlink()
    assert "Take another one" in refusal(run / "cut.ckpt")


def flat(value):
    """The whole content, in a form that compares bit by bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return [(key, flat(each)) for key, each in value.items()]
    return [flat(each) for each in value] if isinstance(value, list | tuple) else repr(value)


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def assert_found_or_without_effect(file, bits, check, load):
    """Flip one bit after the other: each is refused, or what is loaded is the same to the bit."""
    content, expected, found = file.read_bytes(), flat(load()), 0
    for bit in bits:
        file.write_bytes(flipped(content, bit))
        os.utime(file, ns=(bit, bit))
        try:
            check()
        except ConfigError:
            found += 1
        else:
            assert flat(load()) == expected, f"bit {bit} of {len(content) * 8}"
    file.write_bytes(content)
    return found


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.ckpt"
    torch.save({**WHOLE, "state_dict": {"w": torch.arange(6.0), "n": torch.arange(3)}}, path)
    return path


def loaded(path, **how):
    return lambda: torch.load(path, weights_only=True, **how)


def test_a_flipped_bit_of_a_checkpoint_is_found_or_changes_nothing(small):
    num_bits = small.stat().st_size * 8
    check = lambda: check_checkpoint(small, training=True)  # noqa: E731
    assert assert_found_or_without_effect(small, range(5, num_bits, 29), check, loaded(small)) > num_bits / 29 / 2


def test_an_entry_that_a_flipped_bit_marks_as_a_folder_is_not_loaded_as_an_empty_one(small):
    """Checksums of entries do not see this bit, and torch then loads whatever the memory held before."""
    content = small.read_bytes()
    entries = [place for place in range(len(content)) if content.startswith(b"PK\x01\x02", place)]
    assert len(entries) >= 5
    for place in entries:
        small.write_bytes(flipped(content, (place + 38) * 8 + 4))
        with zipfile.ZipFile(small) as archive:
            assert archive.testzip() is None
        os.utime(small, ns=(place, place))
        assert "damaged at archive/" in refusal(small) or "damaged at small/" in refusal(small)


@pytest.mark.parametrize(
    ("part", "said"), [(None, "no format"), ({"format": 0}, "an older"), ({"format": 3}, "a newer")]
)
def test_other_formats_are_refused(tmp_path, part, said):
    torch.save({**WHOLE, "caopd": part}, tmp_path / "other.ckpt")
    message = refusal(tmp_path / "other.ckpt", training=False)
    assert said in message
    if part:
        assert f"format {part['format']}, and this version of caopd reads format 2" in message


def sealed(sharded):
    put_in_place(sharded, sharded.with_name("sealed.ckpt"))
    return sharded.with_name("sealed.ckpt")


def load_shards(folder):
    state = {"weight": torch.zeros(5000)}
    torch.distributed.checkpoint.load(state, checkpoint_id=folder, no_dist=True)
    return {**state, "meta": torch.load(folder / "meta.pt", weights_only=True)}


@pytest.mark.parametrize("pattern", [".metadata", "meta.pt", "*.distcp", "checksums.json"])
def test_a_flipped_bit_of_a_sharded_checkpoint_is_found_or_changes_nothing(sharded, pattern):
    folder = sealed(sharded)
    (file,) = folder.glob(pattern)
    bits = range(3, file.stat().st_size * 8, max(29, file.stat().st_size * 8 // 150))
    check = lambda: check_checkpoint(folder, training=True)  # noqa: E731
    found = assert_found_or_without_effect(file, bits, check, lambda: load_shards(folder))
    assert found > len(bits) / 2
    if pattern in (".metadata", "checksums.json"):
        assert found == len(bits)


def test_a_sharded_checkpoint_takes_the_place_of_the_one_before(sharded, tmp_path):
    folder = sealed(sharded)
    assert not sharded.exists()
    shutil.copytree(folder, sharded)
    (sharded / "new").touch()
    put_in_place(sharded, folder)
    assert (folder / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sealed.ckpt"]
    check_checkpoint(folder, training=True)
