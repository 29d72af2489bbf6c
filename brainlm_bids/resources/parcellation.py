"""Parcellations beside A424: found by a name or a file, with the names of their parcels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, read_rows, sha256, why_unreadable
from brainlm_bids.image_headers import check_stored, read_grid
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.resources.cache import (
    SOURCES,
    Sources,
    chosen_home,
    is_present,
    writable_home,
)
from brainlm_bids.resources.images import REAL_SPACE, opened
from brainlm_bids.resources.template import download_files, templateflow_folders

# What TemplateFlow has of Schaefer et al. (2018) in MNI152NLin6Asym.
SCHAEFER_PARCELS = (100, 200, 300, 400, 500, 600, 800, 1000)
SCHAEFER_NETWORKS = (7, 17)
SCHAEFER_LICENCE = "MIT (github.com/ThomasYeoLab/CBIG)"
_SCHAEFER = re.compile(
    r"schaefer(?:2018)?[_-]?(\d+)(?:parcels)?[_x-]?(\d+)(?:n|networks)?", re.IGNORECASE
)
GRAYORDINATES = "fsLR"
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


@dataclass(frozen=True)
class Parcellation:
    """A parcellation and its provenance.

    Attributes
    ----------
    label
        In the names of outputs.
    path
        The file.
    space
        Of the labels: a template, or `GRAYORDINATES`.
    sha256
        Checksum of the file.
    content
        Checksum of labels and names.
    source, licence
        Origin and licence.
    labelled
        The labels.
    warnings
        For the sidecars.
    """

    label: str
    path: Path
    space: str
    sha256: str
    content: str
    source: str
    licence: str
    labelled: Labelled = field(compare=False, repr=False)
    warnings: tuple[Notice, ...] = ()

    def on(self, labelled: Labelled) -> Parcellation:
        """The same parcels, with their labels elsewhere."""
        return replace(self, content=_content(labelled), labelled=labelled)

    def warned(self, warning: Notice) -> Parcellation:
        """The same with one more warning."""
        return replace(self, warnings=(*self.warnings, warning))


def find_parcellation(
    spec: str, *, home: Path | None = None, offline: bool = False, sources: Sources = SOURCES
) -> Parcellation:
    """Find a parcellation by a name or a file.

    Parameters
    ----------
    spec
        `Schaefer<parcels>x<networks>`, such as Schaefer100x7 or Schaefer400x17, or FILE[:LABEL]: a
        3-D image of labels, or a `.dlabel.nii` for grayordinates. LABEL is what names of outputs
        call it; by default it is made from the name of the file.
    home
        Folder of the cache.
    offline
        Whether downloads are forbidden.
    sources
        Addresses of downloads.

    Returns
    -------
    Parcellation
        The labels, the names of the parcels, and where they come from.

    Raises
    ------
    UserError
        If it is not available, or the file is no parcellation.
    """
    found = _SCHAEFER.fullmatch(spec)
    if found is not None and not Path(spec).exists():
        return _schaefer(int(found[1]), int(found[2]), home, offline, sources)
    path, label = _split(spec)
    if path.is_symlink() and not path.exists():
        raise UserError(f"{spec}: {why_unreadable(path, FileNotFoundError())}")
    if not path.is_file():
        raise UserError(
            f"{spec}: there is no such file, and no parcellation of this name; give a file, or "
            f"Schaefer100x7 to Schaefer1000x17"
        )
    label = label or default_label(path)
    _check_label(spec, label)
    return _from_file(path, label)


def _split(spec: str) -> tuple[Path, str]:
    path = Path(spec).expanduser()
    head, colon, label = spec.rpartition(":")
    if path.is_file() or not colon or "/" in label:
        return path, ""
    return Path(head).expanduser(), label


def _check_label(spec: str, label: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]+", label):
        raise UserError(
            f"{spec}: {label!r} cannot be a label in file names; give FILE:LABEL with letters and "
            "digits"
        )
    if label.upper().startswith("A424"):
        raise UserError(f"{spec}: labels that begin with A424 are those of BrainLM's atlas")


def default_label(path: Path) -> str:
    """The label that the name of a file suggests: its entities about the atlas, or all of it.

    Examples
    --------
    >>> default_label(Path("tpl-MNI152NLin6Asym_res-01_atlas-HOSPA_desc-th25_dseg.nii.gz"))
    'HOSPAth25'
    >>> default_label(Path("My atlas_2mm.nii.gz"))
    'Myatlas2mm'
    """
    entities = _entities(path)
    words = [path.name.partition(".")[0].removesuffix("_dseg")]
    if "atlas" in entities:
        words = [entities.get(name, "") for name in ("atlas", "seg", "scale", "desc")]
    return re.sub(r"[^A-Za-z0-9]", "", "".join(words))


def _entities(path: Path) -> dict[str, str]:
    parts = path.name.partition(".")[0].split("_")
    return dict(part.split("-", 1) for part in parts if "-" in part)


# --- TemplateFlow ----------------------------------------------------------------------------


def _schaefer(
    parcels: int, networks: int, home: Path | None, offline: bool, sources: Sources
) -> Parcellation:
    label = f"Schaefer{parcels}x{networks}"
    if parcels not in SCHAEFER_PARCELS or networks not in SCHAEFER_NETWORKS:
        raise UserError(
            f"{label}: TemplateFlow has {', '.join(map(str, SCHAEFER_PARCELS))} parcels with 7 or "
            "17 networks"
        )
    stem = f"tpl-{REAL_SPACE}_{{}}atlas-Schaefer2018_desc-{parcels}Parcels{networks}Networks_dseg"
    names = stem.format("res-02_") + ".nii.gz", stem.format("") + ".tsv"
    for folder in templateflow_folders(chosen_home(home)):
        paths = [folder / f"tpl-{REAL_SPACE}" / name for name in names]
        if all(map(is_present, paths)):
            break
    else:
        if offline:
            raise UserError(
                f"{label}: {names[0]} and {names[1]} are not in $TEMPLATEFLOW_HOME, and --offline "
                "forbids a download"
            )
        paths = _download_schaefer(names, home, sources)
    found = _from_file(paths[0], label)
    source = f"TemplateFlow {names[0]} (Schaefer et al., 2018)"
    return replace(found, source=source, licence=SCHAEFER_LICENCE)


def _download_schaefer(names: tuple[str, str], home: Path | None, sources: Sources) -> list[Path]:
    folder = writable_home(chosen_home(home)) / "templateflow" / f"tpl-{REAL_SPACE}"
    paths = [folder / name for name in names]
    download_files([path for path in paths if not is_present(path)], sources)
    return paths


# --- files -----------------------------------------------------------------------------------


def _from_file(path: Path, label: str) -> Parcellation:
    warnings: list[Notice] = []
    affine: np.ndarray | None
    listed: dict[int, str] | None
    if path.name.endswith(".dlabel.nii"):
        affine, space = None, GRAYORDINATES
        values, listed = _read_grayordinates(path)
    else:
        values, affine = _read_volume(path)
        listed, space = _table_beside(path), _space_of(path)
        if not space:
            space = REAL_SPACE
            text = f"The name of {path.name} tells no space: it is taken to be in {REAL_SPACE}."
            warnings.append(notice(Kind.PARCELLATION, text))
    labelled, doubts = _labelled(path, label, values, affine, listed)
    warnings += [notice(Kind.PARCELLATION, text) for text in doubts]
    return Parcellation(
        label,
        path,
        space,
        file_sha256(path),
        _content(labelled),
        str(path),
        "as given by the user",
        labelled,
        tuple(warnings),
    )


def _content(labelled: Labelled) -> str:
    affine = b"" if labelled.affine is None else labelled.affine
    names = "\n".join(labelled.names)
    return sha256(labelled.labels, labelled.index.astype(np.int64), names, affine)


def _space_of(path: Path) -> str:
    """The space that the name of a file tells; empty if it tells none."""
    entities = _entities(path)
    told = entities.get("tpl") or entities.get("space")
    found = re.search(r"MNI\w*?(?:Sym|Asym)", path.name)
    return told or (found[0] if found else "")


def _read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (X, Y, Z) int64 and the affine."""
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


