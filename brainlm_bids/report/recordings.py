"""Every recording of an output folder: what became of it, its numbers, its warnings, its page.

An output folder comes in. A `RecordingSummary` per recording goes out, also for one that failed or
was skipped and of which only the status tables know. The index, the strips of a subject's page and
the page of a cohort are made from them. No broken file stops the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from brainlm_bids.bids.cohort import all_recordings
from brainlm_bids.bids.derivatives import Selection, find_derivatives, selected
from brainlm_bids.bids.names import parse, session_id, sidecar_of, with_prefix
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.recordings import FAILED, Recording
from brainlm_bids.notices import Kind, Level, from_json, gravest_first
from brainlm_bids.report.measured import RunFiles, measured
from brainlm_bids.report.measures import Measure, in_order
from brainlm_bids.report.page import recording_anchor
from brainlm_bids.report.status import latest_rows
from brainlm_bids.report.values import Row, read_json, read_tsv

DONE = "done"
# A recording that an earlier call had finished is as good as one of this call
_STATUS = {"cached": DONE}


@dataclass(frozen=True)
class RecordingSummary:
    """What pages about many recordings show of one.

    Attributes
    ----------
    stem
        How the names of its files begin.
    participant, session, task, run
        As in its name: `sub-01`, `ses-1`, `rest`, `1`; empty where it has none.
    space, atlas
        Of its series; empty where it has none.
    status, reason
        `done`, `failed` or `skipped`, and why it is not done, in one line.
    crash_file
        Relative to the output folder, if it has one there.
    cohort, cohort_reason
        Whether the group level included it, and if not, why; empty before the group level.
    values
        Key of the measure -> number; what is not known is left out.
    warnings
        Kinds of the warnings of its series and its embeddings, the gravest first.
    normalised
        `T1w` or `boldref`: the image that was registered to the template.
    page, section
        The page of its subject relative to the output folder, and its section there; empty where
        there is no page.
    thumbnail
        The small picture of its registration, relative to the output folder; empty without one.
    """

    stem: str
    participant: str = ""
    session: str = ""
    task: str = ""
    run: str = ""
    space: str = ""
    atlas: str = ""
    status: str = DONE
    reason: str = ""
    crash_file: str = ""
    cohort: str = ""
    cohort_reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    warnings: tuple[str, ...] = ()
    normalised: str = "T1w"
    page: str = ""
    section: str = ""
    thumbnail: str = ""

    @property
    def finished(self) -> bool:
        """Whether all of it was computed."""
        return self.status == DONE

    @property
    def href(self) -> str:
        """Link to the section, relative to the output folder; empty where there is no page."""
        return f"{self.page}#{self.section}" if self.page else ""

    @property
    def level(self) -> str:
        """The gravest level of its warnings; empty without warnings."""
        return level_of(self.warnings[0]) if self.warnings else ""

    @property
    def place(self) -> tuple[str, str, str]:
        """What tells it from the others, and sorts them."""
        return self.stem, self.space, self.atlas


@cache
def level_of(kind: str) -> str:
    """The level of a kind of warning; that of a later version's is not known: `warning`.

    >>> level_of("no_t1w"), level_of("of_a_later_version")
    ('warning', 'warning')
    """
    known = {one.value: one.level.value for one in Kind}
    return known.get(kind, Level.WARNING.value)


def gather_recordings(
    output_dir: Path, selection: Selection | None = None, rows: Mapping[str, Row] | None = None
) -> list[RecordingSummary]:
    """Every recording of an output folder, in the order of their names.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    selection
        Subjects, sessions, tasks and runs; None: all.
    rows
        The latest row of the status tables by the name of the recording; None: they are read.

    Returns
    -------
    list of RecordingSummary
        One for each recording, and space and atlas of its series.
    """
    output_dir = Path(output_dir)
    rows = latest_rows(output_dir) if rows is None else rows
    models = _models(output_dir, selection)
    cohort = _cohort(output_dir)
    found = [
        _summary(one, models.get(one.naming, []), rows.get(one.stem), cohort)
        for one in all_recordings(output_dir, selection)
    ]
    known = {one.stem for one in found}
    found += [
        _known_by_status(output_dir, stem, row)
        for stem, row in rows.items()
        if stem not in known and (selection is None or selected(stem, selection))
    ]
    return sorted(found, key=lambda one: one.place)


def measures_of(recordings: Iterable[RecordingSummary]) -> list[Measure]:
    """The measures that at least one recording has, in the order in which pages show them.

    Parameters
    ----------
    recordings
        Of a folder.
    """
    return in_order({key for one in recordings for key in one.values})


# --- one recording ---------------------------------------------------------------------------


def _models(
    output_dir: Path, selection: Selection | None
) -> dict[Naming, list[tuple[str, Path, Path]]]:
    """Label, metrics and sidecar of the embeddings of each model that saw a recording's series."""
    found: dict[Naming, dict[str, dict[str, Path]]] = {}
    for one in find_derivatives(output_dir, ["embeddings", "metrics"], selection):
        if not one.naming.scaling:  # what the group level makes is on the cohort's page
            found.setdefault(one.naming, {}).setdefault(one.model, {})[one.key] = one.path
    return {
        naming: [
            (label, paths.get("metrics", Path()), paths.get("embeddings", Path()))
            for label, paths in sorted(models.items())
        ]
        for naming, models in found.items()
    }


