"""What a cohort costs, from what a finished output folder cost.

    python -m benchmarks.scale OUT [--cpu-seconds S] [--recordings N …]

Seconds and memory are those of the status tables (wall time inside the nodes, so on an idle
machine); --cpu-seconds gives the processor time of a whole recording instead, as `time` measured
it, which a busy machine does not lengthen. Files and bytes are counted.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.outputs import read_rows

COHORTS = (100, 10_000, 76_296)  # the last: recordings of UK Biobank with 490 volumes


class Cost(NamedTuple):
    """Of one recording: processor seconds, peak memory in MB, bytes and number of files kept."""

    seconds: float
    memory_mb: float
    bytes: float
    files: float


def cost(out: Path, cpu_seconds: float | None = None) -> Cost:
    """The mean of the recordings that are done in an output folder; memory is the largest.

    Raises ValueError if none is.
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
    seconds = [float(row["seconds"]) for row in done.values()]
    return Cost(
        sum(seconds) / len(seconds) if cpu_seconds is None else cpu_seconds,
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
    """Print what a recording cost, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cpu-seconds", type=float, metavar="S")
    parser.add_argument("--recordings", type=int, nargs="+", default=COHORTS, metavar="N")
    given = parser.parse_args(argv)
    one = cost(given.out, given.cpu_seconds)
    print(
        f"a recording: {one.seconds:.0f} s, {one.memory_mb:.0f} MB of memory at most, "
        f"{one.bytes / 1e6:.1f} MB in {one.files:.0f} files\n"
    )
    print(table(one, given.recordings))


if __name__ == "__main__":
    main()
