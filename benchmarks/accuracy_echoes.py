"""Echoes and their combination against truths, and against tedana where it is installed.

A simulated run whose T2*, motion and noise are known (`multi_echo`): thermal noise of one strength
in all echoes, and a response that changes R2* alone. And the phantom, with all its noise.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from benchmarks.multi_echo import MultiEcho, simulate
from benchmarks.table import Row
from brainlm_bids.phantom import write_phantom
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.echoes import combine, fit_decay, weights_of

Bold = NDArray[np.floating]
THREE = (0.014, 0.030, 0.046)
STAGE = "echoes"


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of echoes of the accuracy table."""
    for times in ((0.015, 0.040), THREE, (0.0102, 0.0245, 0.0388, 0.0531, 0.0674)):
        yield from _moved(times, seed)
    yield from _still(seed)
    with TemporaryDirectory() as folder:
        yield from _phantom(Path(folder), seed, 40 if quick else 120)
    yield from _seconds((40, 40, 24, 60) if quick else (64, 64, 36, 240))


def _in_words(times: tuple[float, ...]) -> str:
    return f"{len(times)} echoes, {1000 * times[0]:g} to {1000 * times[-1]:g} ms"


def _moved(times: tuple[float, ...], seed: int) -> Iterator[Row]:
    """T2* of a head that moves by up to 0.5 mm, after realignment."""
    run = simulate(times, n_volumes=40, seed=seed)
    found = steps.realign_echoes(
        (echo.copy(order="F") for echo in run.echoes), run.affine, times, n_dummy=0
    )
    inner = found.brain_mask & run.brain & (run.t2star > 0.02)
    assert found.decay is not None
    error = 100 * np.abs(found.decay.t2star / run.t2star - 1)[inner]
    note = f"{_in_words(times)}; 95th percentile {np.percentile(error, 95):.2g}"
    yield Row(STAGE, "T2*, median error (%)", float(np.median(error)), "<= 2", {}, note)


def tsnr(bold: Bold, mask: NDArray[np.bool_]) -> float:
    """Median over voxels of mean over standard deviation in time."""
    return float(np.median((bold.mean(axis=-1) / bold.std(axis=-1))[mask]))


def clarity(bold: Bold, mask: NDArray[np.bool_], response: Bold) -> float:
    """Median over voxels of the correlation with a response."""
    series = bold[mask] - bold[mask].mean(axis=1, keepdims=True)
    course = response - response.mean()
    norms = np.linalg.norm(series, axis=1) * np.linalg.norm(course)
    return float(np.median(series @ course / norms))


def _still(seed: int) -> Iterator[Row]:
    """What the combination gains, without motion."""
    run = simulate(THREE, n_volumes=60, mm=0.0, seed=seed)
    own = fit_decay(run.echoes, THREE, run.brain)
    inner = run.brain & (own.n_good == len(THREE))
    combined = combine(run.echoes, weights_of(own, THREE))
    each = {f"echo {k}": tsnr(echo, inner) for k, echo in enumerate(run.echoes, 1)}
    ratio = tsnr(combined, inner) / max(each.values())
    yield Row(STAGE, "tSNR, × the best echo's", ratio, ">= 1.15", each, "thermal noise")
    answer = simulate(THREE, n_volumes=60, mm=0.0, seed=seed, response=True)
    own = fit_decay(answer.echoes, THREE, answer.brain)
    combined = combine(answer.echoes, weights_of(own, THREE))
    peers = {
        f"echo {k}": clarity(echo, inner, answer.response)
        for k, echo in enumerate(answer.echoes, 1)
    }
    equal = combine(answer.echoes, np.full((3, *answer.brain.shape), 1 / 3, np.float32))
    peers["equal weights"] = clarity(equal, inner, answer.response)
    yield Row(STAGE, "r with a BOLD response", clarity(combined, inner, answer.response), "", peers)
    yield from _beside_tedana(answer)


