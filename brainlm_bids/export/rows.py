"""A recording as other programs want it: its series with mean and standard deviation, and names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.recordings import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_tsv
from brainlm_bids.parcels.sampling import rows_with_data, sample

# Keys of the table of outputs by the value of --series
SERIES = {"denoised": "denoised", "robust": "robust", "robustcohort": "cohort_robust"}


@dataclass(frozen=True)
class Row:
    """A recording to be written.

    Attributes
    ----------
    name, participant, session, task, run
        As in the names of its files; empty where there is no such entity.
    path
        Of the series, relative to the output folder.
    parcels
        Names of the P parcels.
    series
        (T, P) without bad volumes: NaN in parcels without data only.
    tr
        Repetition time, s.
    interpolated
        Number of bad volumes within the series that were interpolated.
    site, variables
        Of the tables of participants; empty where they say nothing.
    part
        train, validation or test.
    warnings
        Kinds of the warnings in the sidecar.
    """

    name: str
    participant: str
    session: str
    task: str
    run: str
    path: str
    parcels: tuple[str, ...]
    series: NDArray[np.float64]
    tr: float
    interpolated: int = 0
    site: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    part: str = "train"
    warnings: tuple[str, ...] = ()

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(P,) True for parcels without data."""
        return np.asarray(np.isnan(self.series).any(axis=0))


def read_row(recording: Recording, output_dir_parts: int, *, tr: float | None = None) -> Row:
    """Read a recording of an output folder.

    Parameters
    ----------
    recording
        One that `find_recordings` has found.
    output_dir_parts
        Number of parts of the path of the output folder.
    tr
        Repetition time that the series is brought to, s; None: its own.

    Returns
    -------
    Row
        Volumes before the steady state, and bad ones at both ends, are cut off; bad volumes
        elsewhere are interpolated.

    Raises
    ------
    UserError
        If it cannot be used.
    """
    if recording.status != "included":
        raise UserError(recording.reason)
    sidecar_path = recording.path.with_suffix(".json")
    sidecar = read_json(sidecar_path)
    try:
        own, dummy = float(sidecar["RepetitionTime"]), int(sidecar.get("DummyVolumes") or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{sidecar_path}: has no RepetitionTime ({error})") from None
    names, values = read_tsv(recording.path)
    # the scaled series have lost their dummy volumes
    values = (
        values[dummy:] if recording.path.name.endswith("desc-denoised_timeseries.tsv") else values
    )
    # the scaled series are 0 in parcels without data, which is no number of theirs
    values[:, np.isin(names, sidecar.get("FilledParcels") or [])] = np.nan
    if not np.isfinite(values).any():
        raise UserError(f"{recording.path}: has no data")
    made = sample(values, own, own if tr is None else tr)
    good = rows_with_data(values)
    known = np.flatnonzero(good)
    interpolated = int((~good[known[0] : known[-1] + 1]).sum())
    entities = recording.entities
    return Row(
        name=recording.stem,
        participant=recording.participant,
        session=recording.session_id or "",
        task=entities.get("task", ""),
        run=entities.get("run", ""),
        path="/".join(recording.path.parts[output_dir_parts:]),
        parcels=tuple(names),
        series=made.series,
        tr=made.tr,
        interpolated=interpolated,
        warnings=tuple(replace(recording, sidecar=sidecar).warnings),
    )


def standardised(
    series: NDArray[np.float64],
) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.float32]]:
    """A series with mean 0 and standard deviation 1 per parcel, and what gives it back.

    Parameters
    ----------
    series
        (T, P), NaN in parcels without data.

    Returns
    -------
    scaled : ndarray
        (T, P) float16; 0 in parcels that are constant or have no data.
    mean, sd
        (1, P) float32: `scaled * sd + mean` is the series. The mean of a parcel without data is
        NaN, so that what is given back is no data either; its standard deviation is 0.

    Examples
    --------
    >>> scaled, mean, sd = standardised(np.array([[1.0, np.nan, 5.0], [3.0, np.nan, 5.0]]))
    >>> scaled.tolist(), mean.tolist(), sd.tolist()
    ([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [[2.0, nan, 5.0]], [[1.0, 0.0, 0.0]])
    """
    mean = series.mean(axis=0, keepdims=True)
    sd = np.nan_to_num(series.std(axis=0, keepdims=True))
    # a constant has no more than rounding errors
    sd[sd <= 1e-9 * np.abs(np.nan_to_num(mean))] = 0
    scaled = np.nan_to_num((series - mean) / np.where(sd > 0, sd, np.inf))
    return scaled.astype(np.float16), mean.astype(np.float32), sd.astype(np.float32)


def check_parcels(row: Row, parcels: Sequence[str]) -> None:
    """Refuse a row whose parcels are not these in this order.

    Raises
    ------
    UserError
        If they are not.
    """
    if row.parcels != tuple(parcels):
        raise UserError(f"{row.path}: its parcels are not those of the recordings before it")
