"""The cavities are dark in the template, and the parcels near them are those of the literature."""

from pathlib import Path

import nibabel as nib
import numpy as np

from brainlm_bids import resources
from brainlm_bids.preproc.affine import grid_points
from brainlm_bids.preproc.distortion.risk import (
    CAVITIES,
    freedom,
    parcels_at_risk,
    relative_field,
)


def test_the_cavities_are_dark_in_the_template(shared: Path) -> None:
    folder = shared / "templateflow" / "tpl-MNI152NLin6Asym"
    image = nib.Nifti1Image.from_filename(folder / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz")
    values = np.asarray(image.dataobj, dtype=np.float64)
    points = grid_points(values.shape, image.affine)
    brain = np.median(values[np.linalg.norm(points, axis=1).reshape(values.shape) < 40])
    for *middle, radius in CAVITIES:
        away = np.linalg.norm(points - np.array(middle), axis=1).reshape(values.shape)
        inner = values[away < 0.7 * radius]
        assert np.median(inner) < 0.35 * brain, middle


def test_the_field_falls_with_the_third_power() -> None:
    far = np.array(CAVITIES[-1][:3]) + np.array([[0.0, 0.0, 300.0], [0.0, 0.0, 600.0]])
    first, second = relative_field(far)
    assert 7 < first / second < 9


def test_the_parcels_at_risk() -> None:
    parcels = resources.parcels()
    at_risk = parcels_at_risk(parcels.xyz)
    # as many as a field at the frontal and temporal poles of 8 to 12 mm moves by more than 4 mm
    assert 11 <= at_risk.sum() <= 24
    low = parcels.xyz[at_risk]
    assert (low[:, 2] < -10).all()
    orbitofrontal = (low[:, 1] > 5) & (np.abs(low[:, 0]) < 25)
    temporal = (np.abs(low[:, 0]) > 25) & (low[:, 1] < 0)
    assert orbitofrontal.sum() >= 6 and temporal.sum() >= 6
    # sides do not differ by more than the parcels themselves do
    assert abs(int((low[:, 0] < 0).sum()) - int((low[:, 0] > 0).sum())) <= 2


def test_freedom_fades() -> None:
    up = np.column_stack([np.zeros(60), np.full(60, 10.0), np.arange(-43.0, 77.0, 2.0)])
    free = freedom(up)
    assert free[0] == 1 and free[-1] == 0
    assert (np.diff(free) <= 0).all() and np.abs(np.diff(free)).max() < 0.15
