"""Faults: `python -m benchmarks.faults [--only NAME…] [--out DIR] [--seconds N] [--page FILE]`.

Hostile files, fuzzed parsers, bad networks, killed calls: each is tried, and judged by the least
that is asked for. Written are `faults.tsv` and `faults.md`, the table of the documentation. The
exit code is 1 if one did not hold.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.faults import page
from benchmarks.faults.fault import Fault, NotTried, Result

# Each has FAULTS, its rows of the table.
MODULES = (
    "hostile",
    "names",
    "network",
    "fuzzing",
    "disks",
    "full_disks",
    "filesystems",
    "kills",
    "signals",
    "crowd",
    "soak",
    "versions",
    "limits",
    "containers",
)


def table() -> list[Fault]:
    """All faults, in the order of the page."""
    modules = [importlib.import_module(f"benchmarks.faults.{name}") for name in MODULES]
    return [fault for module in modules for fault in module.FAULTS]


def chosen(only: Sequence[str]) -> list[Fault]:
    """The faults whose name, or its beginning, is given, or fits a pattern; all without names."""
    faults = table()
    names = {fault.name for fault in faults}

    def fits(name: str, one: str) -> bool:
        return name == one or fnmatch(name, one) or (one not in names and name.startswith(one))

    return [fault for fault in faults if not only or any(fits(fault.name, one) for one in only)]


def try_fault(fault: Fault, seconds: float) -> Result:
    """Try one fault in a folder of its own."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            trials = fault.tried(Path(folder), seconds)
        except NotTried as reason:
            return Result(fault, (), time.monotonic() - started, str(reason))
    return Result(fault, trials, time.monotonic() - started)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, try, print, and write the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names or beginnings")
    parser.add_argument("--out", type=Path, default=Path("faults"), metavar="DIR")
    parser.add_argument("--seconds", type=float, default=10, help="for each fuzzed parser")
    parser.add_argument("--page", type=Path, metavar="FILE", help="renew the rows of a page")
    options = parser.parse_args(argv)
    results = []
    for fault in chosen(options.only):
        results.append(try_fault(fault, options.seconds))
        print(page.line(results[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "faults.tsv").write_text(page.tsv(results), encoding="utf-8")
    (options.out / "faults.md").write_text(page.markdown(results), encoding="utf-8")
    if options.page is not None:
        text = options.page.read_text(encoding="utf-8")
        order = [fault.name for fault in table()]
        options.page.write_text(page.renewed(text, results, order), encoding="utf-8")
    return int(not all(result.good for result in results))


if __name__ == "__main__":
    sys.exit(main())
