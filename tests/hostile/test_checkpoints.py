"""Checkpoints that others made, through every command that reads one: no code runs, and no setting is theirs."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as sharded
import yaml
from markdown_it import MarkdownIt
from torch.distributed.checkpoint import FileSystemReader

from caopd.cli import main
from caopd.errors import ConfigError
from caopd.training.datamodule import RolloutDataModule
from caopd.training.module import DistillationModule

from .conftest import CANARY, Payload

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
SIZES = [
    "--data.task.num_train=16",
    "--data.task.num_validation=8",
    "--data.task.num_test=8",
    "--data.round.num_prompts_per_round=8",
    "--data.round.num_rollouts=2",
    "--data.batch_size=4",
    "--trainer.max_epochs=1",
]
COMMANDS = ("fit", "validate", "test", "predict")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The directory of a run of one round."""
    folder = tmp_path_factory.mktemp("sound")
    assert main(["fit", f"--config={CONFIG}", *SIZES, f"--trainer.default_root_dir={folder}"]) == 0
    return next(folder.rglob("config.yaml")).parent


@pytest.fixture
def received(sound, here):
    """A copy of the run in the working directory, with its checkpoint, for a test to change."""
    run = Path(shutil.copytree(sound, here / "received"))
    (checkpoint,) = run.rglob("*.ckpt")
    return run, checkpoint


@pytest.fixture
def with_checkpoint(caopd, here):
    def run(command, checkpoint):
        given = [f"--config={CONFIG}", *SIZES, f"--trainer.default_root_dir={here / 'mine'}"]
        return caopd(command, *given, f"--ckpt_path={checkpoint}")

    return run


def changed(checkpoint, **entries):
    torch.save({**torch.load(checkpoint, weights_only=True), **entries}, checkpoint)


def of_shards(folder, part):
    """Write a sharded checkpoint with code in one of its parts."""
    values = {"state_dict": {"weight": torch.zeros(2)}, "lr": Payload() if part == "shard" else 0.1}
    sharded.save(values, checkpoint_id=folder, no_dist=True)
    torch.save({"callbacks": Payload()} if part == "meta" else {}, folder / "meta.pt")
    if part == "metadata":
        metadata = FileSystemReader(folder).read_metadata()
        metadata.planner_data = Payload()
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def of_pickle(file, form):
    if form == "pickle":
        file.write_bytes(pickle.dumps(Payload()))
    else:
        torch.save({"state_dict": Payload()}, file, _use_new_zipfile_serialization=form == "zip")
    return file


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "metadata", "shard", "meta"])
def test_a_checkpoint_that_would_run_code_is_refused_by_every_command(with_checkpoint, caopd, received, form):
    run, sound_one = received
    made = of_pickle if form in ("zip", "legacy", "pickle") else of_shards
    checkpoint = made(sound_one.parent / "hostile.ckpt", form)
    for command in COMMANDS:
        status, output = with_checkpoint(command, checkpoint)
        assert status == 2, output
        assert "hostile.ckpt is none that can be used" in output
    status, output = caopd("export", checkpoint, "model", f"--config={run / 'config.yaml'}")
    assert status == 2, output
    assert not Path("model").exists()


def test_the_last_checkpoint_is_checked_as_well(caopd, received, here):
    of_pickle(received[1], "zip")
    status, output = caopd(
        "test", f"--config={CONFIG}", *SIZES, "--ckpt_path=last", f"--trainer.default_root_dir={here}"
    )
    assert status == 2
    assert "could run code" in output


HYPER_PARAMETERS = {
    "source": {"name_or_path": "stranger", "trust_remote_code": True},
    "method": {"class_path": "stranger.Any"},
    "_instantiator": "lightning.pytorch.cli.instantiate_module",
    "_class_path": "stranger.Any",
}


def test_hyper_parameters_of_a_checkpoint_set_nothing(with_checkpoint, caopd, received, here):
    _, checkpoint = received
    changed(checkpoint, hyper_parameters=HYPER_PARAMETERS, datamodule_hyper_parameters={"task": "stranger.Any"})
    for command in COMMANDS:
        status, output = with_checkpoint(command, checkpoint)
        assert status == 0, output
    configs = [yaml.safe_load(file.read_text()) for file in (here / "mine").rglob("config.yaml")]
    assert {config["model"]["source"]["trust_remote_code"] for config in configs} == {False}
    assert {config["model"]["source"]["name_or_path"] for config in configs} == {"embedded"}
    assert caopd("export", checkpoint, "model")[0] == 0


@pytest.mark.parametrize("module", [DistillationModule, RolloutDataModule])
def test_no_module_is_made_of_a_checkpoint(received, module):
    changed(received[1], hyper_parameters=HYPER_PARAMETERS)
    with pytest.raises(ConfigError, match="made by their constructors"):
        module.load_from_checkpoint(received[1])
    assert not Path(CANARY).exists()


