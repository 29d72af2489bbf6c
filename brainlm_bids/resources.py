"""Atlas, template, checkpoint and masks: in comes a word or a path of the user, out comes a frozen
record of what was found (path or arrays, sha256, source, licence, a warning for the report).
Volumes are (X, Y, Z), affines 4 x 4 to RAS+ millimetres. Everything is found before the graph is
built: explicit argument, then the cache, then a download, then what the installed packages embed.
"""

from __future__ import annotations

import csv
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.errors import UserError

N_PARCELS = 424
REAL_SPACE = "MNI152NLin6Asym"
EMBEDDED_SPACE = "MNI152NLin2009aSym"

# 2 mm grid of FSL's MNI152 template, that of A424 (FACTS 3.5): LAS, origin 90, -126, -72
MNI_2MM_SHAPE = (91, 109, 91)
MNI_2MM_AFFINE = np.array(
    [[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]], dtype=np.float64
)

ATLAS_FILE = "A424+2mm.nii.gz"
ATLAS_SHA256 = "8478d7516a2bbf295989835d5033d03e4283143a2955c90428f634951702501b"
CIFTI_ATLAS_FILE = "A424.dlabel.nii"
CIFTI_ATLAS_SHA256 = "aa44b971ff80d247f890365cbb5bc68583c84b37605bab04bc930dce8a263a1e"
ATLAS_LICENCE = "vandijklab/BrainLM: LICENSE file Apache-2.0, README badge CC BY-NC-ND 4.0"
TEMPLATE_LICENCE = "TemplateFlow tpl-MNI152NLin6Asym: see its LICENSE file"
EMBEDDED_LICENCE = "ICBM 152 2009a (McConnell Brain Imaging Centre, free use with its notice)"
WEIGHTS_LICENCE = "CC BY-NC-ND 4.0 (https://creativecommons.org/licenses/by-nc-nd/4.0/)"

MODEL_REPOSITORY = "vandijklab/brainlm"
MODEL_REVISION = "4c54e0cccf920d9d6af7c647cb866fc19c60cf26"
MODEL_FOLDERS = {"111M": "vitmae_111M", "650M": "vitmae_650M", "13M": "old_13M"}
RANDOM_MODELS = ("tiny", "demo", "13M", "111M", "650M")
DEMO_FOLDER = Path(__file__).parent / "data" / "demo"
DEMO_WARNING = (
    "the model is the small demo checkpoint that comes with brainlm-bids, pretrained on simulated "
    "recordings: it shows how the program works and says nothing about brains"
)
FETCHABLE = ("atlas", "cifti-atlas", "template", *MODEL_FOLDERS)

# A firewall that swallows packets must cost seconds, not minutes: connect, then silence (s)
TIMEOUT = (3.05, 30.0)


@dataclass(frozen=True)
class Sources:
    """Where downloads come from; tests and mirrors put other addresses in."""

    atlas: str = (
        "https://raw.githubusercontent.com/vandijklab/BrainLM/b591d88/toolkit/atlases/"
        "A424%2B2mm.nii.gz"
    )
    # the same store, with the same layout, that the TemplateFlow client downloads from
    templateflow: str = "https://templateflow.s3.amazonaws.com"
    hub: str | None = None  # None: the Hugging Face endpoint of the environment
    cifti_atlas: str = (
        "https://raw.githubusercontent.com/vandijklab/BrainLM/b591d88/toolkit/atlases/"
        "A424.dlabel.nii"
    )


SOURCES = Sources()


