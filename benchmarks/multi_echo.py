"""A simulated multi-echo run whose decay, motion and noise are known.

The head is a function of place, so that motion needs no grid: an ellipsoid of smooth texture S0
with a smooth map of T2*, which falls to a few milliseconds above an air cavity at its lower front.
Thermal noise has the same strength in every echo. A BOLD response changes R2* alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.affine import apply, invert
from brainlm_bids.preproc.motion.realign import parameters_to_matrices

Array = NDArray[np.float64]
HEAD_MM = np.array([65.0, 80.0, 58.0])
CAVITY_MM = np.array([0.0, 55.0, -40.0])
LEVEL = 4000.0
BOLD_PER_S = 0.4  # change of R2* at the peak of a response


@dataclass(frozen=True)
class MultiEcho:
    """Echoes (X, Y, Z, T) float32 each, and their truth at the pose of volume 0, without noise."""

    echoes: list[NDArray[np.float32]]
    affine: Array
    times: tuple[float, ...]
    t2star: Array  # (X, Y, Z), s
    clean: list[Array]  # (X, Y, Z) of each echo
    brain: NDArray[np.bool_]
    response: Array  # (T,) -1 to 1


def _waves(seed: int, points: Array) -> Array:
    """A smooth random field of mean 0 and standard deviation 1."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((3, 40))
    direction *= 2 * np.pi / rng.uniform(20, 60, 40) / np.linalg.norm(direction, axis=0)
    phase, weight = rng.uniform(0, 2 * np.pi, 40), rng.standard_normal(40) / np.sqrt(20)
    return np.asarray(np.cos(points @ direction + phase) @ weight)


def _density(points: Array, seed: int) -> Array:
    radius = np.linalg.norm(points / HEAD_MM, axis=1)
    edge = 1 / (1 + np.exp(np.clip((radius - 1) * 30, -50, 50)))
    return LEVEL * edge * (1 + 0.15 * _waves(seed, points))


def _t2star(points: Array, seed: int) -> Array:
    near = np.exp(-0.5 * (np.linalg.norm(points - CAVITY_MM, axis=1) / 14.0) ** 2)
    return 1 / (1 / (0.045 * np.exp(0.15 * _waves(seed + 1, points))) + 150.0 * near)


def simulate(
    times: tuple[float, ...],
    *,
    shape: tuple[int, int, int] = (40, 48, 28),
    n_volumes: int = 40,
    noise: float = 0.01,
    mm: float = 0.5,
    response: bool = False,
    seed: int = 0,
) -> MultiEcho:
    """Make a run.

    times: s; noise: standard deviation as a share of the head's S0; mm: how far the head moves at
    most, and in half-degrees how far it turns.
    """
    rng = np.random.default_rng(seed)
    voxel = 168.0 / shape[1]
    affine = np.diag([-voxel, voxel, voxel, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    places = apply(affine, np.indices(shape).reshape(3, -1).T)
    limits = np.array([mm] * 3 + [np.radians(mm / 2)] * 3)
    parameters = rng.uniform(-limits, limits, (n_volumes, 6))
    parameters[0] = 0
    course = np.sin(np.arange(n_volumes) / 3.0) if response else np.zeros(n_volumes)
    echoes = [np.empty((*shape, n_volumes), np.float32, order="F") for _ in times]
    for t, matrix in enumerate(parameters_to_matrices(parameters, np.zeros(3))):
        points = apply(invert(matrix), places)
        density, rate = _density(points, seed), 1 / _t2star(points, seed) - BOLD_PER_S * course[t]
        for echo, time in zip(echoes, times):
            values = density * np.exp(-time * rate)
            values += noise * LEVEL * rng.standard_normal(len(values))
            echo[..., t] = np.abs(values).reshape(shape)
    t2star = _t2star(places, seed)
    density = _density(places, seed)
    clean = [(density * np.exp(-time / t2star)).reshape(shape) for time in times]
    brain = (np.linalg.norm(places / HEAD_MM, axis=1) < 0.9).reshape(shape)
    return MultiEcho(echoes, affine, times, t2star.reshape(shape), clean, brain, course)
