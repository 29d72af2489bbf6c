"""Raw data whose registration fails, or looks as if it would."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.hard.benign import (
    COMMON,
    add_bold,
    add_person,
    benign_bold,
    benign_t1w,
    changed,
    raw_dataset,
    values,
)
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Batch, Case


def _turned(task: str, rotation: NDArray[np.float64]) -> Callable[[Path], None]:
    """The benign run whose header is turned about the middle of the image."""

    def build(folder: Path) -> None:
        image = benign_bold(folder)
        middle = image.affine @ [*((np.array(image.shape[:3]) - 1) / 2), 1.0]
        turn = np.eye(4)
        turn[:3, :3] = rotation
        turn[:3, 3] = middle[:3] - rotation @ middle[:3]
        add_bold(folder, task, changed(image, values(image), turn @ image.affine))

    return build


def _coil(folder: Path) -> None:
    """Nine times brighter at the back than in front, as beside a surface coil."""
    image = benign_bold(folder)
    data = values(image)
    shading = np.exp(np.linspace(np.log(9.0), 0, data.shape[1])) / 3
    add_bold(folder, "coil", changed(image, data * shading[None, :, None, None].astype(np.float32)))


def _other_t1w(folder: Path) -> nb.Nifti1Image:
    return nb.load(next((folder / "raw" / "sub-02" / "anat").glob("*_T1w.nii.gz")))


def _alike(folder: Path) -> None:
    """Two phantoms are smooth warps of one template: their folds are alike, unlike people's."""
    add_person(folder, "alike", _other_t1w(folder))


def _other_person(folder: Path) -> None:
    """The second phantom with folds of its own: moved by 5 mm (rms) within a centimetre or two."""
    image = _other_t1w(folder)
    data, size = np.asarray(image.dataobj, dtype=np.float32), image.header.get_zooms()[:3]
    rng = np.random.default_rng(8)
    places = np.indices(data.shape, dtype=np.float32)
    for axis in range(3):
        noise = rng.standard_normal(data.shape).astype(np.float32)
        moved = ndimage.gaussian_filter(noise, [FOLDS_MM / mm for mm in size])
        places[axis] += FOLD_SHIFT_MM / size[axis] * moved / moved.std()
    other = ndimage.map_coordinates(data, places, order=1)
    add_person(folder, "swapped", nb.Nifti1Image(other, image.affine))


def _t1w(label: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]):  # type: ignore[no-untyped-def]
    def build(folder: Path) -> None:
        image = nb.load(benign_t1w(folder))
        data = change(np.asarray(image.dataobj, dtype=np.float32).copy())
        add_person(folder, label, nb.Nifti1Image(data, image.affine))

    return build


def _without_top(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the upper 35 mm of the head."""
    head = np.flatnonzero((data > 0.2 * np.percentile(data, 99)).any(axis=(0, 1)))
    data[:, :, head[-1] - 35 :] = 0
    return data


def _stripped(folder: Path) -> None:
    from brainlm_bids.preproc.registration.brain import brain_mask_t1w

    image = nb.load(benign_t1w(folder))
    data = np.asarray(image.dataobj, dtype=np.float32)
    mask, _ = brain_mask_t1w(data, image.affine)
    add_person(folder, "stripped", nb.Nifti1Image(np.where(mask, data, 0), image.affine))


def _no_t1w(folder: Path) -> None:
    add_person(folder, "noT1w", None, anat=False)


def _first_damaged(folder: Path) -> None:
    """Two T1w images, the first of which cannot be read."""
    add_person(folder, "twoT1w", None)
    anat = folder / "raw" / "sub-twoT1w" / "anat"
    path = anat / "sub-twoT1w_T1w.nii.gz"
    whole = path.read_bytes()
    path.rename(anat / "sub-twoT1w_run-2_T1w.nii.gz")
    (anat / "sub-twoT1w_run-1_T1w.nii.gz").write_bytes(whole[: len(whole) // 2])


def _turn(axis: int, degrees: float) -> NDArray[np.float64]:
    """Rotation about an axis of the world."""
    a, b = (k for k in range(3) if k != axis)
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(np.radians(degrees))
    turn[a, b], turn[b, a] = -np.sin(np.radians(degrees)), np.sin(np.radians(degrees))
    return turn.round(12)


# Width and size of what tells the folds of two people apart.
FOLDS_MM, FOLD_SHIFT_MM = 6.0, 5.0

_TOLD = (WARNED, REFUSED)
REGISTRATION = Batch(
    "raw, registration",
    "The boundary's contrast and cost, and the overlap of brains, tell that a registration failed. "
    "A header in which left and right are exchanged is not found: no number tells. Neither is the "
    "T1w image of somebody with nearly the same folds, as two simulated heads have.",
    lambda folder: raw_dataset(folder, 2),
    lambda folder: [
        *(str(folder / "raw"), str(folder / "out"), "participant", "-w", str(folder / "work")),
        *(*COMMON, "--denoise", "none"),
    ],
    (
        Case(
            "turned90",
            "BOLD header turned by 90°",
            _TOLD,
            _turned("turned90", _turn(0, 90)),
            says="registration",
        ),
        Case(
            "upsideDown",
            "BOLD header upside down",
            _TOLD,
            _turned("upsideDown", _turn(1, 180)),
            says="registration",
        ),
        Case(
            "backToFront",
            "BOLD header back to front",
            _TOLD,
            _turned("backToFront", _turn(2, 180)),
            says="registration",
        ),
        Case("coil", "BOLD nine times brighter at the back", (RIGHT, WARNED), _coil),
        Case(
            "swapped", "the T1w image of another person", _TOLD, _other_person, says="registration"
        ),
        Case(
            "alike",
            "the T1w image of another person whose folds are alike (not noticed, see above)",
            _TOLD,
            _alike,
        ),
        Case(
            "cutTop",
            "T1w without its upper 35 mm",
            (RIGHT, WARNED, REFUSED),
            _t1w("cutTop", _without_top),
        ),
        Case(
            "offset",
            "T1w with a constant of 1000 added",
            (RIGHT, WARNED),
            _t1w("offset", lambda data: data + 1000),
            least_r=0.97,
        ),
        Case("stripped", "T1w without skull", (RIGHT, WARNED), _stripped, least_r=0.97),
        Case("noT1w", "no T1w image", (WARNED,), _no_t1w),
        Case("twoT1w", "two T1w images, the first damaged", (WARNED, REFUSED), _first_damaged),
    ),
)
