"""The parcel operator against nilearn, closed forms and the atlas itself."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nilearn.image import resample_img
from scipy import ndimage

from brainlm_bids.parcels import operator as parcellation
from brainlm_bids.preproc.affine import labelled_points


def _voxels(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(affine)
    return points @ inverse[:3, :3].T + inverse[:3, 3]


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels of 50 parcels on an LAS 2 mm grid, and a smooth run on an oblique 3 mm grid."""
    rng = np.random.default_rng(0)
    atlas_affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    atlas_affine[:3, 3] = [30, -30, -30]
    seeds = rng.uniform(0, 30, (50, 3))
    grid = np.indices((30, 30, 30)).reshape(3, -1).T
    labels = 1 + ((grid[:, None] - seeds) ** 2).sum(-1).argmin(1).reshape(30, 30, 30)
    angle = 0.1
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= 3
    affine[:3, 3] = [-40, -41, -39]
    noise = rng.standard_normal((28, 28, 28, 5))
    bold = ndimage.gaussian_filter(noise, (1, 1, 1, 0)).astype(np.float32) + 10
    return labels, atlas_affine, bold, affine, np.ones((28, 28, 28), dtype=bool)


def test_operator_equals_spline_resampling_and_label_means(scene: tuple) -> None:
    labels, atlas_affine, bold, affine, mask = scene
    names, points = labelled_points(labels, atlas_affine)
    operator, coverage = parcellation.build_operator(
        names, _voxels(points, affine), mask.shape, mask
    )
    resampled = resample_img(
        nb.Nifti1Image(bold, affine),
        target_affine=atlas_affine,
        target_shape=labels.shape,
        interpolation="continuous",
        force_resample=True,
        copy_header=True,
    ).get_fdata()
    expected = np.array([resampled[labels == n].mean(axis=0) for n in range(1, 51)]).T
    series = parcellation.parcellate(operator, bold)
    assert series.shape == (5, 424)
    assert coverage.fraction[:50].min() == 1
    for ours, theirs in zip(series[:, :50].T, expected.T):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.9999
    np.testing.assert_allclose(series[:, :50], expected, rtol=1e-4)
    assert np.isnan(series[:, 50:]).all()


def test_voxels_beyond_the_mask_never_enter(scene: tuple) -> None:
    labels, atlas_affine, bold, affine, _ = scene
    mask = np.random.default_rng(1).random(bold.shape[:3]) > 0.4
    names, points = labelled_points(labels, atlas_affine)
    operator, coverage = parcellation.build_operator(
        names, _voxels(points, affine), mask.shape, mask
    )
    constant = np.where(mask[..., None], 5.0, np.nan) * np.ones(3)
    constant[~mask] = 1e9
    series = parcellation.parcellate(operator, constant)
    np.testing.assert_allclose(series[:, :50], 5.0, rtol=1e-5)
    assert coverage.n_voxels.sum() == labels.size
    assert 0.5 < coverage.n_covered.sum() / labels.size < 0.7


