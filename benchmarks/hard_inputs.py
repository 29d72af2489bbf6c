"""Hard inputs: `python -m benchmarks.hard_inputs [--only PATTERN] [--workers N] [--page FILE]`.

Files that are damaged, odd names, headers and types, bad volumes, failed registrations, units,
series and tables of people are written, given to the program, and judged: right, warned, refused,
or WRONG. None may be done without a warning when its result differs from that of the benign form;
none may end in a traceback; none may cost another. The exit code is 1 if one is WRONG.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.hard import page
from benchmarks.hard.batches import BATCHES
from benchmarks.hard.case import Batch, Case, Result, Verdict
from benchmarks.hard.run import Place, run_batch


def chosen(pattern: str) -> list[tuple[Batch, list[Case]]]:
    """The inputs whose `batch/name` fits a pattern with wildcards, or contains it."""

    def fits(batch: Batch, case: Case) -> bool:
        name = f"{batch.name}/{case.name}"
        return not pattern or fnmatch(name, pattern) or pattern in name

    found = [(batch, [case for case in batch.cases if fits(batch, case)]) for batch in BATCHES]
    return [(batch, cases) for batch, cases in found if cases]


def run(
    wanted: Sequence[tuple[Batch, Sequence[Case]]], root: Path, workers: int
) -> dict[str, tuple[str, list[Result]]]:
    """Run inputs batch by batch; name -> what the batch is about, and its results."""
    found = {}
    for number, (batch, cases) in enumerate(wanted):
        started = time.monotonic()
        results = run_batch(batch, cases, Place(root / str(number), workers))
        seconds = time.monotonic() - started
        for result in results:
            result.told = without_folders(result.told, root / str(number))
        done = f"{batch.name}: {len(results)} inputs, {seconds:.0f} s"
        print(page.text({done: results}), file=sys.stderr, flush=True)
        found[batch.name] = (batch.about, results)
    return found


def without_folders(told: str, root: Path) -> str:
    """A line without the program's name and the folders of this machine.

    >>> without_folders("brainlm-bids: /tmp/x/0/shared/raw/sub-01: broken", Path("/tmp/x/0"))
    'raw/sub-01: broken'
    """
    for folder in ("shared/", "own/", ""):
        told = told.replace(f"{root}/{folder}", "")
    return told.removeprefix("brainlm-bids: ").strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="part of batch/name")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--page", type=Path, help="write the table as a page of the documentation")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = run(chosen(options.only), Path(folder), options.workers)
    print(page.text({name: results for name, (_, results) in found.items()}))
    if options.page is not None:
        options.page.write_text(page.markdown(found), encoding="utf-8")
    results = [result for _, batch in found.values() for result in batch]
    return int(any(result.verdict is Verdict.WRONG for result in results))


if __name__ == "__main__":
    sys.exit(main())
