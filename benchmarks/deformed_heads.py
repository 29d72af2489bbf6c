"""T1w images of heads unlike the template's, with their truth: small, old, stripped, with a lesion.

All are sampled from the packaged ICBM 2009a template, as the phantom's are. Points (N, 3) are RAS+
mm. A head's way from the template to its T1w image is known at every point.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.phantom import head as anatomy
from brainlm_bids.preproc.affine import Matrix, Points, grid_points, subgrid

VOXEL_MM = 1.25
FIELD_OF_VIEW_MM = (200.0, 250.0, 240.0)
ORIGIN_MM = (-100.0, -140.0, -140.0)
WHITE_MATTER = 600.0
# Axes of the lateral ventricles, mm in template space, and their radius.
VENTRICLES = tuple(
    ((side * a[0], *a[1:]), (side * b[0], *b[1:]))
    for side in (-1.0, 1.0)
    for a, b in (
        ((10.0, 28.0, 2.0), (18.0, -22.0, 18.0)),
        ((18.0, -22.0, 18.0), (28.0, -42.0, 0.0)),
    )
)
RADIUS_MM, REACH_MM = 5.0, 35.0
# Grey and white matter where myelin is young: newborns and half a year.
YOUNG = {"newborn": (0.75, 0.55), "half a year": (0.66, 0.70)}


@dataclass(frozen=True)
class Build:
    """How a head differs from that of a healthy adult.

    Attributes
    ----------
    scale
        Of the whole head.
    contrast
        "adult", "newborn" (grey matter brighter than white) or "half a year" (nearly alike).
    ventricles
        Factor of their radius.
    brain
        Scale of the brain within its skull.
    stripped
        Whether everything but the brain is 0.
    """

    scale: float = 1.0
    contrast: Literal["adult", "newborn", "half a year"] = "adult"
    ventricles: float = 1.0
    brain: float = 1.0
    stripped: bool = False


@dataclass(frozen=True)
class Deformed:
    """A T1w image (X, Y, Z), its affine (4, 4), and the way from the template to it."""

    data: NDArray[np.float32]
    affine: Matrix
    to_t1w: Callable[[Points], Points]


def widening(points: Points, factor: float) -> Points:
    """Where ventricles of `factor` times the radius push tissue, (N, 3) mm, at its new places."""
    total, weights = np.zeros_like(points), np.zeros(len(points))
    wide, extra = factor * RADIUS_MM, (factor - 1) * RADIUS_MM
    for first, second in VENTRICLES:
        start, along = np.array(first), np.subtract(second, first)
        place = np.clip((points - start) @ along / (along @ along), 0, 1)
        away = points - start - place[:, None] * along
        r = np.maximum(np.linalg.norm(away, axis=1), 1e-6)
        s = np.clip((r - wide) / REACH_MM, 0, 1)
        length = extra * np.where(r < wide, r / wide, (1 - s) ** 2 * (1 + 2 * s))
        weight = 1 / np.maximum(r, 1) ** 3
        total += (weight * length / r)[:, None] * away
        weights += weight
    return np.asarray(total / weights[:, None])


def make(seed: int, build: Build) -> Deformed:
    """Sample a head of one seed and build."""
    rng = np.random.default_rng([seed, 99])
    warp = anatomy.subject_warp(rng)
    shape = tuple(int(size / VOXEL_MM) for size in FIELD_OF_VIEW_MM)
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = ORIGIN_MM
    data = np.empty(shape, np.float32)
    for k in range(0, shape[2], 16):
        slab = data[:, :, k : k + 16]
        points = grid_points(slab.shape, subgrid(affine, [0, 0, k])) / build.scale
        slab[...] = _intensity(warp.to_template(points), build).reshape(slab.shape)
    noise = rng.normal(0, 0.02, (2, *shape))
    if build.stripped:
        data = np.where(data > 0, np.maximum(data + noise[0], 0), 0)
    else:
        data = np.hypot(data + noise[0], noise[1])

    def to_t1w(points: Points) -> Points:
        moved = points
        if build.ventricles != 1:
            for _ in range(60):
                moved = points + widening(moved, build.ventricles)
        return np.asarray(warp.to_t1w(moved * build.brain) * build.scale)

    return Deformed(np.rint(WHITE_MATTER * data).astype(np.float32), affine, to_t1w)


def _intensity(points: Points, build: Build) -> NDArray[np.float64]:
    """T1-weighted intensity (N,) of a head in place of the template's, at points of the skull."""
    head = anatomy.template_head()
    within = points / build.brain
    if build.ventricles != 1:
        within = within - widening(within, build.ventricles)
    brain = anatomy._sample(head.t1w, head.affine, within.T, 0.0)
    if build.contrast != "adult":
        brain = _young(brain, within, *YOUNG[build.contrast])
    distance = anatomy._sample(head.distance, head.distance_affine, points.T, 99.0)
    fluid = 0.2 * ((distance <= 0.5) & (brain < 0.2))
    outside = np.clip(1 - brain / 0.3, 0, 1)
    if build.stripped:
        return np.where(distance <= 0.5, brain + outside * fluid, 0)
    skull = anatomy.t1w_intensity(points.T) * (distance > 0.5)
    return np.asarray(brain + outside * np.maximum(skull, fluid))


def _young(
    brain: NDArray[np.float64], points: Points, grey_level: float, white_level: float
) -> NDArray[np.float64]:
    head = anatomy.template_head()
    grey, white = (
        anatomy._sample(one, head.affine, points.T, 0.0) for one in (head.grey, head.white)
    )
    total = np.maximum(grey + white, 1)
    grey, white = grey / total, white / total
    rest = 0.25 * np.clip(1 - grey - white, 0, 1) * np.clip(brain / 0.3, 0, 1)
    return np.where(brain > 0, grey_level * grey + white_level * white + rest, 0)


def with_lesion(
    head: Deformed, place: tuple[float, float, float], radius: float, level: float
) -> tuple[Deformed, NDArray[np.bool_]]:
    """A head with a ball of other tissue, and the mask of the ball.

    Parameters
    ----------
    head
        Without it.
    place
        Its centre in template space, mm.
    radius
        mm.
    level
        Its intensity, relative to white matter.
    """
    centre = head.to_t1w(np.array([place], dtype=np.float64))[0]
    points = grid_points(head.data.shape, head.affine)
    away = np.linalg.norm(points - centre, axis=1).reshape(head.data.shape)
    share = np.clip((radius - away) / 1.5 + 0.5, 0, 1)
    noise = np.random.default_rng(5).normal(0, 0.02 * WHITE_MATTER, head.data.shape)
    data = (1 - share) * head.data + share * np.maximum(level * WHITE_MATTER + noise, 0)
    return Deformed(data.astype(np.float32), head.affine, head.to_t1w), away < radius + 0.5