@dataclass(frozen=True)
class Atlas:
    """A parcellation with labels 1..424 and how it was come by."""

    label: str  # the word in file names: A424, A424approx, A424custom
    path: Path | None  # None: the embedded one
    space: str
    sha256: str
    source: str
    licence: str
    approximate: bool
    warning: str | None = None  # for the log, the sidecars and the report

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (X, Y, Z) int16, 0 outside, and the affine (4, 4) float64."""
        if self.path is None:
            return approximate_atlas()
        return _read_labels(self.path)[:2]


@dataclass(frozen=True)
class Template:
    """A T1w template with its brain mask; paths are None for the embedded one."""

    space: str
    t1w: Path | None
    brain_mask: Path | None
    resolution: int  # mm
    skull_stripped: bool
    sha256: str  # of the T1w file; of the voxels for the embedded one
    source: str
    licence: str
    warning: str | None = None

    def load_t1w(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the T1w (X, Y, Z) float32 and its affine (4, 4)."""
        return _embedded_template()[::2] if self.t1w is None else _load(self.t1w)

    def load_brain_mask(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the brain mask (X, Y, Z) bool and its affine (4, 4)."""
        if self.brain_mask is None:
            return _embedded_template()[1:]
        data, affine = _load(self.brain_mask)
        return data > 0.5, affine


@dataclass(frozen=True)
class ModelResource:
    """A checkpoint, or an architecture with seeded random weights (path None)."""

    name: str  # as the user said it
    label: str  # as file names say it
    path: Path | None  # folder with config.json and the weights
    random: bool
    sha256: str | None  # of the weights
    source: str
    licence: str
    warning: str | None = None  # what every output made with it must say

    def about(self) -> dict[str, str | None]:
        """What sidecars say of it."""
        keys = ("name", "sha256", "source", "licence", *(("warning",) if self.warning else ()))
        return {key: getattr(self, key) for key in keys}


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


@dataclass(frozen=True)
class TissueMaps:
    """Probability of grey and white matter, float32 0..1, in MNI152NLin2009aSym at 1 mm."""

    grey_matter: np.ndarray
    white_matter: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class AromaMasks:
    """ICA-AROMA's masks, (91, 109, 91) bool in MNI152NLin6Asym at 2 mm, on the grid of A424."""

    csf: np.ndarray
    edge: np.ndarray
    out: np.ndarray  # outside the brain
    affine: np.ndarray


# ---- the cache ---------------------------------------------------------------------------------


def cache_home() -> Path | None:
    """Return `$BRAINLM_BIDS_HOME`, else ~/.cache/brainlm-bids; None for a user without a home."""
    given = os.environ.get("BRAINLM_BIDS_HOME")
    if given:
        return Path(given).expanduser()
    try:
        return Path.home() / ".cache" / "brainlm-bids"
    except RuntimeError:
        return None


def _home(home: Path | None) -> Path | None:
    return cache_home() if home is None else Path(home)


def _shipped() -> Path | None:
    """What an image carries (`docker/bake.py`), laid out as the cache; never written to."""
    given = os.environ.get("BRAINLM_BIDS_SHIPPED")
    return Path(given) if given else None


def _kept(home: Path | None) -> list[Path]:
    """The folders to look in before anything is downloaded: the cache, then the image's."""
    return [folder for folder in (home, _shipped()) if folder is not None]


def _writable(home: Path | None) -> Path:
    if home is None:
        raise UserError("no home folder to keep downloads in: set BRAINLM_BIDS_HOME")
    return home


def _present(path: Path | None) -> bool:
    """Tell whether a file is there and has bytes: TemplateFlow leaves stubs of 0 bytes."""
    try:
        return path is not None and path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _array_sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _download(
    url: str,
    target: Path,
    sha256: str | None = None,
    *,
    resumable: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Bring one file; it appears under its name when whole, and with the sha256 that was asked.

    A resumable download (its sha256 is known) that breaks off leaves its part, with which the next
    one goes on; of several processes one downloads and the others wait for it.
    """
    import requests

    name = sha256[:16] if resumable and sha256 else uuid.uuid4().hex[:8]
    part = target.with_name(f".{target.name}.{name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(part) if resumable else nullcontext():
            if resumable and _present(target) and file_sha256(target) == sha256:
                return target
            _transfer(url, part, headers or {}, resumable)
            got = file_sha256(part)
            if sha256 is not None and got != sha256:
                part.unlink()
                raise UserError(f"{url} came with sha256 {got}, expected {sha256}: not kept")
            part.replace(target)
    except requests.RequestException as error:
        raise UserError(f"cannot download {url}: {_reason(error)}") from error
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if not resumable and part.parent.is_dir():
            part.unlink(missing_ok=True)
    return target


@contextmanager
def _lock(part: Path) -> Iterator[None]:
    from filelock import FileLock

    lock = FileLock(part.with_suffix(".lock"))
    with lock:
        yield
    Path(lock.lock_file).unlink(missing_ok=True)


def _transfer(url: str, part: Path, headers: Mapping[str, str], resumable: bool) -> None:
    """Write the file, or what is missing of it; goes on by itself as long as bytes come."""
    import requests

    while True:
        start = part.stat().st_size if resumable and part.exists() else 0
        try:
            return _stream_to(url, part, headers, start)
        except requests.RequestException:
            if not resumable or not part.exists() or part.stat().st_size <= start:
                raise


def _stream_to(url: str, part: Path, headers: Mapping[str, str], start: int) -> None:
    import requests
    from tqdm import tqdm

    asked = {**headers, "Accept-Encoding": "identity"}
    if start:
        asked["Range"] = f"bytes={start}-"
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=asked) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the caller's sum tells whether that is true
        response.raise_for_status()
        size = start if response.status_code == requests.codes.partial_content else 0
        length = int(response.headers.get("Content-Length", 0))
        total = size + length if length else None
        name = part.name.split(".", 1)[1].rsplit(".", 2)[0]
        bar = tqdm(total=total, initial=size, unit="B", unit_scale=True, desc=name, disable=None)
        with part.open("ab" if size else "wb") as stream, bar:
            for chunk in response.iter_content(1 << 18):
                stream.write(chunk)
                size += len(chunk)
                bar.update(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    if size == 0 or (total and size != total):
        raise requests.ConnectionError(f"only {size} of {total or 'some'} bytes came")


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a chain of network errors, on one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# ---- the atlas ---------------------------------------------------------------------------------


def find_atlas(
    spec: str | None = None,
    *,
    home: Path | None = None,
    offline: bool = False,
    sources: Sources = SOURCES,
) -> Atlas:
    """Find A424: an explicit file, the cache, a download, or the embedded approximation.

    spec: None (the real one if it can be had, else the approximation with a warning), "A424"
    (the real one or UserError), "A424approx", or the path of a 3-D NIfTI with labels 1..424.
    Raises UserError for a file that is not such an atlas.
    """
    if spec == "A424approx":
        return _approximate("asked for by name")
    if spec not in (None, "A424"):
        return _explicit_atlas(Path(str(spec)).expanduser())
    try:
        path = _real_atlas(_home(home), offline, sources)
    except UserError as error:
        if spec == "A424":
            raise UserError(
                f"the A424 atlas cannot be had ({error}); run `brainlm fetch atlas` on a machine "
                "with network, or pass --atlas FILE or --atlas A424approx"
            ) from error
        return _approximate(str(error))
    return _verified_atlas(path)


def _real_atlas(home: Path | None, offline: bool, sources: Sources) -> Path:
    state = "it is not in the cache"
    for cached in (folder / "atlas" / ATLAS_FILE for folder in _kept(home)):
        if not _present(cached):
            continue
        try:
            if file_sha256(cached) == ATLAS_SHA256:
                return cached
            state = f"{cached} has a wrong sha256"
        except OSError as error:
            state = f"{cached} cannot be read: {error.strerror}"
    if offline:
        raise UserError(f"{state}, and downloads are switched off")
    return _download(sources.atlas, _writable(home) / "atlas" / ATLAS_FILE, ATLAS_SHA256)


def find_cifti_atlas(
    given: Path | None = None,
    *,
    home: Path | None = None,
    offline: bool = False,
    sources: Sources = SOURCES,
) -> Path:
    """A424 on the 91,282 grayordinates of fsLR: a given file, the cache, or a download.

    Raises UserError where it cannot be had. There is no approximation of it.
    """
    if given is not None:
        return given
    folder = _home(home)
    for cached in (kept / "atlas" / CIFTI_ATLAS_FILE for kept in _kept(folder)):
        if _present(cached) and file_sha256(cached) == CIFTI_ATLAS_SHA256:
            return cached
    if offline:
        raise UserError(
            f"{CIFTI_ATLAS_FILE}, which CIFTI input needs, is not in the cache: give --cifti-atlas "
            "FILE, or run `brainlm fetch cifti-atlas` on a machine with network"
        )
    target = _writable(folder) / "atlas" / CIFTI_ATLAS_FILE
    return _download(sources.cifti_atlas, target, CIFTI_ATLAS_SHA256)


def _verified_atlas(path: Path) -> Atlas:
    source = f"vandijklab/BrainLM@b591d88 toolkit/atlases/{ATLAS_FILE}"
    return Atlas("A424", path, REAL_SPACE, ATLAS_SHA256, source, ATLAS_LICENCE, False)


def _approximate(reason: str) -> Atlas:
    warning = (
        "A424approx, the embedded approximation of A424, is used: it agrees with the real atlas "
        f"in about half of the voxels, so its parcels are not BrainLM's ({reason})"
    )
    labels, affine = approximate_atlas()
    return Atlas(
        "A424approx",
        None,
        EMBEDDED_SPACE,
        _array_sha256(labels, affine),
        "grey matter of nilearn's packaged ICBM 2009a, nearest of the 424 published centroids",
        EMBEDDED_LICENCE,
        True,
        warning,
    )


def _explicit_atlas(path: Path) -> Atlas:
    if not path.is_file():
        raise UserError(f"--atlas {path}: no such file (or say A424 or A424approx)")
    labels, _, problem = _read_labels(path)
    sha256 = file_sha256(path)
    if sha256 == ATLAS_SHA256:
        return _verified_atlas(path)
    if problem:
        raise UserError(f"--atlas {path}: {problem}; BrainLM needs the labels 1..{N_PARCELS}")
    n_missing = N_PARCELS - (np.unique(labels).size - 1)
    warning = (
        f"the atlas {path.name} is not the published A424 (sha256 {sha256[:12]}…): its outputs are "
        f"named A424custom, its space is taken to be {REAL_SPACE}"
    )
    if n_missing:
        warning += f"; {n_missing} of the {N_PARCELS} labels have no voxel"
    return Atlas(
        "A424custom", path, REAL_SPACE, sha256, str(path), "as given by the user", False, warning
    )


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray, str | None]:
    data, affine = _load(path)
    if data.ndim != 3:
        raise UserError(f"--atlas {path}: {data.ndim}-D image, a 3-D image of labels is needed")
    # the cast comes after the range check: 70000 must not wrap round to a label
    rounded = np.nan_to_num(np.rint(data), nan=-1.0)
    problem = None
    if np.abs(data - rounded).max(initial=0) > 1e-3 or not np.isfinite(data).all():
        problem = "values are not whole numbers"
    elif rounded.min() < 0 or rounded.max() > N_PARCELS:
        problem = f"labels reach from {rounded.min():.0f} to {rounded.max():.0f}"
    elif rounded.max() == 0:
        problem = "no label in it"
    if problem:
        return np.zeros(data.shape, np.int16), affine, problem
    return rounded.astype(np.int16), affine, None


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import zlib

    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        image: Any = nib.load(path)
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, np.float64)
    except (OSError, EOFError, ValueError, AttributeError, zlib.error, ImageFileError) as error:
        raise UserError(f"cannot read the image {path}: {_reason(error)}") from error


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
    if missing.size:
        labels[cKDTree(points.T).query(centroids[missing - 1])[1]] = missing
    return _read_only(labels.reshape(MNI_2MM_SHAPE)), _read_only(MNI_2MM_AFFINE.copy())


# ---- the template, tissue maps, AROMA's masks --------------------------------------------------


def find_template(
    spec: str | None = None,
    *,
    home: Path | None = None,
    offline: bool = False,
    atlas_space: str | None = None,
    sources: Sources = SOURCES,
) -> Template:
    """Find the T1w template and its brain mask, at 2 mm where both resolutions exist.

    spec: None (TemplateFlow's MNI152NLin6Asym if it can be had, else nilearn's with a warning),
    or one of the two names; "MNI152NLin6Asym" that cannot be had is a UserError. TemplateFlow
    files are looked for in $TEMPLATEFLOW_HOME (~/.cache/templateflow), then in our cache.
    atlas_space: the space of the atlas; another MNI space than the template's is warned about.
    """
    if spec not in (None, REAL_SPACE, EMBEDDED_SPACE):
        raise UserError(f"--template {spec}: choose {REAL_SPACE} or {EMBEDDED_SPACE}")
    if spec == EMBEDDED_SPACE:
        return _embedded(None, atlas_space)
    try:
        t1w, mask, resolution = _templateflow(_home(home), offline, sources)
    except UserError as error:
        if spec is None:
            return _embedded(str(error), atlas_space)
        raise UserError(
            f"the template {REAL_SPACE} cannot be had ({error}); run `brainlm fetch template` on "
            f"a machine with network, set TEMPLATEFLOW_HOME, or pass --template {EMBEDDED_SPACE}"
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
    """TemplateFlow's transform that resamples images in the template `source` into our template.

    Raises UserError where it cannot be had.
    """
    name = f"tpl-{REAL_SPACE}_from-{source}_mode-image_xfm.h5"
    for folder in _templateflow_folders(_home(home)):
        if _present(folder / f"tpl-{REAL_SPACE}" / name):
            return folder / f"tpl-{REAL_SPACE}" / name
    if offline:
        raise UserError(f"{name} is not in $TEMPLATEFLOW_HOME, and --offline forbids a download")
    target = _writable(_home(home)) / "templateflow" / f"tpl-{REAL_SPACE}" / name
    return _download(f"{sources.templateflow}/tpl-{REAL_SPACE}/{name}", target)


def _template_names(resolution: int) -> tuple[str, str]:
    stem = f"tpl-{REAL_SPACE}_res-{resolution:02d}"
    return f"{stem}_T1w.nii.gz", f"{stem}_desc-brain_mask.nii.gz"


def _templateflow_folders(home: Path | None) -> list[Path]:
    folders = []
    if os.environ.get("TEMPLATEFLOW_HOME"):
        folders.append(Path(os.environ["TEMPLATEFLOW_HOME"]).expanduser())
    elif "HOME" in os.environ:
        folders.append(Path(os.environ["HOME"]) / ".cache" / "templateflow")
    return [*folders, *(folder / "templateflow" for folder in _kept(home))]


def _templateflow(home: Path | None, offline: bool, sources: Sources) -> tuple[Path, Path, int]:
    for folder in _templateflow_folders(home):
        for resolution in (2, 1):
            names = _template_names(resolution)
            t1w, mask = (folder / f"tpl-{REAL_SPACE}" / name for name in names)
            if _present(t1w) and _present(mask):
                return t1w, mask, resolution
    if offline:
        raise UserError("no TemplateFlow files of it were found, and downloads are switched off")
    # TEMPLATEFLOW_HOME may be a read-only share, so downloads go to our own cache
    folder = _writable(home) / "templateflow" / f"tpl-{REAL_SPACE}"
    for name in _template_names(2):
        if not _present(folder / name):
            _download_image(f"{sources.templateflow}/tpl-{REAL_SPACE}/{name}", folder / name)
    t1w, mask = (folder / name for name in _template_names(2))
    return t1w, mask, 2


def _download_image(url: str, target: Path) -> None:
    # no sum is pinned here: at least a login page of the network must not pass for an image
    _download(url, target)
    try:
        _load(target)
    except UserError as error:
        target.unlink(missing_ok=True)
        raise UserError(f"what came from {url} is not an image: not kept") from error


def _embedded(reason: str | None, atlas_space: str | None) -> Template:
    t1w, mask, affine = _embedded_template()
    warnings = [other_space(EMBEDDED_SPACE, atlas_space)]
    if reason is not None:
        fallback = f"the embedded template {EMBEDDED_SPACE} is used instead of {REAL_SPACE}"
        warnings.insert(0, f"{fallback} ({reason})")
    return Template(
        EMBEDDED_SPACE,
        None,
        None,
        2,
        True,
        _array_sha256(t1w, mask, affine),
        "ICBM 2009a symmetric T1w, skull-stripped, packaged in nilearn",
        EMBEDDED_LICENCE,
        "; ".join(w for w in warnings if w) or None,
    )


def other_space(template_space: str, atlas_space: str | None) -> str | None:
    """What is to be said where atlas and template are different MNI spaces."""
    if atlas_space in (None, template_space):
        return None
    return (
        f"the atlas lies in {atlas_space}, the template is {template_space}: both are MNI spaces "
        "and agree within 1 to 2 mm, which is taken as equal"
    )


@lru_cache(maxsize=1)
def _embedded_template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    t1w = load_mni152_template(resolution=2)
    mask = load_mni152_brain_mask(resolution=2)
    data = _read_only(np.asarray(t1w.dataobj, dtype=np.float32))
    inside = _read_only(np.asarray(mask.dataobj) > 0)
    return data, inside, _read_only(np.asarray(t1w.affine, np.float64))


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


@lru_cache(maxsize=1)
def aroma_masks() -> AromaMasks:
    """Load ICA-AROMA's three masks (Pruim 2015, Apache-2.0) from the package ica_aroma_py."""
    # the folder alone is needed: importing the package would run its own checks and imports
    found = find_spec("ica_aroma_py")
    if found is None or not found.submodule_search_locations:
        raise UserError("the package ica-aroma-py, which carries AROMA's masks, is not installed")
    folder = Path(next(iter(found.submodule_search_locations))) / "resources"
    masks = {name: _load(folder / f"mask_{name}.nii.gz") for name in ("csf", "edge", "out")}
    csf, edge, out = (_read_only(data > 0.5) for data, _ in masks.values())
    return AromaMasks(csf, edge, out, _read_only(masks["csf"][1]))


# ---- the checkpoint ----------------------------------------------------------------------------


def find_model(
    spec: str,
    *,
    home: Path | None = None,
    offline: bool = False,
    sources: Sources = SOURCES,
) -> ModelResource | None:
    """Find a checkpoint; None for the spec "none".

    spec: 111M, 650M, 13M (the published weights: cache, else download), demo (a small checkpoint
    that comes with the package), random:<architecture>, none, or a folder with config.json and
    model.safetensors or pytorch_model.bin. Raises UserError for anything else, for weights that
    cannot be had, and for cached weights that are not those of the first use. Nothing is ever used
    in place of what was asked for.
    """
    from brainlm_bids.model.labels import model_label

    if spec == "none":
        return None
    if spec in MODEL_FOLDERS:
        folder = _published_model(spec, _home(home), offline, sources)
        sha256 = _check_sums(folder)
        source = f"{MODEL_REPOSITORY}@{MODEL_REVISION}/{MODEL_FOLDERS[spec]}"
        return ModelResource(
            spec, model_label(spec), folder, False, sha256, source, WEIGHTS_LICENCE
        )
    if spec == "demo":
        sha256 = file_sha256(weights_file(DEMO_FOLDER))
        source = "packaged with brainlm-bids, pretrained on simulated recordings"
        return ModelResource(
            spec, model_label(spec), DEMO_FOLDER, False, sha256, source, "Apache-2.0", DEMO_WARNING
        )
    if spec.startswith("random:"):
        if spec.removeprefix("random:") not in RANDOM_MODELS:
            raise UserError(f"--model {spec}: choose random:{{{','.join(RANDOM_MODELS)}}}")
        source = "seeded random weights, untrained"
        return ModelResource(spec, model_label(spec), None, True, None, source, "Apache-2.0")
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--model {spec}: neither a folder nor one of {', '.join(MODEL_FOLDERS)}, "
            "demo, random:<name>, none"
        )
    sha256 = file_sha256(weights_file(folder))
    label = model_label(folder)
    licence = WEIGHTS_LICENCE if folder.name in MODEL_FOLDERS.values() else "as given by the user"
    return ModelResource(spec, label, folder, False, sha256, str(folder.resolve()), licence)


def weights_file(folder: Path) -> Path:
    """Return the weights of a checkpoint folder, safetensors first; UserError if incomplete."""
    if not _present(folder / "config.json"):
        raise UserError(f"{folder}: no config.json in this checkpoint folder")
    for name in ("model.safetensors", "pytorch_model.bin"):
        if _present(folder / name):
            return folder / name
    raise UserError(f"{folder}: neither model.safetensors nor pytorch_model.bin in this folder")


def _published_model(name: str, home: Path | None, offline: bool, sources: Sources) -> Path:
    ways_out = (
        f"run `brainlm fetch {name}` on a machine with network (into BRAINLM_BIDS_HOME), or pass "
        f"--model FOLDER or --model random:{name}"
    )
    if home is not None:
        folder = home / "models" / MODEL_FOLDERS[name]
        try:
            weights_file(folder)
            return folder
        except UserError:
            pass  # not there, or a download that was cut off: the next lines mend it
    if offline:
        raise UserError(f"the weights {name} are not in {home}, and --offline is set; {ways_out}")
    try:
        return _fetch_model(name, _writable(home), sources)
    except UserError as error:
        raise UserError(f"the weights {name} cannot be had ({error}); {ways_out}") from error


def _fetch_model(name: str, home: Path, sources: Sources) -> Path:
    """Download a checkpoint; an interrupted download goes on where it stopped.

    The hub's client is asked for addresses, sums and the user's token alone: when it gives up, it
    throws away what it has, which may be gigabytes.
    """
    import huggingface_hub as hub

    folder = home / "models" / MODEL_FOLDERS[name]
    for file in ("config.json", "pytorch_model.bin"):
        remote = f"{MODEL_FOLDERS[name]}/{file}"
        url = hub.hf_hub_url(
            MODEL_REPOSITORY, remote, revision=MODEL_REVISION, endpoint=sources.hub
        )
        try:
            etag = hub.get_hf_file_metadata(url, timeout=TIMEOUT[0], endpoint=sources.hub).etag
        except Exception as error:  # httpx's, requests' and the hub's own, by version
            raise UserError(f"cannot download {url}: {_reason(error)}") from error
        # for large files the hub's etag is the sha256, for small ones that of git
        sha256 = etag if etag is not None and len(etag) == 64 else None
        headers = hub.utils.build_hf_headers()
        _download(url, folder / file, sha256, resumable=sha256 is not None, headers=headers)
    _check_sums(folder)
    return folder


def _check_sums(folder: Path) -> str:
    """Compare config and weights with the sums of their first use; return the weights' sha256."""
    weights = weights_file(folder)
    sums = {path.name: file_sha256(path) for path in (folder / "config.json", weights)}
    record = folder / "SHA256SUMS"
    if not _present(record):
        text = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
        part = record.with_name(f".{record.name}.{uuid.uuid4().hex[:8]}")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(record)
        except OSError:
            pass  # a read-only cache: the sha256 still goes into every sidecar
        return sums[weights.name]
    lines = [line.split(maxsplit=1) for line in record.read_text(encoding="utf-8").splitlines()]
    recorded = {line[1].strip(): line[0] for line in lines if len(line) == 2}
    for name, sha256 in sums.items():
        if recorded.get(name) != sha256:
            raise UserError(
                f"{folder / name} is not the file of its first use (sha256 {sha256}, recorded in "
                f"{record.name}: {recorded.get(name)}); delete {folder} and fetch it again"
            )
    return sums[weights.name]


# ---- brainlm fetch -----------------------------------------------------------------------------


def fetch(
    what: Iterable[str],
    *,
    home: Path | None = None,
    sources: Sources = SOURCES,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Bring resources into the cache: "atlas", "cifti-atlas", "template", "13M", "111M", "650M".

    What is there already, whole, is not fetched again. Returns the files or folders. Raises
    UserError for an unknown word, no network, a wrong sha256, a cache that cannot be written.
    """
    wanted: Sequence[str] = list(what)
    unknown = [word for word in wanted if word not in FETCHABLE]
    if unknown:
        raise UserError(f"cannot fetch {', '.join(unknown)}: choose from {', '.join(FETCHABLE)}")
    folder = _writable(_home(home))
    return [_fetch_one(word, folder, sources, say) for word in wanted]


def _fetch_one(word: str, home: Path, sources: Sources, say: Callable[[str], None]) -> Path:
    if word == "atlas":
        path, licence = _real_atlas(home, False, sources), ATLAS_LICENCE
    elif word == "cifti-atlas":
        path, licence = find_cifti_atlas(home=home, sources=sources), ATLAS_LICENCE
    elif word == "template":
        path, licence = _templateflow(home, False, sources)[0], TEMPLATE_LICENCE
    else:
        say(f"{word}: licence of the weights: {WEIGHTS_LICENCE}")
        model = find_model(word, home=home, sources=sources)
        assert model is not None and model.path is not None
        path, licence = model.path, model.licence
    say(f"{word}: {path} ({licence})")
    return path
