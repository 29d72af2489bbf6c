"""A lesion of the brain, which the T1w shows and which moves nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainlm_bids.phantom.head import Warp, ellipsoid

LEVEL = 0.2  # intensity in the T1w, white matter near 1: fluid
EDGE = 0.12  # width of the rim, in units of the radii


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid with bulges: middle and radii (3,) in mm of the head, phases (3,) in rad."""

    middle: np.ndarray
    radii: np.ndarray
    phases: np.ndarray

    def share(self, points: np.ndarray) -> np.ndarray:
        """Share (N,) of lesion at points (3, N) of the head."""
        bulge = np.sin(points / 9.0 + self.phases[:, None]).prod(0)
        radius = np.sqrt(ellipsoid(points, tuple(self.middle), tuple(self.radii)))
        return np.clip((1 + 0.15 * bulge - radius) / EDGE + 0.5, 0, 1)


def drawn_lesion(rng: np.random.Generator, anatomy: Warp) -> Lesion:
    """Draw a lesion of 30 to 70 ml in the middle of one hemisphere."""
    side = rng.choice([-1.0, 1.0])
    middle = np.array([[31.0 * side, -8.0, 20.0]]) + rng.uniform(-4, 4, (1, 3))
    return Lesion(anatomy.to_t1w(middle)[0], rng.uniform(19, 26, 3), rng.uniform(0, 2 * np.pi, 3))


def with_lesion(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Intensities of a T1w where a share (both of the same shape) is lesion."""
    return np.asarray(values * (1 - share) + LEVEL * share, np.float32)
