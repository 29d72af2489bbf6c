"""What a call begins with: a summary on the screen, or the table of a dry run."""

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainlm_bids import __version__, messages
from brainlm_bids.app import machine
from brainlm_bids.app.expected import Expected, expect_runs, too_full
from brainlm_bids.app.resources import Resources
from brainlm_bids.app.sizes import size_of
from brainlm_bids.app.status import Row
from brainlm_bids.bids.distortion import NONE
from brainlm_bids.bids.runs import Run
from brainlm_bids.model.devices import choose_device
from brainlm_bids.remaining import roughly
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.plans import RunPlan

COLUMNS = (
    *("file", "to_do", "t1w", "tr_s", "volumes", "field_map", "output_mb", "work_mb", "minutes"),
    "note",
)
COMPLETE = "complete"


# --- the summary -----------------------------------------------------------------------------


def summary(
    settings: Settings, resources: Resources, plans: Sequence[RunPlan], rows: Sequence[Row]
) -> dict[str, str]:
    """What a participant call found, and what it will do, by the words that it is listed under."""
    expected = expect_runs(plans, settings)
    return {
        "version": f"brainlm-bids {__version__}, {' and '.join(settings.analysis_level)} level",
        "inputs": _inputs(settings, plans, rows),
        "to do": _to_do(settings, plans, rows),
        "field maps": _field_maps(plans),
        **about_resources(settings, resources),
        **about_machine(settings, Expected.sum(expected.values())),
    }


def _inputs(settings: Settings, plans: Sequence[RunPlan], rows: Sequence[Row]) -> str:
    entities = [(plan.run.subject, plan.run.session) for plan in plans]
    subjects = {subject for subject, _ in entities} | {row.participant_id for row in rows}
    sessions = {pair for pair in entities if pair[1] is not None}
    sizes = [size_of(plan.run) for plan in plans]
    volumes = sum(size.n_volumes for size in sizes if size is not None)
    counts = {
        "subject": len({str(one).removeprefix("sub-") for one in subjects if one}),
        "session": len(sessions),
        "run": len(plans) + len(rows),
        "volume": volumes,
    }
    said = [number_of(count, word) for word, count in counts.items() if count]
    where = settings.derivatives_dir or settings.bids_dir
    return f"{', '.join(said)} in {where}"


def _to_do(settings: Settings, plans: Sequence[RunPlan], rows: Sequence[Row]) -> str:
    complete = sum(not plan.stages.pending for plan in plans)
    said = [number_of(len(plans) - complete, "run")]
    said += [f"{complete} complete already"] if complete else []
    said += [f"{number} {status}" for status, number in Counter(r.status for r in rows).items()]
    earlier = settings.work_dir / "brainlm_bids"
    if complete < len(plans) and earlier.is_dir():
        said.append("the work folder has steps of an earlier call, which are used if they fit")
    return ", ".join(said)


def _field_maps(plans: Sequence[RunPlan]) -> str:
    methods = Counter(plan.context.distortion.method for plan in plans if not plan.run.timeseries)
    said = [f"{method}: {number}" for method, number in methods.items() if method != NONE]
    said += [f"not corrected for distortion: {methods[NONE]}"] if methods[NONE] else []
    return ", ".join(said)


def about_resources(settings: Settings, resources: Resources) -> dict[str, str]:
    """Atlas, template and models, and where they come from."""
    atlas, models = resources.atlas, []
    for model in resources.models.values():
        where = "random weights" if model.path is None else f"weights in {model.path}"
        models.append(f"{model.label} ({where})")
    return {
        "atlas": f"{atlas.label}, {'embedded' if atlas.path is None else atlas.path}",
        **_parcellations(resources),
        "template": resources.space,
        "models": "; ".join(models) or "none",
    }


def _parcellations(resources: Resources) -> dict[str, str]:
    told = [f"{one.label} ({len(one.labelled.index)})" for one in resources.parcellations]
    return {"parcels": ", ".join(told)} if told else {}


def about_machine(settings: Settings, expected: Expected | None = None) -> dict[str, str]:
    """Processes, memory, device and folders, with what they have and what is needed."""
    cores, memory = machine.available_cores(), machine.available_memory() / 1e9
    given = f"{settings.mem:g} of {memory:.1f}" if settings.mem else f"{memory:.1f}"
    device = choose_device(settings.device) if settings.model != ("none",) else ""
    plugin = settings.use_plugin
    of_cores = "" if plugin else f" on {number_of(cores, 'core')}, {given} GB of memory"
    work, threads = settings.nprocs, number_of(settings.omp_nthreads, "thread")
    processes = "jobs of " + str(plugin) if plugin else number_of(work, "process")
    needed = {} if expected is None else space(settings, expected)
    return {
        "machine": f"{processes} of {threads}{of_cores}{', ' + device if device else ''}",
        "output": f"{settings.output_dir}{_free(needed, 0)}",
        "work folder": f"{settings.work_dir}{_free(needed, 1)}",
    }


