"""The denoising of one simulated run, step by step as the graph does it.

In: a `benchmarks.simulator.Simulation`. Out: its parcels (T, 424) raw and denoised, motion, and
what peers make of the same parcels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import simulator
from brainlm_bids import resources
from brainlm_bids.parcels.operator import build_operator, parcellate
from brainlm_bids.phantom.oracle import median_correlations, true_nuisances
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply, compose, grid_points, invert
from brainlm_bids.preproc.denoising import temporal
from brainlm_bids.preproc.steps.functional import grand_mean_factor

Float = NDArray[np.floating]


@dataclass(frozen=True)
class Denoised:
    """Parcels (T, 424) raw and denoised (non-steady rows NaN), and what led there."""

    raw: Float
    denoised: Float
    global_signal: Float  # (T,)
    motion: steps.Motion
    components: steps.Components
    decisions: steps.Decisions


def denoise(run: simulator.Simulation, seed: int = 42) -> Denoised:
    """Motion, parcels, ICA-AROMA and filter; the place of the template in the run is known."""
    realigned = steps.realign(run.bold, run.affine)
    bold, mask, motion = realigned.bold, realigned.brain_mask, realigned.motion
    assert motion.matrices is not None
    # all poses are known up to that of the reference: any steady volume tells it
    steady = motion.n_dummy + 20
    place = compose(invert(run.affine), invert(motion.matrices[steady]), run.matrices[steady])
    factor = grand_mean_factor(bold[mask].T, motion)
    head = simulator.head()
    points = apply(place @ run.affine, head.points)
    operator, _ = build_operator(head.labels, points, mask.shape, mask)
    parcels = parcellate(operator, bold) * factor
    steady_ones = {"n_dummy": motion.n_dummy, "good": motion.good_steady}
    components = steps.decompose(bold, run.affine, mask, factor=factor, seed=seed, **steady_ones)
    samples = _aroma_samples(mask.shape, place)
    decisions = steps.classify(components, mask, motion, samples, run.tr, seed=seed)
    cleaned = steps.denoise(
        parcels,
        run.tr,
        components=(components.mixing, decisions.noise),
        **steady_ones,
    )
    signal = bold[mask].mean(axis=0) * factor
    return Denoised(parcels, cleaned.series, signal, motion, components, decisions)


def _aroma_samples(shape: tuple[int, ...], world_to_voxel: Float) -> steps.AromaSamples:
    masks = resources.aroma_masks()
    voxels = grid_points(masks.csf.shape, compose(world_to_voxel, masks.affine))
    kept = ((voxels > -1) & (voxels < np.array(shape))).all(axis=1)
    named = (mask.ravel()[kept] for mask in (masks.csf, masks.edge, masks.out))
    return steps.AromaSamples(voxels[kept].astype(np.float32), *named)


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
