"""One step of Gauss–Newton for a displacement along one axis and a few parameters beside it.

Arrays are (N, X, Z) with the phase axis first, displacements (N + 1, X, Z) at the faces between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from brainlm_bids.preproc.affine import invert
from brainlm_bids.preproc.distortion.lines import Array, Bending, Pentadiagonal, barrier

CG_ITERATIONS = 15
CG_TOLERANCE = 1e-2  # of the norm of the gradient, as the preconditioner measures it
BARRIER = 1e-3

Step = tuple[Array, Array]  # of the displacement, and of the parameters


@dataclass(frozen=True)
class LeastSquares:
    """A weighted sum of squares about one state, with the costs of bending, folding and parameters.

    Attributes
    ----------
    displacement
        (N + 1, X, Z), voxels.
    residual
        (N, X, Z).
    above, below
        (N, X, Z) the residual changes by above times the change of the displacement of the voxel's
        face with the higher index, less below times that of the other.
    columns
        (V, P) its change with the parameters.
    weight
        (N, X, Z).
    ridge
        (P,) cost of a squared change of the parameters.
    bending
        Of a displacement on this grid.
    smoothness
        Weight of the bending.
    largest_factor
        By which the more displaced of the images is displaced.
    """

    displacement: Array
    residual: Array
    above: Array
    below: Array
    columns: Array
    weight: Array
    ridge: Array
    bending: Bending
    smoothness: float
    largest_factor: float

    @cached_property
    def fold(self) -> tuple[Array, Array]:
        """Slope and curvature of the barrier by the change of a face's displacement."""
        factor = self.largest_factor
        _, slope, curvature = barrier(factor * np.diff(self.displacement, axis=0))
        return BARRIER * factor * slope, BARRIER * factor**2 * curvature

    def cost(self, displacement: Array, residual: Array) -> float:
        """What is minimised, at another displacement with its residual; infinite if it folds."""
        stretch = self.largest_factor * np.diff(displacement, axis=0)
        if not np.abs(stretch).max() < 1:
            return np.inf
        bend = float((displacement * self.bending.gradient(displacement)).sum())
        squares = float((self.weight * residual**2).sum())
        return (squares + self.smoothness * bend) / 2 + BARRIER * float(barrier(stretch)[0].sum())

    def downhill(self) -> Step:
        """The negative derivative."""
        weighted = self.weight * self.residual
        there = _to_faces(
            self.above * weighted + self.fold[0], self.below * weighted + self.fold[0]
        )
        there += self.smoothness * self.bending.gradient(self.displacement)
        return -there, -(weighted.ravel() @ self.columns)

    def product(self, step: Step) -> Step:
        """The matrix of second derivatives times a change."""
        there, beside = step
        weighted = self.above * there[1:] - self.below * there[:-1]
        weighted += (self.columns @ beside).reshape(weighted.shape)
        weighted *= self.weight
        fold = self.fold[1] * np.diff(there, axis=0)
        out = _to_faces(self.above * weighted + fold, self.below * weighted + fold)
        out += self.smoothness * self.bending.gradient(there)
        return out, weighted.ravel() @ self.columns + self.ridge * beside

    def preconditioner(self) -> Callable[[Step], Step]:
        """Solve for every line by itself, and for the parameters by themselves."""
        shape = self.displacement.shape
        diagonal, near, far = (
            self.smoothness * np.broadcast_to(band, shape) for band in self.bending.bands(shape)
        )
        fold = self.fold[1]
        diagonal[1:] += self.weight * self.above**2 + fold
        diagonal[:-1] += self.weight * self.below**2 + fold
        near[:-1] -= self.weight * self.above * self.below + fold
        diagonal += 1e-6 * diagonal.mean()
        lines = Pentadiagonal((diagonal, near, far))
        beside = self.columns.T @ (self.weight.reshape(-1, 1) * self.columns)
        inverse = invert(beside + np.diag(self.ridge))
        return lambda step: (lines.solve(step[0]), inverse @ step[1])

    def solution(self) -> Step:
        """The step that lowers the sum most, by preconditioned conjugate gradients."""
        solve = self.preconditioner()
        rest = self.downhill()
        found = (np.zeros_like(rest[0]), np.zeros_like(rest[1]))
        way = solve(rest)
        start = size = _inner(rest, way)
        for _ in range(CG_ITERATIONS):
            if not size > CG_TOLERANCE**2 * start:
                break
            ahead = self.product(way)
            length = size / _inner(way, ahead)
            found = _along(found, length, way)
            rest = _along(rest, -length, ahead)
            better = solve(rest)
            size, before = _inner(rest, better), size
            way = _along(better, size / before, way)
        return found


def _to_faces(above: Array, below: Array) -> Array:
    """Sum (N + 1, X, Z) at each face of what the voxels (N, X, Z) at both sides give to it."""
    out = np.zeros((len(above) + 1, *above.shape[1:]))
    out[1:] = above
    out[:-1] -= below
    return out


def _inner(one: Step, other: Step) -> float:
    return float((one[0] * other[0]).sum() + one[1] @ other[1])


def _along(start: Step, length: float, way: Step) -> Step:
    return start[0] + length * way[0], start[1] + length * way[1]
