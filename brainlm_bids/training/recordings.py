"""What training starts from: the scaled series in an output folder of brainlm-bids.

A folder that the level participant (or group) has filled comes in. The recordings go out in the
order of their names, each with its series (T, 424), or the reason in one line why it has none.
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
    """A recording to learn from.

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
    """Raise UserError, with `name`, for values (T, P) that no network should learn from."""
    if values.ndim != 2 or not values.size:
        raise UserError(f"{name}: has the shape {values.shape}; expected volumes × parcels")
    n_bad = int((~np.isfinite(values)).any(axis=0).sum())
    if n_bad:
        raise UserError(f"{name}: holds missing or infinite values in {n_bad} parcels")
    if not values.any():
        raise UserError(f"{name}: is zero throughout: no parcel has data")


def find_series(
    output_dir: Path, *, series: str = "robust", space: str | None = None, atlas: str | None = None
) -> list[Recording]:
    """The recordings of an output folder that have a scaled series.

    Parameters
    ----------
    output_dir
        The folder.
    series
        `robust` (scaled with the recording's own statistics) or `robustcohort` (with the cohort's,
        by the level group).
    space, atlas
        Needed where the folder has series in several.

    Raises
    ------
    UserError
        If there is none, or there are several kinds.
    """
    return find_recordings(output_dir, SERIES[series], space=space, atlas=atlas)


def read_series(recording: Recording) -> Array:
    """The scaled series (T, 424) of a recording; UserError for one that cannot be used."""
    values = recording.read(parcels().names)
    check_series(values, str(recording.path))
    return values.astype(np.float32)


def read_all(recordings: Sequence[Recording]) -> Iterator[Example]:
    """Each recording in turn, or why it cannot be used."""
    for recording in recordings:
        try:
            yield Example(recording.stem, recording.participant, read_series(recording))
        except UserError as error:
            yield Example(recording.stem, recording.participant, None, str(error))
