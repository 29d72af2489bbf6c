"""Atlas, template, checkpoint and masks: in comes a word or a path of the user, out comes a frozen
record of what was found (path or arrays, sha256, source, licence, a warning for the report).
Volumes are (X, Y, Z), affines 4 x 4 to RAS+ millimetres. Everything is found before the graph is
built: explicit argument, then the cache, then a download, then what the installed packages embed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

N_PARCELS = 424
EMBEDDED_SPACE = "MNI152NLin2009aSym"

# 2 mm grid of FSL's MNI152 template, on which A424 is published (FACTS 3.5): LAS, origin 90 -126 -72
MNI_2MM_SHAPE = (91, 109, 91)
MNI_2MM_AFFINE = np.array(
    [[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]], dtype=np.float64
)


@dataclass(frozen=True)
class Parcels:
    """The 424 parcels in the order of the columns: entry i belongs to label i + 1."""

    index: np.ndarray  # (424,) int, 1..424
    names: tuple[str, ...]  # unique; the column names of every series
    hemisphere: tuple[str, ...]  # L, R, or B for the vermis
    network_index: np.ndarray  # (424,) int, 1..7 (AA-7)
    network: tuple[str, ...]  # VI VS CE SM DM DS SC
    network_name: tuple[str, ...]
    xyz: np.ndarray  # (424, 3) float64, MNI152NLin6Asym RAS+ mm


@lru_cache(maxsize=1)
def parcels() -> Parcels:
    """Read the packaged table of parcels (sources in data/README.md)."""
    with (files("brainlm_bids") / "data" / "A424.tsv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    index = np.array([int(row["index"]) for row in rows])
    network_index = np.array([int(row["network_index"]) for row in rows])
    xyz = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    return Parcels(
        _read_only(index),
        tuple(row["name"] for row in rows),
        tuple(row["hemisphere"] for row in rows),
        _read_only(network_index),
        tuple(row["network"] for row in rows),
        tuple(row["network_name"] for row in rows),
        _read_only(xyz),
    )


@lru_cache(maxsize=1)
def approximate_atlas() -> tuple[np.ndarray, np.ndarray]:
    """Make the embedded stand-in for A424: grey matter split by the nearest published centroid.

    Grey matter is nilearn's packaged ICBM 2009a map, sampled on the 2 mm grid of A424; a voxel
    above 0.2 and within 12 mm of a centroid takes that parcel's label. Of the voxels that both
    atlases label, 58 % agree with the real A424; of all the real one's voxels, 44 %.

    Returns
    -------
    labels : (91, 109, 91) int16, 0 outside, each of 1..424 present
    affine : (4, 4) float64, voxel to MNI152NLin2009aSym RAS+ mm
    """
    from scipy.ndimage import map_coordinates
    from scipy.spatial import cKDTree

    maps = tissue_maps()
    voxels = np.indices(MNI_2MM_SHAPE, dtype=np.float64).reshape(3, -1)
    points = MNI_2MM_AFFINE[:3, :3] @ voxels + MNI_2MM_AFFINE[:3, 3:]
    to_map = np.linalg.inv(maps.affine)
    grey = map_coordinates(maps.grey_matter, to_map[:3, :3] @ points + to_map[:3, 3:], order=1)

    centroids = parcels().xyz
    inside = np.flatnonzero(grey > 0.2)
    distance, nearest = cKDTree(centroids).query(points[:, inside].T)
    labels = np.zeros(grey.size, np.int16)
    labels[inside] = np.where(distance <= 12.0, nearest + 1, 0)

    # a parcel that got nothing takes the voxel nearest to its centroid
    missing = np.setdiff1d(np.arange(1, N_PARCELS + 1), labels)
    labels[cKDTree(points.T).query(centroids[missing - 1])[1]] = missing
    return _read_only(labels.reshape(MNI_2MM_SHAPE)), _read_only(MNI_2MM_AFFINE.copy())


@dataclass(frozen=True)
class TissueMaps:
    """Probability of grey and white matter, float32 0..1, in MNI152NLin2009aSym at 1 mm."""

    grey_matter: np.ndarray
    white_matter: np.ndarray
    affine: np.ndarray


@lru_cache(maxsize=1)
def tissue_maps() -> TissueMaps:
    """Load the ICBM 2009a symmetric tissue maps that nilearn packages."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey = load_mni152_gm_template(resolution=1)
    white = load_mni152_wm_template(resolution=1)
    return TissueMaps(_unit_scaled(grey), _unit_scaled(white), _read_only(grey.affine.copy()))


def _unit_scaled(image: Any) -> np.ndarray:
    data = np.asarray(image.dataobj, dtype=np.float32)
    return _read_only(data / data.max())


def _read_only(array: np.ndarray) -> np.ndarray:
    # cached arrays are shared by all callers of a process
    array.flags.writeable = False
    return array
