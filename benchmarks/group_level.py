"""Time and memory of the group level by stage, at 100, 1,000 and 10,000 recordings.

    python -m benchmarks.group_level FOLDER [--recordings N …] [options of the group level]

The derivatives are those of `benchmarks.many_recordings`, and the calls are the program's own, each
in a process of its own: one with `--model none`, which computes the statistics and scales every
recording; then, with the outputs of the model made complete by the generator (they are a
recording's own, as at participant level), one with `--target age group
noise`, which makes everything else. Seconds are the processor's, of the stage alone, which a busy
machine does not lengthen; memory is the largest resident size of the whole process in the stage.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.many_recordings import OPTIONS, complete, write_cohort
from brainlm_bids.commands.bids_app import main as brainlm_bids
from brainlm_bids.commands.bids_app import parse

TARGETS = ("age", "group", "noise")
COHORTS = (100, 1_000, 10_000)
KEEP_S = 10.0
OTHER = "graphs, and the rest"
# What a call does outside of its nodes: module, name, words of the table
STAGES = (
    ("brainlm_bids.app.group", "Cohort.find", "reading records and sidecars"),
    ("brainlm_bids.app.group", "_plan", "planning the recordings"),
    ("brainlm_bids.app.summary", "_summary", "planning tables and decoding"),
    ("brainlm_bids.app.group", "_write_methods", "methods"),
    ("brainlm_bids.app.group", "_write_report", "report"),
    ("brainlm_bids.app.group", "_index", "index"),
    ("brainlm_bids.files", "_numbers", "reading numbers from text"),
)
READING = STAGES[-1][-1]


class Probe:
    """CPU seconds and largest memory by stage; a stage within another counts for itself alone.

    kept: a file for the stages that have ended, since those of a call that is stopped count, too.
    """

    def __init__(self, kept: Path) -> None:
        self._kept, self._written = kept, 0.0
        self.seconds: dict[str, float] = {}
        self.memory_mb: dict[str, float] = {}
        self.reading = 0.0
        self._within = 0.0
        self._peak = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done in the block."""
        outer, self._within = self._within, 0.0
        outer_peak, self._peak = max(self._peak, peak_memory_mb()), 0.0
        forget_peak_memory()
        started = time.process_time()
        try:
            yield
        finally:
            took = time.process_time() - started
            peak = max(self._peak, peak_memory_mb())
            self.seconds[name] = self.seconds.get(name, 0.0) + took - self._within
            self.memory_mb[name] = max(self.memory_mb.get(name, 0.0), peak)
            self._within = outer + took
            self._peak = max(outer_peak, peak)
            self._keep()

    def _keep(self) -> None:
        if time.monotonic() > self._written + KEEP_S:
            self._written = time.monotonic()
            self._kept.write_text(json.dumps(self.stages))

    @property
    def stages(self) -> dict[str, list[float]]:
        """Name to seconds and MB."""
        return {name: [s, self.memory_mb[name]] for name, s in self.seconds.items()}

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, as a stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return call

    def timed_reading(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The reader of tables, which is a part of other stages."""

        def call(*arguments: Any) -> Any:
            started = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.reading += time.process_time() - started

        return call


def peak_memory_mb() -> float:
    """The largest resident size of this process since it was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak_memory() -> None:
    """Measure the largest resident size anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def call(words: Sequence[str], kept: Path) -> dict[str, Any]:
    """Run brainlm-bids in this process, and measure its stages."""
    from brainlm_bids.interfaces.array_interface import ArrayInterface

    probe = Probe(kept)
    for module, name, title in STAGES[:-1]:
        owner, (*parents, last) = import_module(module), name.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, last, probe.wrapped(getattr(owner, last), title))
    files = import_module("brainlm_bids.files")
    files._numbers = probe.timed_reading(files._numbers)
    compute = ArrayInterface._run_interface

    def run_interface(self: ArrayInterface, runtime: Any) -> Any:
        with probe.stage(_title(self)):
            return compute(self, runtime)

    ArrayInterface._run_interface = run_interface
    with probe.stage(OTHER):
        code = brainlm_bids([*words])
    return {
        "code": code,
        "reading": probe.reading,
        "stages": probe.stages,
    }


def _title(interface: Any) -> str:
    """Words for an interface of Nipype; decodings by their readout."""
    name = type(interface).__name__
    if name != "Decode":
        return name
    from brainlm_bids.cohort.sources import by_name

    source = by_name(interface.inputs.source)
    return f"Decode, {'connectivity' if source.features == 'connectivity' else source.kind}"


def call_words(folder: Path) -> list[str]:
    """What both calls on a cohort begin with; nodes run in the call's own process."""
    plugin = folder / "plugin.yml"
    plugin.write_text("plugin: Linear\n")
    paths = [str(folder / "bids"), str(folder / "out"), "group", "-w", str(folder / "work")]
    return [*paths, "--use-plugin", str(plugin), *OPTIONS]


def measured(words: Sequence[str], log: Path) -> dict[str, Any]:
    """`call` in a new process; its screen goes to a file."""
    command = [sys.executable, "-m", "benchmarks.group_level", "--call", json.dumps([*words])]
    command += ["--kept", str(log.with_suffix(".json"))]
    with log.open("w") as screen:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=screen, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result["code"]:
        raise SystemExit(f"the call failed, see {log}: {' '.join(words)}")
    return result


def measure(folder: Path, n_recordings: int, options: Sequence[str]) -> dict[str, Any]:
    """Both calls on a cohort in a new folder: seconds and memory by stage."""
    write_cohort(folder, n_recordings)
    words = call_words(folder)
    first = measured([*words, "--model", "none"], folder / "first.log")
    second = [*words, "--model", "random:tiny", "--target", *TARGETS, *options]
    complete(parse(second), folder)
    return {"first": first, "second": measured(second, folder / "second.log")}


def table(results: dict[int, dict[str, Any]]) -> str:
    """Markdown: a row per stage of both calls, seconds and MB for each size of a cohort."""
    lines = ["| | " + " | ".join(f"{n:,}" for n in results) + " |"]
    lines.append("|---|" + "---:|" * len(results))
    for part in ("first", "second"):
        names = dict.fromkeys(name for one in results.values() for name in one[part]["stages"])
        for name in names:
            cells = [one[part]["stages"].get(name) for one in results.values()]
            texts = ["" if cell is None else f"{cell[0]:.1f} s, {cell[1]:.0f} MB" for cell in cells]
            lines.append(f"| {name} | {' | '.join(texts)} |")
        totals = [sum(s for s, _ in one[part]["stages"].values()) for one in results.values()]
        peaks = [max(m for _, m in one[part]["stages"].values()) for one in results.values()]
        texts = [f"{s:.0f} s, {m:.0f} MB" for s, m in zip(totals, peaks, strict=True)]
        lines.append(f"| the whole call | {' | '.join(texts)} |")
        shares = [one[part]["reading"] / t for one, t in zip(results.values(), totals, strict=True)]
        lines.append(f"| … {READING} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the arguments say, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--recordings", type=int, nargs="+", default=COHORTS)
    parser.add_argument("--call", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    given, options = parser.parse_known_args(argv)
    if given.call is not None:
        print(json.dumps(call(given.call, given.kept)))
        return
    results = {n: measure(given.folder / f"{n}", n, options) for n in given.recordings}
    print(table(results))


if __name__ == "__main__":
    main()
