"""A head in a magnetic field, seen by an echo-planar and by a gradient-echo acquisition.

The echo-planar image is simulated as the scanner makes it: the signal of every small piece of
tissue is put where its frequency says that it is. Nothing of the package's own distortion is used.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

READOUT = 0.05
FINE_MM = 2.0
AXES = (70.0, 86.0, 62.0)  # of the brain, mm


@dataclass(frozen=True)
class Head:
    """Tissue and field in closed form, drawn by a seed; points are (N, 3) RAS+ mm."""

    seed: int = 0
    peak: float = 60.0  # Hz

    def radius(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(((points / AXES) ** 2).sum(axis=1)))

    def tissue(self, points: np.ndarray) -> np.ndarray:
        """0 outside, 1 to 3 inside: what both contrasts are made from."""
        rng = np.random.default_rng(self.seed)
        waves = rng.normal(0, 0.11, (12, 3)), rng.uniform(0, 2 * np.pi, 12)
        pattern = np.cos(points @ waves[0].T + waves[1]).sum(axis=1) / np.sqrt(6)
        return np.where(self.radius(points) < 1, 2 + np.tanh(2 * pattern), 0.0)

    def hertz(self, points: np.ndarray) -> np.ndarray:
        middles = np.array([[0.0, 66.0, -18.0], [50.0, 8.0, -30.0], [-46.0, 14.0, -28.0]])
        away = ((points[:, np.newaxis] - middles) ** 2).sum(axis=2)
        return np.asarray(self.peak * np.exp(-away / (2 * 18.0**2)) @ [1.0, -0.9, -0.7])

    def epi(self, affine: np.ndarray, shape: tuple[int, ...], direction: str) -> np.ndarray:
        """What an acquisition shows: grey brighter than white, signal put where it is seen."""
        pieces = self.pieces()
        return self.acquired(pieces, 1000 - 200 * self.tissue(pieces), affine, shape, direction)

    def pieces(self) -> np.ndarray:
        """Middles (N, 3) of the small pieces of tissue that the brain is made of."""
        span = np.array(AXES) + 2
        ticks = [np.arange(-end, end, FINE_MM) + FINE_MM / 2 for end in span]
        pieces = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1).reshape(-1, 3)
        return np.asarray(pieces[self.radius(pieces) < 1])

    def acquired(
        self,
        pieces: np.ndarray,
        signal: np.ndarray,
        affine: np.ndarray,
        shape: tuple[int, ...],
        direction: str,
    ) -> np.ndarray:
        """The image of pieces with a signal each."""
        voxels = (pieces - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        # BIDS: towards higher indices of the axis for "j", for a positive frequency
        step = self.hertz(pieces) * READOUT * (-1 if direction.endswith("-") else 1)
        voxels[:, "ijk".index(direction[0])] += step
        volume = abs(np.linalg.det(affine[:3, :3])) / FINE_MM**3
        return put(voxels, signal, shape) / volume

    def magnitude(self, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        points = centres(affine, shape)
        inside = self.radius(points) < 1
        return np.where(inside, 400 + 150 * self.tissue(points), 0.0).reshape(shape)


def centres(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3])


def put(voxels: np.ndarray, signal: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Share each signal between the eight voxels around its place."""
    image = np.zeros(np.prod(shape))
    low = np.floor(voxels).astype(int)
    for corner in np.ndindex(2, 2, 2):
        index = low + corner
        share = np.prod(1 - np.abs(voxels - index), axis=1)
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[inside].T), shape)
        image += np.bincount(flat, signal[inside] * share[inside], len(image))
    return image.reshape(shape)


def grid(orientation: str, size: float = 5.0) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine and shape of an image in an orientation: LAS, RAS, PIR, or oblique."""
    turn = np.eye(3)
    letters = orientation
    if orientation == "oblique":
        turn, letters = Rotation.from_euler("xyz", [17, -9, 12], degrees=True).as_matrix(), "LAS"
    directions = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    linear, extent = np.zeros((3, 3)), np.array([200.0, 240.0, 180.0])
    shape = []
    for axis, letter in enumerate(letters):
        row = directions[letter]
        linear[row, axis] = size if letter in "RAS" else -size
        shape.append(int(extent[row] / size))
    affine = np.eye(4)
    affine[:3, :3] = turn @ linear
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine, (shape[0], shape[1], shape[2])


def moved(affine: np.ndarray, degrees: list[float], shift: list[float]) -> np.ndarray:
    """The affine of an image in which the head lies elsewhere."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    pose[:3, 3] = shift
    return np.asarray(pose @ affine)
