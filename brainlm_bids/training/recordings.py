"""Training data: the scaled series in an output folder of brainlm-bids.

The folder is one that the participant (or group) level has written. Recordings come in the order of
their names, each with its series (T, 424), or the reason in one line why it has none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.derivatives import Recording, find_recordings
from brainlm_bids.errors import UserError
from brainlm_bids.resources import parcels

Array = NDArray[np.float32]
# --series -> key in the table of outputs
SERIES = {"robust": "robust", "robustcohort": "cohort_robust"}


class Example(NamedTuple):
    """A recording to train on.

    Attributes
    ----------
    name, subject
        `sub-01_ses-1_task-rest`, `sub-01`.
    series
        The scaled series (T, P); None where it cannot be used.
    reason
        Why there is none, in one line.
    """

    name: str
    subject: str
    series: Array | None
    reason: str = ""


def check_series(values: NDArray[np.floating], name: str) -> None:
    """Refuse values that no network should be trained on.

    Parameters
    ----------
    values
        (T, P).
    name
        Named in the message.

    Raises
    ------
    UserError
        For a wrong shape, values that are not finite, or zeros throughout.
    """
    if values.ndim != 2 or not values.size:
        raise UserError(f"{name}: has the shape {values.shape}; expected volumes × parcels")
    n_bad = int((~np.isfinite(values)).any(axis=0).sum())
    if n_bad:
        raise UserError(f"{name}: has missing or infinite values in {n_bad} parcels")
    if not values.any():
        raise UserError(f"{name}: is zero throughout: no parcel has data")


def find_series(
    output_dir: Path, *, series: str = "robust", space: str | None = None, atlas: str | None = None
) -> list[Recording]:
    """Find the recordings of an output folder that have a scaled series.

    Parameters
    ----------
    output_dir
        The folder.
    series
        `robust` (scaled with the recording's own statistics) or `robustcohort` (with the cohort's,
        from the group level).
    space, atlas
        Needed where the folder has series in several.

    Returns
    -------
    list of Recording
        In the order of their names.

    Raises
    ------
    UserError
        If there is none, or there are several kinds.
    """
    return find_recordings(output_dir, SERIES[series], space=space, atlas=atlas)


def read_series(recording: Recording) -> Array:
    """Read the scaled series of a recording.

    Parameters
    ----------
    recording
        The recording.

    Returns
    -------
    ndarray
        (T, 424) float32.

    Raises
    ------
    UserError
        If it cannot be used.
    """
    values = recording.read(parcels().names)
    check_series(values, str(recording.path))
    return values.astype(np.float32)


def read_all(recordings: Sequence[Recording]) -> Iterator[Example]:
    """Read recordings in turn.

    Parameters
    ----------
    recordings
        The recordings.

    Yields
    ------
    Example
        The series, or why it cannot be used.
    """
    for recording in recordings:
        try:
            yield Example(recording.stem, recording.participant, read_series(recording))
        except UserError as error:
            yield Example(recording.stem, recording.participant, None, str(error))
