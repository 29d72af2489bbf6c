"""Existing fMRIPrep derivatives: damaged files, odd names, bad volumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from numpy.typing import NDArray

from benchmarks.hard.benign import (
    ATLAS,
    VOLUMES,
    add_fmriprep,
    changed,
    description,
    fmriprep_confounds,
    fmriprep_dataset,
    fmriprep_signal,
    values,
)
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Batch, Case


def _with(
    task: str, change: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        image = fmriprep_signal()
        add_fmriprep(folder, task, changed(image, change(values(image))))

    return build


def _set(volumes: slice | int, value: float) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    def change(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data[..., volumes] = value
        return data

    return change


def _zero_tail(folder: Path) -> None:
    """A scan that was stopped, and the same without its empty volumes."""
    image = fmriprep_signal()
    short = {name: column[:50] for name, column in fmriprep_confounds().items()}
    add_fmriprep(folder, "stopped", changed(image, values(image)[..., :50]), confounds=short)
    empty = _set(slice(50, None), 0)(values(image))
    add_fmriprep(folder, "zeroTail", changed(image, empty))


def _bright(data: NDArray[np.float32]) -> NDArray[np.float32]:
    data[..., 30] *= 8
    return data


def _frozen(data: NDArray[np.float32]) -> NDArray[np.float32]:
    data[..., 31:37] = data[..., 30:31]
    return data


def _nan_voxels(data: NDArray[np.float32]) -> NDArray[np.float32]:
    data[np.random.default_rng(2).random(data.shape[:3]) < 0.002] = np.nan
    return data


def _complex(data: NDArray[np.float32]) -> NDArray[np.complex64]:
    return (data * np.exp(1j * np.linspace(0, 6, data.shape[3]))).astype(np.complex64)


def _table(task: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: add_fmriprep(folder, task, confounds=content) and None


def _no_table(folder: Path) -> None:
    stem = add_fmriprep(folder, "noTable")
    stem.with_name(f"{stem.name}_desc-confounds_timeseries.tsv").unlink()


def _short_table(folder: Path) -> None:
    add_fmriprep(folder, "shortTable", confounds=fmriprep_confounds(VOLUMES - 7))


def _no_motion(folder: Path) -> None:
    table = {k: v for k, v in fmriprep_confounds().items() if not k.startswith("rot")}
    add_fmriprep(folder, "noMotion", confounds=table)


def _other_mask(folder: Path) -> None:
    mask = nb.Nifti1Image(np.ones((20, 20, 20), np.uint8), np.diag([9.0, 9, 9, 1]))
    add_fmriprep(folder, "otherMask", mask=mask)


def _mask_gone(folder: Path) -> None:
    stem = add_fmriprep(folder, "maskGone")
    path = next(stem.parent.glob(f"{stem.name}_*_desc-brain_mask.nii.gz"))
    path.unlink()
    (path.parents[2] / ".git" / "annex").mkdir(parents=True, exist_ok=True)
    path.symlink_to("../../.git/annex/objects/Xx/Yy/gone")


def _bad_transform(folder: Path) -> None:
    """A run in T1w space alone, whose transform to the template is damaged."""
    add_fmriprep(folder, "badXfm", space="T1w")
    anat = folder / "fmriprep" / "sub-01" / "anat"
    anat.mkdir(exist_ok=True)
    (anat / "sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5").write_bytes(b"\x89HDF\r\n")


def _half(folder: Path) -> None:
    stem = add_fmriprep(folder, "halfBold")
    path = next(stem.parent.glob(f"{stem.name}_*_desc-preproc_bold.nii.gz"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _old_names(folder: Path) -> None:
    """As fMRIPrep 1.x named its files."""
    func = folder / "fmriprep" / "sub-01" / "func"
    stem = add_fmriprep(folder, "oldNames")
    for path in sorted(func.glob(f"{stem.name}_*")):
        name = path.name.replace(
            "_space-MNI152NLin6Asym_desc-preproc_bold", "_bold_space-MNI152NLin6Asym_preproc"
        )
        name = name.replace(
            "_space-MNI152NLin6Asym_desc-brain_mask", "_bold_space-MNI152NLin6Asym_brainmask"
        )
        path.rename(func / name.replace("_desc-confounds_timeseries", "_bold_confounds"))


def _only_170k(folder: Path) -> None:
    stem = add_fmriprep(folder, "only170k")
    for path in stem.parent.glob(f"{stem.name}_space-*"):
        path.unlink()
    (stem.parent / f"{stem.name}_space-fsLR_den-170k_bold.dtseries.nii").write_bytes(b"x" * 400)


def _but(*bad: int) -> tuple[int, ...]:
    return tuple(t for t in range(VOLUMES) if t not in bad)


def _prepare(folder: Path) -> None:
    fmriprep_dataset(folder)
    description(folder / "raw")


_BAD = (REFUSED,)
_TABLE = "\t".join(fmriprep_confounds()) + "\n"
FMRIPREP = Batch(
    "fMRIPrep",
    "Existing fMRIPrep derivatives in template space.",
    _prepare,
    lambda folder: [
        *(str(folder / "raw"), str(folder / "out"), "participant", "-w", str(folder / "work")),
        *("-d", f"fmriprep={folder / 'fmriprep'}", "--denoise", "none"),
        *("--offline", "--atlas", ATLAS, "--model", "none"),
    ],
    (
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
            _with("zeroMiddle", _set(30, 0)),
            good=_but(30),
            least_r=0.99,
        ),
        Case(
            "bright",
            "one volume eight times too bright",
            (RIGHT, WARNED),
            _with("bright", _bright),
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
            _with("thirdZero", _set(slice(40, None), 0)),
            says="volumes",
        ),
        Case(
            "nanVoxels",
            "NaN in 0.2 % of the voxels",
            (RIGHT, WARNED),
            _with("nanVoxels", _nan_voxels),
            least_r=0.95,
        ),
        Case("complex", "complex BOLD", (REFUSED, RIGHT, WARNED), _with("complex", _complex)),
        Case("noTable", "no table of confounds", _BAD, _no_table, says="confounds"),
        Case(
            "shortTable",
            "a table of confounds that is 7 rows short",
            _BAD,
            _short_table,
            says="rows",
        ),
        Case("emptyTable", "an empty table of confounds", _BAD, _table("emptyTable", b"")),
        Case(
            "headTable",
            "a table of confounds without rows",
            _BAD,
            _table("headTable", _TABLE.encode()),
        ),
        Case(
            "binaryTable",
            "a table of confounds that is no text",
            _BAD,
            _table("binaryTable", bytes(range(256)) * 8),
        ),
        Case("noMotion", "confounds without rotations", _BAD, _no_motion, says="rot"),
        Case("otherMask", "a brain mask on another grid", _BAD, _other_mask, says="mask"),
        Case(
            "maskGone",
            "a brain mask that git-annex did not fetch",
            (REFUSED, WARNED),
            _mask_gone,
            says="mask",
        ),
        Case("badXfm", "T1w space with a damaged transform", _BAD, _bad_transform, says="xfm"),
        Case("halfBold", "BOLD cut in its middle", _BAD, _half),
        Case("oldNames", "names of fMRIPrep 1.x", (REFUSED, RIGHT, WARNED), _old_names),
        Case("only170k", "CIFTI with 170k grayordinates alone", _BAD, _only_170k),
    ),
)
