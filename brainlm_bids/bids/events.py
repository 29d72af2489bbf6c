"""Events of a run: what was shown or done when, from `events.tsv` of the raw data.

A recording's name comes in, and its events go out: onset and duration in seconds from the beginning
of the first stored volume, and the word of one column.
"""

import math
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.names import parse
from brainlm_bids.cells import as_number, is_missing
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows


class Event(NamedTuple):
    """An event.

    Attributes
    ----------
    onset, duration
        In s; the onset counts from the first stored volume. A duration that the table does not
        know is 0.
    state
        The word of the column.
    """

    onset: float
    duration: float
    state: str


def find_events(stem: str, bids_dir: Path) -> Path | None:
    """The table of events of a recording, by BIDS' inheritance.

    Parameters
    ----------
    stem
        Name of the recording, without what derivatives add.
    bids_dir
        The raw data set.

    Returns
    -------
    Path or None
        Of the tables that hold for the recording the nearest to it, and of these the one with the
        most entities; None if there is none.
    """
    recording = parse(stem)
    folder = bids_dir / recording.subject
    if "ses" in recording.entities:
        folder /= f"ses-{recording.entities['ses']}"
    # of several echoes, events are one table
    wanted = {key: label for key, label in recording.entities.items() if key != "echo"}
    for place in (folder / "func", folder, bids_dir / recording.subject, bids_dir):
        held = []
        for path in place.glob("*events.tsv"):
            name = parse(path.name)
            if name.suffix == "events" and name.entities.items() <= wanted.items():
                held.append((len(name.entities), path))
        if held:
            return max(held)[1]
    return None


def read_events(path: Path, column: str) -> list[Event]:
    """Events of a table whose cell in a column is not missing, in the order of their onsets.

    Parameters
    ----------
    path
        A table of events.
    column
        Whose words are the states, such as `trial_type`.

    Returns
    -------
    list of Event
        Empty if the column names no state.

    Raises
    ------
    UserError
        If the file is no table of events, or lacks the column.
    """
    rows = read_rows(path)
    known = list(rows[0]) if rows else []
    missing = [name for name in ("onset", "duration", column) if name not in known]
    if rows and missing:
        raise UserError(f"{path}: has no column {missing[0]}; it has {', '.join(known)}")
    events = []
    for number, row in enumerate(rows, start=2):
        if is_missing(row[column]):
            continue
        onset, duration = as_number(row["onset"]), as_number(row["duration"])
        if math.isnan(onset):
            raise UserError(f"{path}: line {number}: the onset {row['onset']!r} is not a number")
        if math.isnan(duration) and not is_missing(row["duration"]):
            raise UserError(
                f"{path}: line {number}: the duration {row['duration']!r} is not a number"
            )
        if duration < 0:
            raise UserError(f"{path}: line {number}: the duration {row['duration']} is negative")
        length = 0.0 if math.isnan(duration) else duration
        events.append(Event(onset, length, row[column].strip()))
    return sorted(events)
