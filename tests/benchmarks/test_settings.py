"""Every run of the comparison is parsed as `caopd fit` parses it, and none has more rollouts than another."""

import pytest
import yaml

from caopd.cli import main
from comparing import settings
from comparing.settings import Budget

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
BUDGET = Budget()
METHOD_ENTRIES = settings.method_entries(tuple(settings.METHODS), (21,), BUDGET)
ROLLOUT_ENTRIES = settings.rollout_entries(settings.NUMBERS_OF_ROLLOUTS, (21,), BUDGET)
OTHERS = settings.divergence_entries((21,), BUDGET) + settings.size_entries((32, 64), (21,), BUDGET)


@pytest.fixture(scope="module")
def parse():
    """The config that a run is made of, once per run."""
    configs = {}

    def of(entry, capsys):
        if entry.run.name not in configs:
            with pytest.raises(SystemExit) as ended:
                main([*entry.run.arguments[2:], "--print_config"])
            output = capsys.readouterr()
            assert not ended.value.code, output.err
            configs[entry.run.name] = yaml.safe_load(output.out)
        return configs[entry.run.name]

    return of


def budget_of(config):
    size = config["data"]["round"]
    samples = size["num_prompts_per_round"] * (size["num_trained_rollouts"] or size["num_rollouts"])
    return {
        "rollouts": config["trainer"]["max_epochs"] * size["num_prompts_per_round"] * size["num_rollouts"],
        "prompts": config["trainer"]["max_epochs"] * size["num_prompts_per_round"],
        "steps": config["trainer"]["max_epochs"] * samples / config["data"]["batch_size"],
        "questions": (config["data"]["task"]["init_args"]["num_train"], config["data"]["task"]["init_args"]["seed"]),
        "held out": config["data"]["evaluation"]["num_examples"],
        "order": config["data"]["seed"],
        "start": config["model"]["source"]["name_or_path"],
        "learning rate": config["model"]["optimizer"]["init_args"]["lr"],
    }


@pytest.mark.parametrize("entry", METHOD_ENTRIES, ids=lambda entry: entry.setting)
def test_methods_have_equal_budgets_and_their_own_name(entry, parse, capsys):
    config = parse(entry, capsys)
    assert budget_of(config) == {
        "rollouts": 50 * 256 * 8,
        "prompts": 50 * 256,
        "steps": 400,
        "questions": (12_800, 21),
        "held out": 2_000,
        "order": 21,
        "start": "embedded",
        "learning rate": 1.2e-3,
    }
    method = config["model"]["method"]
    inner = method["init_args"].get("backbone")
    name = method["class_path"].rpartition(".")[2]
    if inner:
        name += " on " + inner["class_path"].rpartition(".")[2]
    if config["model"]["loss"]["class_path"].endswith("VOPDLoss"):
        assert name == "SDFT"
        name = "vOPD"
    if name == "CAR" and not method["init_args"]["scale_by_std"]:
        name = "CAR, unscaled"
    assert name == entry.setting


@pytest.mark.parametrize("entry", ROLLOUT_ENTRIES, ids=lambda entry: f"K={entry.setting}")
def test_runs_of_another_k_differ_from_the_main_one_in_rollouts_alone(entry, parse, capsys):
    config, main_one = budget_of(parse(entry, capsys)), budget_of(parse(METHOD_ENTRIES[3], capsys))
    assert METHOD_ENTRIES[3].setting == settings.CAOPD
    assert config.pop("rollouts") * 8 == main_one.pop("rollouts") * int(entry.setting)
    assert config == main_one


@pytest.mark.parametrize("entry", OTHERS, ids=lambda entry: entry.run.name)
def test_other_ablations_have_the_main_budget(entry, parse, capsys):
    config = parse(entry, capsys)
    budget, main_one = budget_of(config), budget_of(parse(METHOD_ENTRIES[3], capsys))
    if entry.part == "sizes":
        assert budget.pop("start") == "{directory}/width-32"
        main_one.pop("start")
    else:
        short = {"ReverseKL": "reverse", "ForwardKL": "forward"}
        loss = config["model"]["loss"]["init_args"]
        body, confidence = (short[loss[segment]["class_path"].rpartition(".")[2]] for segment in ("body", "confidence"))
        assert f"{body} / {confidence}" == entry.setting
    assert budget == main_one


def test_the_shared_runs_are_not_repeated():
    assert {entry.setting for entry in ROLLOUT_ENTRIES} == {"1", "2", "4", "16", "32"}
    assert "forward / forward" not in {entry.setting for entry in OTHERS}
    assert {entry.width for entry in OTHERS if entry.part == "sizes"} == {32}


def test_runs_have_names_of_their_own():
    names = [entry.run.name for entry in METHOD_ENTRIES + ROLLOUT_ENTRIES + OTHERS]
    assert len(set(names)) == len(names)


def test_a_run_of_another_size_is_stale_when_its_model_is_made_otherwise():
    (first, *_), (second, *_) = (
        settings.size_entries((32,), (21,), Budget(warm_start_steps=steps)) for steps in (800, 400)
    )
    assert first.run.fingerprint != second.run.fingerprint
