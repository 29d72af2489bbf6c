"""Sums and equations along lines, against dense matrices and numerical derivatives."""

import numpy as np
import pytest

from brainlm_bids.preproc.distortion.lines import (
    Bending,
    CumulativeSignal,
    Pentadiagonal,
    barrier,
)


def test_signal_is_conserved_under_any_displacement():
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 1, (21, 3, 2))
    image[:4] = image[-4:] = 0
    faces = np.arange(22.0)[:, None, None] + np.cumsum(rng.uniform(-0.3, 0.3, (22, 3, 2)), axis=0)
    faces[0], faces[-1] = 0, 21
    shown = np.diff(CumulativeSignal(image)(faces)[0], axis=0)
    assert np.allclose(shown.sum(axis=0), image.sum(axis=0), atol=1e-9)


def test_density_is_the_derivative_of_the_amount():
    image = np.random.default_rng(2).uniform(0, 1, (9, 2, 2))
    places = np.linspace(0.3, 8.6, 40)[:, None, None] * np.ones((1, 2, 2))
    signal = CumulativeSignal(image)
    numerical = (signal(places + 1e-5)[0] - signal(places - 1e-5)[0]) / 2e-5
    assert np.allclose(signal(places)[1], numerical, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5, 4), (7, 1, 3), (5, 2, 2)])
def test_bending_against_second_differences(shape):
    spacing = (2.0, 3.0, 4.0)
    volume = np.random.default_rng(3).normal(size=shape)
    expected = 0.0
    for axis in range(3):
        expected += (np.diff(volume, 2, axis=axis) ** 2).sum() / spacing[axis] ** 4
    for one, other in ((0, 1), (0, 2), (1, 2)):
        mixed = np.diff(np.diff(volume, axis=one), axis=other)
        expected += 2 * (mixed**2).sum() / (spacing[one] * spacing[other]) ** 2
    bending = Bending(spacing)
    assert (volume * bending.gradient(volume)).sum() == pytest.approx(expected)
    # the bands are those of the matrix, in the middle of the volume
    diagonal, near, far = bending.bands(shape)
    middle = tuple(n // 2 for n in shape)
    unit = np.zeros(shape)
    unit[middle] = 1
    column = bending.gradient(unit)
    assert column[middle] <= diagonal[middle[0], 0, 0] + 1e-12
    assert far[middle[0] - 2, 0, 0] == pytest.approx(spacing[0] ** -4)
    if shape == (6, 5, 4):
        assert near.min() == pytest.approx(-4 * spacing[0] ** -4)


def test_pentadiagonal_against_dense_solution():
    rng = np.random.default_rng(4)
    n, lines = 9, 5
    near, far = rng.normal(size=(n, lines)), rng.normal(size=(n, lines))
    diagonal = 8 + rng.uniform(size=(n, lines))
    right = rng.normal(size=(n, lines))
    found = Pentadiagonal((diagonal, near, far)).solve(right)
    for k in range(lines):
        dense = np.diag(diagonal[:, k])
        dense += np.diag(near[:-1, k], 1) + np.diag(near[:-1, k], -1)
        dense += np.diag(far[:-2, k], 2) + np.diag(far[:-2, k], -2)
        assert np.allclose(found[:, k], np.linalg.solve(dense, right[:, k]))


def test_barrier_derivatives():
    stretch = np.linspace(-0.95, 0.95, 39)
    cost, slope, curvature = barrier(stretch)
    ahead, behind = barrier(stretch + 1e-6), barrier(stretch - 1e-6)
    assert np.allclose(slope, (ahead[0] - behind[0]) / 2e-6, rtol=1e-4, atol=1e-6)
    assert np.allclose(curvature, (ahead[1] - behind[1]) / 2e-6, rtol=1e-4, atol=1e-6)
    assert (curvature >= 0).all()
    assert (cost >= 0).all()
