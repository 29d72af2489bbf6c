"""What the group level starts from: the recordings in the output folder, and their variables.

What comes in: an output folder that `participant` has filled, and tables with a row per
participant. What goes out: `Recording` values, each with its quality and, if it does not count,
the reason in one line; columns of variables, a text per recording.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from brainlm_bids.bids.names import build, matches, parse, without_prefix
from brainlm_bids.bids.outputs import Naming, changed, output_table, read_record, record_path
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_rows
from brainlm_bids.notices import Kind, Notice, from_json, notice
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.settings import Settings

INCLUDED, EXCLUDED, FAILED = "included", "excluded", "failed"
# What all recordings of a cohort should share.
PREPROCESSING = ("Denoising", "HighPassCutoff", "LowPassCutoff", "Atlas", "Template", "GeneratedBy")


@dataclass(frozen=True)
class Recording:
    """The denoised series of one run: where it is, how good it is, and whether it counts."""

    naming: Naming
    configuration: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict, hash=False)
    coverage: float | None = None
    status: str = INCLUDED
    reason: str = ""

    @property
    def stem(self) -> str:
        """File name without description, suffix and extension."""
        return self.naming.stem

    @property
    def entities(self) -> dict[str, str]:
        """BIDS entities of the recording, as spelled in its file names."""
        return parse(self.stem).entities

    @property
    def participant(self) -> str:
        """Participant as in the file names, such as `sub-01`."""
        return self.naming.subject

    @property
    def session(self) -> str | None:
        """Label of the session, None without one."""
        return self.entities.get("ses")

    @property
    def series(self) -> Path:
        """Path of the denoised parcel series."""
        return self.naming.path("denoised")

    @property
    def warnings(self) -> list[str]:
        """Kinds of the warnings in the sidecar, without repetitions."""
        return list(dict.fromkeys(one.kind for one in from_json(self.sidecar.get("Warnings"))))

    @property
    def mean_fd(self) -> float | None:
        """Mean framewise displacement in mm, None if the sidecar does not report it."""
        return self.sidecar.get("MeanFramewiseDisplacement")

    def left_out(self, status: str, reason: str) -> "Recording":
        """Return the same recording, marked as excluded for a reason."""
        return dataclasses.replace(self, status=status, reason=reason)


def find_recordings(settings: Settings, space: str, atlas: str) -> list[Recording]:
    """All recordings of the selection in OUTPUT_DIR, in the order of their names.

    Where the folder has no series in `space`, but in one other, they are those.

    Raises
    ------
    UserError
        If there is none.
    """
    out = settings.output_dir
    names = [parse(path.name) for path in _denoised(out) if selected(path, settings)]
    names = [name for name in names if name.get("atlas") == atlas]
    spaces = {name.get("space") for name in names}
    if space not in spaces and len(spaces) == 1:
        space = spaces.pop()
    stems = sorted(name.source for name in names if name.get("space") == space)
    if not stems:
        raise UserError(_nothing(out, space, atlas))
    found = [_read(Naming(str(out), stem, space, atlas)) for stem in stems]
    return [_judged(one, settings) for one in found]


def all_recordings(out: Path) -> list[Recording]:
    """All recordings in an output folder, whatever their space and atlas, in order of their names.

    None is judged; one whose files are not whole is there with the reason.
    """
    names = [parse(path.name) for path in _denoised(out)]
    return [
        _read(Naming(str(out), name.source, name.get("space"), name.get("atlas"))) for name in names
    ]


def model_labels(recording: Recording) -> list[str]:
    """Labels of the models that have embedded a recording, in alphabetical order."""
    out = Path(recording.naming.output_dir)
    records = record_path(out, recording.stem, "*")
    labels = [
        path.stem.removeprefix(f"{recording.stem}_") for path in records.parent.glob(records.name)
    ]
    return sorted(
        label for label in labels if recording.naming.path("embeddings", model=label).is_file()
    )


def _denoised(out: Path) -> list[Path]:
    """The denoised series in an output folder."""
    row = output_table()["denoised"]
    ending = build("", {"desc": row["desc"]}, row["suffix"], row["extension"])
    return sorted(out.glob(f"sub-*/**/{row['datatype']}/*_{ending}"))


def _nothing(out: Path, space: str, atlas: str) -> str:
    others = _denoised(out)
    if not others:
        return f"{out}: holds no parcel series; run the level participant first"
    example = parse(others[0].name)
    return (
        f"{out}: no series of the selection with space-{space} and atlas-{atlas}; the folder has, "
        f"for example, space-{example.get('space')} and atlas-{example.get('atlas')}: give the "
        "same --atlas, --template and labels as for participant"
    )


class Selection(Protocol):
    """Entities that a call is restricted to; an empty tuple selects everything."""

    @property
    def participant_label(self) -> tuple[str, ...]:
        """Labels of participants, without `sub-`."""

    @property
    def session_label(self) -> tuple[str, ...]:
        """Labels of sessions, without `ses-`."""

    @property
    def task_id(self) -> tuple[str, ...]:
        """Labels of tasks, without `task-`."""

    @property
    def run_id(self) -> tuple[str, ...]:
        """Indices of runs, without `run-`."""


def selected(path: Path, chosen: Selection) -> bool:
    """Whether a file's entities are among the chosen ones."""
    wanted = {
        "sub": chosen.participant_label,
        "ses": chosen.session_label,
        "task": chosen.task_id,
        "run": chosen.run_id,
    }
    return matches(parse(path.name).entities, wanted)