FOREIGN = {
    "remote code": {"model": {"source": {"name_or_path": "embedded", "trust_remote_code": True}}},
    "source": {"model": {"source": {"class_path": "stranger.Any"}}},
    "lora": {"model": {"source": {"lora": {"class_path": "stranger.Any"}}}},
    "lora in short": {"model": {"source": {"lora": "stranger.Any"}}},
    "confidence": {"data": {"confidence": {"class_path": "stranger.Any"}}},
    "confidence in short": {"data": {"confidence": "stranger.Any"}},
    "its arguments": {
        "data": {
            "confidence": {
                "class_path": "caopd.confidence.InlineConfidence",
                "init_args": {"form": {"class_path": "stranger.Any"}},
            }
        }
    },
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_config_beside_a_checkpoint_names_no_code(caopd, received, name):
    run, checkpoint = received
    config = yaml.safe_load((run / "config.yaml").read_text())
    for room, entries in FOREIGN[name].items():
        config[room] |= entries
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status, output = caopd("export", checkpoint, "model")
    assert status == 2, output
    assert "If you trust it, say so with `--config" in output
    assert not Path("model").exists()


def test_a_config_that_the_user_names_may(caopd, received):
    run, checkpoint = received
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["source"]["trust_remote_code"] = True
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status, output = caopd("export", checkpoint, "model", f"--config={run / 'config.yaml'}")
    assert status == 0, output


@pytest.mark.parametrize(
    "entries",
    [
        {"global_step": "<b>"},
        {"state_dict": [1, 2]},
        {"state_dict": {1: torch.zeros(1)}},
        {"state_dict": {"student.x": "\x1b[2J"}},
        {"state_dict": {"student.\x1b[2J\ud800": torch.zeros(1)}},
    ],
)
def test_a_checkpoint_of_another_form_is_an_error(caopd, received, entries):
    changed(received[1], **entries)
    assert caopd("export", received[1], "model")[0] == 2


def test_texts_of_a_config_are_none_of_the_cards_markup(caopd, received):
    run, checkpoint = received
    config = yaml.safe_load((run / "config.yaml").read_text())
    text = "<img src=x onerror=alert(1)>\n```\n# [a](javascript:b)"
    config["model"]["method"] = config["data"]["task"] = {"class_path": text}
    config["data"]["sampling"]["temperature"] = text
    config["data"]["template_arguments"] = {f"x=1)\n{text}": text}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status, output = caopd("export", checkpoint, "model")
    assert status == 0, output
    tokens = MarkdownIt("commonmark").enable("table").parse(Path("model/README.md").read_text().split("---\n", 2)[2])
    inside = [child for token in tokens for child in token.children or []]
    assert {token.content for token in inside if token.type == "html_inline"} <= {"<code>", "</code>"}
    assert not [token for token in tokens if token.type == "html_block"]
    assert [token.attrs["href"] for token in inside if token.type == "link_open"] == [
        "https://arxiv.org/abs/2604.16830"
    ]
    (snippet,) = [token.content for token in tokens if token.type == "fence"]
    compile(snippet, "card", "exec")


@pytest.mark.parametrize("file", ["{dirpath}/../../../precious", "{here}/precious", "precious"])
def test_a_checkpoint_cannot_have_another_file_deleted(file, received, with_checkpoint, here):
    """Lightning deletes what it restores as the best checkpoint, once there is a better one."""
    (here / "precious").touch()
    _, checkpoint = received
    callbacks = torch.load(checkpoint, weights_only=True)["callbacks"]
    (key,) = [key for key in callbacks if key.startswith("ModelCheckpoint")]
    named = file.format(dirpath=callbacks[key]["dirpath"], here=here)
    state = {**callbacks[key], "best_model_path": named, "best_k_models": {named: torch.tensor(1.0)}}
    changed(checkpoint, callbacks={**callbacks, key: state})
    status, output = with_checkpoint("fit", checkpoint)
    assert status == 2
    assert "as a checkpoint of" in output
    assert (here / "precious").exists()


RECORDS = {
    "path": {"versions": ["../../../elsewhere"]},
    "absolute": {"versions": ["/elsewhere"]},
    "above": {"versions": [".."]},
    "kind": {"versions": [{"class_path": "stranger.Any"}]},
    "settings": {"settings": "all"},
    "nothing": {"directory": None},
}


@pytest.mark.parametrize("name", [*RECORDS, "list", "step"])
def test_what_a_checkpoint_says_of_its_run_leads_nowhere_else(name, received, caopd, here):
    """A run of the same settings goes on in the folder that its checkpoint names: a name, and no path."""
    run, checkpoint = received
    record = torch.load(checkpoint, weights_only=True)["caopd_run"]
    entries = {"caopd_run": {**record, **RECORDS.get(name, {})}} | {
        "list": {"caopd_run": [record]},
        "step": {"global_step": "3"},
    }.get(name, {})
    changed(checkpoint, **entries)
    before = sorted(here.rglob("*"))
    status, output = caopd(
        "fit", f"--config={CONFIG}", *SIZES, "--ckpt_path=last", f"--trainer.default_root_dir={run.parent}"
    )
    assert status == 2, output
    assert "is none that can be used" in output
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", ["validate", "fit"])
def test_a_checkpoint_does_not_choose_where_files_are_written(command, received, caopd, here):
    _, checkpoint = received
    victim = here / "victim"
    victim.mkdir()
    (victim / "config.yaml").write_text("a: 1\n")
    record = torch.load(checkpoint, weights_only=True)["caopd_run"]
    changed(checkpoint, caopd_run={**record, "directory": str(victim)})
    alone = here / "mine" / checkpoint.name  # no run around it
    alone.parent.mkdir()
    checkpoint.rename(alone)
    last = "last" if command == "fit" else alone
    status, output = caopd(
        command, f"--config={CONFIG}", *SIZES, f"--ckpt_path={last}", f"--trainer.default_root_dir={here / 'mine'}"
    )
    assert sorted(path.name for path in victim.iterdir()) == ["config.yaml"], output
    assert str(victim / "config.yaml") not in output
    assert status == (2 if command == "fit" else 0), output


def test_a_checkpoint_that_is_not_changed_is_gone_on_from(received, caopd, here):
    status, output = caopd(
        "fit", f"--config={CONFIG}", *SIZES, "--ckpt_path=last", f"--trainer.default_root_dir={received[0].parent}"
    )
    assert status == 0, output
