"""The template: from a name to its T1w image and brain mask."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, read_bytes, reading, sha256
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.resources.cache import (
    SOURCES,
    Sources,
    chosen_home,
    download,
    is_present,
    kept_homes,
    writable_home,
)
from brainlm_bids.resources.images import EMBEDDED_SPACE, REAL_SPACE, load_volume
from brainlm_bids.resources.packaged import EMBEDDED_LICENCE, embedded_template
from brainlm_bids.temporary import PREFIX, remove_abandoned, temporary_folder

TEMPLATE_LICENCE = "TemplateFlow tpl-MNI152NLin6Asym: see its LICENSE file"


@dataclass(frozen=True)
class Template:
    """A T1w template with its brain mask.

    Attributes
    ----------
    space
        Its space.
    t1w, brain_mask
        Files; None for the embedded one.
    resolution
        Voxel size, mm.
    skull_stripped
        Whether the T1w shows the brain only.
    sha256
        Checksum of the T1w file; of the voxels for the embedded one.
    source, licence
        Origin and licence.
    warnings
        For the sidecars.
    """

    space: str
    t1w: Path | None
    brain_mask: Path | None
    resolution: int
    skull_stripped: bool
    sha256: str
    source: str
    licence: str
    warnings: tuple[Notice, ...] = ()

    def load_t1w(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the T1w.

        Returns
        -------
        data
            (X, Y, Z) float32.
        affine
            (4, 4) to RAS+ mm.
        """
        return embedded_template()[::2] if self.t1w is None else load_volume(self.t1w)

    def load_brain_mask(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the brain mask.

        Returns
        -------
        mask
            (X, Y, Z) bool.
        affine
            (4, 4) to RAS+ mm.
        """
        if self.brain_mask is None:
            return embedded_template()[1:]
        data, affine = load_volume(self.brain_mask)
        return data > 0.5, affine


def find_template(
    spec: str | None = None,
    *,
    home: Path | None = None,
    offline: bool = False,
    atlas_space: str | None = None,
    sources: Sources = SOURCES,
) -> Template:
    """Find the T1w template and its brain mask, at 2 mm where both resolutions exist.

    TemplateFlow's files are searched for in $TEMPLATEFLOW_HOME (~/.cache/templateflow), then in our
    cache.

    Parameters
    ----------
    spec
        None (TemplateFlow's MNI152NLin6Asym if available, else nilearn's with a warning), or one of
        the two names.
    home
        Folder of the cache.
    offline
        Whether downloads are forbidden.
    atlas_space
        Space of the atlas; there is a warning if the template has another MNI space.
    sources
        Addresses of downloads.

    Returns
    -------
    Template
        The template and its provenance.

    Raises
    ------
    UserError
        For another name, and for "MNI152NLin6Asym" if it is not available.

    Examples
    --------
    >>> find_template("MNI152NLin2009aSym").skull_stripped
    True
    """
    if spec not in (None, REAL_SPACE, EMBEDDED_SPACE):
        raise UserError(f"--template {spec}: choose {REAL_SPACE} or {EMBEDDED_SPACE}")
    if spec == EMBEDDED_SPACE:
        return _embedded(None, atlas_space)
    try:
        t1w, mask, resolution = from_templateflow(chosen_home(home), offline, sources)
    except UserError as error:
        if spec is None:
            return _embedded(str(error), atlas_space)
        raise UserError(
            f"the template {REAL_SPACE} is not available ({error}); run `brainlm fetch template` "
            f"on a machine with network, set TEMPLATEFLOW_HOME, or pass --template {EMBEDDED_SPACE}"
        ) from error
    return Template(
        REAL_SPACE,
        t1w,
        mask,
        resolution,
        False,
        file_sha256(t1w),
        f"TemplateFlow {t1w.name}",
        TEMPLATE_LICENCE,
        other_space(REAL_SPACE, atlas_space),
    )


def find_template_transform(
    source: str, *, home: Path | None = None, offline: bool = False, sources: Sources = SOURCES
) -> Path:
    """Find TemplateFlow's transform that resamples images of another template into ours.

    Parameters
    ----------
    source
        The other template.
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
        If it is not available.
    """
    name = f"tpl-{REAL_SPACE}_from-{source}_mode-image_xfm.h5"
    for folder in templateflow_folders(chosen_home(home)):
        if is_present(folder / f"tpl-{REAL_SPACE}" / name):
            return folder / f"tpl-{REAL_SPACE}" / name
    if offline:
        raise UserError(f"{name} is not in $TEMPLATEFLOW_HOME, and --offline forbids a download")
    target = writable_home(chosen_home(home)) / "templateflow" / f"tpl-{REAL_SPACE}" / name
    download_files([target], sources)
    return target


def _template_names(resolution: int) -> tuple[str, str]:
    stem = f"tpl-{REAL_SPACE}_res-{resolution:02d}"
    return f"{stem}_T1w.nii.gz", f"{stem}_desc-brain_mask.nii.gz"


def templateflow_folders(home: Path | None) -> list[Path]:
    """Folders to search for TemplateFlow's files: that of the user, then those in our cache."""
    folders = []
    if os.environ.get("TEMPLATEFLOW_HOME"):
        folders.append(Path(os.environ["TEMPLATEFLOW_HOME"]).expanduser())
    elif "HOME" in os.environ:
        folders.append(Path(os.environ["HOME"]) / ".cache" / "templateflow")
    return [*folders, *(folder / "templateflow" for folder in kept_homes(home))]


def from_templateflow(home: Path | None, offline: bool, sources: Sources) -> tuple[Path, Path, int]:
    """Return TemplateFlow's T1w template and brain mask.

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
    t1w, mask
        Files.
    resolution
        Voxel size, mm.

    Raises
    ------
    UserError
        If they are not on this machine and cannot be downloaded.
    """
    for folder in templateflow_folders(home):
        for resolution in (2, 1):
            names = _template_names(resolution)
            t1w, mask = (folder / f"tpl-{REAL_SPACE}" / name for name in names)
            if is_present(t1w) and is_present(mask):
                return t1w, mask, resolution
    if offline:
        raise UserError("no TemplateFlow files of it were found, and downloads are switched off")
    # TEMPLATEFLOW_HOME may be a read-only share, so downloads go to our own cache
    folder = writable_home(home) / "templateflow" / f"tpl-{REAL_SPACE}"
    t1w, mask = (folder / name for name in _template_names(2))
    download_files([path for path in (t1w, mask) if not is_present(path)], sources)
    return t1w, mask, 2


def download_files(targets: Sequence[Path], sources: Sources) -> None:
    """Download files of the template from TemplateFlow to their places in our cache.

    TemplateFlow's client tells the address alone: it would leave an interrupted download under its
    final name, and wait for ever for a server that sends without end. Files are checked under
    their names in a folder of their own, and move into the cache when they are complete.
    """
    from templateflow.conf.cache import CacheConfig

    root = sources.templateflow or CacheConfig.s3_root
    cache = targets[0].parents[1]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_abandoned(cache.glob(f"{PREFIX}*-download"))
        with temporary_folder(cache, "download") as folder:
            for target in targets:
                url = f"{root}/{target.parent.name}/{target.name}"
                downloaded = download(url, folder / target.name)
                _check_kind(downloaded)
                target.parent.mkdir(parents=True, exist_ok=True)
                downloaded.replace(target)
    except OSError as error:
        raise UserError(f"cannot write into {cache}: {error.strerror or error}") from error


def _check_kind(path: Path) -> None:
    # without a known checksum, at least refuse a login page, or a transform that is cut short
    kind, check = next(both for end, both in _CHECKS.items() if path.name.endswith(end))
    try:
        check(path)
    except UserError as error:
        raise UserError(
            f"cannot download from TemplateFlow: what was sent for {path.name} is not {kind}"
        ) from error


def _check_transform(path: Path) -> None:
    import h5py

    with reading(path), h5py.File(path, "r"):
        pass


def _check_table(path: Path) -> None:
    if not read_bytes(path).startswith(b"index\t"):
        raise UserError("has no column 'index'")


# By the end of a file's name: what it is, and a function that raises UserError if it is not.
_CHECKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    ".nii.gz": ("an image", load_volume),
    ".tsv": ("a table", _check_table),
    "": ("a transform", _check_transform),
}


