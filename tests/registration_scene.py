"""A T1w image and a BOLD reference of one head, whose poses are known."""

from typing import NamedTuple

import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.transforms import resample_to


class Scene(NamedTuple):
    """A T1w image with its brain, and what a 3.5 mm BOLD reference in another pose sees."""

    t1w: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    bold: np.ndarray
    bold_affine: np.ndarray
    bold_brain: np.ndarray
    truth: np.ndarray
    surface: boundary.Surface


def pose(degrees: list[float], millimetres: list[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = millimetres
    return matrix


def make_scene() -> Scene:
    """The packaged template as T1w, and a BOLD reference that is known to lie at `truth`."""
    image = load_mni152_template(resolution=2)
    t1w, affine = image.get_fdata().astype(np.float32), image.affine
    grey = load_mni152_gm_template(resolution=2).get_fdata()
    white = load_mni152_wm_template(resolution=2).get_fdata()
    brain = ndimage.binary_fill_holes(t1w > 0.1 * t1w.max())
    t2star = 1.0 * grey + 0.8 * white + 1.3 * np.clip(brain - grey - white, 0, 1)
    t2star = ndimage.gaussian_filter(t2star, 0.7)
    truth = pose([3, -4, 2], [4, -3, 5])
    bold_affine = np.diag([-3.5, 3.5, 3.5, 1.0])
    bold_affine[:3, 3] = [112, -130, -62]  # the cerebellum is cut off
    shape = (64, 64, 44)
    there = np.linalg.inv(truth)
    bold = resample_to(t2star, affine, shape, bold_affine, there)
    bold_brain = resample_to(brain, affine, shape, bold_affine, there) > 0.5
    # a coil's shading and noise, which mutual information would be led astray by
    bold *= np.linspace(0.6, 1.4, shape[1])[:, np.newaxis]
    bold += 0.02 * np.random.default_rng(0).standard_normal(shape)
    surface = boundary.white_surface(t1w, affine, brain)
    return Scene(t1w, affine, brain, bold, bold_affine, bold_brain, truth, surface)
