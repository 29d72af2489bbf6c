"""Maps of recordings in a plane."""

import numpy as np

from brainlm_bids.cohort.maps import principal_map


def test_principal_map_finds_the_plane() -> None:
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((50, 2)) * [5.0, 2.0]
    axes = np.linalg.qr(rng.standard_normal((20, 2)))[0]
    found = principal_map(plane @ axes.T + 3)
    assert found.axes[0].startswith("PC 1")
    distance = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(distance, expected, atol=1e-9)
    np.testing.assert_array_equal(principal_map(np.ones((3, 4))).points, 0)
