"""A raw run and one of fMRIPrep give the series of further atlases in the same pass."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest
from scipy import sparse

from brainlm_bids import files
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.denoising import Denoise
from brainlm_bids.interfaces.fmriprep import ExtractPreprocessed
from brainlm_bids.interfaces.functional import Extract
from brainlm_bids.preproc.steps import Motion

SHAPE, VOLUMES = (8, 9, 7), 30


def _common(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Inputs of both interfaces; and the run (voxels, T)."""
    rng = np.random.default_rng(0)
    data = rng.normal(1000, 10, (*SHAPE, VOLUMES)).astype(np.float32)
    image = nb.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.to_filename(folder / "bold.nii")
    mask = nb.Nifti1Image(np.ones(SHAPE, np.uint8), image.affine)
    mask.to_filename(folder / "mask.nii")
    n_voxels = int(np.prod(SHAPE))
    matrices = np.tile(np.eye(4), (VOLUMES, 1, 1))
    motion = Motion(1, rng.normal(0, 1e-3, (VOLUMES, 6)), matrices, np.zeros(3))
    operator = sparse.csr_matrix(np.eye(424, n_voxels, dtype=np.float32))
    others = np.zeros((3, n_voxels), np.float32)
    others[0, :10], others[1, 100:150] = 1 / 10, 1 / 50
    inputs = {
        "bold": str(folder / "bold.nii"),
        "brain_mask": str(folder / "mask.nii"),
        "motion": payloads.save(motion, folder / "motion"),
        "operator": payloads.save(operator, folder / "operator"),
        "others_operator": payloads.save(sparse.csr_matrix(others), folder / "others_operator"),
        "tissue": payloads.save(np.zeros(SHAPE, np.uint8), folder / "tissue"),
        "tr": 2.0,
    }
    return inputs, data.reshape(n_voxels, VOLUMES)


@pytest.mark.parametrize("raw", [True, False])
def test_the_means_of_all_atlases_and_their_filter(tmp_path: Path, raw: bool) -> None:
    inputs, voxels = _common(tmp_path)
    if raw:
        tissues = sparse.csr_matrix(np.eye(2, len(voxels), dtype=np.float32))
        inputs |= {"tissues": payloads.save(tissues, tmp_path / "tissues")}
        inputs |= {"fd_spike_threshold": 0.5, "dvars_spike_threshold": 1.5}
        made = Extract(**inputs).run(cwd=str(tmp_path)).outputs
    else:
        names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
        table = files.write_tsv(tmp_path / "confounds.tsv", names, [[0.0] * VOLUMES] * 6)
        made = ExtractPreprocessed(**inputs, confounds=str(table)).run(cwd=str(tmp_path)).outputs
    others = payloads.load(np.ndarray, made.others)
    wanted = np.stack([voxels[:10].mean(axis=0), voxels[100:150].mean(axis=0)], 1) * made.factor
    assert np.allclose(others[:, :2], wanted, rtol=1e-5) and np.isnan(others[:, 2]).all()
    parcels = payloads.load(np.ndarray, made.parcels)
    assert np.allclose(parcels, voxels[:424].T * made.factor, rtol=1e-5)
    common = {"motion": inputs["motion"], "tr": 2.0, "mode": "none", "high_pass": 100.0}
    denoise = Denoise(parcels=made.parcels, others=made.others, **common)
    cleaned = denoise.run(cwd=str(tmp_path)).outputs
    first = payloads.load(np.ndarray, cleaned.denoised)[:, :10].mean(axis=1)
    own = payloads.load(np.ndarray, cleaned.others_denoised)
    # the filter is linear: the mean of filtered voxels is the filtered mean
    assert np.allclose(own[:, 0], first, rtol=1e-5, equal_nan=True) and np.isnan(own[0, 0])
