"""`load_derivatives`: the tables of an output folder as DataFrames, one row per recording."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from brainlm_bids import files
from brainlm_bids.api.errors import value_errors
from brainlm_bids.bids.cohort import all_recordings
from brainlm_bids.bids.derivatives import Derivative, find_derivatives
from brainlm_bids.bids.identifiers import match_ids
from brainlm_bids.bids.names import with_prefix, without_prefix
from brainlm_bids.bids.participants import read_variables
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cells import is_missing
from brainlm_bids.cohort.coding import NUMBER, understand
from brainlm_bids.errors import UserError

KEYS = ["participant_id", "session_id", "task", "run", "recording"]
KIND = ["model", "scaling"]
# Table of `Derivatives` -> key in the table of outputs.
_TABLES = {"embeddings": "recording_embedding", "windows": "embeddings", "metrics": "metrics"}


@dataclass(frozen=True)
class Derivatives:
    """The tables of a cohort; every table has the columns of `recordings`' names first.

    Attributes
    ----------
    recordings
        A row per recording: participant_id, session_id, task, run, recording (the stem of its
        files), repetition_time, mean_fd, coverage, then the columns of participants.tsv.
    embeddings
        A row per recording, model and scaling: the mean embedding. scaling: the statistics with
        which the series were scaled, of the `recording` itself (unless --scaling-stats was given)
        or of the `cohort`.
    windows
        A row per window, model and scaling: onset, duration, embedding.
    metrics
        A row per recording, model, scaling, mask ratio and predictor: mse, mae, r2, pearson_r.
    """

    recordings: pd.DataFrame
    embeddings: pd.DataFrame
    windows: pd.DataFrame
    metrics: pd.DataFrame

    def features(self, model: str | None = None, scaling: str | None = None) -> pd.DataFrame:
        """(recordings, D) embeddings of one model, indexed by recording: the X of a decoding.

        Parameters
        ----------
        model
            Label of the model. May be left out if the folder has only one.
        scaling
            Statistics with which the series were scaled: `recording` or `cohort`. May be left out
            if the model was given series of one kind only.

        Raises
        ------
        ValueError
            If there are several kinds of embeddings and none is named, or none of that kind.
        """
        table = self.embeddings
        for column, label in (("model", model), ("scaling", scaling)):
            labels = sorted(table[column].unique()) if column in table else []
            if label is None and len(labels) != 1:
                raise ValueError(f"the folder has embeddings of {column} {labels}; name one")
            if label is not None and label not in labels:
                raise ValueError(f"no embeddings of {column} {label!r}; there are {labels}")
            table = table[table[column] == (label or labels[0])]
        chosen = table.set_index("recording")
        leading = [*KEYS, *KIND, "onset", "duration", "n_windows"]
        return chosen.drop(columns=leading, errors="ignore").dropna(axis=1, how="all")


def load_derivatives(
    output_dir: str | Path, participants: str | Path | pd.DataFrame | None = None
) -> Derivatives:
    """Load what `brainlm-bids … participant` wrote, with the participants' variables joined.

    Parameters
    ----------
    output_dir
        The output folder.
    participants
        participants.tsv, or a DataFrame with the column participant_id (and session_id). By
        default participants.tsv in the output folder, in the data set that its
        dataset_description.json names as source, or two folders above (`BIDS/derivatives/NAME`).

    Returns
    -------
    Derivatives

    Raises
    ------
    ValueError
        If the folder holds no recording, or the table of participants cannot be read.
    """
    folder = Path(output_dir)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    with value_errors():
        recordings = all_recordings(folder)
    if not recordings:
        raise ValueError(f"{folder}: holds no recordings of brainlm-bids")
    table = pd.DataFrame([_row(recording) for recording in recordings])
    people = _participants(folder, participants)
    table = _joined(table, people, recordings, needed=participants is not None)
    known = {(one.naming.stem, one.naming.space, one.naming.atlas): one for one in recordings}
    tables = {name: _table(find_derivatives(folder, [key]), known) for name, key in _TABLES.items()}
    return Derivatives(table, tables["embeddings"], tables["windows"], tables["metrics"])


def _keys(recording: Recording) -> dict[str, Any]:
    entities = recording.entities
    return {
        "participant_id": recording.participant,
        "session_id": recording.session_id,
        "task": entities.get("task"),
        "run": entities.get("run"),
        "recording": recording.stem,
    }


def _row(recording: Recording) -> dict[str, Any]:
    return {
        **_keys(recording),
        "repetition_time": recording.sidecar.get("RepetitionTime"),
        "mean_fd": recording.mean_fd,
        "coverage": recording.coverage,
    }


def _table(
    found: Sequence[Derivative], recordings: Mapping[tuple[str, str, str], Recording]
) -> pd.DataFrame:
    """Files of one kind as one table: whose they are, of which model, and their columns."""
    frames = []
    for one in found:
        recording = recordings.get((one.naming.stem, one.naming.space, one.naming.atlas))
        if recording is None:
            continue
        frame = pd.read_csv(one.path, sep="\t", na_values=["n/a"])
        kind = {"model": one.model, "scaling": one.naming.scaling or "recording"}
        for place, (column, value) in enumerate({**_keys(recording), **kind}.items()):
            frame.insert(place, column, value)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*KEYS, *KIND])


def _participants(folder: Path, given: str | Path | pd.DataFrame | None) -> Any:
    if given is not None:
        return given
    candidates = [folder, *_sources(folder), *folder.resolve().parents[1:2]]
    return next(
        (c / "participants.tsv" for c in candidates if (c / "participants.tsv").is_file()), None
    )


def _sources(folder: Path) -> list[Path]:
    """Source data sets that the folder's description names by a path of this machine."""
    path = folder / "dataset_description.json"
    if not path.is_file():
        return []
    with value_errors():
        links = files.read_json(path).get("DatasetLinks") or {}
    return [Path(str(link).removeprefix("file://")) for link in links.values()]


