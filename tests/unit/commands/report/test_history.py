"""What is read of a run that was cut short and went on: one run, whose curves are one."""

import csv
import json

import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

from caopd.commands.report.collect import collect
from caopd.commands.report.history import history

METRICS = {"step": 4, "greedy": {"n": 2, "accuracy": 0.5}, "sampled": {"n": 2, "accuracy": 0.25}}


def run_directory(folder, after=None, ended=True, **settings):
    """A run, which began with a checkpoint of another one, if that is given."""
    (folder / "checkpoints").mkdir(parents=True)
    if ended:
        (folder / "metrics.json").write_text(json.dumps({"initial": None, "final": METRICS}))
    checkpoint = None if after is None else str(after / "checkpoints" / "step2.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": settings, "ckpt_path": checkpoint}))
    return folder


def events(folder, points, name="train/loss", **keywords):
    with SummaryWriter(str(folder), **keywords) as writer:
        for step, value in points:
            writer.add_scalar(name, value, step)


def rows(folder, points, name="train/loss"):
    with (folder / "metrics.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, ["step", name])
        writer.writeheader()
        writer.writerows({"step": step, name: value} for step, value in points)


def loss(*folders):
    return [record.curves["train/loss"] for record in collect(folders)]


def test_steps_that_a_run_logged_again_count_once(tmp_path, caplog):
    folder = run_directory(tmp_path / "run")
    events(folder, [(0, 4.0), (1, 3.0), (2, 9.0)], filename_suffix=".a")
    events(folder, [(1, 3.0), (2, 2.0), (3, 1.0)], filename_suffix=".b", purge_step=2)
    assert loss(folder) == [[(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]]
    assert not caplog.records  # nor does TensorBoard's reader warn of them


WHOLE = [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]


def chain(folder, log):
    """A run that went on twice: each directory ends with a step that the next one trains again."""
    first = run_directory(folder / "x", ended=False)
    second = run_directory(folder / "x-run2", first)
    third = run_directory(folder / "x-run3", second)
    for directory, points in ((first, [*WHOLE[:2], (2, 9.0)]), (second, [*WHOLE[2:4], (4, 9.0)]), (third, WHOLE[4:])):
        log(directory, points)
    return first, second, third


@pytest.mark.parametrize("log", [events, rows])
def test_a_run_that_went_on_twice_is_one(log, tmp_path):
    parts = chain(tmp_path, log)
    (record,) = collect([tmp_path])
    assert (record.directory, record.history.directories) == (parts[-1], parts)
    assert record.curves["train/loss"] == WHOLE
    assert loss(parts[2]) == [WHOLE]  # also where it alone is asked for
    assert loss(parts[1]) == [[*WHOLE[:4], (4, 9.0)]]


def test_a_run_is_followed_where_all_its_directories_were_moved(tmp_path):
    chain(tmp_path / "there", events)
    (tmp_path / "there").rename(tmp_path / "here")
    assert loss(tmp_path / "here") == [WHOLE]


def test_what_the_earlier_directory_measured_of_later_steps_is_no_part_of_the_run(tmp_path):
    """It trained on to step 8, and the run went on from its step 4, and has not validated yet."""
    first = run_directory(tmp_path / "x", ended=False)
    second = run_directory(tmp_path / "x-run2", first)
    events(first, [(0, 0.75), (3, 0.5), (7, 0.25)], "val/greedy/ece")
    events(second, [(4, 2.0), (5, 1.0)])
    (record,) = collect([second])
    assert record.curves["val/greedy/ece"] == [(0, 0.75), (3, 0.5)]


def test_a_run_with_other_settings_is_another_one_that_shows_what_came_before(tmp_path):
    first = run_directory(tmp_path / "first", warmup=0.1)
    second = run_directory(tmp_path / "second", first, warmup=0.2)
    events(first, [(0, 4.0), (1, 3.0), (2, 9.0)])
    events(second, [(2, 2.0), (3, 1.0)])
    assert loss(first, second) == [[(0, 4.0), (1, 3.0), (2, 9.0)], [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]]
    found = history(second)
    assert (found.before, found.parts) == ((first,), (second,))


def test_two_runs_that_went_on_from_the_same_one_both_show_it(tmp_path):
    first = run_directory(tmp_path / "x")
    others = [run_directory(tmp_path / f"x-run{number}", first) for number in (2, 3)]
    events(first, [(0, 4.0)])
    for number, other in enumerate(others):
        events(other, [(1, float(number))])
    assert loss(tmp_path) == [[(0, 4.0), (1, 0.0)], [(0, 4.0), (1, 1.0)]]


def test_runs_that_name_themselves_or_each_other_are_read_once(tmp_path):
    alone = run_directory(tmp_path / "alone", tmp_path / "alone")
    one = run_directory(tmp_path / "one", tmp_path / "other", warmup=0.1)
    other = run_directory(tmp_path / "other", one, warmup=0.2)
    for number, folder in enumerate((alone, one, other)):
        events(folder, [(number, 1.0)])
    assert history(alone).directories == (alone,)
    assert history(one).directories == (other, one)
    assert len(collect([tmp_path])) == 3


@pytest.mark.parametrize("checkpoint", ["gone/checkpoints/a.ckpt", "\0", "x" * 5000, "a.ckpt"])
def test_a_run_whose_beginning_is_lost_says_so(checkpoint, tmp_path):
    folder = run_directory(tmp_path / "run")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {}, "ckpt_path": checkpoint}))
    events(folder, [(2, 2.0)])
    assert history(folder).lost == checkpoint
    assert loss(folder) == [[(2, 2.0)]]
