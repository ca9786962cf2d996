"""The loggers call a run by its name, and are led into the logs of a run that goes on or is judged."""

import pytest
from jsonargparse import Namespace

from caopd.training.continuing import ContinuedRun
from caopd.training.logger_settings import explicit, with_names, with_run


def setting(kind, **arguments):
    return Namespace(class_path=f"lightning.pytorch.loggers.{kind}Logger", init_args=Namespace(**arguments))


def folder_logger(kind, root, **given):
    return setting(kind, **{"save_dir": str(root), "name": "lightning_logs", "version": None, **given})


def wandb_logger(**given):
    return setting("Wandb", **{"save_dir": ".", "name": None, "version": None, "id": None, "project": None, **given})


def test_every_logger_calls_a_new_run_by_its_name(tmp_path):
    (tmp_path / "lightning_logs" / "SDFT-seed0").mkdir(parents=True)
    loggers = [folder_logger("CSV", tmp_path), folder_logger("TensorBoard", tmp_path, name=None), wandb_logger()]
    with_names(loggers, "SDFT-seed0")
    csv, board, wandb = (each.init_args for each in loggers)
    assert (csv.version, board.version) == ("SDFT-seed0-run2", "SDFT-seed0")
    assert (wandb.name, wandb.version, wandb.id) == ("SDFT-seed0", None, None)


def test_a_name_of_the_users_own_stays(tmp_path):
    loggers = [folder_logger("CSV", tmp_path, version="mine"), wandb_logger(name="mine"), setting("Own", name=None)]
    with_names(loggers, "SDFT-seed0")
    assert [each.init_args.get("version") for each in loggers] == ["mine", None, None]
    assert [each.init_args.name for each in loggers] == ["lightning_logs", "mine", None]


@pytest.mark.parametrize("given", [None, True])
def test_the_default_logger_is_named_too(given):
    logger = explicit(given, "root")
    with_names(logger, "SDFT-seed0")
    assert logger.class_path == "lightning.pytorch.loggers.TensorBoardLogger"
    found = {"save_dir": "root", "name": "lightning_logs", "version": "SDFT-seed0", "default_hp_metric": False}
    assert vars(logger.init_args) == found


def test_without_a_logger_there_is_none_to_name(tmp_path):
    assert explicit(False, "root") is False
    with_names(False, "SDFT-seed0")
    with_run(False, ContinuedRun(None, tmp_path, 7, []), goes_on=True)


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("name", ["CSV", "TensorBoard"])
def test_the_first_logger_is_led_to_the_run_directory_wherever_it_is(tmp_path, name, goes_on):
    run = ContinuedRun(None, tmp_path / "moved" / "SDFT-seed0", 7, ["before it was moved"])
    logger = folder_logger(name, "elsewhere")
    with_run(logger, run, goes_on)
    arguments = logger.init_args
    assert (arguments.save_dir, arguments.name, arguments.version) == (str(tmp_path), "moved", "SDFT-seed0")
    assert ("dict_kwargs" in logger) == (name == "TensorBoard" and goes_on)
    if "dict_kwargs" in logger:
        assert logger.dict_kwargs == {"purge_step": 7}


def test_weights_and_biases_goes_on_under_its_id_in_its_project(tmp_path):
    run = ContinuedRun(None, tmp_path / "p" / "x81k2", 7, ["x81k2"])
    for project, expected in ((None, (str(tmp_path), "p")), ("p", (str(tmp_path), "p")), ("other", (".", "other"))):
        logger = wandb_logger(project=project)
        with_run(logger, run, goes_on=True)
        arguments = logger.init_args
        assert (arguments.save_dir, arguments.project, arguments.version) == (*expected, "x81k2")


def test_further_loggers_get_the_names_that_they_gave_the_run(tmp_path):
    run = ContinuedRun(None, tmp_path / "SDFT-seed0", 7, ["SDFT-seed0", "x81k2", 3])
    loggers = [folder_logger("TensorBoard", tmp_path), wandb_logger(), folder_logger("CSV", tmp_path, version="own")]
    with_run(loggers, run, goes_on=True)
    assert [each.init_args.version for each in loggers] == ["SDFT-seed0", "x81k2", "own"]
    assert loggers[1].init_args.save_dir == "."
    with_run([new := folder_logger("CSV", tmp_path), more := wandb_logger()], run, goes_on=True)
    assert new.init_args.version == more.init_args.version == "SDFT-seed0"
