"""What a cohort costs, from what a call cost that is run now.

    python -m benchmarks.scale OUT [--recordings N …] -- brainlm-bids BIDS OUT participant …

Seconds are the processor's, of the call and all processes that it started, which a busy machine
does not lengthen; memory is that of the status tables; files and bytes are counted.
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.files import read_rows

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
COHORTS = (100, 10_000, 76_296)  # the last: recordings of UK Biobank with 490 volumes


class Cost(NamedTuple):
    """Of one recording: processor seconds, peak memory in MB, bytes and number of files kept."""

    seconds: float
    memory_mb: float
    bytes: float
    files: float


def processor_seconds(command: Sequence[str]) -> float:
    """User and system seconds of a command and of everything that it started (Linux).

    Workers that outlive the command's own process fall to this one, which waits for them.
    Raises CalledProcessError if the command fails.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    try:
        while True:
            os.wait()
    except ChildProcessError:  # no more children
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def cost(out: Path, seconds: float) -> Cost:
    """A share of `seconds` for each recording that is done in an output folder; memory is the
    largest.

    Raises ValueError if none is done.
    """
    done = {
        row["source"]: row
        for path in sorted((out / "logs").glob("*_status.tsv"))
        for row in read_rows(path)
        if row["status"] == "done" and not row["source"].endswith("_timeseries.tsv")
    }
    if not done:
        raise ValueError(f"{out}: no recording is done")
    kept = [path for path in _files(out) if path.is_file()]
    return Cost(
        seconds / len(done),
        max(float(row["peak_memory_mb"]) for row in done.values()),
        sum(path.stat().st_size for path in kept) / len(done),
        len(kept) / len(done),
    )


def _files(out: Path) -> Iterator[Path]:
    """What grows with the recordings: their folders, reports, records, tables and logs."""
    yield from out.glob("sub-*/**/*")
    yield from out.glob("sub-*.html")
    yield from (path for path in (out / "logs").rglob("*") if "CITATION" not in path.name)


def table(one: Cost, cohorts: Sequence[int]) -> str:
    """Markdown: recordings, core hours, disk, files; a core hour is an hour of one core."""
    lines = ["| recordings | core hours | disk | files |", "|---:|---:|---:|---:|"]
    for n in cohorts:
        hours, gigabytes = n * one.seconds / 3600, n * one.bytes / 1e9
        lines.append(f"| {n:,} | {hours:,.0f} | {gigabytes:,.1f} GB | {n * one.files:,.0f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, and print what a recording cost and the table."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "",
        usage="python -m benchmarks.scale OUT [--recordings N …] -- COMMAND …",
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--recordings", type=int, nargs="+", default=COHORTS, metavar="N")
    if "--" not in words:
        parser.error("give the command after --")
    at = words.index("--")
    given = parser.parse_args(words[:at])
    one = cost(given.out, processor_seconds(words[at + 1 :]))
    print(
        f"a recording: {one.seconds:.0f} s, {one.memory_mb:.0f} MB of memory at most, "
        f"{one.bytes / 1e6:.1f} MB in {one.files:.0f} files\n"
    )
    print(table(one, given.recordings))


if __name__ == "__main__":
    main()
