"""Labels of a parcellation: read from an image or a CIFTI file, with the names of their parcels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows, sha256
from brainlm_bids.image_headers import check_stored, read_grid
from brainlm_bids.resources.images import opened

# More labels than any parcellation has: such an image is none.
MOST_PARCELS = 5000


@dataclass(frozen=True)
class Labelled:
    """Labels of a parcellation, and its parcels in the order of the columns of every series.

    Attributes
    ----------
    labels
        (X, Y, Z), or (V,) for grayordinates: int32, 0 for none, p + 1 in parcel p.
    index
        (P,) the values that the parcels have in the file, in ascending order.
    names
        (P,) their names, each once.
    affine
        (4, 4) voxel to RAS+ mm; None for grayordinates.
    """

    labels: np.ndarray
    index: np.ndarray
    names: np.ndarray
    affine: np.ndarray | None = None


def content_sum(labelled: Labelled) -> str:
    """Checksum of labels, their place in space, and names.

    Parameters
    ----------
    labelled
        Labels and parcels.
    """
    affine = b"" if labelled.affine is None else labelled.affine
    names = "\n".join(labelled.names)
    return sha256(labelled.labels, labelled.index.astype(np.int64), names, affine)


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and place of a 3-D image of labels.

    Parameters
    ----------
    path
        The image.

    Returns
    -------
    values
        (X, Y, Z) int64.
    affine
        (4, 4) voxel to RAS+ mm.

    Raises
    ------
    UserError
        If it is not 3-D, or a value is negative or not a whole number.
    """
    with opened(path) as image:
        check_stored(image)
        shape, affine = read_grid(image)
        # float32 would give large labels the same value
        data = np.asarray(image.dataobj, dtype=np.float64).reshape(shape)
    if data.ndim != 3:
        raise UserError(
            f"{path}: is a {data.ndim}-D image; a parcellation is a 3-D image of labels"
        )
    return _whole_numbers(path, data), affine


def _whole_numbers(path: Path, data: np.ndarray) -> np.ndarray:
    known = np.where(np.isnan(data), 0.0, data)  # some programs mark the background so
    if not np.isfinite(known).all() or np.abs(known - np.rint(known)).max(initial=0) > 1e-3:
        raise UserError(f"{path}: its values are not whole numbers: it is no image of labels")
    if known.min(initial=0) < 0:
        raise UserError(f"{path}: it has negative values ({known.min():.0f}); labels are positive")
    return np.asarray(np.rint(known), dtype=np.int64)