def _embedded(reason: str | None, atlas_space: str | None) -> Template:
    t1w, mask, affine = embedded_template()
    warnings = other_space(EMBEDDED_SPACE, atlas_space)
    if reason is not None:
        text = f"The embedded template {EMBEDDED_SPACE} is used instead of {REAL_SPACE} ({reason})."
        warnings = (notice(Kind.EMBEDDED_TEMPLATE, text), *warnings)
    return Template(
        EMBEDDED_SPACE,
        None,
        None,
        2,
        True,
        sha256(t1w, mask, affine),
        "ICBM 2009a symmetric T1w, skull-stripped, packaged in nilearn",
        EMBEDDED_LICENCE,
        warnings,
    )


def other_space(template_space: str, atlas_space: str | None) -> tuple[Notice, ...]:
    """Warn if the atlas and the template are in different MNI spaces.

    Parameters
    ----------
    template_space, atlas_space
        Their spaces.

    Returns
    -------
    tuple of Notice
        Empty if they are the same, or that of the atlas is unknown.
    """
    if atlas_space in (None, template_space):
        return ()
    text = (
        f"The atlas is in {atlas_space} and the template is {template_space}. The two MNI spaces "
        "agree within 1 to 2 mm and are treated as the same."
    )
    return (notice(Kind.SPACE_MISMATCH, text),)
