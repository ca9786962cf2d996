"""Which settings make a run the one it is."""

import pytest

from caopd.run_directory import MISSING, differences, run_settings

CALLBACKS = "lightning.pytorch.callbacks"
CONFIG = {
    "seed_everything": 0,
    "ckpt_path": None,
    "completions": {"num_examples": 4},
    "trainer": {
        "max_epochs": 3,
        "devices": 1,
        "strategy": "auto",
        "logger": None,
        "precision": "32-true",
        "accumulate_grad_batches": 1,
        "callbacks": [{"class_path": f"{CALLBACKS}.ModelCheckpoint", "init_args": {"save_last": None}}],
    },
    "model": {
        "source": {"name_or_path": "embedded", "lora": None},
        "method": {"class_path": "caopd.methods.CaOPD", "init_args": {"backbone": {"class_path": "SDFT"}}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1, "betas": [0.9, 0.98]}},
    },
    "data": {
        "seed": 0,
        "keep_rounds": 2,
        "engine": {"class_path": "VLLMEngine", "init_args": {"options": {"tensor_parallel_size": 8, "dtype": "auto"}}},
    },
}


def changed(path, value, config=CONFIG):
    name, _, rest = path.partition(".")
    return {**config, name: changed(rest, value, config[name]) if rest else value}


def differing(path, value):
    return differences(run_settings(CONFIG), run_settings(changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ckpt_path", "last"),
        ("completions.num_examples", 9),
        ("trainer.max_epochs", 100),
        ("trainer.devices", 8),
        ("trainer.strategy", {"class_path": "lightning.pytorch.strategies.FSDPStrategy"}),
        ("trainer.logger", {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs"}}),
        ("trainer.callbacks", None),
        ("trainer.callbacks", [{"class_path": f"{CALLBACKS}.LearningRateMonitor"}]),
        ("data.keep_rounds", None),
        ("data.engine.init_args.options.tensor_parallel_size", 2),
    ],
)
def test_length_devices_loggers_and_what_only_shows_leave_a_run_the_same(path, value):
    assert differing(path, value) == {}


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        ("seed_everything", 1, ["seed_everything"]),
        ("trainer.precision", "bf16-mixed", ["trainer.precision"]),
        ("trainer.accumulate_grad_batches", 2, ["trainer.accumulate_grad_batches"]),
        ("model.optimizer.init_args.lr", 0.2, ["model.optimizer.init_args.lr"]),
        ("model.optimizer.init_args.betas", [0.9, 0.999], ["model.optimizer.init_args.betas"]),
        ("model.method.init_args.backbone.class_path", "SDPO", ["model.method.init_args.backbone.class_path"]),
        ("data.engine.init_args.options.dtype", "bfloat16", ["data.engine.init_args.options.dtype"]),
        ("trainer.callbacks", [{"class_path": "mine.Averaging"}], ["trainer.callbacks.0.class_path"]),
    ],
)
def test_every_other_setting_makes_another_run(path, value, names):
    assert list(differing(path, value)) == names


def test_a_difference_names_both_values_and_what_is_not_set():
    assert differing("data.seed", 5) == {"data.seed": (0, 5)}
    lora = differing("model.source.lora", {"rank": 4})
    assert lora == {"model.source.lora": (None, MISSING), "model.source.lora.rank": (MISSING, 4)}
