"""Parcellations beside A424: found by a name or a file, with the names of their parcels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, why_unreadable
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.resources.cache import (
    SOURCES,
    Sources,
    chosen_home,
    is_present,
    writable_home,
)
from brainlm_bids.resources.images import REAL_SPACE
from brainlm_bids.resources.label_images import (
    Labelled,
    content_sum,
    number_parcels,
    read_grayordinates,
    read_volume,
    table_beside,
)
from brainlm_bids.resources.template import download_files, templateflow_folders

# What TemplateFlow has of Schaefer et al. (2018) in MNI152NLin6Asym.
SCHAEFER_PARCELS = (100, 200, 300, 400, 500, 600, 800, 1000)
SCHAEFER_NETWORKS = (7, 17)
SCHAEFER_LICENCE = "MIT (github.com/ThomasYeoLab/CBIG)"
_SCHAEFER = re.compile(
    r"schaefer(?:2018)?[_-]?(\d+)(?:parcels)?[_x-]?(\d+)(?:n|networks)?", re.IGNORECASE
)
GRAYORDINATES = "fsLR"


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
        return replace(self, content=content_sum(labelled), labelled=labelled)

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
        values, listed = read_grayordinates(path)
    else:
        values, affine = read_volume(path)
        listed, space = table_beside(path), _space_of(path)
        if not space:
            space = REAL_SPACE
            text = f"The name of {path.name} tells no space: it is taken to be in {REAL_SPACE}."
            warnings.append(notice(Kind.PARCELLATION, text))
    labelled, doubts = number_parcels(path, label, values, affine, listed)
    warnings += [notice(Kind.PARCELLATION, text) for text in doubts]
    return Parcellation(
        label,
        path,
        space,
        file_sha256(path),
        content_sum(labelled),
        str(path),
        "as given by the user",
        labelled,
        tuple(warnings),
    )


def _space_of(path: Path) -> str:
    """The space that the name of a file tells; empty if it tells none."""
    entities = _entities(path)
    told = entities.get("tpl") or entities.get("space")
    found = re.search(r"MNI\w*?(?:Sym|Asym)", path.name)
    return told or (found[0] if found else "")
