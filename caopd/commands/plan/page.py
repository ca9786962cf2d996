"""Shows a plan as tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from caopd.commands.plan.devices import GIB
from caopd.commands.plan.plan import Plan
from caopd.texts import in_terminal

_MIB, _MINUTE, _HOUR = 2**20, 60, 3600


def show(plan: Plan, console: Console) -> None:
    """Print a plan.

    Args:
        plan: The plan.
        console: Where it is printed.
    """
    tables = [_round(plan), _memory(plan), _time(plan)]
    if plan.moved:
        tables.insert(2, _moved(plan))
    for table in tables:
        console.print(table)
    for line in plan.assumptions:
        console.print(in_terminal(f"- {line}"))
    for line in plan.warnings:
        console.print(in_terminal(f"warning: {line}"), style="bold red")
    if not plan.warnings:
        console.print("It fits.")


def _round(plan: Plan) -> Table:
    table = Table("A round", "", title_justify="left")
    table.columns[1].justify = "right"
    for name, value in plan.counts.items():
        table.add_row(in_terminal(name), f"{value:,.0f}")
    return table


def _memory(plan: Plan) -> Table:
    setup = plan.setup
    where = "process" if plan.device.is_cpu else "device"
    table = Table(f"Memory of a {where}", "rollouts", "training", "optimizer step")
    for column in table.columns[1:]:
        column.justify = "right"
    for part in plan.parts:
        table.add_row(part.name, *map(size_text, (part.rollouts, part.training, part.step)))
    table.add_section()
    total = plan.total
    table.add_row("total", *map(size_text, (total.rollouts, total.training, total.step)), style="bold")
    shared = f" for {setup.processes} processes" if plan.device.is_cpu and setup.processes > 1 else ""
    table.add_row(f"{plan.device.name} has{shared}", "", size_text(plan.device.memory), "")
    return table


def _moved(plan: Plan) -> Table:
    table = Table("Weights and gradients that a process receives in a round", "")
    table.columns[1].justify = "right"
    for name, value in plan.moved.items():
        table.add_row(name, size_text(value))
    return table


def _time(plan: Plan) -> Table:
    table = Table("Time of a round (estimate)", "")
    table.columns[1].justify = "right"
    for name, value in plan.seconds.items():
        table.add_row(name, time_text(value))
    table.add_section()
    table.add_row("total", time_text(sum(plan.seconds.values())), style="bold")
    return table


def size_text(size: float) -> str:
    """Return a number of bytes as people read it; nothing for 0.

    Args:
        size: Number of bytes.
    """
    if not size:
        return ""
    return f"{size / GIB:,.2f} GiB" if size >= GIB else f"{size / _MIB:,.1f} MiB"


def time_text(seconds: float) -> str:
    """Return a time as people read it, to two digits or so: it is an estimate.

    Args:
        seconds: The time.
    """
    for unit, length in (("h", _HOUR), ("min", _MINUTE)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
