"""The table of what every stage of the preprocessing gets right, beside its peers.

    python -m benchmarks.accuracy [--quick] [--seed 1] [--only SECTION]

A row is printed as soon as it is measured; the exit code is 1 if a bound is missed.
"""

import argparse
import sys
from importlib import import_module

from benchmarks.table import HEADER, Row, cells, holds

SECTIONS = (
    "geometry",
    "normalisation",
    "lesions",
    "denoising",
    "slices",
    "echoes",
    "syn",
    "fieldmaps",
    "pairs",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="smaller phantoms, fewer peers")
    parser.add_argument("--only", choices=SECTIONS)
    options = parser.parse_args(arguments)
    missed: list[Row] = []
    for line in (HEADER, tuple("---" for _ in HEADER)):
        _print(line)
    for section in [options.only] if options.only else SECTIONS:
        for row in import_module(f"benchmarks.accuracy_{section}").rows(
            options.seed, options.quick
        ):
            _print(cells(row))
            if not holds(row):
                missed.append(row)
    for row in missed:
        print(f"missed: {row.stage}, {row.measure}: {row.ours:.4g}, {row.bound}", file=sys.stderr)
    return 1 if missed else 0


def _print(line: tuple[str, ...]) -> None:
    print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
