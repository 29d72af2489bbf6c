"""A424: find the atlas by a name or a path; labels 1..424 and properties of the parcels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import DATA, file_sha256, read_rows, sha256
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.resources.cache import (
    SOURCES,
    Sources,
    chosen_home,
    download,
    is_present,
    kept_homes,
    writable_home,
)
from brainlm_bids.resources.images import (
    EMBEDDED_SPACE,
    MNI_2MM_AFFINE,
    MNI_2MM_SHAPE,
    REAL_SPACE,
    load_volume,
    read_only,
)
from brainlm_bids.resources.packaged import EMBEDDED_LICENCE, tissue_maps

ATLAS_FILE = "A424+2mm.nii.gz"
ATLAS_SHA256 = "8478d7516a2bbf295989835d5033d03e4283143a2955c90428f634951702501b"
CIFTI_ATLAS_FILE = "A424.dlabel.nii"
CIFTI_ATLAS_SHA256 = "aa44b971ff80d247f890365cbb5bc68583c84b37605bab04bc930dce8a263a1e"
ATLAS_LICENCE = "vandijklab/BrainLM: LICENSE file Apache-2.0, README badge CC BY-NC-ND 4.0"


@dataclass(frozen=True)
class Atlas:
    """A parcellation with labels 1..424 and its provenance.

    Attributes
    ----------
    label
        The label in file names: A424, A424approx or A424custom.
    path
        The file; None for the embedded one.
    space
        Its space.
    sha256
        Checksum of the file, or of the embedded arrays.
    source, licence
        Origin and licence.
    approximate
        Whether it is the approximation of A424.
    warnings
        For the sidecars.
    """

    label: str
    path: Path | None
    space: str
    sha256: str
    source: str
    licence: str
    approximate: bool
    warnings: tuple[Notice, ...] = ()

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the labels.

        Returns
        -------
        labels
            (X, Y, Z) int16, 0 outside.
        affine
            (4, 4) float64 to RAS+ mm.
        """
        if self.path is None:
            return approximate_atlas()
        return _read_labels(self.path)[:2]


@dataclass(frozen=True)
class Parcels:
    """The 424 parcels in the order of the columns: entry i belongs to label i + 1.

    Attributes
    ----------
    index
        (424,) labels 1..424.
    names
        Unique names, the column names of every series.
    hemisphere
        L, R, or B for the vermis.
    network_index
        (424,) networks 1..7 (AA-7).
    network, network_name
        Abbreviation (VI VS CE SM DM DS SC) and name of the network.
    xyz
        (424, 3) coordinates in MNI152NLin6Asym, RAS+ mm.
    """

    index: np.ndarray
    names: tuple[str, ...]
    hemisphere: tuple[str, ...]
    network_index: np.ndarray
    network: tuple[str, ...]
    network_name: tuple[str, ...]
    xyz: np.ndarray

    def table(self) -> dict[str, list[object]]:
        """Columns of the table that lies beside the atlas."""
        return {
            "index": self.index.tolist(),
            "name": list(self.names),
            "hemisphere": list(self.hemisphere),
            "network_index": self.network_index.tolist(),
            "network": list(self.network),
            "x": self.xyz[:, 0].tolist(),
            "y": self.xyz[:, 1].tolist(),
            "z": self.xyz[:, 2].tolist(),
        }


def find_atlas(
    spec: str | None = None,
    *,
    home: Path | None = None,
    offline: bool = False,
    sources: Sources = SOURCES,
) -> Atlas:
    """Find A424: an explicit file, the cache, a download, or the embedded approximation.

    Parameters
    ----------
    spec
        None (the published atlas if available, else the approximation with a warning), "A424" (the
        published atlas), "A424approx", or the path of a 3-D NIfTI with labels 1..424.
    home
        Folder of the cache.
    offline
        Whether downloads are forbidden.
    sources
        Addresses of downloads.

    Returns
    -------
    Atlas
        The atlas and its provenance.

    Raises
    ------
    UserError
        For a file that is not such an atlas, and for "A424" if it is not available.

    Examples
    --------
    >>> find_atlas("A424approx").label
    'A424approx'
    """
    if spec == "A424approx":
        return _approximate("requested by name")
    if spec not in (None, "A424"):
        return _explicit_atlas(Path(str(spec)).expanduser())
    try:
        path = real_atlas(chosen_home(home), offline, sources)
    except UserError as error:
        if spec == "A424":
            raise UserError(
                f"the A424 atlas is not available ({error}); run `brainlm fetch atlas` on a "
                "machine with network, or pass --atlas FILE or --atlas A424approx"
            ) from error
        return _approximate(str(error))
    return _verified_atlas(path)