def _read_grayordinates(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Values (V,) int64, and the names in the table of labels."""
    import nibabel as nb

    with opened(path) as image:
        axis: Any = image.header.get_axis(0)
        data = np.asarray(image.dataobj, dtype=np.float64)
    if not isinstance(axis, nb.cifti2.LabelAxis) or len(data) != 1:
        raise UserError(f"{path}: a .dlabel.nii with one map of labels is needed")
    table: Mapping[int, tuple[str, Any]] = axis.label[0]
    names = {int(key): name for key, (name, _) in table.items() if key > 0}
    return _whole_numbers(path, data[0]), names


def _table_beside(path: Path) -> dict[int, str] | None:
    """Names by labels from the TSV beside an image; None without one.

    As BIDS has it, that is the TSV of the same suffix whose entities the image has too; of several
    the one with most. A name that is not BIDS has a TSV of the same name.
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


def _labelled(
    path: Path,
    label: str,
    values: np.ndarray,
    affine: np.ndarray | None,
    listed: Mapping[int, str] | None,
) -> tuple[Labelled, list[str]]:
    """The parcels, and what is doubtful about them, in sentences."""
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


def on_grayordinates(one: Parcellation, target: Path) -> Labelled:
    """Labels on the grayordinates of another CIFTI file: by vertex, and by voxel.

    Parameters
    ----------
    one
        A parcellation of grayordinates; of the cortex alone, for example.
    target
        The CIFTI file whose grayordinates get the labels.

    Returns
    -------
    Labelled
        With (V,) labels, 0 where `one` has no such grayordinate.

    Raises
    ------
    UserError
        If the two are not of the same surfaces.
    """
    import nibabel as nb

    axes = []
    for path in (one.path, target):
        with opened(path) as image:
            axes.append(image.header.get_axis(1))
    own, wanted = axes
    same = isinstance(own, nb.cifti2.BrainModelAxis) and all(
        wanted.nvertices.get(name, n) == n for name, n in own.nvertices.items()
    )
    if not same:
        raise UserError(
            f"{one.path}: its surfaces are not those of fsLR with 32k vertices, as in 91k files"
        )
    places = dict(zip(_grayordinates(own), one.labelled.labels.tolist(), strict=True))
    labels = [places.get(place, 0) for place in _grayordinates(wanted)]
    if not any(labels):
        raise UserError(f"{one.path}: none of its labels is on the grayordinates of 91k files")
    return replace(one.labelled, labels=np.array(labels, dtype=np.int32))


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
