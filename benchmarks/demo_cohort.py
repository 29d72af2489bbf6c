"""A cohort of parcel series, as the demo checkpoint is pretrained on: a seed in, recordings out.

The signals are those of the phantom (seven networks of the haemodynamic spectrum), without the
detour through volumes, which would take two minutes a recording. Added, in shares that differ from
recording to recording: smooth and mirror-symmetric activity, which the phantom lacks and real
brains have; a signal common to all parcels; noise that differs between parcels, as their sizes do.
Then as in the app: high-pass of 100 s, the model's repetition time, robust scaling.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.parcels import sampling, scaling
from brainlm_bids.phantom import courses
from brainlm_bids.preproc.denoising import temporal
from brainlm_bids.settings import Settings

Array = NDArray[np.float64]
# s; UK Biobank's and HCP's, and what labs use: half of the recordings are interpolated
REPETITION_TIMES = (0.735, 0.735, 0.735, 1.0, 1.5, 2.0)
SECONDS = 360.0  # 490 volumes of UK Biobank
LENGTH_MM = (12.0, 30.0)  # of the smooth activity's correlation, exp(-d² / 2L²)
N_SMOOTH = 60  # sources of smooth activity


def recordings(n_subjects: int, seed: int) -> Iterator[tuple[str, str, Array]]:
    """`n_subjects` recordings: (name, subject, series (T, 424), robust-scaled at 0.735 s)."""
    for i in range(n_subjects):
        subject = f"{i:04d}"
        yield f"sub-{subject}_task-rest", subject, recording(np.random.default_rng([seed, i]))


def recording(rng: np.random.Generator) -> Array:
    """One recording (T, 424) at 0.735 s, in interquartile ranges."""
    tr = float(rng.choice(REPETITION_TIMES))
    n_volumes = round(SECONDS / tr)
    networks, smooth, common, noise = rng.uniform((0.4, 0.0, 0.0, 0.2), (1.0, 0.8, 0.6, 0.8))
    series = networks * courses.parcel_series(rng, n_volumes, tr)
    series += smooth * smooth_series(rng, n_volumes, tr)
    course = courses.haemodynamic_series(rng, 1, n_volumes, tr, 0.05)
    series += common * course * rng.normal(1, 0.3, series.shape[1])
    level = noise * rng.lognormal(0, 0.4, series.shape[1])
    series += level * rng.normal(size=series.shape)
    series = temporal.highpass_matrix(n_volumes, tr) @ series
    series, _ = sampling.at_rate(series, tr, Settings.model_tr)
    return scaling.scale(series, scaling.recording_stats(series))[0]


def smooth_series(rng: np.random.Generator, n_volumes: int, tr: float) -> Array:
    """Activity (T, 424), sd 1, alike in neighbours and in mirrored parcels."""
    xyz = resources.parcels().xyz.astype(float)
    length = rng.uniform(*LENGTH_MM)
    centres = xyz[rng.choice(len(xyz), N_SMOOTH, replace=False)]
    # |x|: the two hemispheres share their sources, as homotopic regions do
    mirrored = [np.abs(p * [1, 0, 0]) + p * [0, 1, 1] for p in (xyz, centres)]
    squared = ((mirrored[0][:, None] - mirrored[1][None]) ** 2).sum(-1)
    weights = np.exp(-squared / (2 * length**2)) + 1e-6
    sources = courses.haemodynamic_series(rng, N_SMOOTH, n_volumes, tr)
    series = sources @ weights.T
    return np.asarray((series - series.mean(0)) / series.std(0))
