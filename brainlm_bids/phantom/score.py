"""Compares a pipeline's outputs with the truth of the data set that they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_tsv
from brainlm_bids.phantom.acquisition import PARAMETERS
from brainlm_bids.phantom.head import apply_affine
from brainlm_bids.phantom.oracle import median_correlations, true_nuisances
from brainlm_bids.progress import SPACING, Progress


def recovered(out_derivatives: Path, phantom: Path) -> list[dict[str, Any]]:
    """Compare the derivatives of a pipeline with the truth of the phantom, a dict per run.

    Keys: run (str), motion_mm (mean displacement over the brain between every volume and the first
    in the steady state), motion_error_mm (the same between estimate and truth), series_r (median
    over parcels of r between the denoised and the true series), oracle_r (the same for the raw
    image averaged with perfect geometry), series_clean_r and oracle_clean_r (both again, with the
    true nuisances regressed from both sides: signal that was removed is missed here). All leave out
    the volumes before the steady state. Both traces are taken relative to the first volume of it,
    so the choice of a reference cancels. (Volume 0 would not do: its contrast is another one, and
    the error of its own estimate would enter all others.) A number is NaN where the pipeline left
    no file; UserError for tables that do not fit the phantom.
    """
    phantom, out_derivatives = Path(phantom), Path(out_derivatives)
    truth = phantom / "derivatives" / "phantom"
    found = sorted(truth.glob("sub-*/**/*_desc-truth_motion.tsv"))
    with Progress("run", spacing=SPACING) as progress:
        titled = progress.each(found, lambda path: f"{_run(path)}: comparing")
        return [_recovered(motion_file, truth, out_derivatives) for motion_file in titled]


def _run(motion_file: Path) -> str:
    return motion_file.name.removesuffix("_desc-truth_motion.tsv")


def _recovered(motion_file: Path, truth: Path, out_derivatives: Path) -> dict[str, Any]:
    name = _run(motion_file)
    made = out_derivatives / motion_file.parent.relative_to(truth)
    metrics_file = next(motion_file.parent.glob(f"{name}_*_desc-oracle_metrics.json"))
    metrics = read_json(metrics_file)
    first = metrics["NumberOfNonSteadyVolumes"]
    moved, error = _motion_error(motion_file.parent, made, name, first)
    series_r, clean_r = _series_r(motion_file.parent, made, name, first)
    return {
        "run": name,
        "motion_mm": moved,
        "motion_error_mm": error,
        "series_r": series_r,
        "oracle_r": metrics["MedianCorrelationRaw"],
        "series_clean_r": clean_r,
        "oracle_clean_r": metrics["MedianCorrelationWithoutNuisances"],
    }


def _motion_error(truth: Path, made: Path, name: str, first: int) -> tuple[float, float]:
    """Mean displacement (mm) of the brain: true motion since `first`, and estimate minus truth."""
    with np.load(truth / f"{name}_desc-truth_geometry.npz") as geometry:
        true = geometry["matrices"][first:]
    image = nib.Nifti1Image.from_filename(truth / f"{name}_space-boldref_desc-tissue_dseg.nii.gz")
    inside = np.array(np.nonzero(np.asarray(image.dataobj)))[:, ::7]
    points = apply_affine(true[0] @ image.affine, inside)  # the brain where that volume has it
    true = true @ np.linalg.inv(true[0])
    moved = _mean_distance(true, np.tile(np.eye(4), (len(true), 1, 1)), points)
    table = made / f"{name}_desc-confounds_timeseries.tsv"
    if not table.is_file():
        return moved, float("nan")
    from brainlm_bids.preproc.motion.realign import parameters_to_matrices

    parameters = _columns(table, PARAMETERS)
    if len(parameters) != first + len(true):
        raise UserError(f"{table}: {len(parameters)} rows, not a row for each of the volumes")
    estimate = parameters_to_matrices(parameters[first:], _centre(table.with_suffix(".json")))
    estimate = estimate @ np.linalg.inv(estimate[0])
    return moved, _mean_distance(estimate, true, points)


def _centre(sidecar: Path) -> np.ndarray:
    """The point (3,) mm that the rotations of a confounds table are about."""
    if not sidecar.is_file():
        raise UserError(f"{sidecar} is missing: it names the CentreOfRotation of the motion")
    centre = read_json(sidecar).get("CentreOfRotation")
    if centre is None or np.shape(centre) != (3,):
        raise UserError(f"{sidecar} has no CentreOfRotation of three numbers in mm")
    return np.array(centre, float)


def _mean_distance(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> float:
    """Mean distance (mm) over time and points (3, N) between where two (T, 4, 4) take them."""
    moves = (apply_affine(a, points) - apply_affine(b, points) for a, b in zip(first, second))
    return float(np.mean([np.linalg.norm(move, axis=0).mean() for move in moves]))


def _series_r(truth: Path, made: Path, name: str, first: int) -> tuple[float, float]:
    """Median r over the parcels that the pipeline has, over its finite rows from `first` on.

    As they are, and with the true nuisances regressed from both sides.
    """
    files = sorted(made.glob(f"{name}_*space-*_atlas-*_desc-denoised_timeseries.tsv"))
    if not files:
        return float("nan"), float("nan")
    _, true = read_tsv(next(truth.glob(f"{name}_*_desc-truth_timeseries.tsv")))
    _, found = read_tsv(files[0])
    if found.shape != true.shape:
        raise UserError(f"{files[0]}: a table of {found.shape}, the phantom has {true.shape}")
    names, courses = read_tsv(truth / f"{name}_desc-noise_timeseries.tsv")
    kept = [n != "time" and not n.startswith("non_steady") for n in names]
    _, motion = read_tsv(truth / f"{name}_desc-truth_motion.tsv")
    nuisance = true_nuisances(courses[:, kept], motion)
    return median_correlations(found, true, nuisance, first)


def _columns(path: Path, wanted: Sequence[str]) -> np.ndarray:
    names, values = read_tsv(path)
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise UserError(f"{path}: has no column {lacking[0]}")
    return values[:, [names.index(name) for name in wanted]]
