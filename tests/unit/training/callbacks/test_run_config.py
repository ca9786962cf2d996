"""A run's configuration is in its own directory, and no run replaces another one's."""

from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

from caopd.errors import ConfigError
from caopd.training.callbacks import RunConfig, check_alone
from caopd.training.continuing import ContinuedRun

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
CHOSEN = ["--trainer.logger=TensorBoardLogger", "--trainer.logger.version=chosen", "--trainer.logger.save_dir={root}"]


@pytest.fixture
def cli(tmp_path):
    def run(command, *arguments, seed=0):
        given = [argument.format(root=tmp_path) for argument in (*QUIET, *arguments)]
        cli = LightningCLI(
            BoringModel,
            args=[command, f"--seed_everything={seed}", f"--trainer.default_root_dir={tmp_path}", *given],
            trainer_defaults={"max_steps": 1, "limit_val_batches": 0, "limit_test_batches": 1},
            save_config_callback=RunConfig,
        )
        return cli.trainer

    return run


def seeds(root):
    """Run directory -> the seed that its file says."""
    files = root.rglob("config.yaml")
    return {str(path.parent.relative_to(root)): yaml.safe_load(path.read_text())["seed_everything"] for path in files}


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "CSVLogger"])
def test_runs_stand_side_by_side(cli, tmp_path, logger):
    for seed in (3, 4):
        cli("fit", f"--trainer.logger={logger}", "--trainer.logger.save_dir={root}", seed=seed)
    assert seeds(tmp_path) == {"lightning_logs/version_0": 3, "lightning_logs/version_1": 4}


@pytest.mark.parametrize("command", ["fit", "test"])
def test_another_run_of_the_same_name_and_version_is_refused(cli, tmp_path, command):
    cli("fit", *CHOSEN, seed=3)
    with pytest.raises(ConfigError, match=r"lightning_logs/chosen to be this run's alone, but .*set another `version`"):
        cli(command, *CHOSEN, seed=4)
    assert seeds(tmp_path) == {"lightning_logs/chosen": 3}


def test_a_run_that_goes_on_in_its_directory_says_with_what(cli, tmp_path):
    checkpoint = cli("fit", *CHOSEN, seed=3).checkpoint_callback.best_model_path
    cli("fit", *CHOSEN, f"--ckpt_path={checkpoint}", "--trainer.max_steps=2", seed=4)
    assert seeds(tmp_path) == {"lightning_logs/chosen": 4}


def test_what_is_measured_of_a_run_leaves_its_file(cli, tmp_path):
    checkpoint = cli("fit", *CHOSEN, seed=3).checkpoint_callback.best_model_path
    cli("test", *CHOSEN, f"--ckpt_path={checkpoint}", seed=4)
    assert seeds(tmp_path) == {"lightning_logs/chosen": 3}


def test_a_run_is_alone_unless_it_goes_on(tmp_path):
    checkpoint = str(tmp_path / "checkpoints" / "last.ckpt")
    assert not check_alone(tmp_path, checkpoint)
    (tmp_path / "config.yaml").write_text("seed_everything: 3\n")
    assert check_alone(tmp_path, checkpoint)
    elsewhere = str(tmp_path / "elsewhere" / "checkpoints" / "last.ckpt")
    assert check_alone(tmp_path, elsewhere, ContinuedRun(Path(elsewhere), tmp_path, 3, []))
    for other in (None, elsewhere):
        with pytest.raises(ConfigError, match="this run's alone"):
            check_alone(tmp_path, other)


def test_the_file_is_utf8_whatever_the_locale_and_says_any_name(cli, tmp_path):
    cli("fit", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir={root}", "--trainer.logger.name=naïve 東京")
    (path,) = tmp_path.rglob("config.yaml")
    logger = yaml.safe_load(path.read_text(encoding="utf-8"))["trainer"]["logger"]
    assert logger["init_args"]["name"] == "naïve 東京" == path.parents[1].name
