"""Runs the ``caopd`` command on small settings."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Lightning's log handlers keep the stream of their first import: it must outlive the tests that capture output.
import caopd.training.subcommands  # noqa: F401
from caopd.cli import main
from caopd.models.tiny import build_model, build_tokenizer
from tests.forks import Forks

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SIZES = {
    "trainer.max_epochs": "2",
    "data.task.num_train": "64",
    "data.task.num_validation": "24",
    "data.task.num_test": "24",
    "data.round.num_prompts_per_round": "16",
    "data.round.num_rollouts": "4",
    "data.batch_size": "4",
    "data.evaluation.batch_size": "16",
}
FSDP2 = {
    "trainer.strategy": "lightning.pytorch.strategies.ModelParallelStrategy",
    "trainer.strategy.data_parallel_size": 2,
    "trainer.strategy.tensor_parallel_size": 1,
    "trainer.strategy.save_distributed_checkpoint": "false",
    "trainer.inference_mode": "false",
}
STRATEGIES = {"ddp": {"trainer.strategy": "ddp"}, "fsdp2": FSDP2}
SMALL = {**SIZES, "trainer.enable_progress_bar": "false"}
EVERY_ROUND = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_epochs: 1, save_on_train_epoch_end: true, save_top_k: -1, filename: "round{epoch}",
                  auto_insert_metric_name: false}
"""
EVERY_STEP = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_train_steps: 1, every_n_epochs: null, save_on_train_epoch_end: false, save_top_k: -1,
                  filename: "step{step}", auto_insert_metric_name: false}
"""


def newest_results(directory):
    """The folder of what was measured last, of one of the runs below a directory."""
    return max(directory.rglob("step_*/"), key=lambda path: path.stat().st_mtime_ns)


def options(settings):
    return [f"--{key}={value}" for key, value in settings.items() if value is not None]


class Run:
    """A finished run and what it left behind."""

    def __init__(self, directory):
        (self.directory,) = (directory / "lightning_logs").iterdir()

    def scalars(self, tag):
        return [event.value for event in self.events.Scalars(tag)]

    @property
    def events(self):
        events = EventAccumulator(str(self.directory))
        events.Reload()
        return events

    def checkpoint_file(self, name):
        return self.directory / "checkpoints" / f"{name}.ckpt"

    def checkpoint(self, name):
        return torch.load(self.checkpoint_file(name), weights_only=False, map_location="cpu")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The embedded architecture, untrained, with room for long prompts."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, width=32, num_layers=1)
    model.config.max_position_embeddings = 8192
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def every_round(tmp_path_factory):
    """A config that keeps a checkpoint of every round."""
    path = tmp_path_factory.mktemp("config") / "every_round.yaml"
    path.write_text(EVERY_ROUND)
    return path


@pytest.fixture(scope="session")
def every_step(tmp_path_factory):
    """A config that keeps a checkpoint of every optimizer step, within a round too."""
    path = tmp_path_factory.mktemp("config") / "every_step.yaml"
    path.write_text(EVERY_STEP)
    return path


@pytest.fixture(scope="session")
def fit(every_round):
    """Fit the quickstart on small settings in this process."""

    def run(directory, *configs, **settings):
        assert main(fit_arguments(directory, (QUICKSTART, every_round, *configs), settings)) == 0
        return Run(directory)

    return run


@pytest.fixture(scope="session")
def forked():
    """Run the command in processes of its own, forked from one that has imported everything."""
    forks = Forks()
    yield forks.run
    forks.end()


@pytest.fixture(scope="session")
def spawn(every_round, forked):
    """Fit the quickstart on small settings in processes of its own."""

    def run(directory, *configs, **settings):
        directory.mkdir(exist_ok=True)
        arguments = fit_arguments(directory, (QUICKSTART, every_round, *configs), settings)
        result = forked(arguments, directory, settings.get("trainer.devices", 1))
        assert result.returncode == 0, result.stderr[-4000:]
        return Run(directory)

    return run


@pytest.fixture(scope="session")
def fit_with_defaults(forked):
    """Fit the quickstart as users do, with every default on, but in forks."""

    def run(directory, *configs, **settings):
        directory.mkdir(exist_ok=True)
        arguments = fit_arguments(directory, (QUICKSTART, *configs), settings, SIZES)
        return forked(arguments, directory, settings.get("trainer.devices", 1))

    return run


@pytest.fixture(scope="session")
def fit_as_users_do(command):
    """Fit the quickstart in a process of its own with every default on: only its sizes are smaller.

    The bar, the logger, checkpoints and validation must stay on here: a hang of several processes once stood beside
    thousands of tests that had switched the bar off.
    """

    def run(directory, *configs, **settings):
        directory.mkdir(exist_ok=True)
        return command(*fit_arguments(directory, (QUICKSTART, *configs), settings, SIZES), cwd=directory)

    return run


def fit_arguments(directory, configs, settings, sizes=SMALL):
    merged = {**sizes, "trainer.default_root_dir": directory, **settings}
    return ["fit", *(f"--config={path}" for path in configs), *options(merged)]


@pytest.fixture(scope="session")
def command():
    """Run the command in a process of its own, as a user would; needed where Lightning starts further processes."""

    def run(*arguments, cwd=None, **variables):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run(
            [sys.executable, "-m", "caopd", *map(str, arguments)],
            # A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            capture_output=True,
            text=True,
            env=environment,
            timeout=600,
            cwd=cwd,
        )

    return run


@pytest.fixture
def failure(tmp_path, capsys, request):
    """Run a fit that must fail, and return its message."""

    def run(*arguments, config=request.config.rootpath / "configs" / "quickstart.yaml"):
        small = ("--data.task.num_train=256", "--data.task.num_validation=4", "--trainer.enable_progress_bar=false")
        small = small if not any("data.task" in argument for argument in arguments) else small[2:]
        status = main(["fit", f"--config={config}", f"--trainer.default_root_dir={tmp_path}", *small, *arguments])
        assert status != 0
        output = capsys.readouterr()
        assert "Traceback" not in output.err + output.out
        message = output.err[output.err.index("error: ") :]
        assert len(message.splitlines()) <= 24
        return message

    return run
