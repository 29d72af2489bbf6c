"""Writes the T1w of a head and the warp that made it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from brainlm_bids import files
from brainlm_bids.phantom.head import Warp, apply_affine, in_brain, spline_weights, t1w_intensity
from brainlm_bids.phantom.lesion import Lesion, with_lesion
from brainlm_bids.phantom.storing import write_nifti, write_npz
from brainlm_bids.resources import EMBEDDED_SPACE

T1W_VOXEL = 1.25  # mm; finer than the blur of an average template brings nothing but time
LESION = "where the T1w was given a lesion; neither the BOLD nor the geometry knows of it"


def write_t1w(
    folder: Path,
    truth: Path,
    prefix: str,
    warp: Warp,
    rng: np.random.Generator,
    lesion: Lesion | None = None,
) -> None:
    """Write the T1w and its warp. The grid is laid on the head, as a scanner's planning does.

    A lesion is cut out of the brain as the T1w shows it, and its mask is written beside it.
    """
    shape = tuple(round(size / T1W_VOXEL) for size in (200.0, 250.0, 240.0))
    on_head = np.diag([T1W_VOXEL] * 3 + [1.0])
    on_head[:3, 3] = (-100.0, -140.0, -140.0)
    axes = [on_head[i, 3] + T1W_VOXEL * np.arange(n) for i, n in enumerate(shape)]
    weights = [
        spline_weights((axis - warp.origin[i]) / warp.spacing, warp.control.shape[i])
        for i, axis in enumerate(axes)
    ]
    data = np.empty(shape, np.float32)
    damaged = np.zeros(shape, bool)
    coil = rng.uniform(-0.25, 0.25, 3)
    for k in range(0, shape[2], 16):
        slab = slice(k, k + 16)
        grid = np.stack(np.meshgrid(axes[0], axes[1], axes[2][slab], indexing="ij"))
        field = np.einsum(
            "xi,yj,zk,ijkc->cxyz", *weights[:2], weights[2][slab], warp.control, optimize=True
        )
        points = (grid + field).reshape(3, -1)
        there = apply_affine(warp.affine, points)
        values = t1w_intensity(there).reshape(grid.shape[1:])
        if lesion:
            share = lesion.share(grid.reshape(3, -1)) * in_brain(there)
            damaged[:, :, slab] = (share > 0.5).reshape(values.shape)
            values = with_lesion(values, share.reshape(values.shape))
        data[:, :, slab] = values * np.exp(np.tensordot(coil, grid / 100, 1))
    noise = rng.normal(0, 0.02, (2, *shape)).astype(np.float32)
    data = np.hypot(data + noise[0], noise[1])
    header = nib.Nifti1Image(np.zeros(1), np.linalg.inv(warp.pose) @ on_head).header
    header.set_data_shape(shape)
    write_nifti(folder / f"{prefix}_T1w.nii.gz", header, [np.rint(600 * data)])
    files.write_json(
        folder / f"{prefix}_T1w.json",
        {"Modality": "MR", "Manufacturer": "brainlm phantom", "MagneticFieldStrength": 3},
    )
    if lesion:
        stem = folder / f"{prefix}_label-lesion_mask"
        write_nifti(stem.with_suffix(".nii.gz"), header, [damaged], "|u1")
        files.write_json(stem.with_suffix(".json"), {"Type": "Lesion", "Description": LESION})
    write_npz(
        truth / f"{prefix}_from-T1w_to-{EMBEDDED_SPACE}_mode-points_xfm.npz",
        pose=warp.pose,
        affine=warp.affine,
        control=warp.control,
        origin=warp.origin,
        spacing=warp.spacing,
    )