@pytest.mark.parametrize("order", [1, 3])
def test_parcels_below_the_least_coverage_have_no_series(order: int) -> None:
    """Parcel k of 5 has 8 points, 2 k of them in the mask."""
    mask = np.zeros((10, 8, 5), dtype=bool)
    points = np.array([(9 - x, y, k) for k in range(5) for x in range(8) for y in [3]], dtype=float)
    names = np.repeat(np.arange(1, 6), 8)
    for k in range(5):
        mask[10 - 2 * k :, :, k] = True
    bold = np.random.default_rng(0).normal(size=(*mask.shape, 7))

    def series(least: float) -> tuple[np.ndarray, parcellation.Coverage]:
        operator, coverage = parcellation.build_operator(
            names, points, mask.shape, mask, 5, order=order, min_coverage=least
        )
        return parcellation.parcellate(operator, bold), coverage

    every, coverage = series(0.0)
    np.testing.assert_array_equal(coverage.fraction, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(np.isnan(every), np.tile([True, *[False] * 4], (7, 1)))
    half, unchanged = series(0.5)
    np.testing.assert_array_equal(unchanged.fraction, coverage.fraction)
    np.testing.assert_array_equal(half[:, :2], np.nan)
    np.testing.assert_array_equal(half[:, 2:], every[:, 2:])
    assert np.isfinite(series(1.0)[0]).sum() == 7


def test_parcel_out_of_view_is_nan_and_partial_parcel_counts() -> None:
    shape = (6, 6, 6)
    points = np.array([[1.0, 1, 1], [1.5, 1, 1], [-3, 0, 0], [5.4, 5, 5], [9, 9, 9], [np.nan] * 3])
    names = np.array([1, 1, 1, 2, 3, 3])
    operator, coverage = parcellation.build_operator(names, points, shape, np.ones(shape, bool), 4)
    bold = np.broadcast_to(np.arange(6.0)[:, None, None, None], (*shape, 2))
    series = parcellation.parcellate(operator, bold)
    first = ndimage.map_coordinates(bold[..., 0], points[:2].T, order=3, mode="mirror").mean()
    np.testing.assert_allclose(series[0], [first, 5.0, np.nan, np.nan], rtol=1e-5)
    assert coverage.n_voxels.tolist() == [3, 1, 2, 0]
    assert coverage.n_covered.tolist() == [2, 1, 0, 0]
    assert coverage.fraction.tolist() == [2 / 3, 1, 0, 0]


def test_a_parcel_in_a_corner_of_the_mask_is_interpolated_linearly_within_it() -> None:
    """Of a spline around it too little would be left: 3 of its 8 neighbours are in the mask."""
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[:4, :4, :4] = True
    mask[3, 3, 2:] = False
    point = np.array([[3.45, 3.3, 1.4]])
    operator, coverage = parcellation.build_operator(np.array([1]), point, mask.shape, mask, 1)
    assert coverage.n_covered.tolist() == [1]
    columns = np.array(np.unravel_index(operator.indices, mask.shape)).T
    assert columns.tolist() == [[3, 3, 1]]
    np.testing.assert_allclose(operator.data, 1.0)


def test_linear_means_where_they_are_asked_for(scene: tuple) -> None:
    labels, atlas_affine, bold, affine, mask = scene
    names, points = labelled_points(labels, atlas_affine)
    voxels = _voxels(points, affine)
    operator, _ = parcellation.build_operator(names, voxels, mask.shape, mask, 50, order=1)
    values = ndimage.map_coordinates(bold[..., 0], voxels.T, order=1)
    expected = [values[names == n].mean() for n in range(1, 51)]
    np.testing.assert_allclose(operator @ bold[..., 0].ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(operator.sum(axis=1), 1.0, rtol=1e-5)


def test_memory_order_and_chunks_do_not_matter(scene: tuple) -> None:
    labels, atlas_affine, _, affine, mask = scene
    bold = np.random.default_rng(2).standard_normal((*mask.shape, 70)).astype(np.float32)
    names, points = labelled_points(labels, atlas_affine)
    operator, _ = parcellation.build_operator(names, _voxels(points, affine), mask.shape, mask)
    series = parcellation.parcellate(operator, bold)
    fortran = parcellation.parcellate(operator, np.asfortranarray(bold))
    np.testing.assert_array_equal(series, fortran)
    np.testing.assert_array_equal(series[3:], parcellation.parcellate(operator, bold[..., 3:]))
    direct = operator.astype(np.float64) @ bold.reshape(-1, 70)
    np.testing.assert_allclose(series[:, :50], direct[:50].T, rtol=1e-5, atol=1e-6)


def test_wrong_shapes_and_labels_are_refused() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(ValueError, match="labels"):
        parcellation.build_operator(np.array([425]), np.zeros((1, 3)), mask.shape, mask)
    with pytest.raises(ValueError, match="disagree"):
        parcellation.build_operator(np.array([1]), np.zeros((2, 3)), mask.shape, mask)
    operator, _ = parcellation.build_operator(np.array([1]), np.zeros((1, 3)), mask.shape, mask)
    with pytest.raises(ValueError, match="fit"):
        parcellation.parcellate(operator, np.zeros((3, 3, 4, 2)))


@pytest.mark.shared
def test_the_atlas_has_424_parcels_on_its_own_grid(shared: Path) -> None:
    image = nb.Nifti1Image.from_filename(shared / "atlas" / "A424+2mm.nii.gz")
    labels = np.asarray(image.dataobj).astype(int)
    names, points = labelled_points(labels, image.affine)
    mask = np.ones(labels.shape, dtype=bool)
    operator, coverage = parcellation.build_operator(
        names, _voxels(points, image.affine), mask.shape, mask
    )
    assert set(names) == set(range(1, 425))
    assert coverage.n_voxels[404] == 1
    # each parcel's mean of the label image is its own label
    series = parcellation.parcellate(operator, labels[..., None].astype(np.float32))
    np.testing.assert_allclose(series[0], np.arange(1, 425), rtol=1e-5)
