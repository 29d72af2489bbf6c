"""What a user may hand in as a parcel series, understood or refused in one line.

Arrays, tables, files and 4-D images come in; `ParcelSeries` goes out: (T, 424) in the order of the
A424 atlas, NaN where a parcel has no data, with its repetition time in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.bids.headers import LONGEST_TR, SHORTEST_TR, tr_mismatch
from brainlm_bids.bids.spreadsheets import numbers
from brainlm_bids.parcels.columns import check_index, check_series, find_columns, match_names
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES, rows_with_data

# One recording: an array (T, 424), a table with a column per parcel, a file, or a 4-D image.
SeriesLike: TypeAlias = Any
# Values, repetition time where it is known, what they came from, notes.
Understood: TypeAlias = tuple[NDArray[np.float64], float | None, str, tuple[str, ...]]


@dataclass(frozen=True)
class ParcelSeries:
    """A recording: values (T, 424) float64 with NaN where there is no data.

    tr: repetition time in seconds. source: what it was made from, for the provenance. notes:
    sentences on what was done or is to be doubted.
    """

    values: NDArray[np.float64]
    tr: float
    source: str
    notes: tuple[str, ...] = ()


def is_many(x: Any) -> bool:
    """Whether `x` holds several recordings: a list, a tuple, or a 3-D array."""
    return isinstance(x, list | tuple) or (isinstance(x, np.ndarray) and x.ndim == 3)


def read_series(x: SeriesLike, tr: float | None = None, *, offline: bool = False) -> ParcelSeries:
    """Read one recording.

    Parameters
    ----------
    x
        Array (T, 424) in the atlas's order; DataFrame whose columns are the parcels' names or
        numbers, in any order; path of a .tsv, .csv, .txt, .dat, .npy or .ptseries.nii; 4-D image,
        or the path of one (.nii, .nii.gz), in MNI152NLin6Asym.
    tr
        Repetition time in seconds. May be omitted where the file, its JSON sidecar or the image's
        header records it.
    offline
        Never download the atlas, by which images are averaged.

    Returns
    -------
    ParcelSeries

    Raises
    ------
    ValueError
        In one line, if the series cannot be right: another number of columns, a transposed
        array, unknown names, no data at all, too few volumes, no repetition time, a damaged file.

    Examples
    --------
    >>> import numpy as np
    >>> series = read_series(np.random.default_rng(0).normal(size=(200, 424)), tr=0.735)
    >>> series.values.shape, series.tr
    ((200, 424), 0.735)
    """
    if isinstance(x, pd.DataFrame):
        found: Understood = (_of_table(x), None, "a DataFrame", ())
    elif isinstance(x, SpatialImage) or _is_image_path(x):
        found = _of_image(x, offline)
    elif isinstance(x, str | Path):
        found = _of_file(Path(x))
    else:
        found = (_of_array(x), None, "an array", ())
        _check_shape(found[0])
    values, known, source, notes = found
    _check_values(values, source)
    used = _repetition_time(tr, known, source)
    if known is not None:
        where = "that the file or its header records"
        doubts = tr_mismatch(source, known, used, where=where, source="of tr=")
        notes = (*notes, *(doubt.text for doubt in doubts))
    return ParcelSeries(values, used, source, notes)


def _of_array(x: Any) -> NDArray[np.float64]:
    if np.iscomplexobj(x):
        raise ValueError("the array is complex; hand in its magnitude")
    try:
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{type(x).__name__}: not an array of numbers ({error})") from None


def _check_shape(values: NDArray[np.float64]) -> None:
    try:
        check_series(values, len(resources.parcels().names), named=False)
    except ValueError as error:
        raise ValueError(f"an array: {error}") from None


def _of_table(table: pd.DataFrame) -> NDArray[np.float64]:
    names = list(resources.parcels().names)
    if match_names([str(name) for name in table.index], names) is not None:
        table = table.T  # a row for each parcel
    places, index = find_columns([str(column) for column in table.columns], names)
    for place in index:
        column = pd.to_numeric(table.iloc[:, place], errors="coerce")
        check_index(column.to_numpy(dtype=np.float64, na_value=np.nan), str(table.columns[place]))
    ordered = table.iloc[:, places]
    try:
        values = ordered.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        values = numbers([[str(cell) for cell in row] for row in ordered.to_numpy().tolist()])
    check_series(values, len(names), named=True)
    return values


def _of_file(path: Path) -> Understood:
    from brainlm_bids.bids.timeseries import read_timeseries

    with value_errors():
        found = read_timeseries(path, resources.parcels().names)
    return found.values, found.tr, path.name, ()


def _is_image_path(x: Any) -> bool:
    if not isinstance(x, str | Path):
        return False
    name = str(x)
    if name.endswith((".dtseries.nii", ".dscalar.nii", ".dlabel.nii")):
        raise ValueError(
            f"{Path(name).name}: holds grayordinates, not parcels; average them first, for "
            "example with wb_command -cifti-parcellate, and pass the .ptseries.nii"
        )
    return name.endswith((".nii", ".nii.gz")) and not name.endswith(".ptseries.nii")


def _of_image(x: Any, offline: bool) -> Understood:
    from brainlm_bids.api.masker import A424Masker, low_coverage

    masker = A424Masker(offline=offline)
    values = np.asarray(masker.fit_transform(x))
    source = "an image" if isinstance(x, SpatialImage) else Path(x).name
    seen = np.asarray(np.isfinite(values).all(axis=0))
    least = masker.min_parcel_coverage
    notes = [low_coverage(seen, least), *(str(warning) for warning in masker.atlas_.warnings)]
    n_missing = int((~seen).sum())
    if n_missing:
        notes.append(f"{n_missing} parcels are covered by less than {least:.0%}: they are missing")
    tr = masker.t_r_ if isinstance(masker.t_r_, float) else None
    return values, tr, source, tuple(note for note in notes if note)


def _check_values(values: NDArray[np.float64], source: str) -> None:
    if len(values) < MINIMUM_VOLUMES:
        raise ValueError(f"{source}: {len(values)} volumes; {MINIMUM_VOLUMES} are needed")
    values = values[rows_with_data(values)]
    finite = np.isfinite(values).all(axis=0)
    if not finite.any():
        raise ValueError(f"{source}: every parcel holds NaN or infinite values; nothing is left")
    if not np.ptp(values[:, finite], axis=0).any():
        raise ValueError(f"{source}: every parcel is constant; there is no signal to scale")


def _repetition_time(given: float | None, known: float | None, source: str) -> float:
    tr = known if given is None else given
    if tr is None:
        raise ValueError(f"{source}: its repetition time is not recorded; pass tr=, in seconds")
    tr = float(tr)
    if not 0 < tr < np.inf:
        raise ValueError(f"{source}: tr={tr:g}; expected a positive number of seconds")
    if tr > LONGEST_TR:
        where = "its header or JSON sidecar has" if given is None else "you passed"
        raise ValueError(
            f"{source}: {where} a repetition time of {tr:g}; the unit is seconds: "
            f"is it {tr / 1000:g}?"
        )
    if tr < SHORTEST_TR:
        raise ValueError(f"{source}: tr={tr:g}; expected at least {SHORTEST_TR:g} seconds")
    return tr


def read_many(
    x: Sequence[SeriesLike], tr: float | Sequence[float] | None, *, offline: bool = False
) -> list[ParcelSeries]:
    """Read several recordings; `tr` is one number for all, or one for each."""
    recordings = list(x)
    if not recordings:
        raise ValueError("the list of recordings is empty")
    times: list[Any] = [tr] * len(recordings)
    if isinstance(tr, list | tuple | np.ndarray):
        times = list(tr)
    if len(times) != len(recordings):
        raise ValueError(f"{len(recordings)} recordings, but {len(times)} repetition times")
    series = []
    for number, (recording, time) in enumerate(zip(recordings, times, strict=True)):
        try:
            series.append(read_series(recording, time, offline=offline))
        except ValueError as error:
            raise ValueError(f"recording {number}: {error}") from None
    return series