def space(settings: Settings, expected: Expected) -> dict[str, tuple[float, float | None]]:
    """Megabytes that are needed and that are free, of the folders of a call."""
    return {
        f"OUTPUT_DIR {settings.output_dir}": (expected.output_mb, _megabytes(settings.output_dir)),
        f"--work-dir {settings.work_dir}": (expected.work_mb, _megabytes(settings.work_dir)),
    }


def _megabytes(folder: Path) -> float | None:
    """Free space of the disk of a folder, which need not exist yet."""
    for one in (folder, *folder.parents):
        if one.is_dir():
            return shutil.disk_usage(one).free / 1e6
    return None


def _free(needed: Mapping[str, tuple[float, float | None]], place: int) -> str:
    if not needed:
        return ""
    mb, free = list(needed.values())[place]
    return "" if free is None else f" (about {_size(mb)} of {_size(free)} that are free)"


def _size(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"


def number_of(number: int, word: str) -> str:
    """A number of things.

    >>> number_of(1, "run"), number_of(2345, "volume"), number_of(4, "process")
    ('1 run', '2,345 volumes', '4 processes')
    """
    ending = "" if number == 1 else "es" if word.endswith("s") else "s"
    return f"{number:,} {word}{ending}"


def tell(listed: Mapping[str, str]) -> None:
    """Write a summary on standard error, on a terminal within its width."""
    width = max(len(word) for word in listed) + 2
    columns = shutil.get_terminal_size().columns if messages.is_terminal(sys.stderr) else 0
    lines = []
    for word, text in listed.items():
        if not text:
            continue
        line = f"{word.ljust(width)}{text}"
        narrow = width if columns > 60 else 2
        wrapped = (
            textwrap.wrap(
                line,
                columns - 1,
                subsequent_indent=" " * narrow,
                break_long_words=False,
                break_on_hyphens=False,
            )
            if columns
            else [line]
        )
        lines += wrapped
    messages.tell("\n".join(lines))


def too_full_folders(settings: Settings, plans: Sequence[RunPlan]) -> list[str]:
    """Folders with less space than is needed, in words."""
    expected = Expected.sum(expect_runs(plans, settings).values())
    return too_full(space(settings, expected))


# --- the dry run -----------------------------------------------------------------------------


def table(settings: Settings, plans: Sequence[RunPlan], rows: Sequence[Row]) -> str:
    """A line per run: what it has and needs, or why it is left out.

    Cells are two or more spaces apart, and hold no two spaces themselves.
    """
    expected = expect_runs(plans, settings)
    lines = [_left_out(row) for row in rows]
    lines += [_planned(plan, expected[plan.run.stem]) for plan in plans]
    return aligned([COLUMNS, *sorted(lines)])


def _left_out(row: Row) -> tuple[str, ...]:
    return (row.source, row.status, *[""] * (len(COLUMNS) - 3), row.reason)


def _planned(plan: RunPlan, expected: Expected) -> tuple[str, ...]:
    run, size = plan.run, size_of(plan.run)
    pending = ", ".join(stage.stage.name for stage in plan.stages.pending)
    distortion = plan.context.distortion
    note = "" if run.timeseries else f"distortion correction: {distortion}"
    return (
        _source(run),
        pending or COMPLETE,
        "" if run.t1w is None else run.t1w.name,
        f"{run.tr:g}",
        "" if size is None else str(size.n_volumes),
        "" if run.timeseries else distortion.method,
        f"{expected.output_mb:.0f}",
        f"{expected.work_mb:.0f}",
        f"{expected.seconds / 60:.1f}",
        note,
    )


def _source(run: Run) -> str:
    inside = run.source.is_relative_to(run.bids_dir)
    return run.source.relative_to(run.bids_dir).as_posix() if inside else str(run.source)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns; an empty one is n/a, and white space within one is a single space."""
    cells = [[" ".join(cell.split()) or "n/a" for cell in line] for line in lines]
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
    )


def totals(settings: Settings, plans: Sequence[RunPlan]) -> dict[str, str]:
    """What all runs need, against what there is."""
    expected = Expected.sum(expect_runs(plans, settings).values())
    pending = sum(bool(plan.stages.pending) for plan in plans)
    hours = roughly(expected.wall(settings.nprocs, pending)) if pending else "none"
    cpu = roughly(expected.seconds) if pending else "none"
    return {
        "time": f"about {hours} with --nprocs {settings.nprocs} ({cpu} on one core, without a GPU)",
        **about_machine(settings, expected),
    }
