"""What a perfect geometry would get of a run, by which a pipeline is measured; (T, columns)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.phantom.acquisition import Acquisition
from brainlm_bids.phantom.courses import saturation
from brainlm_bids.phantom.head import GREY, apply_affine
from brainlm_bids.phantom.scene import Run

UNTIMED = (
    " The averages are of slices that were acquired at different times; the truth is that of half "
    "of the TR."
)


class Oracle:
    """Averages the parcels of the noisy image with the true geometry, one volume after another."""

    def __init__(self, run: Run, bold_points: np.ndarray, labels: np.ndarray) -> None:
        """bold_points (P, 3) mm in the reference pose, labels (P,) 1..424 of the embedded atlas."""
        self.run, self.points, self.labels = run, bold_points.T, labels
        self.world_to_voxel = np.linalg.inv(run.affine)
        still = self._seen(np.eye(4), slice(None))
        edge = np.array(run.acquisition.shape)[:, None] - 0.5
        inside = ((still > -0.5) & (still < edge)).all(0)
        self.points, self.labels = self.points[:, inside], labels[inside]
        self.counts = np.bincount(self.labels, minlength=N_PARCELS + 1)[1:]
        self.rows: list[np.ndarray] = []

    def add(self, volume: np.ndarray) -> None:
        """Take the next volume (X, Y, Z)."""
        places = self._voxels(len(self.rows))
        values = ndimage.map_coordinates(volume, places, order=1, mode="nearest", prefilter=False)
        sums = np.bincount(self.labels, values, minlength=N_PARCELS + 1)[1:]
        self.rows.append(np.where(self.counts > 0, sums / np.maximum(self.counts, 1), np.nan))

    def _voxels(self, t: int) -> np.ndarray:
        """Where (3, P) in the image, in voxels, the points are seen when their slices are."""
        places = self._seen(self.run.matrices[t], slice(None))
        if self.run.group is None:
            return places
        nearest = np.clip(np.rint(places[2]), 0, len(self.run.group) - 1).astype(int)
        moments = self.run.group[nearest]
        for k, moment in enumerate(self.run.moments):
            which = np.flatnonzero(moments == k)
            places[:, which] = self._seen(moment.matrices[t], which)
        return places

    def _seen(self, matrix: np.ndarray, which: slice | np.ndarray) -> np.ndarray:
        """Where (3, N) in the image, in voxels, some points are seen in the pose of a matrix."""
        points = self.points[:, which]
        if self.run.distortion is None:
            return apply_affine(self.world_to_voxel @ matrix, points)
        seen = self.run.distortion.seen(apply_affine(matrix, points), matrix)
        return apply_affine(self.world_to_voxel, seen)

    def series(self) -> np.ndarray:
        """Series (T, 424); NaN where a parcel lies outside of the image."""
        return np.array(self.rows)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson r (P,) between the columns of two (T, P); NaN where one of them does not vary."""
    a, b = first - first.mean(0), second - second.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(0) / norm)


def true_nuisances(courses: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """(T, K + 24): noise courses (T, K), and motion (T, 6) with its steps and their squares."""
    steps = np.vstack([np.zeros((1, 6)), np.diff(parameters, axis=0)])
    return np.hstack([courses, parameters, steps, parameters**2, steps**2])


def without(series: np.ndarray, nuisance: np.ndarray) -> np.ndarray:
    """Residuals (T, P) of a least-squares fit of the nuisance (T, K) and a constant."""
    design = np.column_stack([np.ones(len(series)), nuisance])
    scale = np.maximum(np.sqrt((design**2).mean(0)), 1e-12)
    basis, values, _ = np.linalg.svd(design / scale, full_matrices=False)
    basis = basis[:, values > 1e-6 * values[0]]
    return np.asarray(series - basis @ (basis.T @ series))


def _n_non_steady(acquisition: Acquisition) -> int:
    """Leading volumes whose grey matter is more than half a percent off the steady state."""
    if not acquisition.switches["non_steady"]:
        return 0
    levels = saturation(acquisition.n_volumes, acquisition.tr)[:, GREY]
    return int(np.argmax(np.abs(levels - 1) < 0.005))


def oracle_metrics(oracle: np.ndarray, run: Run, parameters: np.ndarray) -> dict[str, Any]:
    """Medians over the parcels of r to the truth, raw and without the true nuisances."""
    first = _n_non_steady(run.acquisition)
    covered = np.isfinite(oracle).all(0)
    truth, image = run.series[first:, covered], oracle[first:, covered]
    courses = np.array([*run.courses.values()]).reshape(-1, len(parameters)).T
    nuisance = true_nuisances(courses, parameters)[first:]
    clean = correlations(without(image, nuisance), without(truth, nuisance))
    return {
        "MedianCorrelationRaw": float(np.nanmedian(correlations(image, truth))),
        "MedianCorrelationWithoutNuisances": float(np.nanmedian(clean)),
        "NumberOfNonSteadyVolumes": first,
        "NumberOfParcelsCovered": int(covered.sum()),
        "Description": "Parcel averages of the noisy image with the true geometry, against the "
        "true series, first volumes left out. Without nuisances: the true time courses of the "
        "noise and 24 true motion terms were regressed from both sides."
        + UNTIMED
        * (run.group is not None),
    }


def median_correlations(
    found: np.ndarray, true: np.ndarray, nuisance: np.ndarray, first: int
) -> tuple[float, float]:
    """Medians over parcels of r between two (T, P), plain and without the nuisance (T, K).

    Rows before `first` and rows and columns of `found` without a value are left out.
    """
    rows = np.isfinite(found).any(1) & (np.arange(len(found)) >= first)
    covered = np.isfinite(found[rows]).all(0)
    if rows.sum() < 3 or not covered.any():
        return float("nan"), float("nan")
    found, true = found[np.ix_(rows, covered)], true[np.ix_(rows, covered)]
    plain = np.nanmedian(correlations(found, true))
    clean = correlations(without(found, nuisance[rows]), without(true, nuisance[rows]))
    return float(plain), float(np.nanmedian(clean))
