"""How far the intervals of ``caopd score`` are right; writes ``benchmarks/results/intervals.json`` and ``.md``.

Three parts, each of data sets that are drawn from distributions whose true values are known: intervals of the ECE
(``errors``), paired differences of two ECEs (``pairs``), and intervals of all measures (``measures``). What the file
holds already, of the same number of data sets, is not measured again.

    python benchmarks/intervals.py --processes 16
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from covering import errors, measures, pairs
from covering.page import page

RESULTS = Path(__file__).parent / "results"
PARTS = {"errors": errors, "pairs": pairs, "measures": measures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data_sets", type=int, default=1000, help="of every cell of the first two parts")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "intervals.json", help="a .md goes beside it")
    arguments = parser.parse_args()
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    record = {name: record.get(name, []) for name in PARTS}
    with get_context("spawn").Pool(arguments.processes) as pool:
        for name in arguments.parts:
            asked = PARTS[name].cells(arguments.data_sets // (2 if name == "measures" else 1))
            there = [each for each in record[name] if {key: each.get(key) for key in asked[0]} in asked]
            missing = [cell for cell in asked if cell not in [{key: each[key] for key in cell} for each in there]]
            for found in pool.imap(PARTS[name].measured, missing):
                there.append(found)
                write(arguments.output, record | {name: there})
            record[name] = there
    write(arguments.output, record)
    print(page(record))


def write(output: Path, record: dict) -> None:
    """Write both files."""
    versions = {name: version(name) for name in ("torch", "numpy", "caopd")}
    about = {
        "benchmark": "intervals",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(about | record, indent=1) + "\n")
    output.with_suffix(".md").write_text(page(about | record))


if __name__ == "__main__":
    main()
