"""The magnetic field of a head, in Hz, and where an echo-planar image shows what lies in it.

The field is a sum of Gaussians in the head: closed form, so that images, field maps and truth on
any grid, and the derivative that conserves the signal, are exact. Points are (3, N) RAS+ mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainlm_bids.phantom.head import Warp, apply_affine, template_head

READOUT = 0.04  # total read-out time, s: a field of 25 Hz moves the image by one voxel
MAX_DISTORTION = 14.0  # mm: what lies farther outside of the field of view is not simulated
# Middle in MNI and sd, mm, and sign of the field: frontal pole, both temporal poles
POLES = (
    (0.0, 52.0, -20.0, 23.0, 1.0),
    (44.0, 12.0, -32.0, 19.0, -0.9),
    (-44.0, 12.0, -32.0, 19.0, -0.8),
)
N_BACKGROUND = 3  # broad Gaussians that stand for what the shim leaves, a tenth of the peak
NEWTON_STEPS = 20
NEWTON_TOLERANCE = 1e-4  # mm


@dataclass(frozen=True)
class Field:
    """A sum of Gaussians: middles (K, 3) and sds (K,) in mm of the head, heights (K,) in Hz."""

    middles: np.ndarray
    sds: np.ndarray
    heights: np.ndarray

    def hertz(self, points: np.ndarray) -> np.ndarray:
        """Field (N,) at points (3, N) of the head."""
        return self.with_slope(points, np.zeros(3))[0]

    def with_slope(self, points: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, ...]:
        """Field (N,) and its change (N,) in Hz along a step (3,) in mm of the head."""
        total, slope = np.zeros((2, points.shape[1]))
        for middle, sd, height in zip(self.middles, self.sds, self.heights, strict=True):
            away = (points - middle[:, None]) / sd
            value = height * np.exp(-0.5 * np.einsum("in,in->n", away, away))
            total += value
            slope -= value * ((direction / sd) @ away)
        return total, slope


def subject_field(rng: np.random.Generator, anatomy: Warp, peak: float) -> Field:
    """Draw the field of a person; `peak` in Hz is its largest size in the brain.

    anatomy: the warp of the head whose pose is the identity.
    """
    poles = np.array(POLES)
    middles = poles[:, :3] + rng.uniform(-4, 4, (len(poles), 3))
    heights = poles[:, 4] * rng.uniform(0.9, 1.1, len(poles))
    middles = np.vstack([middles, rng.uniform(-60, 60, (N_BACKGROUND, 3))])
    heights = np.concatenate([heights, rng.uniform(-0.1, 0.1, N_BACKGROUND)])
    sds = np.concatenate([poles[:, 3], np.full(N_BACKGROUND, 45.0)])
    field = Field(anatomy.to_t1w(middles), sds, heights)
    largest = np.abs(field.hertz(_brain_points(anatomy))).max()
    return Field(field.middles, sds, heights * peak / largest)


def _brain_points(anatomy: Warp) -> np.ndarray:
    """Points (3, N) of the head that lie in the brain, every 4 mm."""
    head = template_head()
    voxels = np.argwhere(head.distance[::2, ::2, ::2] <= 0) * 2.0
    return anatomy.to_t1w(apply_affine(head.distance_affine, voxels.T).T).T


@dataclass(frozen=True)
class PhaseEncoding:
    """Axis of the stored array along which the field moves the image, and the sign, 1 or -1.

    With sign 1 (BIDS' "j") a positive field moves it towards larger indices.
    """

    axis: int
    sign: int

    @classmethod
    def from_bids(cls, direction: str) -> PhaseEncoding:
        """Read i, i-, j, j-, k or k-; ValueError for anything else."""
        if direction not in ("i", "i-", "j", "j-", "k", "k-"):
            raise ValueError(f"phase encoding {direction!r} is none of i, i-, j, j-, k, k-")
        return cls("ijk".index(direction[0]), -1 if direction.endswith("-") else 1)

    @property
    def direction(self) -> str:
        """As BIDS writes it."""
        return "ijk"[self.axis] + ("-" if self.sign < 0 else "")

    @property
    def opposite(self) -> PhaseEncoding:
        """The same axis, passed through the other way."""
        return PhaseEncoding(self.axis, -self.sign)


@dataclass(frozen=True)
class Distortion:
    """How one echo-planar acquisition shows the head: x is seen at y = x + field(x) * step.

    to_head (4, 4): from the reference pose to the head; step (3,): mm in the scanner per Hz.
    """

    field: Field
    to_head: np.ndarray
    step: np.ndarray

    @classmethod
    def of(
        cls, field: Field, to_head: np.ndarray, affine: np.ndarray, encoding: PhaseEncoding
    ) -> Distortion:
        """That of images with this affine (4, 4)."""
        return cls(field, to_head, encoding.sign * READOUT * affine[:3, encoding.axis])

    def seen(self, points: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """Where (3, N) the image shows what lies at points (3, N) of the scanner.

        motion (4, 4): from the reference pose to that of the volume. The field moves with the head.
        """
        head = apply_affine(self.to_head @ np.linalg.inv(motion), points)
        return np.asarray(points + self.field.hertz(head) * self.step[:, None])

    def sources(
        self, points: np.ndarray, motion: np.ndarray, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Field (N,) in Hz of what the image shows at points (3, N), and its density (N,).

        What is shown at y lies at x = y - field * step; the signal there is multiplied by |dx/dy|,
        so that no signal is lost or gained. start (N,): a guess, such as that of the last volume.
        """
        matrix = self.to_head @ np.linalg.inv(motion)
        step = matrix[:3, :3] @ self.step
        shown = apply_affine(matrix, points)
        hertz = np.zeros(points.shape[1]) if start is None else start.copy()
        tolerance = NEWTON_TOLERANCE / np.linalg.norm(step)
        for _ in range(NEWTON_STEPS):
            value, slope = self.field.with_slope(shown - hertz * step[:, None], step)
            change = (value - hertz) / (1 + slope)
            hertz += change
            if np.abs(change).max(initial=0.0) < tolerance:
                break
        # the last step was so small that the slope is that of the solution
        return hertz, np.asarray(1 / np.abs(1 + slope))