def read_grayordinates(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Values and names of a `.dlabel.nii`.

    Parameters
    ----------
    path
        The CIFTI file, with one map of labels.

    Returns
    -------
    values
        (V,) int64.
    names
        By label, as its table of labels has them.

    Raises
    ------
    UserError
        If it has no or several maps of labels.
    """
    import nibabel as nb

    with opened(path) as image:
        axis: Any = image.header.get_axis(0)
        data = np.asarray(image.dataobj, dtype=np.float64)
    if not isinstance(axis, nb.cifti2.LabelAxis) or len(data) != 1:
        raise UserError(f"{path}: a .dlabel.nii with one map of labels is needed")
    table: Mapping[int, tuple[str, Any]] = axis.label[0]
    names = {int(key): name for key, (name, _) in table.items() if key > 0}
    return _whole_numbers(path, data[0]), names


def table_beside(path: Path) -> dict[int, str] | None:
    """Names by labels from the TSV beside an image; None without one.

    As BIDS has it, that is the TSV of the same suffix whose entities the image has too; of several
    the one with most. A name that is not BIDS has a TSV of the same name.

    Parameters
    ----------
    path
        The image.

    Raises
    ------
    UserError
        If the table has no columns index and name, or an index is no whole number or occurs twice.
    """
    stem = path.name.partition(".")[0]
    parts = stem.split("_")
    candidates = {path.with_name(f"{stem}.tsv")}
    if parts[-1] == "dseg":
        own = set(parts)
        tables = path.parent.glob("*_dseg.tsv")
        candidates |= {one for one in tables if set(one.stem.split("_")) <= own}
    found = [one for one in candidates if one.is_file()]
    if not found:
        return None
    return _read_table(max(found, key=lambda one: (len(one.stem.split("_")), one.name)))


def _read_table(path: Path) -> dict[int, str]:
    rows = read_rows(path)
    column = next((name for name in ("name", "label") if rows and name in rows[0]), None)
    if column is None or "index" not in rows[0]:
        raise UserError(f"{path}: needs the columns index and name, separated by tabs")
    names: dict[int, str] = {}
    for row in rows:
        try:
            value = float(row["index"])
            index = int(value)
        except (ValueError, OverflowError):
            value, index = 0.5, 0
        if value != index:
            raise UserError(f"{path}: index {row['index']!r} is not a whole number")
        if index in names:
            raise UserError(f"{path}: index {index} occurs twice")
        name = row[column].strip()
        names[index] = "" if name == "n/a" else name
    names.pop(0, None)  # the background
    return names


def number_parcels(
    path: Path,
    label: str,
    values: np.ndarray,
    affine: np.ndarray | None,
    listed: Mapping[int, str] | None,
) -> tuple[Labelled, list[str]]:
    """Number the parcels, and tell what is doubtful about them.

    Parameters
    ----------
    path
        The file, for messages.
    label
        What a parcel without a name is called by.
    values
        Labels of voxels or grayordinates; 0 for none.
    affine
        (4, 4) voxel to RAS+ mm; None for grayordinates.
    listed
        Names by label from a table; None without one.

    Returns
    -------
    labelled
        Parcels in ascending order of their labels, also those of the table that have no voxel.
    doubts
        Sentences.

    Raises
    ------
    UserError
        If there is no label, more than 5,000, or a name occurs twice.
    """
    present = [int(value) for value in np.unique(values) if value > 0]
    if not present:
        raise UserError(f"{path}: it has no label")
    index = sorted({*present, *(listed or {})})
    if len(index) > MOST_PARCELS:
        raise UserError(
            f"{path}: {len(present)} labels in the image and {len(listed or {})} in its table, "
            f"more than {MOST_PARCELS}: is it a parcellation?"
        )
    told = {} if listed is None else listed
    names = [told.get(value) or f"{label}_{value}" for value in index]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two of its parcels are called {twice!r}; change the table")
    places = np.zeros(values.shape, np.int32)
    places[values > 0] = np.searchsorted(index, values[values > 0]) + 1
    doubts = []
    unnamed = [value for value in present if listed is not None and not told.get(value)]
    if unnamed:
        doubts.append(
            f"{len(unnamed)} of the labels of {path.name} have no name in its table: they are "
            f"called {label}_{unnamed[0]} and so on."
        )
    absent = len(index) - len(present)
    if absent:
        doubts.append(
            f"{absent} of the {len(index)} parcels in the table of {path.name} have no voxel: "
            "their series are n/a."
        )
    made = Labelled(places, np.array(index, dtype=np.int64), np.array(names), affine)
    return made, doubts


def on_grayordinates(path: Path, labelled: Labelled, target: Path) -> Labelled:
    """Labels on the grayordinates of another CIFTI file: by vertex, and by voxel.

    Parameters
    ----------
    path
        A `.dlabel.nii`; of the cortex alone, for example.
    labelled
        Its labels.
    target
        The CIFTI file whose grayordinates get the labels.

    Returns
    -------
    Labelled
        With (V,) labels, 0 where `path` has no such grayordinate.

    Raises
    ------
    UserError
        If the two are not of the same surfaces.
    """
    import nibabel as nb

    axes = []
    for one in (path, target):
        with opened(one) as image:
            axes.append(image.header.get_axis(1))
    own, wanted = axes
    same = isinstance(own, nb.cifti2.BrainModelAxis) and all(
        wanted.nvertices.get(name, n) == n for name, n in own.nvertices.items()
    )
    if not same:
        raise UserError(
            f"{path}: its surfaces are not those of fsLR with 32k vertices, as in 91k files"
        )
    places = dict(zip(_grayordinates(own), labelled.labels.tolist(), strict=True))
    labels = [places.get(place, 0) for place in _grayordinates(wanted)]
    if not any(labels):
        raise UserError(f"{path}: none of its labels is on the grayordinates of 91k files")
    return replace(labelled, labels=np.array(labels, dtype=np.int32))


def _grayordinates(axis: Any) -> list[tuple[object, ...]]:
    """What tells each grayordinate from the others: its vertex, or where its voxel is in mm."""
    on_surface = axis.surface_mask
    millimetres = np.zeros((len(axis), 3))
    if axis.affine is not None:
        millimetres = axis.voxel @ axis.affine[:3, :3].T + axis.affine[:3, 3]
    rounded = np.rint(millimetres * 10).astype(np.int64).tolist()
    return [
        (name, vertex) if surface else ("", *place)
        for name, vertex, surface, place in zip(
            axis.name.tolist(), axis.vertex.tolist(), on_surface.tolist(), rounded, strict=True
        )
    ]
