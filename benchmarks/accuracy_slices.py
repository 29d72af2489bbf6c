"""Slice timing, and single-band references, against truths.

Slices: series in continuous time, beside cubic interpolation and no correction. Single-band
references: the phantom's motion and anatomy, with other ways from the reference to the volumes.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from benchmarks.table import Row
from brainlm_bids import phantom
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import apply, grid_points
from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion import splines
from brainlm_bids.preproc.motion.sbref import place
from brainlm_bids.preproc.motion.slice_timing import correct_slice_timing

Float = NDArray[np.floating]

N_SLICES, N_VOLUMES = 36, 240
STEP = 0.05  # s, of the truth
# BOLD has next to no power outside of this band, and the rate of 3 s holds it whole.
BAND = (0.008, 0.15)  # Hz
ORDERS = ("ascending", "interleaved", "multiband 3")
BOUND = ">= 0.9995"
# of the head that moves
SHAPE, HEAD_MM = (36, 40, 30), np.array([60.0, 72.0, 52.0])
AFFINE = np.diag([-4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = [70, -78, -58]


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of slice timing of the accuracy table."""
    for tr in (2.0, 3.0):
        for order in ORDERS:
            yield _agreement(tr, order, seed)
    for kind in ("slow", "steps"):
        yield _with_motion(kind, 3.0, seed)
    yield _seconds(seed)
    yield _future(seed)
    for tr in (2.0,) if quick else (0.735, 2.0):
        yield from sbref_rows(tr, seed)


def slice_times(order: str, n_slices: int, tr: float) -> Float:
    """(S,) acquisition times in s of an order of slices."""
    bands = 3 if order.startswith("multiband") else 1
    shots = n_slices // bands
    sequence = np.arange(shots)
    if order == "interleaved":
        sequence = np.concatenate([sequence[::2], sequence[1::2]])
    times = np.empty(shots)
    times[sequence] = np.arange(shots) * tr / shots
    return np.tile(times, bands)


def bold_like(n_series: int, seconds: float, seed: int) -> Float:
    """(V, N) series of unit variance in steps of `STEP`: power 1/f between the ends of `BAND`."""
    rng = np.random.default_rng(seed)
    n_steps = round(seconds / STEP)
    n_all = 2 * n_steps  # a part of a longer series, so that its ends do not meet
    frequency = np.fft.rfftfreq(n_all, STEP)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    size = np.where(inside, 1 / np.sqrt(np.maximum(frequency, BAND[0])), 0)
    phase = np.exp(2j * np.pi * rng.random((n_series, len(frequency))))
    series = np.fft.irfft(size * phase, n_all, axis=1)[:, :n_steps]
    return np.asarray(series / series.std(axis=1, keepdims=True))


def acquired(truth: Float, times: Float, tr: float, n_volumes: int) -> Float:
    """(1, V, S, T) what a scanner sees at the times of its slices; a signal of 1 % on 1000."""
    index = np.rint((np.arange(n_volumes) * tr + times[:, None]) / STEP).astype(int)
    return np.asarray(1000 + 10 * truth[:, index], dtype=np.float32)[None]


def _ours(bold: Float, times: Float, tr: float, reference: float) -> Float:
    corrected = bold.copy()
    correct_slice_timing(corrected, times, tr, reference=reference)
    return corrected


def _cubic(bold: Float, times: Float, tr: float, reference: float) -> Float:
    volumes = np.arange(bold.shape[3])
    series = [
        CubicSpline(volumes, bold[:, :, k], axis=-1)(volumes + (reference - times[k]) / tr)
        for k in range(len(times))
    ]
    return np.stack(series, axis=2)


def _none(bold: Float, times: Float, tr: float, reference: float) -> Float:
    return bold


def agreement(
    method: Callable[[Float, Float, float, float], Float],
    tr: float,
    order: str,
    seed: int,
    n_voxels: int = 40,
) -> Float:
    """(V·S,) correlations of corrected series with the truth at the middle of the volumes."""
    times = slice_times(order, N_SLICES, tr)
    reference = float(times.min() + 0.5 * (times.max() - times.min()))
    truth = bold_like(n_voxels, (N_VOLUMES + 1) * tr, seed)
    bold = acquired(truth, times, tr, N_VOLUMES)
    found = method(bold, times, tr, reference).reshape(-1, N_VOLUMES)
    middle = np.rint((np.arange(N_VOLUMES) * tr + reference) / STEP).astype(int)
    wanted = np.repeat(truth[:, middle], N_SLICES, axis=0)
    found = found - found.mean(axis=1, keepdims=True)
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return np.asarray((found * wanted).sum(axis=1) / norms)


def _agreement(tr: float, order: str, seed: int) -> Row:
    ours = agreement(_ours, tr, order, seed)
    peers = {
        name: float(np.median(agreement(method, tr, order, seed)))
        for name, method in (("cubic spline", _cubic), ("not corrected", _none))
    }
    measure = f"r with the middle of the volume, TR {tr:g} s, {order}"
    note = f"5th percentile {np.percentile(ours, 5):.5f}"
    return Row("slice timing", measure, float(np.median(ours)), BOUND, peers, note)


