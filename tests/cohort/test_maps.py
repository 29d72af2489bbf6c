"""Maps of recordings in a plane."""

from importlib.util import find_spec

import numpy as np
import pytest

from brainlm_bids.cohort import maps
from brainlm_bids.cohort.maps import map_shares, plane_maps, principal_map
from brainlm_bids.cohort.properties import Property


@pytest.mark.parametrize("n_features", [20, 200])
def test_principal_map_finds_the_plane(n_features: int) -> None:
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((50, 2)) * [5.0, 2.0]
    axes = np.linalg.qr(rng.standard_normal((n_features, 2)))[0]
    found = principal_map(plane @ axes.T + 3)
    assert found.axes[0].startswith("PC 1") and sum(found.shares) == pytest.approx(1)
    distance = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(distance, expected, atol=1e-3)
    farthest = found.points[np.abs(found.points).argmax(axis=0), [0, 1]]
    assert (farthest > 0).all()


@pytest.mark.parametrize("features", [np.ones((3, 4)), np.full((1, 5), 7.0), np.zeros((4, 0))])
def test_recordings_that_do_not_differ_are_at_the_origin(features: np.ndarray) -> None:
    found = principal_map(features)
    np.testing.assert_array_equal(found.points, 0)
    assert found.shares == (0.0, 0.0)


def test_maps_are_of_the_distances_whose_shares_are_computed() -> None:
    """Equal to the PCA of standardised features, unknown values being the mean."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((40, 30)) * rng.uniform(0.1, 50, 30)
    features[3, 5] = np.nan
    (found, *_) = plane_maps(features, seed=0)
    filled = np.where(np.isnan(features), np.nanmean(features, axis=0), features)
    z = (filled - filled.mean(axis=0)) / filled.std(axis=0)
    left, size, _ = np.linalg.svd(z, full_matrices=False)
    expected = left[:, :2] * size[:2]
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-3 * size[0])
    np.testing.assert_allclose(found.shares, (size**2 / (size**2).sum())[:2], atol=1e-3)


def test_shares_of_the_map() -> None:
    rng = np.random.default_rng(3)
    site = np.repeat([0.0, 1.0, 2.0], 20)
    points = np.column_stack([10 * site + rng.standard_normal(60), rng.standard_normal(60)])
    unknown = np.where(np.arange(60) < 3, np.nan, rng.standard_normal(60))
    properties = [Property("site", site, ("a", "b", "c")), Property("age", unknown)]
    people = [f"s{k}" for k in range(60)]
    found = map_shares(points, properties, people, seed=1)
    assert found["site"].adjusted > 0.95 and found["site"].p < 0.01
    assert abs(found["age"].adjusted) < 0.15 and found["age"].p > 0.01


def test_neighbours_are_mapped_with_enough_recordings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(4).standard_normal((29, 6))
    assert [plane.method for plane in plane_maps(features, seed=0)] == ["pca"]
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    assert not maps.can_map_neighbours(100)


@pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")
def test_neighbours_stay_together_and_the_map_repeats() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat([0, 1], 25)
    features = rng.standard_normal((50, 12)) + 20 * group[:, None]
    once, again = (plane_maps(features, seed=7)[1] for _ in range(2))
    np.testing.assert_array_equal(once.points, again.points)
    distance = np.linalg.norm(once.points[:, None] - once.points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()
    assert maps.about_method("umap", 7)["Seed"] == 7
