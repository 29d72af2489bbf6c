"""Runs with planted components: an edge that follows motion, CSF, a fast course, four networks.

Series (T, V) of the voxels of `brain()["mask"]`, time courses (T, 7), maps (7, V), motion (T, 6):
what an ICA must find and ICA-AROMA must tell apart.
"""

import numpy as np
from scipy import ndimage

SHAPE = (40, 44, 32)
N_NOISE = 3  # the first of the seven
N_NETWORKS = 4


def brain() -> dict[str, np.ndarray]:
    """An ellipsoid with ventricles and an edge, as masks (X, Y, Z)."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum((g / 0.92) ** 2 for g in grid))
    mask = radius < 1
    return {
        "mask": mask,
        "edge": mask & (radius > 0.85),
        "csf": (np.abs(grid[0]) < 0.18) & (np.abs(grid[1]) < 0.35) & (np.abs(grid[2]) < 0.3),
        "out": ~mask,
    }


def smooth(rng: np.random.Generator, n: int, mask: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """(n, V) unit-variance noise fields, smooth by `sigma` voxels."""
    noise = rng.standard_normal((n, *SHAPE)).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, (0, sigma, sigma, sigma))
    return noise[:, mask] / noise[:, mask].std()


def blobs(mask: np.ndarray) -> np.ndarray:
    """(4, V) networks: pairs of spheres away from edge and ventricles."""
    centres = [(11, 15, 16), (11, 28, 16), (20, 10, 20), (20, 34, 12)]
    index = np.indices(SHAPE)
    maps = []
    for x, y, z in centres:
        distance = sum((index[i] - c) ** 2 for i, c in enumerate((x, y, z)))
        mirrored = sum((index[i] - c) ** 2 for i, c in enumerate((SHAPE[0] - 1 - x, y, z)))
        maps.append((np.minimum(distance, mirrored) < 25)[mask].astype(np.float32))
    return np.stack(maps)


def slow(rng: np.random.Generator, n_volumes: int) -> np.ndarray:
    """A time course below 0.1 Hz at a TR of 2 s, unit variance."""
    course = ndimage.gaussian_filter1d(rng.standard_normal(n_volumes), 2.0)
    return (course - course.mean()) / course.std()


def fast(rng: np.random.Generator, n_volumes: int) -> np.ndarray:
    """A time course near the Nyquist frequency, unit variance."""
    return slow(rng, n_volumes) * (-1.0) ** np.arange(n_volumes)


def motion(rng: np.random.Generator, n_volumes: int) -> np.ndarray:
    """Six parameters (T, 6) that drift with a few jumps."""
    steps = rng.standard_normal((n_volumes, 6)) * 0.02
    jumps = rng.random((n_volumes, 1)) < 0.05
    return np.cumsum(steps + jumps * rng.standard_normal((n_volumes, 6)) * 0.4, axis=0)


def plant(seed: int, n_volumes: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Series (T, V), time courses (T, 7), maps (7, V), parameters: edge, CSF, fast, 4 networks."""
    rng = np.random.default_rng(seed)
    masks = brain()
    inside = masks["mask"]
    parameters = motion(rng, n_volumes)
    moved = parameters[:, rng.integers(6)]
    side = np.where(np.indices(SHAPE)[1] < SHAPE[1] / 2, 1.0, -0.8)
    courses = [(moved - moved.mean()) / moved.std(), slow(rng, n_volumes), fast(rng, n_volumes)]
    courses += [slow(rng, n_volumes) for _ in range(4)]
    scattered = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    scattered = (scattered > np.quantile(scattered, 0.93)) & ~masks["csf"] & ~masks["edge"]
    maps = np.stack([(masks["edge"] * side)[inside], masks["csf"][inside], scattered[inside]])
    maps = np.vstack([maps, blobs(inside)])
    mixing = np.stack(courses, axis=1)
    strength = rng.uniform(1.5, 2.5, 7)
    series = (mixing * strength) @ maps + smooth(rng, n_volumes, inside)
    gain = rng.uniform(50, 150, inside.sum())
    return (10000 + gain * series).astype(np.float32), mixing, maps, parameters
