"""The figure of the embeddings: its numbers against other libraries, and few or equal windows."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from brainlm_bids.figures.embeddings import plot_embeddings, similarity, trajectory
from brainlm_bids.figures.model import plot_reconstruction


def _windows(n: int, spread: float, seed: int = 0) -> np.ndarray:
    """Embeddings that have a large part in common, as those of one recording do."""
    rng = np.random.default_rng(seed)
    return np.asarray(10 * rng.normal(size=64) + spread * rng.normal(size=(n, 64)))


def test_similarities_are_those_of_scikit_learn_without_the_diagonal() -> None:
    vectors = _windows(7, 1.0)
    found, expected = similarity(vectors), cosine_similarity(vectors)
    pairs = expected[~np.eye(7, dtype=bool)]
    np.testing.assert_allclose(found.matrix[~np.eye(7, dtype=bool)], pairs)
    assert np.isnan(np.diag(found.matrix)).all()
    assert (found.low, found.high) == (pytest.approx(pairs.min()), pytest.approx(pairs.max()))
    assert found.mean == pytest.approx(pairs.mean())


@pytest.mark.parametrize("spread", [10.0, 1.0, 0.1])
def test_the_scale_spans_what_there_is_and_its_digits_tell_the_ends_apart(spread: float) -> None:
    found = similarity(_windows(9, spread))
    assert f"{found.low:.{found.digits}f}" != f"{found.high:.{found.digits}f}"
    assert not found.same


def test_the_path_is_that_of_a_principal_component_analysis() -> None:
    vectors = _windows(12, 1.0)
    points, shares = trajectory(vectors)
    other = PCA(2, svd_solver="full").fit(vectors)
    np.testing.assert_allclose(np.abs(points), np.abs(other.transform(vectors)), atol=1e-9)
    np.testing.assert_allclose(shares, other.explained_variance_ratio_)
    assert (points[-1] >= 0).all()


def test_two_windows_have_one_component_and_equal_ones_none() -> None:
    points, shares = trajectory(_windows(2, 1e-3))
    assert shares.tolist() == [1.0, 0.0] and not points[:, 1].any()
    points, shares = trajectory(np.ones((5, 8)))
    assert not points.any() and not shares.any()


def test_one_few_and_many_windows_can_be_drawn(tmp_path: Path) -> None:
    for n in (1, 2, 5, 90):
        path = tmp_path / f"{n}.svg"
        onset, bad = 144.0 * np.arange(n), np.zeros(200 * n, bool)
        bad[30] = True
        plot_embeddings(path, _windows(n, 1.0), onset, 144.0, bad=(bad, 0.72, 0.0))
        text = path.read_text()
        assert f"{n} window{'s' * (n > 1)} × 64 dimensions, 144 s each" in text
        assert ("no other to compare" in text) == (n == 1)
        assert ("Values of both windows" in text) == (n == 2)
        assert len(text) < 200_000
    found = similarity(_windows(5, 1.0))
    words = f"cosine, from {found.low:.{found.digits}f} to {found.high:.{found.digits}f}"
    assert words in (tmp_path / "5.svg").read_text()


def test_windows_that_do_not_differ_are_said_to_be_the_same(tmp_path: Path) -> None:
    plot_embeddings(tmp_path / "a.svg", np.tile(_windows(1, 1.0), (4, 1)), np.arange(4.0))
    assert "all windows are the same" in (tmp_path / "a.svg").read_text()
    plot_embeddings(tmp_path / "b.svg", _windows(4, 0.1), np.arange(4.0))
    assert "all windows are the same" not in (tmp_path / "b.svg").read_text()
    # an embedding of zeros has no direction, and is no reason to stop
    plot_embeddings(tmp_path / "c.svg", np.zeros((1, 8)), np.zeros(1))
    plot_embeddings(tmp_path / "d.svg", np.zeros((3, 8)), np.zeros(3))


def test_two_windows_say_how_alike_they_are_and_what_they_share(tmp_path: Path) -> None:
    vectors = _windows(2, 3.0)
    plot_embeddings(tmp_path / "a.svg", vectors, np.array([4.0, 91.0]), 147.0)
    text = (tmp_path / "a.svg").read_text()
    assert f"Cosine similarity: {cosine_similarity(vectors)[0, 1]:.4f}" in text
    assert "They share 60 s" in text
    plot_embeddings(tmp_path / "b.svg", vectors, np.array([0.0, 144.0]), 144.0)
    assert "share" not in (tmp_path / "b.svg").read_text()


def test_borders_of_windows_and_bad_volumes_are_drawn_in_the_reconstruction(
    tmp_path: Path,
) -> None:
    series = np.random.default_rng(0).normal(size=(450, 6))
    bad = np.isin(np.arange(450), (20, 21, 300))
    plot_reconstruction(tmp_path / "a.svg", series, 0.5 * series, 0.72)
    plot_reconstruction(
        *(tmp_path / "b.svg", series, 0.5 * series, 0.72),
        borders=[144.0, 288.0],
        bad=(bad, 0.72, 0.0),
    )
    plain, marked = ((tmp_path / name).read_text() for name in ("a.svg", "b.svg"))
    dashes = [len(re.findall("stroke-dasharray: [1-9]", text)) for text in (plain, marked)]
    assert dashes[1] - dashes[0] == 3 * 2  # three parcels, two borders
    assert "triangles: 3 bad volumes" in marked and "triangles" not in plain
    assert "dashed: border" in marked and "dashed" not in plain