def _beside_tedana(run: MultiEcho) -> Iterator[Row]:
    """The largest difference from tedana's combination, where two echoes or more have signal."""
    if importlib.util.find_spec("tedana") is None:
        yield Row(STAGE, "difference from tedana", np.nan, note="tedana is not installed")
        return
    from tedana import combine as their
    from tedana import decay, utils

    mask = run.brain
    data = np.stack([echo[mask] for echo in run.echoes], axis=1).astype(np.float64)
    milliseconds = 1000 * np.array(run.times)
    _, n_good = utils.make_adaptive_mask(data, threshold=1, methods=["dropout"])
    t2star, s0, *_ = decay.fit_decay(data, milliseconds, n_good, "loglin")
    t2star = decay.modify_t2s_s0_maps(t2star, s0, n_good, milliseconds)[0]
    theirs = their.make_optcom(data, milliseconds, n_good, t2s=t2star)
    own = fit_decay(run.echoes, run.times, mask)
    ours = combine(run.echoes, weights_of(own, run.times))[mask]
    several = n_good >= 2
    apart = float(np.abs(ours[several] / theirs[several] - 1).max())
    yield Row(STAGE, "largest difference from tedana", apart, "<= 1e-4", {}, "share of the signal")


def _phantom(folder: Path, seed: int, n_volumes: int) -> Iterator[Row]:
    """The phantom, with head motion and all its noise."""
    write_phantom(folder / "data", n_subjects=1, n_volumes=n_volumes, seed=seed, echoes=THREE)
    func = folder / "data" / "sub-01" / "func"
    paths = sorted(func.glob("*_bold.nii.gz"))
    images = [nib.load(path) for path in paths]  # type: ignore[attr-defined]
    affine = images[0].affine

    def echoes() -> Iterator[NDArray[np.float32]]:
        return (np.asfortranarray(image.get_fdata(dtype=np.float32)) for image in images)

    kept: list[NDArray[np.float32]] = []

    def keep(echo: NDArray[np.float32]) -> NDArray[np.float32]:
        kept.append(echo)
        return echo

    found = steps.realign_echoes(echoes(), affine, THREE, keep=keep)
    assert found.decay is not None and found.summary is not None
    mask = found.brain_mask & (found.decay.n_good == len(THREE))
    steady = slice(found.motion.n_dummy, None)
    peers = {f"echo {k}": tsnr(echo[..., steady], mask) for k, echo in enumerate(kept, 1)}
    ratio = tsnr(found.bold[..., steady], mask) / max(peers.values())
    yield Row(STAGE, "phantom: tSNR, × the best echo's", ratio, "", peers, "with all noise")
    yield Row(
        STAGE,
        "phantom: tSNR, × that of echo 2",
        tsnr(found.bold[..., steady], mask) / peers["echo 2"],
        ">= 1.15",
        {},
        "the echo that a single-echo run has",
    )
    (path,) = (folder / "data").rglob("*_desc-truth_T2starmap.nii.gz")
    truth = nib.load(path)  # type: ignore[attr-defined]
    if truth.shape == mask.shape:
        expected = truth.get_fdata()
        inner = mask & (expected > 0.02) & (expected < 0.1)
        error = 100 * np.abs(found.decay.t2star[inner] / expected[inner] - 1)
        note = f"95th percentile {np.percentile(error, 95):.2g}"
        yield Row(STAGE, "phantom: T2*, median error (%)", float(np.median(error)), "", {}, note)


def _seconds(shape: tuple[int, int, int, int]) -> Iterator[Row]:
    """Fit and combination of three echoes, beside what every run needs."""
    rng = np.random.default_rng(0)
    first = 1000 + rng.standard_normal(shape[::-1], dtype=np.float32).T
    echoes = [first * np.float32(share) for share in (1.0, 0.7, 0.5)]
    started = time.process_time()
    decay = fit_decay(echoes, THREE, np.ones(shape[:3], dtype=bool))
    combine(echoes, weights_of(decay, THREE))
    seconds = time.process_time() - started
    size = " × ".join(map(str, shape))
    yield Row(STAGE, "fit and combination (s)", seconds, "<= 15", {}, f"three echoes of {size}")