def _read(naming: Naming) -> Recording:
    """A recording with its sidecar and coverage, or with what is wrong with its files."""
    record = read_record(Path(naming.output_dir), naming.stem, "series")
    series = naming.path("denoised").relative_to(naming.output_dir).as_posix()
    if record is None or series not in record[1]:
        return Recording(naming).left_out(
            FAILED, f"{naming.stem}: its series were not finished; run participant again"
        )
    missing = changed(Path(naming.output_dir), record[1])
    if missing is not None:
        return Recording(naming).left_out(
            FAILED, f"{missing}: is missing or not as it was written; run participant again"
        )
    try:
        sidecar = read_json(naming.path("denoised", extension=".json"))
        coverage = _coverage(naming, sidecar)
        float(sidecar["RepetitionTime"]), int(sidecar["DummyVolumes"])
    except UserError as error:
        return Recording(naming).left_out(FAILED, f"{naming.stem}: {error}")
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        kind = type(error).__name__
        return Recording(naming).left_out(
            FAILED, f"{naming.stem}: sidecar or coverage cannot be read ({kind}: {error})"
        )
    return Recording(naming, record[0], sidecar, coverage)


def _coverage(naming: Naming, sidecar: dict[str, Any]) -> float:
    """Mean covered fraction of the parcels; of a series made elsewhere, the share with data."""
    path = naming.path("coverage")
    if path.is_file():
        fractions = [float(row["fraction"]) for row in read_rows(path)]
        return sum(fractions) / len(fractions)
    return 1.0 - len(sidecar["MissingParcels"]) / N_PARCELS


def _judged(one: Recording, settings: Settings) -> Recording:
    """Left out if it moved too much, or covers too little."""
    if one.status != INCLUDED or one.coverage is None:
        return one
    limit = settings.max_mean_fd
    if limit is not None and one.mean_fd is not None and one.mean_fd > limit:
        reason = f"mean FD {one.mean_fd:.3g} mm is above {limit:g} (--max-mean-fd)"
        return one.left_out(EXCLUDED, reason)
    if one.coverage < settings.min_coverage:
        share = f"covers {one.coverage:.3g} of the parcels on average"
        return one.left_out(
            EXCLUDED, f"{share}, less than {settings.min_coverage:g} (--min-coverage)"
        )
    return one


def mixed_settings(recordings: Sequence[Recording]) -> list[Notice]:
    """A warning for every setting of the preprocessing in which recordings differ."""
    warnings = []
    for key in PREPROCESSING:
        values: dict[str, list[str]] = {}
        for one in recordings:
            text = json.dumps(one.sidecar.get(key), sort_keys=True)
            values.setdefault(text, []).append(one.stem)
        if len(values) > 1:
            rarest = min(values.values(), key=lambda stems: (len(stems), stems))
            text = (
                f"Recordings differ in {key}: {len(rarest)} of {len(recordings)}, for example "
                f"{rarest[0]}, are not like the others. They should be preprocessed alike."
            )
            warnings.append(notice(Kind.MIXED_SETTINGS, text))
    return warnings


# --- variables of the participants -----------------------------------------------------------

Columns = dict[str, list[str | None]]


def read_variables(
    bids_dir: Path, phenotype: Path | None, recordings: Sequence[Recording]
) -> Columns:
    """Columns of participants.tsv and of a phenotype file, a value per recording.

    A table with session_id is matched by session too. A column in both files is that of the
    phenotype file. Raises UserError for a file that is no such table.
    """
    columns: Columns = {}
    participants = bids_dir / "participants.tsv"
    for path in [participants] if participants.is_file() else []:
        columns |= _matched(path, recordings)
    if phenotype is not None:
        columns |= _matched(phenotype, recordings)
    return columns


def _matched(path: Path, recordings: Sequence[Recording]) -> Columns:
    rows = read_rows(path)
    if not rows or "participant_id" not in rows[0]:
        raise UserError(f"{path}: has no column participant_id, or no rows")
    by_session = "session_id" in rows[0]
    table: dict[tuple[str, str | None], dict[str, str]] = {}
    for row in rows:
        key = _key(row["participant_id"], row["session_id"] if by_session else None)
        if key in table:
            raise UserError(
                f"{path}: two rows for {' '.join(part for part in key if part)}; one per "
                "participant (and session_id) is expected"
            )
        table[key] = row
    names = [name for name in rows[0] if name not in {"participant_id", "session_id"}]
    found = [table.get(_key(r.participant, r.session if by_session else None)) for r in recordings]
    return {name: [None if row is None else row[name] for row in found] for name in names}


def _key(participant: str, session: str | None) -> tuple[str, str | None]:
    return without_prefix("sub", participant), session and without_prefix("ses", session)