def real_atlas(home: Path | None, offline: bool, sources: Sources) -> Path:
    """Return the published A424 from the cache, or download it.

    Parameters
    ----------
    home
        Folder of the cache.
    offline
        Whether downloads are forbidden.
    sources
        Addresses of downloads.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        If it is not in the cache and cannot be downloaded.
    """
    state = "it is not in the cache"
    for cached in (folder / "atlas" / ATLAS_FILE for folder in kept_homes(home)):
        if not is_present(cached):
            continue
        try:
            if file_sha256(cached) == ATLAS_SHA256:
                return cached
            state = f"{cached} has another sha256"
        except OSError as error:
            state = f"{cached} cannot be read: {error.strerror}"
    if offline:
        raise UserError(f"{state}, and downloads are switched off")
    return download(sources.atlas, writable_home(home) / "atlas" / ATLAS_FILE, ATLAS_SHA256)


def find_cifti_atlas(
    path: Path | None = None,
    *,
    home: Path | None = None,
    offline: bool = False,
    sources: Sources = SOURCES,
) -> Path:
    """Find A424 on the 91,282 grayordinates of fsLR: a given file, the cache, or a download.

    Parameters
    ----------
    path
        A file to use.
    home
        Folder of the cache.
    offline
        Whether downloads are forbidden.
    sources
        Addresses of downloads.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        If it is not available; there is no approximation of it.
    """
    if path is not None:
        return path
    folder = chosen_home(home)
    for cached in (kept / "atlas" / CIFTI_ATLAS_FILE for kept in kept_homes(folder)):
        if is_present(cached) and file_sha256(cached) == CIFTI_ATLAS_SHA256:
            return cached
    if offline:
        raise UserError(
            f"{CIFTI_ATLAS_FILE}, which CIFTI input needs, is not in the cache: give --cifti-atlas "
            "FILE, or run `brainlm fetch cifti-atlas` on a machine with network"
        )
    target = writable_home(folder) / "atlas" / CIFTI_ATLAS_FILE
    return download(sources.cifti_atlas, target, CIFTI_ATLAS_SHA256)


def _verified_atlas(path: Path) -> Atlas:
    source = f"vandijklab/BrainLM@b591d88 toolkit/atlases/{ATLAS_FILE}"
    return Atlas("A424", path, REAL_SPACE, ATLAS_SHA256, source, ATLAS_LICENCE, False)


def _approximate(reason: str) -> Atlas:
    text = (
        "A424approx, the embedded approximation of A424, is used. It agrees with the published "
        "atlas in about half of the voxels, so its parcels are not those of BrainLM: compare "
        f"nothing with results from A424, and do not interpret the model's output ({reason})."
    )
    labels, affine = approximate_atlas()
    return Atlas(
        "A424approx",
        None,
        EMBEDDED_SPACE,
        sha256(labels, affine),
        "grey matter of nilearn's packaged ICBM 2009a, nearest of the 424 published centroids",
        EMBEDDED_LICENCE,
        True,
        (notice(Kind.APPROXIMATE_ATLAS, text),),
    )


