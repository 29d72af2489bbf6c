"""Distortion without a field map against the phantom's truth, and wrong polarity found out.

A field at the frontal and temporal poles moves simulated runs by up to 0, 4, 8 and 12 mm, along j
and j-; noise, drop-out and shading as in all phantoms. Errors are means over the parcels' voxels,
mm. The registration to the T1w is the program's own, and the way to the template the true one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks.table import Row
from brainlm_bids import phantom, resources
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.phantom.field import READOUT
from brainlm_bids.phantom.head import Warp, load_warp
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply, invert, labelled_points, voxel_sizes
from brainlm_bids.preproc.distortion.contrast import contrasts
from brainlm_bids.preproc.distortion.field import Distortion, PhaseEncoding, distortion_of
from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.brain import brain_mask_epi

PEAKS_MM = (4, 8, 12)
FAR_MM = 4.0
STAGE = "no field map"


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure what is found without a field map, and which polarities are doubted."""
    alarms = []
    for direction in ("j",) if quick else ("j", "j-"):
        for peak in (0, 8) if quick else (0, *PEAKS_MM):
            with TemporaryDirectory() as folder:
                case = make_case(Path(folder) / "bids", seed, peak, direction)
            yield from _rows_of(case, peak, direction)
            if peak:
                alarms += [case.doubted(1), not case.doubted(-1)]
    note = f"{len(alarms) // 2} runs, each with the right and the wrong sign"
    yield Row("polarity", "false alarms and misses", float(sum(alarms)), "<= 0", {}, note)


@dataclass(frozen=True)
class Case:
    """A run, its true distortion, and what is found of it."""

    boldref: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    anatomy: steps.Anatomy
    t1w_affine: np.ndarray
    matrix: np.ndarray
    truth: Distortion
    found: steps.Unwarped
    seconds: float
    warp: Warp
    bold_to_t1w: np.ndarray

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """How far the parcels (424,) are moved, and by how much the estimate errs, mm."""
        names, points = labelled_points(*_atlas())
        world = apply(invert(self.bold_to_t1w), self.warp.to_t1w(points))
        voxels = apply(invert(self.affine), world).T

        def at_points(image: np.ndarray) -> np.ndarray:
            return np.asarray(ndimage.map_coordinates(image, voxels, order=1, mode="nearest"))

        def of_parcels(values: np.ndarray) -> np.ndarray:
            sums = np.bincount(names, np.abs(values), N_PARCELS + 1)[1:]
            return np.asarray(sums / np.maximum(np.bincount(names, minlength=N_PARCELS + 1)[1:], 1))

        true = at_points(self.truth.millimetres)
        found = self.found.distortion
        error = true if found is None else true - at_points(found.millimetres)
        return of_parcels(true), of_parcels(error)

    def doubted(self, sign: int) -> bool:
        """Whether the true field, or its opposite, has a warning of its polarity."""
        surface = boundary.white_surface(
            self.anatomy.t1w, self.t1w_affine, self.anatomy.brain_mask, 42
        )
        used = Distortion(sign * self.truth.shift, self.truth.axis, self.affine)
        judged = contrasts(surface, self.boldref, self.affine, self.brain, self.matrix, used)
        return judged.suspect


def _atlas() -> tuple[np.ndarray, np.ndarray]:
    labels, affine = resources.approximate_atlas()
    return labels.astype(int), affine


def make_case(folder: Path, seed: int, peak: float, direction: str) -> Case:
    """Write a phantom, register it, and find its distortion."""
    phantom.write_phantom(
        folder,
        n_subjects=1,
        n_volumes=8,
        motion="none",
        non_steady=False,
        seed=seed,
        distortion=peak,
        phase_encoding=direction,
    )
    raw, truth = folder / "sub-01", folder / "derivatives" / "phantom" / "sub-01"
    bold = nib.Nifti1Image.from_filename(next((raw / "func").glob("*_bold.nii.gz")))
    boldref, affine = np.asarray(bold.dataobj, dtype=np.float32).mean(axis=3), bold.affine
    t1w = nib.Nifti1Image.from_filename(raw / "anat" / "sub-01_T1w.nii.gz")
    anatomy = steps.prepare_t1w(np.asarray(t1w.dataobj, dtype=np.float32), t1w.affine)
    given = anatomy.t1w, t1w.affine, anatomy.brain_mask
    registered = steps.coregister(boldref, affine, brain_mask_epi(boldref, affine), *given)
    warp = load_warp(next((truth / "anat").glob("*_xfm.npz")))
    started = time.process_time()
    found = steps.unwarp_by_boundary(
        boldref, affine, registered.brain_mask, *given, registered.matrix, warp.to_t1w, 1
    )
    seconds = time.process_time() - started
    hertz = np.zeros(boldref.shape)
    for path in (truth / "func").glob("*_space-boldref_desc-truth_fieldmap.nii.gz"):
        hertz = np.asarray(nib.Nifti1Image.from_filename(path).dataobj, dtype=np.float64)
    geometry = np.load(next((truth / "func").glob("*_geometry.npz")))
    return Case(
        boldref,
        affine,
        registered.brain_mask,
        anatomy,
        t1w.affine,
        registered.matrix,
        distortion_of(hertz, affine, PhaseEncoding.from_bids(direction, READOUT)),
        found,
        seconds,
        warp,
        geometry["bold_to_t1w"],
    )


def _rows_of(case: Case, peak: float, direction: str) -> Iterator[Row]:
    name, refused = f"{STAGE}, {peak} mm, {direction}", case.found.refused
    size = f"{'×'.join(map(str, case.boldref.shape))}, {voxel_sizes(case.affine)[1]:g} mm"
    yield Row(name, "time of one core (s)", case.seconds, "<= 15", {}, size)
    if peak == 0:
        yield Row(name, "refused", float(bool(refused)), ">= 1", {}, refused)
        return
    moved, error = case.errors()
    far = moved > FAR_MM
    if far.any():
        before = float(moved[far].mean())
        yield Row(
            name,
            f"error where moved > {FAR_MM:g} mm (mm)",
            float(error[far].mean()),
            f"<= {before / 2:.2f}",
            {"uncorrected": before},
            f"{far.sum()} parcels; {refused}",
        )
    worse = float((error - moved)[~far].max())
    means = {"mean": float(error[~far].mean()), "uncorrected": float(moved[~far].mean())}
    yield Row(name, "most that another parcel is worsened (mm)", worse, "<= 0.3", means, refused)
