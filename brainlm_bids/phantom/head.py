"""The head: anatomy from the packaged MNI template, and a subject's warp of it.

Points are (3, N) or (N, 3) RAS+ mm as said; images (X, Y, Z).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

GREY, WHITE, CSF = range(3)
EPI_CONTRAST = {"grey": 1.0, "white": 0.8, "csf": 1.3, "soft": 0.22, "bone": 0.03}
# Air that bends the field (mm in MNI, radius in mm): sphenoid and ethmoid sinus, both ear canals
SINUSES = ((0.0, 42.0, -32.0, 16.0), (60.0, -22.0, -34.0, 13.0), (-60.0, -22.0, -34.0, 13.0))


@dataclass(frozen=True)
class Head:
    """The template's head. Brain maps 0..1 at 1 mm, distance (mm) outside the brain at 2 mm."""

    t1w: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    affine: np.ndarray
    distance: np.ndarray  # negative inside
    distance_affine: np.ndarray


@lru_cache(maxsize=1)
def template_head() -> Head:
    """Load nilearn's packaged ICBM 2009a maps (skull-stripped) and measure the way to the brain."""
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=1)
    t1w = image.get_fdata(dtype=np.float32)
    grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)
    pad = 24
    brain = np.pad(t1w[::2, ::2, ::2] > 0, pad // 2)
    # closed and filled, so that skull does not grow into fissures and ventricles
    brain = ndimage.binary_closing(brain, iterations=4)
    outside = ndimage.distance_transform_edt(~brain, sampling=2.0)
    inside = ndimage.distance_transform_edt(brain, sampling=2.0)
    distance = (outside - inside).astype(np.float32)
    affine = image.affine.astype(float)
    coarse = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = affine[:3, 3] - pad
    return Head(t1w, grey, white, affine, distance, coarse)


def _sample(volume: np.ndarray, affine: np.ndarray, points: np.ndarray, outside: float) -> Any:
    """Trilinear samples (N,) of a volume at points (3, N) mm."""
    voxels = apply_affine(np.linalg.inv(affine), points)
    return ndimage.map_coordinates(volume, voxels, order=1, cval=outside, prefilter=False)


def ellipsoid(points: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> Any:
    """Squared distance (N,) of points (D, N) mm from a centre, in units of the radii."""
    shifted = (points - np.array(centre)[:, None]) / np.array(radii)[:, None]
    return np.einsum("in,in->n", shifted, shifted)


def _shell(points: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fractions (N,) of CSF, bone, marrow, fat, muscle and eye at points (3, N) in MNI mm."""
    below = points[2] < -45
    spine = below & (ellipsoid(points[:2], (0.0, -45.0), (16.0, 16.0)) < 1)
    face = ellipsoid(points, (0.0, 38.0, -72.0), (60.0, 58.0, 62.0)) < 1
    neck = (points[2] < -35) & (ellipsoid(points[:2], (0.0, -40.0), (56.0, 58.0)) < 1)
    eyes = np.minimum(
        ellipsoid(points, (32.0, 76.0, -38.0), (12.5,) * 3),
        ellipsoid(points, (-32.0, 76.0, -38.0), (12.5,) * 3),
    )
    air = ellipsoid(points, (0.0, 68.0, -62.0), (15.0, 28.0, 24.0)) < 1

    def between(low: float, high: float) -> np.ndarray:
        # edges 1 mm wide: partial volume instead of steps
        rise = np.clip(distance - low + 0.5, 0, 1)
        return np.asarray(rise * np.clip(high - distance + 0.5, 0, 1), np.float32)

    csf = between(0.5, 2.5)
    bone = between(2.5, 7.5) * ~spine
    marrow = between(4.2, 6.0) * ~spine
    soft = (face | neck) & (distance > 7) & ~air
    eye = ((eyes < 1) & (distance > 6)).astype(np.float32)
    fat = between(7.5, 12.5) * (points[2] > -70) * ~air * (1 - eye)
    muscle = (soft * (1 - fat) * (1 - eye) + spine * (distance > 2.5)).astype(np.float32)
    return csf, bone - marrow, marrow, fat, np.clip(muscle, 0, 1), eye


def t1w_intensity(points: np.ndarray) -> np.ndarray:
    """T1-weighted intensity (N,), white matter near 1, at points (3, N) in MNI mm."""
    head = template_head()
    distance = _sample(head.distance, head.distance_affine, points, 99.0)
    brain = _sample(head.t1w, head.affine, points, 0.0)
    csf, bone, marrow, fat, muscle, eye = _shell(points, distance)
    texture = 1 + 0.12 * np.sin(points[0] / 5) * np.sin(points[1] / 7) * np.sin(points[2] / 6)
    shell = 0.22 * csf + 0.04 * bone + 0.35 * marrow + 0.3 * eye
    shell = shell + texture * (0.95 * fat + 0.5 * muscle)
    outside = np.clip(1 - brain / 0.3, 0, 1)
    sulci = 0.2 * ((distance <= 0.5) & (brain < 0.2))
    return np.asarray(brain + outside * np.maximum(shell, sulci), np.float32)


def in_brain(points: np.ndarray) -> np.ndarray:
    """Share (N,) of brain, ventricles included, at points (3, N) in MNI mm."""
    head = template_head()
    distance = _sample(head.distance, head.distance_affine, points, 99.0)
    return np.clip(0.5 - distance, 0, 1)


def epi_tissues(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions (3, N) of grey, white, CSF, and the intensity (N,) at points (3, N) in MNI mm."""
    head = template_head()
    distance = _sample(head.distance, head.distance_affine, points, 99.0)
    grey = _sample(head.grey, head.affine, points, 0.0)
    white = _sample(head.white, head.affine, points, 0.0)
    total = np.maximum(grey + white, 1.0)
    grey, white = grey / total, white / total
    csf, bone, marrow, fat, muscle, eye = _shell(points, distance)
    csf = np.maximum(csf, (distance <= 0.5).astype(np.float32)) * (1 - grey - white)
    intensity = (
        EPI_CONTRAST["grey"] * grey
        + EPI_CONTRAST["white"] * white
        + EPI_CONTRAST["csf"] * np.maximum(csf, eye)
        + EPI_CONTRAST["soft"] * (fat * 0.6 + muscle)
        + EPI_CONTRAST["bone"] * (bone + marrow)
    )
    return np.stack([grey, white, csf]).astype(np.float32), np.asarray(intensity, np.float32)


def signal_left(points: np.ndarray) -> np.ndarray:
    """Fraction (N,) of the signal that dephasing near air leaves, points (3, N) in MNI mm."""
    left = np.ones(points.shape[1], np.float32)
    for x, y, z, radius in SINUSES:
        left *= 1 - 0.9 * np.exp(-(ellipsoid(points, (x, y, z), (radius,) * 3) ** 2))
    return left


@dataclass(frozen=True)
class Warp:
    """From a subject's T1w world to MNI: y = affine @ (x + field(x)), x = pose @ x_t1w.

    field is a cubic B-spline in mm with control points (nx, ny, nz, 3) every `spacing` mm from
    `origin` (3,) mm; constant beyond them.
    """

    pose: np.ndarray
    affine: np.ndarray
    control: np.ndarray
    origin: np.ndarray
    spacing: float

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """Field (3, N) in mm at points (3, N) of the head, pose applied."""
        grid = (points - self.origin[:, None]) / self.spacing
        return np.stack(
            [
                ndimage.map_coordinates(
                    self.control[..., axis], grid, order=3, prefilter=False, mode="nearest"
                )
                for axis in range(3)
            ]
        )

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map points (N, 3) RAS+ mm of the T1w to MNI."""
        head = apply_affine(self.pose, np.asarray(points, float).T)
        return apply_affine(self.affine, head + self.displacement(head)).T

    def to_t1w(self, points: np.ndarray) -> np.ndarray:
        """Map points (N, 3) RAS+ mm of MNI to the T1w (fixed point, to better than 1e-4 mm)."""
        target = apply_affine(np.linalg.inv(self.affine), np.asarray(points, float).T)
        head = target.copy()
        for _ in range(40):
            step = target - self.displacement(head) - head
            head += step
            if np.abs(step).max(initial=0.0) < 1e-5:
                break
        return apply_affine(np.linalg.inv(self.pose), head).T


def load_warp(path: Path) -> Warp:
    """Read a Warp that write_phantom left beside a T1w (…_mode-points_xfm.npz)."""
    with np.load(path) as data:
        return Warp(
            data["pose"], data["affine"], data["control"], data["origin"], float(data["spacing"])
        )


def subject_warp(rng: np.random.Generator) -> Warp:
    """Draw a subject: size +-6 %, a few degrees, shear, and a smooth field of about 2 mm sd."""
    rotation = Rotation.from_rotvec(rng.uniform(-0.07, 0.07, 3)).as_matrix()
    stretch = np.diag(rng.uniform(0.94, 1.06, 3)) + np.triu(rng.uniform(-0.03, 0.03, (3, 3)), 1)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ stretch
    affine[:3, 3] = rng.uniform(-4, 4, 3)
    spacing, half = 25.0, 7
    # sd 6 mm of control points is 2 mm of field: a cubic B-spline averages its neighbours
    control = rng.normal(0, 6.0, (2 * half + 1,) * 3 + (3,))
    return Warp(np.eye(4), affine, control, np.full(3, -half * spacing), spacing)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (3, N) by an affine (4, 4)."""
    return np.asarray(matrix[:3, :3] @ points + matrix[:3, 3:])


def spline_weights(positions: np.ndarray, n_control: int) -> np.ndarray:
    """Cubic B-spline basis (N, n_control) at positions (N,) in units of the control spacing."""
    away = np.abs(positions[:, None] - np.arange(n_control))
    near, far = 2 / 3 - away**2 + away**3 / 2, (2 - np.minimum(away, 2)) ** 3 / 6
    return np.where(away < 1, near, far)


def drawn_pose(rng: np.random.Generator, degrees: float, millimetres: float) -> np.ndarray:
    """A rigid matrix (4, 4) of angles and shifts up to these."""
    matrix = np.eye(4)
    angles = np.radians(rng.uniform(-degrees, degrees, 3))
    matrix[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    matrix[:3, 3] = rng.uniform(-millimetres, millimetres, 3)
    return matrix
