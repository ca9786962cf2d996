"""A sharded checkpoint is data or it is refused: in its metadata, its shards, and the file beside them."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as sharded
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

from caopd.models.shards import check_shards, read_checkpoint, read_shards

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16), "lr": 1e-3}


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("CODE_HAS_RUN",))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sharded.save(STATE, checkpoint_id="sharded", no_dist=True)
    torch.save({"loops": {"epoch": 1}}, "sharded/meta.pt")
    return Path("sharded")


def metadata_of(folder):
    return FileSystemReader(folder).read_metadata()


def refusal(folder):
    with pytest.raises(ValueError, match="its ") as raised:
        check_shards(folder)
    assert not Path("CODE_HAS_RUN").exists()
    return str(raised.value)


def rewrite(folder, **changes):
    metadata = metadata_of(folder)
    for name, value in changes.items():
        setattr(metadata, name, value)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def append_value(folder, value):
    """Put another value into the shard, and into the metadata, as torch writes one that is no tensor."""
    written = io.BytesIO()
    torch.save(value, written)
    shard = next(folder.glob("*.distcp"))
    start = shard.stat().st_size
    shard.write_bytes(shard.read_bytes() + written.getvalue())
    metadata = metadata_of(folder)
    place = _StorageInfo(shard.name, start, len(written.getvalue()))
    rewrite(
        folder,
        storage_data={**metadata.storage_data, MetadataIndex("lr"): place},
        state_dict_metadata={**metadata.state_dict_metadata, "lr": BytesStorageMetadata()},
    )


def test_what_torch_writes_passes(folder):
    check_shards(folder)
    append_value(folder, {"betas": (0.9, 0.95), "foreach": None})
    check_shards(folder)


def test_code_in_the_metadata_is_refused_unread(folder):
    rewrite(folder, planner_data={"weight": Payload()})
    assert "it names posix.mkdir" in refusal(folder)
    metadata_of(folder)  # what torch makes of the same file
    assert Path("CODE_HAS_RUN").exists()


def test_code_in_a_value_of_a_shard_is_refused_unread(folder):
    append_value(folder, Payload())
    assert "'lr' in __0_0.distcp" in refusal(folder)
    sharded.load({"lr": 0.0}, checkpoint_id=folder, no_dist=True)  # what torch makes of the same file
    assert Path("CODE_HAS_RUN").exists()


def test_code_in_the_file_beside_the_shards_is_refused_unread(folder):
    torch.save({"callbacks": Payload()}, folder / "meta.pt")
    assert "meta.pt is damaged, or holds more than plain data" in refusal(folder)


def test_metadata_cannot_change_the_classes_that_it_names(folder):
    change = b"ctorch.distributed.checkpoint.metadata\nMetadataIndex\nN}X\x06\x00\x00\x00__eq__K\x01s\x86b."
    (folder / ".metadata").write_bytes(change)
    assert "it changes torch.distributed.checkpoint.metadata.MetadataIndex" in refusal(folder)
    assert MetadataIndex.__eq__ != 1


@pytest.mark.parametrize("path", ["../outside.distcp", "/etc/passwd", "in/side.distcp"])
def test_values_lie_in_the_folder_of_the_checkpoint(folder, path):
    places = {MetadataIndex("weight", [0, 0]): _StorageInfo(path, 0, 0)}
    rewrite(folder, storage_data=places)
    assert path in refusal(folder)


@pytest.mark.parametrize(
    "metadata",
    [None, {}, "text", Metadata({}), Metadata({}, storage_data=3), Metadata({}, storage_data={1: 2}), Metadata([])],
)
def test_metadata_of_another_form_is_no_traceback(folder, metadata):
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert ".metadata" in refusal(folder)


def trained():
    """A model, and its optimizer with two groups in another order than the model's."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    matrices, vectors = [model[0].weight, model[1].weight], [model[0].bias, model[1].bias]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=0.1)
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_a_checkpoint_is_read_as_if_it_were_one_file(tmp_path):
    model, optimizer = trained()
    states = {"state_dict": get_model_state_dict(model), "optimizer_0": get_optimizer_state_dict(model, optimizer)}
    sharded.save(states, checkpoint_id=tmp_path, no_dist=True)
    torch.save({"global_step": 3}, tmp_path / "meta.pt")
    check_shards(tmp_path)
    found = read_checkpoint(tmp_path)
    assert found.keys() == {"global_step", "state_dict", "optimizer_states"}
    (state,), expected = found["optimizer_states"], optimizer.state_dict()
    assert state["param_groups"] == expected["param_groups"]
    assert state["state"].keys() == expected["state"].keys()
    for number, values in expected["state"].items():
        assert state["state"][number].keys() == values.keys()
        assert all(torch.equal(state["state"][number][name], value) for name, value in values.items())
    for name, weight in model.state_dict().items():
        assert torch.equal(found["state_dict"][name], weight)
    assert read_shards(tmp_path, "state_dict.0.")["state_dict"].keys() == {"0.weight", "0.bias"}


def test_a_checkpoint_without_weights_is_refused(folder):
    with pytest.raises(ValueError, match=r"its \.metadata names no weights"):
        read_checkpoint(folder)
