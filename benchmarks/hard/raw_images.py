"""Raw data: headers, types and values of images, whole bad volumes, and what is out of view."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from numpy.typing import NDArray

from benchmarks.hard.benign import TR, VOLUMES, add_bold, add_person, benign_bold, changed, values
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Case

Change = Callable[[NDArray[np.float32]], NDArray[Any]]


def _with(task: str, change: Change) -> Callable[[Path], None]:
    """The benign run with other values."""

    def build(folder: Path) -> None:
        image = benign_bold(folder)
        add_bold(folder, task, changed(image, change(values(image))))

    return build


def _header(
    task: str, change: Callable[[nb.Nifti1Image], nb.Nifti1Image]
) -> Callable[[Path], None]:
    """The benign run with another header."""

    def build(folder: Path) -> None:
        image = benign_bold(folder)
        add_bold(folder, task, change(changed(image, values(image).astype(np.float32))))

    return build


# --- types -----------------------------------------------------------------------------------


def _complex(data: NDArray[np.float32]) -> NDArray[np.complex64]:
    phase = np.exp(1j * np.linspace(0, 6, data.shape[3]))
    return (data * phase).astype(np.complex64)


def _rgb(folder: Path) -> None:
    image = benign_bold(folder)
    data = values(image)
    grey = (255 * data / data.max()).astype(np.uint8)
    colours = np.zeros(grey.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name in "RGB":
        colours[name] = grey
    new = nb.Nifti1Image(colours, image.affine)
    new.header.set_zooms((*image.header.get_zooms()[:3], TR))
    add_bold(folder, "rgb", new)


def _five_d(folder: Path) -> None:
    image = benign_bold(folder)
    new = nb.Nifti1Image(values(image)[:, :, :, None, :], image.affine)
    new.header.set_zooms((*image.header.get_zooms()[:3], 1.0, TR))
    add_bold(folder, "fiveD", new)


def _big_endian(image: nb.Nifti1Image) -> nb.Nifti1Image:
    header = nb.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    new = nb.Nifti1Image(np.asarray(image.dataobj, dtype=">f4"), image.affine, header)
    new.header.set_zooms(image.header.get_zooms())
    new.header.set_xyzt_units("mm", "sec")
    return new


def _scaled(image: nb.Nifti1Image) -> nb.Nifti1Image:
    new = nb.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    new.set_data_dtype(np.int16)
    return new


# --- orientation and sizes -------------------------------------------------------------------


def _no_codes(image: nb.Nifti1Image) -> nb.Nifti1Image:
    image.set_qform(image.affine, 0)
    image.set_sform(image.affine, 0)
    return image


def _disagree(image: nb.Nifti1Image) -> nb.Nifti1Image:
    turned = image.affine.copy()
    turned[:3, :3] = np.array([[1, 0, 0], [0, 0.94, -0.34], [0, 0.34, 0.94]]) @ turned[:3, :3]
    turned[:3, 3] += [0, 25, -15]
    image.set_sform(image.affine, 1)
    image.set_qform(turned, 1)
    return image


def _stored_las(image: nb.Nifti1Image) -> nb.Nifti1Image:
    """The same places with the first axis stored the other way round."""
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    return changed(image, np.asarray(image.dataobj)[::-1].copy(), image.affine @ flip)


def _stored_pir(image: nb.Nifti1Image) -> nb.Nifti1Image:
    """The same places with the axes in another order."""
    wanted = nb.orientations.axcodes2ornt("PIR")
    new = image.as_reoriented(
        nb.orientations.ornt_transform(nb.io_orientation(image.affine), wanted)
    )
    new.header.set_zooms((*new.header.get_zooms()[:3], TR))
    return new


def _in_metres(image: nb.Nifti1Image) -> nb.Nifti1Image:
    small = image.affine.copy()
    small[:3] /= 1000
    return changed(image, np.asarray(image.dataobj), small)


def _huge(image: nb.Nifti1Image) -> nb.Nifti1Image:
    large = image.affine.copy()
    large[:3] *= 20
    return changed(image, np.asarray(image.dataobj), large)


def _milliseconds(folder: Path) -> None:
    image = benign_bold(folder)
    add_bold(folder, "trMs", changed(image, values(image)), sidecar={"RepetitionTime": 1000 * TR})


def _disagreeing_tr(folder: Path) -> None:
    image = changed(benign_bold(folder), values(benign_bold(folder)))
    image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    add_bold(folder, "trTwice", image)


# --- values and volumes ----------------------------------------------------------------------


def _scattered_nan(data: NDArray[np.float32]) -> NDArray[np.float32]:
    data[np.random.default_rng(2).random(data.shape[:3]) < 0.002] = np.nan
    return data


def _nan_background(data: NDArray[np.float32]) -> NDArray[np.float32]:
    dark = data.mean(axis=3) < 0.1 * data.mean(axis=3).max()
    data[dark] = np.nan
    return data


def _set(volumes: slice | int, value: float) -> Change:
    def change(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data[..., volumes] = value
        return data

    return change


def _times(volumes: slice | int, factor: float) -> Change:
    def change(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data[..., volumes] *= factor
        return data

    return change


def _zero_tail(folder: Path) -> None:
    """A scan that was stopped, and the same without its empty volumes.

    The benign run is no measure of it: the filter sees what came after, which moves slow series at
    their end.
    """
    image = benign_bold(folder)
    add_bold(folder, "stopped", changed(image, values(image)[..., :50]))
    add_bold(folder, "zeroTail", changed(image, _set(slice(50, None), 0.0)(values(image))))


def _frozen(data: NDArray[np.float32]) -> NDArray[np.float32]:
    data[..., 31:37] = data[..., 30:31]
    return data


def _but(*bad: int) -> tuple[int, ...]:
    return tuple(t for t in range(VOLUMES) if t not in bad)


def _cut_field(folder: Path) -> None:
    image = benign_bold(folder)
    whole = values(image)
    add_bold(folder, "cutField", changed(image, whole[:, :, : whole.shape[2] - 10]))


def _t1w(label: str, change: Callable[[nb.Nifti1Image], nb.Nifti1Image]) -> Callable[[Path], None]:
    from benchmarks.hard.benign import benign_t1w

    def build(folder: Path) -> None:
        add_person(folder, label, change(nb.load(benign_t1w(folder))))

    return build


def _t1w_rgb(image: nb.Nifti1Image) -> nb.Nifti1Image:
    data = np.asarray(image.dataobj)
    grey = (255 * data / data.max()).astype(np.uint8)
    colours = np.zeros(grey.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"] = grey
    return nb.Nifti1Image(colours, image.affine)


def _t1w_series(image: nb.Nifti1Image) -> nb.Nifti1Image:
    data = np.asarray(image.dataobj)
    return nb.Nifti1Image(np.stack([data, data], axis=3), image.affine)


_BAD, _GOOD = (REFUSED,), (RIGHT,)
HEADERS = (
    Case("complex", "complex BOLD", (REFUSED, RIGHT, WARNED), _with("complex", _complex)),
    Case("rgb", "BOLD in colours", _BAD, _rgb),
    Case("fiveD", "time as the fifth axis", (REFUSED, RIGHT), _five_d),
    Case("bigEndian", "big-endian BOLD", _GOOD, _header("bigEndian", _big_endian)),
    Case("int16", "BOLD of integers with a slope", _GOOD, _header("int16", _scaled)),
    Case(
        "noCodes",
        "both orientation codes 0",
        (REFUSED,),
        _header("noCodes", _no_codes),
        says="--assume-orientation|orientation",
    ),
    Case("disagree", "sform and qform disagree", (REFUSED, WARNED), _header("disagree", _disagree)),
    Case("las", "stored from right to left", _GOOD, _header("las", _stored_las)),
    Case("pir", "axes stored in another order", _GOOD, _header("pir", _stored_pir)),
    Case("metres", "voxels of 0.005 mm", _BAD, _header("metres", _in_metres), says="mm"),
    Case("huge", "voxels of 100 mm", _BAD, _header("huge", _huge), says="mm"),
    Case("trMs", "RepetitionTime of 2000 (s)", _BAD, _milliseconds, says="second|repetition"),
    Case("trTwice", "header and sidecar disagree about the TR", (WARNED, RIGHT), _disagreeing_tr),
    Case("t1rgb", "T1w in colours", _BAD, _t1w("t1rgb", _t1w_rgb), says="t1w"),
    Case("t1series", "T1w of two volumes", (REFUSED, RIGHT, WARNED), _t1w("t1series", _t1w_series)),
)
VALUES = (
    Case(
        "nanVoxels",
        "NaN in 0.2 % of the voxels",
        (RIGHT, WARNED),
        _with("nanVoxels", _scattered_nan),
    ),
    Case(
        "nanOutside",
        "NaN outside of the head",
        (RIGHT, WARNED),
        _with("nanOutside", _nan_background),
    ),
    Case("cutField", "the upper 50 mm not in view", (WARNED,), _cut_field),
)
VOLUMES_OF_RAW = (
    Case(
        "zeroTail",
        "the last 10 of 60 volumes are 0; r to the scan that ends before them",
        (RIGHT, WARNED),
        _zero_tail,
        benign="stopped",
        good=tuple(range(50)),
        least_r=0.99,
    ),
    Case(
        "zeroMiddle",
        "one volume of zeros",
        (RIGHT, WARNED),
        _with("zeroMiddle", _set(30, 0.0)),
        good=_but(30),
        least_r=0.99,
    ),
    Case(
        "bright",
        "one volume eight times too bright",
        (RIGHT, WARNED),
        _with("bright", _times(30, 8.0)),
        good=_but(30),
        least_r=0.99,
    ),
    Case(
        "frozen",
        "six equal volumes after one another",
        (RIGHT, WARNED),
        _with("frozen", _frozen),
        good=_but(*range(30, 37)),
        least_r=0.99,
    ),
    Case(
        "nanVolume",
        "one volume of NaN",
        (RIGHT, WARNED),
        _with("nanVolume", _set(30, np.nan)),
        good=_but(30),
        least_r=0.99,
    ),
    Case(
        "thirdZero",
        "a third of the volumes are 0",
        _BAD,
        _with("thirdZero", _set(slice(40, None), 0.0)),
        says="volumes",
    ),
)