def _summary(
    recording: Recording,
    models: Sequence[tuple[str, Path, Path]],
    row: Row | None,
    cohort: Mapping[tuple[str, str], tuple[str, str]],
) -> RecordingSummary:
    naming, output_dir = recording.naming, Path(recording.naming.output_dir)
    run = RunFiles(naming, recording)
    sidecars = [run.sidecar("denoised"), run.sidecar("robust")]
    sidecars += [read_json(sidecar_of(path)) for _, _, path in models if path.name]
    warnings = [one for sidecar in sidecars for one in from_json(sidecar.get("Warnings"))]
    status, reason = _status(recording, row)
    thumbnail = naming.figure("thumbnail")
    included, why = cohort.get((naming.stem, naming.atlas), ("", ""))
    return replace(
        named(output_dir, naming.stem),
        space=naming.space,
        atlas=naming.atlas,
        status=status,
        reason=reason,
        crash_file=_crash_file(output_dir, row),
        cohort=included,
        cohort_reason=why,
        values=measured(run, [(label, path) for label, path, _ in models if path.name]),
        warnings=tuple(dict.fromkeys(one.kind for one in gravest_first(warnings))),
        normalised="boldref" if sidecars[0].get("Coregistration") is None else "T1w",
        thumbnail=thumbnail.relative_to(output_dir).as_posix() if thumbnail.is_file() else "",
    )


def _known_by_status(output_dir: Path, stem: str, row: Row) -> RecordingSummary:
    """A recording without a series."""
    status, reason = _STATUS.get(row["status"], row["status"]), row["reason"]
    if status == DONE:
        status, reason = FAILED, "its outputs are not in the folder any more"
    one = named(output_dir, stem)
    return replace(
        one,
        status=status,
        reason=reason,
        crash_file=_crash_file(output_dir, row),
        # a subject's page lists what failed, and has no section for what has no file
        section="errors" if one.page else "",
    )


def _status(recording: Recording, row: Row | None) -> tuple[str, str]:
    """What became of a recording; the files on the disk have the last word.

    What a status table says of a finished one is in its warnings.
    """
    status = DONE if row is None else _STATUS.get(row["status"], row["status"])
    if status == DONE and recording.status == FAILED:
        return FAILED, recording.reason
    return status, "" if row is None or status == DONE else row["reason"]


def named(output_dir: Path, stem: str) -> RecordingSummary:
    """What the name of a recording tells, and its page.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    stem
        How the names of its files begin.
    """
    name = parse(stem)
    participant = with_prefix("sub", name.get("sub"))
    page = f"{participant}.html"
    has_page = (output_dir / page).is_file()
    return RecordingSummary(
        stem,
        participant,
        session_id(name.entities) or "",
        name.get("task"),
        name.get("run"),
        page=page if has_page else "",
        section=recording_anchor(stem) if has_page else "",
    )


def _crash_file(output_dir: Path, row: Row | None) -> str:
    """The crash file of a row, if it lies in the output folder."""
    if row is None or not row["crash_file"]:
        return ""
    path = (output_dir / row["crash_file"]).resolve()
    root = output_dir.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else ""


def _cohort(output_dir: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """Whether the group level included a recording, and why not, by its name and atlas."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for table in find_derivatives(output_dir, ["group_recordings"]):
        for row in read_tsv(table.path):
            reason = row.get("reason", "n/a")
            place = row.get("recording", ""), table.naming.atlas
            found[place] = row.get("status", ""), "" if reason == "n/a" else reason
    return found