def _joined(
    table: pd.DataFrame, participants: Any, recordings: Sequence[Recording], *, needed: bool
) -> pd.DataFrame:
    if participants is None:
        return table
    if isinstance(participants, pd.DataFrame):
        return _merged(table, participants)
    with value_errors():
        stems = [recording.stem for recording in recordings]
        found = read_variables(None, Path(participants), stems, needed=needed)
    for one in found.notices:
        warnings.warn(one.text, stacklevel=3)
    for name, cells in found.columns.items():
        table[name if name not in table else f"{name}_participants"] = _typed(name, cells)
    return table


def _typed(name: str, cells: Sequence[str | None]) -> pd.Series:
    """A column as numbers, without codes for missing values, if all of its cells are numbers."""
    try:
        coded = understand(name, cells, kind=NUMBER)
    except UserError:
        return pd.Series([None if is_missing(cell) else cell for cell in cells], dtype=object)
    for doubt in coded.doubts:
        warnings.warn(f"{name}: {doubt}", stacklevel=4)
    return pd.Series(coded.numbers)


def _merged(table: pd.DataFrame, participants: pd.DataFrame) -> pd.DataFrame:
    """The table with a user's own; labels may have their prefixes or not."""
    if "participant_id" not in participants:
        raise ValueError("the table of participants has no column participant_id")
    entities = {"participant_id": "sub", "session_id": "ses"}
    shared = [key for key in entities if key in participants]
    given = participants.copy()
    given["participant_id"] = _known_ids(given["participant_id"], table["participant_id"])
    for key in shared:
        given[key] = [with_prefix(entities[key], str(label)) for label in given[key]]
    twice = given[given.duplicated(shared)]
    if len(twice):
        raise ValueError(
            f"the table of participants has two rows for {' '.join(twice[shared].iloc[0])}"
        )
    if not given["participant_id"].isin(table["participant_id"]).any():
        label = given["participant_id"].iloc[0]
        raise ValueError(f"no participant_id of the table, such as {label!r}, is in the folder")
    return table.merge(given, on=shared, how="left")


def _known_ids(given: pd.Series, known: pd.Series) -> list[str]:
    """Ids in the spelling of the recordings, where it is clear whose they are."""
    theirs = [without_prefix("sub", str(label)) for label in given]
    ours = [without_prefix("sub", label) for label in known.unique()]
    labels = {spelled: label for label, spelled in match_ids(ours, theirs).items()}
    return [labels.get(label, label) for label in theirs]
