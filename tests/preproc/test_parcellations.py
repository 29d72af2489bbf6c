"""Further atlases in the steps of a run: the same numbers as alone, and as nilearn's."""

import nibabel as nb
import numpy as np
from nilearn.maskers import NiftiLabelsMasker
from numpy.typing import NDArray
from scipy import sparse

from brainlm_bids import resources
from brainlm_bids.parcels.operator import build_operator, parcellate, parcellate_both
from brainlm_bids.preproc.affine import labelled_points, world_to_voxel
from brainlm_bids.preproc.steps import clean, denoise, project, take_cifti

SHAPE = (12, 14, 10)
AFFINE = np.array([[3.0, 0, 0, -20], [0, 3, 0, -30], [0, 0, 3, -10], [0, 0, 0, 1.0]])


def _bold(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(1000, 20, (*SHAPE, 9)).astype(np.float32)


def _blocks(shape: tuple[int, ...] = SHAPE) -> NDArray[np.int32]:
    labels = np.zeros(shape, np.int32)
    labels[2:5, 2:6, 2:5], labels[5:9, 2:6, 2:5], labels[4:8, 8:12, 4:8] = 1, 2, 3
    return labels


def _operator(
    labels: NDArray[np.int32], affine: NDArray[np.float64], mask: NDArray[np.bool_], n: int
) -> sparse.csr_matrix:
    values, points = labelled_points(labels, affine)
    return build_operator(values, world_to_voxel(points, AFFINE), SHAPE, mask, n)[0]


def test_full_coverage_on_the_grid_of_the_run_is_nilearns_mean() -> None:
    bold, labels = _bold(), _blocks()
    ours = parcellate(_operator(labels, AFFINE, np.ones(SHAPE, bool), 3), bold)
    masker = NiftiLabelsMasker(nb.Nifti1Image(labels, AFFINE), standardize=None)
    theirs = masker.fit_transform(nb.Nifti1Image(bold, AFFINE))
    assert np.allclose(ours, theirs, rtol=1e-5)


def test_an_atlas_of_another_grid_is_a_mean_at_its_own_voxels() -> None:
    """Half the voxel size, turned: values of a linear field are known at every point."""
    fine = np.array([[0, -1.5, 0, 10.0], [1.5, 0, 0, -20], [0, 0, 1.5, -4], [0, 0, 0, 1.0]])
    labels = _blocks((20, 20, 12))
    index = np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    field = (index @ [1.0, -2.0, 0.5] + 100).reshape(SHAPE)
    bold = np.stack([field, 2 * field], axis=3).astype(np.float32)
    values, points = labelled_points(labels, fine)
    inside = world_to_voxel(points, AFFINE)
    assert (inside > 1).all() and (inside < np.array(SHAPE) - 2).all()
    wanted = [np.mean(points[values == k] @ [1.0, -2.0, 0.5] + 100) for k in (1, 2, 3)]
    ours = parcellate(_operator(labels, fine, np.ones(SHAPE, bool), 3), bold)
    assert np.allclose(ours, np.outer([1, 2], wanted), rtol=2e-3)


def test_one_pass_gives_the_numbers_of_several() -> None:
    bold, mask = _bold(), np.ones(SHAPE, bool)
    one, two = (_operator(labels, AFFINE, mask, 4) for labels in (_blocks(), _blocks() % 3))
    first, others = parcellate_both(one, two, bold)
    assert others is not None
    assert np.array_equal(first, parcellate(one, bold), equal_nan=True)
    assert np.array_equal(others, parcellate(two, bold), equal_nan=True)
    assert np.isnan(others[:, 2:]).all()


def test_projection_places_further_atlases_and_leaves_the_first_alone() -> None:
    atlas, affine = resources.approximate_atlas()
    size = 4.0
    run = np.diag([size, size, size, 1.0])
    run[:3, 3] = [-88, -124, -70]
    brain = np.zeros((45, 54, 45), bool)
    brain[8:38, 10:44, 8:36] = True
    blocks = np.zeros(brain.shape, np.int32)
    blocks[10:14, 20:24, 20:24] = 1
    blocks[6:10, 20:24, 20:24] = 2  # half of it is in the brain
    blocks[2:4, 20:24, 20:24] = 3
    common = {
        "tissues": resources.tissue_maps(),
        "aroma": resources.aroma_masks(),
        "pull": lambda points: points,
        "brain_mask": brain,
        "affine": run,
    }
    alone = project(atlas, affine, **common)
    both = project(atlas, affine, **common, others=[(blocks, run, 4)])
    assert (alone.operator != both.operator).nnz == 0
    (other,) = both.others
    assert other.coverage.fraction.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert (np.diff(other.operator.indptr) > 0).tolist() == [True, True, False, False]


def test_others_are_cleaned_as_the_parcels_are() -> None:
    series = np.cumsum(np.random.default_rng(3).normal(size=(60, 5)), axis=0)
    good = np.ones(58, bool)
    good[20] = False
    made = denoise(series, 2.0, n_dummy=2, good=good)
    again = clean(series[:, 3:], made.cleaning, n_dummy=2, good=good)
    assert np.allclose(again, made.series[:, 3:], equal_nan=True)
    assert np.isnan(again[[0, 1, 22]]).all()


def test_grayordinates_are_averaged_by_every_atlas() -> None:
    rng = np.random.default_rng(4)
    series = rng.normal(1000, 10, (40, 424)).astype(np.float32)
    labels, others = np.arange(1, 425), np.repeat([1, 2, 0], [200, 200, 24])
    table = {name: np.zeros(40) for name in ("trans_x", "trans_y", "trans_z")}
    table |= {name: np.zeros(40) for name in ("rot_x", "rot_y", "rot_z")}
    run = take_cifti(series, labels, table, n_dummy=0, others=[(others, 3)])
    assert run.others is not None and np.isnan(run.others[:, 2]).all()
    wanted = np.stack([run.parcels[:, :200].mean(axis=1), run.parcels[:, 200:400].mean(axis=1)], 1)
    assert np.allclose(run.others[:, :2], wanted)
    assert run.others_coverage[0].n_covered.tolist() == [200, 200, 0]
