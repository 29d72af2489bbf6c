"""The denoising of one run outside of the graph, by the graph's own interfaces.

In: a `benchmarks.simulator.Simulation`. Out: its parcels (T, 424) raw and denoised, motion, and
what peers make of the same parcels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import simulator
from brainlm_bids import resources
from brainlm_bids.interfaces import denoising, functional, images
from brainlm_bids.parcels import operator as parcellation
from brainlm_bids.phantom.oracle import median_correlations, true_nuisances
from brainlm_bids.preproc.affine import apply, compose, grid_points
from brainlm_bids.preproc.denoising import temporal

Float = NDArray[np.floating]


@dataclass(frozen=True)
class Denoised:
    """Parcels (T, 424) raw and denoised (non-steady rows NaN), and what led there."""

    raw: Float
    denoised: Float
    parameters: Float  # (T, 6), estimated
    global_signal: Float  # (T,)
    n_dummy: int
    components: dict[str, Any]
    decisions: dict[str, Any]


def denoise(run: simulator.Simulation, folder: Path, seed: int = 42) -> Denoised:
    """Motion, parcels, ICA-AROMA and filter; the place of the template in the run is known."""
    bold = images.save_image(folder / "bold.nii", run.bold, run.affine, run.tr)
    head_motion = functional.Realign(bold=bold).run(cwd=str(folder)).outputs
    estimate = dict(np.load(head_motion.motion))
    n_dummy, matrices = int(estimate["n_dummy"]), estimate["matrices"]
    realigned, _ = images.load_image(head_motion.realigned)
    mask = images.load_mask(head_motion.brain_mask)
    # all poses are known up to that of the reference: any steady volume tells it
    steady = n_dummy + 20
    place = np.linalg.inv(run.affine) @ np.linalg.inv(matrices[steady]) @ run.matrices[steady]
    factor = temporal.grand_mean_factor(realigned[..., n_dummy:], mask)
    head = simulator.head()
    points = apply(place @ run.affine, head.points)
    operator, _ = parcellation.build_operator(head.labels, points, mask.shape, mask)
    parcels = parcellation.parcellate(operator, realigned) * factor
    np.save(folder / "parcels.npy", parcels)
    np.savez(folder / "aroma.npz", **_aroma_masks(mask.shape, place))
    files = _run_interfaces(folder, head_motion, factor, run.tr, seed)
    return Denoised(
        raw=parcels,
        denoised=np.load(files["denoised"]),
        parameters=estimate["parameters"],
        global_signal=realigned[mask].mean(axis=0) * factor,
        n_dummy=n_dummy,
        components=dict(np.load(files["components"])),
        decisions=dict(np.load(files["decisions"])),
    )


def _aroma_masks(shape: tuple[int, ...], world_to_voxel: Float) -> dict[str, Any]:
    masks = resources.aroma_masks()
    voxels = grid_points(masks.csf.shape, compose(world_to_voxel, masks.affine))
    kept = ((voxels > -1) & (voxels < np.array(shape))).all(axis=1)
    named = {name: getattr(masks, name).ravel()[kept] for name in ("csf", "edge", "out")}
    return {"voxels": voxels[kept].astype(np.float32), **named}


def _run_interfaces(
    folder: Path, head_motion: Any, factor: float, tr: float, seed: int
) -> dict[str, str]:
    common = {"motion": head_motion.motion}
    image = {"brain_mask": head_motion.brain_mask, **common}
    decompose = denoising.Decompose(
        realigned=head_motion.realigned, factor=float(factor), seed=seed, **image
    )
    components = decompose.run(cwd=str(folder)).outputs.components
    classify = denoising.Classify(
        components=components, aroma=str(folder / "aroma.npz"), tr=tr, seed=seed, **image
    )
    decisions = classify.run(cwd=str(folder)).outputs.decisions
    clean = denoising.Denoise(
        parcels=str(folder / "parcels.npy"),
        components=components,
        decisions=decisions,
        tr=tr,
        mode="nonaggr",
        high_pass=100.0,
        **common,
    )
    denoised = clean.run(cwd=str(folder)).outputs.denoised
    return {"components": components, "decisions": decisions, "denoised": denoised}


# --- what it is compared with ----------------------------------------------------------------


def peers(
    raw: Float, parameters: Float, global_signal: Float, n_dummy: int, tr: float
) -> dict[str, Float]:
    """Other ways to clean the same parcels (T, 424), all with the same filter but the last."""
    from nilearn import signal

    matrix = temporal.highpass_matrix(len(raw) - n_dummy, tr)
    steps = np.vstack([np.zeros((1, 6)), np.diff(parameters, axis=0)])
    terms = np.hstack([parameters, steps, parameters**2, steps**2])
    kept = np.isfinite(raw).all(axis=0)
    steady = np.where(kept, raw, 0.0)[n_dummy:]
    every = signal.clean(
        np.where(kept, raw, 0.0),
        confounds=terms,
        high_pass=0.01,
        t_r=tr,
        standardize=None,
    )
    made = {
        "no denoising": matrix @ steady,
        "24 motion": _regressed(matrix @ steady, matrix @ terms[n_dummy:]),
        "global signal": _regressed(matrix @ steady, matrix @ global_signal[n_dummy:, None]),
    }
    padding = np.full((n_dummy, raw.shape[1]), np.nan)
    named = {name: np.vstack([padding, values]) for name, values in made.items()}
    named["nilearn, non-steady kept"] = every
    return {name: np.where(kept, values, np.nan) for name, values in named.items()}


def _regressed(series: Float, design: Float) -> Float:
    scaled = (design - design.mean(axis=0)) / np.maximum(design.std(axis=0), 1e-12)
    return np.asarray(series - scaled @ np.linalg.lstsq(scaled, series, rcond=None)[0])


def of_the_oracle(
    found: Float, truth: Float, oracle: Float, nuisance: Float, first: int
) -> tuple[float, float]:
    """Median r of `found` (T, P) to the truth as a share of what the oracle reaches, raw and clean.

    Clean: the true nuisances (T, K) are regressed from all three first. Both are judged on the
    rows and columns that `found` has.
    """
    rows, kept = np.isfinite(found).any(axis=1), np.isfinite(found).any(axis=0)
    judged = np.where(rows[:, None] & kept, oracle, np.nan)
    reached = median_correlations(found, truth, nuisance, first)
    possible = median_correlations(judged, truth, nuisance, first)
    return reached[0] / possible[0], reached[1] / possible[1]


def simulated_nuisances(run: simulator.Simulation) -> Float:
    return true_nuisances(run.noise, run.parameters)
