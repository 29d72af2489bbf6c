"""Images that come with installed packages: nilearn's template and tissues, ICA-AROMA's masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.resources.images import load_volume, read_only

EMBEDDED_LICENCE = "ICBM 152 2009a (McConnell Brain Imaging Centre, free use with its notice)"


@dataclass(frozen=True)
class TissueMaps:
    """Probability of grey and white matter, float32 0..1, in MNI152NLin2009aSym at 1 mm."""

    grey_matter: np.ndarray
    white_matter: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class AromaMasks:
    """ICA-AROMA's masks, (91, 109, 91) bool in MNI152NLin6Asym at 2 mm, on the grid of A424."""

    csf: np.ndarray
    edge: np.ndarray
    out: np.ndarray  # outside the brain
    affine: np.ndarray


@lru_cache(maxsize=1)
def embedded_template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load the ICBM 2009a symmetric template that nilearn packages.

    Returns
    -------
    t1w
        (X, Y, Z) float32, skull-stripped, at 2 mm.
    mask
        (X, Y, Z) bool, the brain.
    affine
        (4, 4) to RAS+ mm.
    """
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    t1w = load_mni152_template(resolution=2)
    mask = load_mni152_brain_mask(resolution=2)
    data = read_only(np.asarray(t1w.dataobj, dtype=np.float32))
    inside = read_only(np.asarray(mask.dataobj) > 0)
    return data, inside, read_only(np.asarray(t1w.affine, np.float64))


@lru_cache(maxsize=1)
def tissue_maps() -> TissueMaps:
    """Load the ICBM 2009a symmetric tissue maps that nilearn packages.

    Returns
    -------
    TissueMaps
        Grey and white matter at 1 mm.
    """
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey = load_mni152_gm_template(resolution=1)
    white = load_mni152_wm_template(resolution=1)
    return TissueMaps(_unit_scaled(grey), _unit_scaled(white), read_only(grey.affine.copy()))


def _unit_scaled(image: Any) -> np.ndarray:
    data = np.asarray(image.dataobj, dtype=np.float32)
    return read_only(data / data.max())


@lru_cache(maxsize=1)
def aroma_masks() -> AromaMasks:
    """Load the three masks of ICA-AROMA from the package ica_aroma_py (Apache-2.0).

    Returns
    -------
    AromaMasks
        CSF, edge and outside of the brain at 2 mm.

    Raises
    ------
    UserError
        If the package is not installed.

    References
    ----------
    Pruim RHR, Mennes M, van Rooij D, Llera A, Buitelaar JK, Beckmann CF (2015). ICA-AROMA: a robust
    ICA-based strategy for removing motion artifacts from fMRI data. NeuroImage 112:267-277.
    """
    # find_spec, because importing the package would run its own checks and imports
    spec = find_spec("ica_aroma_py")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the package ica-aroma-py, which contains AROMA's masks, is not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "resources"
    masks = {name: load_volume(folder / f"mask_{name}.nii.gz") for name in ("csf", "edge", "out")}
    csf, edge, out = (read_only(data > 0.5) for data, _ in masks.values())
    return AromaMasks(csf, edge, out, read_only(masks["csf"][1]))