def moving_head(parameters: Float, tr: float, seed: int) -> tuple[Float, Float, Float, Float]:
    """Simulate a head of 40 regions that moves, with slices at times of their own.

    Returns the run (X, Y, Z, T), the region of each voxel where nothing moves (-1: none), the
    regions' series at the middle of each volume (R, T), and the times of the slices.
    """
    rng, n_volumes = np.random.default_rng(seed), len(parameters)
    points, times = grid_points(SHAPE, AFFINE), slice_times("interleaved", SHAPE[2], tr)
    centres = rng.uniform(-1, 1, (400, 3))
    centres = centres[(centres**2).sum(axis=1) < 0.8][:40] * HEAD_MM
    tree = cKDTree(centres)
    truth = bold_like(len(centres), (n_volumes + 1) * tr, seed)
    of_slice = np.tile(times, len(points) // len(times))
    bold = np.empty((*SHAPE, n_volumes), np.float32)
    for t, matrix in enumerate(motion.parameters_to_matrices(parameters, np.zeros(3))):
        at = apply(np.linalg.inv(matrix), points)
        radius = np.sqrt(((at / HEAD_MM) ** 2).sum(axis=1))
        image = 1000 / (1 + np.exp(np.clip((radius - 1) * 30, -50, 50)))
        image *= 1 + 0.15 * np.cos(at / [6, 8, 7]).prod(axis=1)
        when = np.rint((t * tr + of_slice) / STEP).astype(int)
        image *= 1 + 0.02 * truth[tree.query(at)[1], when]
        bold[..., t] = image.reshape(SHAPE)
    inside = np.sqrt(((points / HEAD_MM) ** 2).sum(axis=1)) < 0.85
    regions = np.where(inside, tree.query(points)[1], -1).reshape(SHAPE)
    middle = np.rint((np.arange(n_volumes) * tr + times.max() / 2) / STEP).astype(int)
    return bold, regions, truth[:, middle], times


def head_moves(kind: str, size: float, n_volumes: int, seed: int) -> Float:
    """(T, 6) a random walk to `size` mm and as many degrees / 1.7, or steps every ten volumes."""
    rng = np.random.default_rng(seed)
    limits = size * np.array([1, 1, 1, 0.01, 0.01, 0.01])
    if kind == "steps":
        return np.repeat(rng.uniform(-limits, limits, (n_volumes // 10, 6)), 10, axis=0)
    walk = rng.standard_normal((n_volumes, 6)).cumsum(axis=0)
    walk -= np.linspace(0, 1, n_volumes)[:, None] * walk[-1]
    return np.asarray(walk / np.abs(walk).max(axis=0) * limits)


def orders(kind: str, size: float, seed: int, n_volumes: int = 120) -> dict[str, float]:
    """Median r over regions with the truth, motion known: slices first, last, and not corrected."""
    parameters = head_moves(kind, size, n_volumes, seed)
    bold, regions, truth, times = moving_head(parameters, 2.0, seed)
    matrices = motion.parameters_to_matrices(parameters, np.zeros(3))

    def score(run: Float) -> float:
        found = [
            np.corrcoef(run[regions == k].mean(axis=0), truth[k])[0, 1]
            for k in range(len(truth))
            if (regions == k).sum() > 10
        ]
        return float(np.median(found))

    def timed(run: Float) -> Float:
        return _ours(run, times, 2.0, times.max() / 2)

    still = splines.resample(bold, AFFINE, matrices)
    return {
        "slices first": score(splines.resample(timed(bold), AFFINE, matrices)),
        "slices last": score(timed(still)),
        "not corrected": score(still),
    }


def _with_motion(kind: str, size: float, seed: int) -> Row:
    found = orders(kind, size, seed)
    measure = f"r with the middle of the volume, TR 2 s, motion of {size:g} mm ({kind})"
    return Row("slice timing", measure, found.pop("slices first"), ">= 0.998", found)


def _seconds(seed: int) -> Row:
    rng = np.random.default_rng(seed)
    bold = np.asfortranarray(rng.standard_normal((64, 64, N_SLICES, N_VOLUMES), dtype=np.float32))
    started = time.perf_counter()
    correct_slice_timing(bold, slice_times("ascending", N_SLICES, 2.0), 2.0, reference=1.0)
    return Row("slice timing", "time (s)", time.perf_counter() - started, "<= 15")


def _future(seed: int) -> Row:
    """How well the next volume of white noise, shared by all slices, is predicted afterwards."""
    times = slice_times("ascending", N_SLICES, 2.0)
    shared, own = np.random.default_rng(seed).standard_normal((2, 1, 60, N_SLICES, 400))
    bold = np.sqrt(0.5) * (own + shared[:, :1, :1])
    corrected = _ours(bold, times, 2.0, 1.0)
    peers = {"not corrected": _predicted(bold)}
    measure = "white noise shared by slices, R² of the next volume (a vector autoregression)"
    return Row("slice timing", measure, _predicted(corrected), "", peers, "why forecasts warn")


def _predicted(bold: Float) -> float:
    """R² of the next volume of 60 parcels of six slices, fitted to the first half."""
    starts = np.random.default_rng(3).integers(0, N_SLICES - 6, bold.shape[1])
    parcels = np.stack([bold[0, p, k : k + 6].mean(axis=0) for p, k in enumerate(starts)], axis=1)
    parcels -= parcels.mean(axis=0)
    past = np.hstack([parcels[2 - lag : len(parcels) - 1 - lag] for lag in range(3)])
    future = parcels[3:]
    half = len(future) // 2
    gram = past[:half].T @ past[:half] + 100 * np.eye(past.shape[1])
    weights = np.linalg.solve(gram, past[:half].T @ future[:half])
    left = future[half:] - past[half:] @ weights
    return float(1 - np.square(left).sum() / np.square(future[half:]).sum())


# --- single-band reference -------------------------------------------------------------------


class Case(NamedTuple):
    """A phantom's run with its single-band reference, whose pose the truth counts from."""

    bold: Float  # (X, Y, Z, T)
    sbref: Float
    affine: Float
    t1w: Float
    t1w_affine: Float
    truth: Float  # (T, 4, 4) pulls, single-band reference -> volume
    t1w_to_sbref: Float  # (4, 4) pull
    brain: Float  # (N, 3) mm, in the single-band reference


def sbref_case(folder: Path, tr: float, seed: int, n_volumes: int = 40) -> Case:
    """Write a phantom that moves by up to 2.6 mm, and read it back."""
    phantom.write_phantom(
        folder / "bids",
        n_subjects=1,
        n_volumes=n_volumes,
        tr=tr,
        motion="high",
        seed=seed,
        sbref=True,
    )
    raw, truth = folder / "bids" / "sub-01", folder / "bids" / "derivatives" / "phantom" / "sub-01"
    names = ("func/sub-01_task-rest_bold", "func/sub-01_task-rest_sbref", "anat/sub-01_T1w")
    bold, sbref, t1w = (nib.load(raw / f"{name}.nii.gz") for name in names)
    stem = truth / "func" / "sub-01_task-rest"
    geometry = np.load(f"{stem}_desc-truth_geometry.npz")
    tissue = nib.load(f"{stem}_space-boldref_desc-tissue_dseg.nii.gz")
    return Case(
        *(np.asarray(image.dataobj, dtype=np.float32) for image in (bold, sbref)),
        bold.affine,
        np.asarray(t1w.dataobj, dtype=np.float32),
        t1w.affine,
        geometry["matrices"],
        np.linalg.inv(geometry["bold_to_t1w"]),
        apply(tissue.affine, np.argwhere(np.asarray(tissue.dataobj))[::11]),
    )


def errors(found: Float, wanted: Float, points: Float) -> Float:
    """(T,) mean distances in mm of points (N, 3) under two sets of pulls (T, 4, 4)."""
    apart = [apply(f, points) - apply(w, points) for f, w in zip(found, wanted, strict=True)]
    return np.linalg.norm(np.array(apart), axis=2).mean(axis=1)


def sbref_rows(tr: float, seed: int) -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        case = sbref_case(Path(folder), tr, seed)
    own = steps.realign(case.bold, case.affine)
    n_dummy, own_matrices = own.motion.n_dummy, own.motion.matrices
    given = steps.SingleBand(case.sbref, case.affine, seed)
    started = time.perf_counter()
    place(given, own.boldref, case.affine, own.brain_mask)
    seconds = time.perf_counter() - started
    run = steps.realign(case.bold, case.affine, sbref=given)
    ours, steady = run.motion.matrices, slice(n_dummy, None)
    assert ours is not None and own_matrices is not None
    direct = motion.realign(case.bold[..., n_dummy:], case.affine, case.sbref)
    once = motion.realign(own.boldref[..., None], case.affine, case.sbref)[0]
    peers = {
        "each volume, least squares": direct,
        "median, least squares": own_matrices[steady] @ once,
    }
    wanted = case.truth[steady]
    means = {name: errors(found, wanted, case.brain).mean() for name, found in peers.items()}
    stage, of = "single-band reference", f"TR {tr:g} s"
    note = f"likeness {run.motion.sbref_likeness:.2f}, {seconds:.1f} s"
    error = errors(ours[steady], wanted, case.brain).mean()
    yield Row(stage, f"reference to volumes, mean (mm), {of}", float(error), "<= 0.3", means, note)
    ends = {}
    anatomy = steps.prepare_t1w(case.t1w, case.t1w_affine)
    head = apply(np.linalg.inv(case.t1w_to_sbref), case.brain)
    for name, one in {"single-band": run, "own median": own}.items():
        through = steps.coregister(
            one.boldref,
            case.affine,
            one.brain_mask,
            anatomy.t1w,
            case.t1w_affine,
            anatomy.brain_mask,
            seen=one.seen,
            seed=seed,
        )
        assert one.motion.matrices is not None
        ends[name] = errors(
            one.motion.matrices[steady] @ through.matrix, wanted @ case.t1w_to_sbref, head
        ).mean()
    ours_end = float(ends.pop("single-band"))
    yield Row(stage, f"T1w to volumes, mean (mm), {of}", ours_end, "<= 0.5", ends)