def _explicit_atlas(path: Path) -> Atlas:
    if not path.is_file():
        raise UserError(f"--atlas {path}: no such file (or give A424 or A424approx)")
    labels, _, problem = _read_labels(path)
    checksum = file_sha256(path)
    if checksum == ATLAS_SHA256:
        return _verified_atlas(path)
    if problem:
        raise UserError(f"--atlas {path}: {problem}; BrainLM needs the labels 1..{N_PARCELS}")
    n_missing = N_PARCELS - (np.unique(labels).size - 1)
    text = (
        f"The atlas {path.name} is not the published A424 (sha256 {checksum[:12]}…). Its outputs "
        f"are named A424custom, and its space is assumed to be {REAL_SPACE}."
    )
    if n_missing:
        text += f" {n_missing} of the {N_PARCELS} labels have no voxel."
    return Atlas(
        "A424custom",
        path,
        REAL_SPACE,
        checksum,
        str(path),
        "as given by the user",
        False,
        (notice(Kind.CUSTOM_ATLAS, text),),
    )


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray, str | None]:
    data, affine = load_volume(path)
    if data.ndim != 3:
        raise UserError(
            f"--atlas {path}: is a {data.ndim}-D image; a 3-D image of labels is needed"
        )
    # the cast comes after the range check: 70000 must not wrap round to a label
    rounded = np.nan_to_num(np.rint(data), nan=-1.0)
    problem = None
    if np.abs(data - rounded).max(initial=0) > 1e-3 or not np.isfinite(data).all():
        problem = "values are not whole numbers"
    elif rounded.min() < 0 or rounded.max() > N_PARCELS:
        problem = f"labels range from {rounded.min():.0f} to {rounded.max():.0f}"
    elif rounded.max() == 0:
        problem = "it has no label"
    if problem:
        return np.zeros(data.shape, np.int16), affine, problem
    return rounded.astype(np.int16), affine, None


@lru_cache(maxsize=1)
def parcels() -> Parcels:
    """Read the packaged table of parcels (sources in data/README.md).

    Returns
    -------
    Parcels
        The parcels.

    Examples
    --------
    >>> len(parcels().names), parcels().xyz.shape
    (424, (424, 3))
    """
    rows = read_rows(DATA / "A424.tsv")
    index = np.array([int(row["index"]) for row in rows])
    network_index = np.array([int(row["network_index"]) for row in rows])
    xyz = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    return Parcels(
        read_only(index),
        tuple(row["name"] for row in rows),
        tuple(row["hemisphere"] for row in rows),
        read_only(network_index),
        tuple(row["network"] for row in rows),
        tuple(row["network_name"] for row in rows),
        read_only(xyz),
    )


@lru_cache(maxsize=1)
def approximate_atlas() -> tuple[np.ndarray, np.ndarray]:
    """Make the embedded approximation of A424: grey matter split by the nearest centroid.

    Grey matter is nilearn's packaged ICBM 2009a map, sampled on the 2 mm grid of A424; a voxel
    above 0.2 and within 12 mm of a centroid takes that parcel's label. Of the voxels that both
    atlases label, 58 % agree with the real A424; of all the real one's voxels, 44 %.

    Returns
    -------
    labels : (91, 109, 91) int16, 0 outside, each of 1..424 present
    affine : (4, 4) float64, voxel to MNI152NLin2009aSym RAS+ mm
    """
    from nibabel.affines import apply_affine
    from scipy.ndimage import map_coordinates
    from scipy.spatial import cKDTree

    maps = tissue_maps()
    voxels = np.indices(MNI_2MM_SHAPE, dtype=np.float64).reshape(3, -1).T
    points = apply_affine(MNI_2MM_AFFINE, voxels)
    in_map = apply_affine(np.linalg.inv(maps.affine), points)
    grey = map_coordinates(maps.grey_matter, in_map.T, order=1)

    centroids = parcels().xyz
    inside = np.flatnonzero(grey > 0.2)
    distance, nearest = cKDTree(centroids).query(points[inside])
    labels = np.zeros(grey.size, np.int16)
    labels[inside] = np.where(distance <= 12.0, nearest + 1, 0)

    # a parcel without a voxel gets the one nearest to its centroid
    missing = np.setdiff1d(np.arange(1, N_PARCELS + 1), labels)
    if missing.size:
        labels[cKDTree(points).query(centroids[missing - 1])[1]] = missing
    return read_only(labels.reshape(MNI_2MM_SHAPE)), read_only(MNI_2MM_AFFINE.copy())
