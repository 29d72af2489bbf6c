"""Filter, confounds, ICA-AROMA and denoised parcels against definitions, peers and two truths."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import denoising, planted, simulator
from benchmarks.table import Row
from brainlm_bids import resources
from brainlm_bids.phantom import write_phantom
from brainlm_bids.phantom.oracle import median_correlations, true_nuisances
from brainlm_bids.preproc.denoising import aroma, confounds, dimension, ica, mixture, temporal

Float = NDArray[np.floating]

SHARED = Path(os.environ.get("BRAINLM_BIDS_SHARED", "../shared"))
VISUAL = 1  # network index
RAW_SHARE, CLEAN_SHARE = ">= 0.95", ">= 0.85"


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the denoising rows of the accuracy table."""
    yield from _highpass(seed)
    yield from _features(seed)
    yield from _planted(range(seed, seed + (3 if quick else 10)))
    yield from _confounds(seed)
    yield from _simulated(seed, 120 if quick else 240)
    yield from _phantom(seed, 120 if quick else 240)
    if not quick and (SHARED / "data" / "studyforrest").is_dir():
        yield from _studyforrest()


# --- filter and confounds --------------------------------------------------------------------


def slow_highpass(series: Float, sigma: float) -> Float:
    """`fslmaths -bptf` of a series (T,): a weighted line through every volume's neighbours."""
    out, reach = np.empty(len(series)), int(3 * sigma)
    for t in range(len(series)):
        near = np.arange(max(t - reach, 0), min(t + reach, len(series) - 1) + 1)
        root = np.exp(-0.25 * ((near - t) / sigma) ** 2)
        line = np.column_stack([np.ones(len(near)), near - t]) * root[:, None]
        out[t] = series[t] - np.linalg.lstsq(line, series[near] * root, rcond=None)[0][0]
    return out - out.mean()


def _highpass(seed: int) -> Iterator[Row]:
    from nilearn import signal

    rng = np.random.default_rng(seed)
    worst = 0.0
    for n_volumes, tr in ((490, 0.735), (240, 2.0), (60, 3.0)):
        series = 10000 + rng.standard_normal(n_volumes).cumsum()
        slow = slow_highpass(series, 50.0 / tr)
        fast = temporal.highpass_matrix(n_volumes, tr) @ series
        worst = max(worst, float(np.abs(fast - slow).max()))
    yield Row("high-pass", "largest difference to FSL's definition", worst, "<= 1e-9")

    voxels = rng.standard_normal((490, 20_000)).astype(np.float32)
    started = time.perf_counter()
    temporal.highpass_matrix(490, 0.735).astype(np.float32) @ voxels
    ours = time.perf_counter() - started
    seconds = {}
    for name in ("cosine", "butterworth"):
        started = time.perf_counter()
        signal.clean(
            voxels, filter=name, high_pass=0.01, t_r=0.735, standardize=None, detrend=False
        )
        seconds[f"nilearn {name}"] = (time.perf_counter() - started) / ours
    note = f"ours {ours:.2f} s, 490 × 20,000; peers in units of ours"
    yield Row("high-pass", "time", 1.0, "", seconds, note)


def _confounds(seed: int) -> Iterator[Row]:
    import nibabel as nib
    from nipype.algorithms import confounds as theirs

    rng = np.random.default_rng(seed)
    parameters = (rng.standard_normal((60, 6)) * ([0.05] * 3 + [0.001] * 3)).cumsum(axis=0)
    noise = rng.standard_normal((60, 500))
    noise[1:] += 0.4 * noise[:-1]
    series = (rng.uniform(600, 1200, 500) + 9 * noise).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "run.par"
        np.savetxt(table, parameters[:, [3, 4, 5, 0, 1, 2]], fmt="%.12f")
        node = theirs.FramewiseDisplacement(
            in_file=str(table), parameter_source="FSL", out_file=f"{folder}/fd.txt"
        )
        displacement = np.loadtxt(node.run(cwd=folder).outputs.out_file, skiprows=1)
        image = nib.Nifti1Image(series.T.reshape(10, 10, 5, -1), np.eye(4))
        image.to_filename(f"{folder}/bold.nii")
        nib.Nifti1Image(np.ones((10, 10, 5), np.uint8), np.eye(4)).to_filename(f"{folder}/mask.nii")
        theirs._AR_est_YW = yule_walker
        standardised, plain, _ = theirs.compute_dvars(
            f"{folder}/bold.nii", f"{folder}/mask.nii", remove_zerovariance=True
        )
    ours = confounds.framewise_displacement(parameters)[1:]
    bound = "<= 1e-6"
    yield Row("FD", "largest difference to nipype (mm)", _largest(ours - displacement), bound)
    found, found_standardised, _ = confounds.dvars(series)
    both = np.concatenate([found[1:] / plain - 1, found_standardised[1:] / standardised - 1])
    yield Row("DVARS", "largest difference to nipype, relative", _largest(both), bound)


def yule_walker(x: Float, order: int, rxx: None = None) -> Float:
    """nitime's AR_est_YW, which nipype calls but does not depend on: biased autocovariances."""
    centred = x.astype(np.float64) - x.mean(dtype=np.float64)
    covariance = np.correlate(centred, centred, "full")[len(x) - 1 :] / len(x)
    return np.array([covariance[1] / covariance[0]])


def _largest(values: Float) -> float:
    return float(np.abs(values).max())


# --- ICA-AROMA -------------------------------------------------------------------------------


def _features(seed: int) -> Iterator[Row]:
    """Features and decisions of a planted run, beside those of ica-aroma-py on the same inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ica_aroma_py.services import ICA_AROMA_functions as port
    series, _, _, parameters = planted.plant(seed)
    found = ica.spatial_ica(series, 7, seed)
    mixing, tr = found.mixing, 2.0
    rng = random.Random(seed)
    n_volumes = len(mixing)
    draws = [rng.sample(range(n_volumes), round(0.9 * n_volumes)) for _ in range(1000)]
    spectrum = np.abs(np.fft.rfft(mixing, axis=0)) ** 2
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("mix", mixing), ("mc", parameters), ("ft", spectrum[1:])):
            np.savetxt(f"{folder}/{name}", table)
        np.savetxt(f"{folder}/with_dc", spectrum)
        correlation = port.feature_time_series(f"{folder}/mix", f"{folder}/mc", seed=seed)
        frequency = port.feature_frequency(f"{folder}/ft", tr)
        shifted = port.feature_frequency(f"{folder}/with_dc", tr)
        ours = aroma.max_rp_corr(mixing, parameters, seed, subsets=np.array(draws))
        high = aroma.high_frequency_content(mixing, tr)
        inside = planted.brain()["mask"]
        masks = [planted.brain()[name][inside] for name in ("csf", "edge", "out")]
        maps = mixture.threshold_maps(found.maps)
        edge, csf = aroma.edge_csf_fractions(maps, *masks)
        spatial = _port_fractions(Path(folder), maps, masks)
        bad = port.classification(folder, correlation, spatial[0], frequency, spatial[1])
    bound = "<= 1e-6"
    stage = "AROMA"
    yield Row(stage, "max_RP_corr, difference to the port", _largest(ours - correlation), bound)
    fractions = np.concatenate([edge - spatial[0], csf - spatial[1]])
    yield Row(stage, "edge and CSF fractions, the same", _largest(fractions), bound)
    peers = {"port, spectrum with DC": _largest(shifted - high)}
    yield Row(stage, "HFC, the same", _largest(high - frequency), bound, peers)
    noise, _ = aroma.classify(ours, edge, csf, high)
    differ = len(set(np.flatnonzero(noise)) ^ set(np.atleast_1d(bad)))
    yield Row(stage, "decisions that differ", differ, "<= 0")


def _port_fractions(folder: Path, maps: Float, masks: list[Any]) -> tuple[Float, Float]:
    import nibabel as nib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ica_aroma_py.services.ICA_AROMA_nodes import FeatureSpatial
    files = {}
    for name, mask in zip(("csf", "edge", "out"), masks, strict=True):
        files[f"mask_{name}"] = str(folder / f"{name}.nii")
        image = nib.Nifti1Image(mask[:, None, None].astype(np.uint8), np.eye(4))
        image.to_filename(files[f"mask_{name}"])
    stacked = nib.Nifti1Image(maps.T[:, None, None].astype(np.float64), np.eye(4))
    stacked.to_filename(folder / "maps.nii")
    outputs = FeatureSpatial(in_file=str(folder / "maps.nii"), **files).run(cwd=str(folder)).outputs
    return np.asarray(outputs.edge_fract), np.asarray(outputs.csf_fract)


def _planted(seeds: range) -> Iterator[Row]:
    right = [share for seed in seeds for share in [planted_right(seed)]]
    note = f"{len(right)} seeds: edge that moves, CSF, fast, four networks"
    yield Row("AROMA", "planted components classified right", min(right), ">= 1", note=note)


def planted_right(seed: int) -> float:
    """Share of the seven planted components that are found and classified right."""
    series, courses, _, parameters = planted.plant(seed)
    masks = planted.brain()
    inside = masks["mask"]
    samples = dimension.effective_samples(series, inside)
    found = ica.spatial_ica(series, dimension.estimate_dimension(series, n_effective=samples), seed)
    edge, csf = aroma.edge_csf_fractions(
        mixture.threshold_maps(found.maps),
        *(masks[name][inside] for name in ("csf", "edge", "out")),
    )
    noise, _ = aroma.classify(
        aroma.max_rp_corr(found.mixing, parameters, seed),
        edge,
        csf,
        aroma.high_frequency_content(found.mixing, 2.0),
    )
    r = np.abs(np.corrcoef(courses.T, found.mixing.T)[:7, 7:])
    best = r.argmax(axis=1)
    right = (noise[best] == (np.arange(7) < planted.N_NOISE)) & (r.max(axis=1) > 0.9)
    return float(right.mean()) if len(set(best)) == 7 else 0.0


# --- denoised parcels ------------------------------------------------------------------------


def _simulated(seed: int, n_volumes: int) -> Iterator[Row]:
    run = simulator.simulate(seed, n_volumes=n_volumes)
    found = denoising.denoise(run)
    first, n_dummy = run.n_non_steady, found.motion.n_dummy
    missed = max(0, first - n_dummy)
    note = f"{n_dummy} volumes left out, {first} are off by more than half a percent"
    stage = "denoised parcels, second simulator"
    yield Row(stage, "non-steady volumes missed", missed, "<= 1", note=note)
    others = denoising.peers(
        found.raw, found.motion.parameters, found.global_signal, n_dummy, run.tr
    )
    truth = run.series, run.oracle, denoising.simulated_nuisances(run), first
    noise = found.decisions.noise
    note = f"{noise.sum()} of {noise.size} components removed"
    yield from _shares(stage, found.denoised, others, truth, note)


def _shares(
    stage: str,
    denoised: Float,
    others: dict[str, Float],
    truth: tuple[Float, Float, Float, int],
    note: str,
) -> Iterator[Row]:
    ours = denoising.of_the_oracle(denoised, *truth)
    theirs = {name: denoising.of_the_oracle(values, *truth) for name, values in others.items()}
    series, oracle, nuisance, first = truth
    raw, clean = median_correlations(oracle, series, nuisance, first)
    measures = (f"r, of the raw oracle's {raw:.2f}", f"r, of the clean oracle's {clean:.2f}")
    for k, bound in enumerate((RAW_SHARE, CLEAN_SHARE)):
        peers = {name: values[k] for name, values in theirs.items()}
        yield Row(stage, measures[k], ours[k], bound, peers, note)


@dataclass(frozen=True)
class _Outputs:
    """What the app left of a data set with one run."""

    denoised: Float  # (T, 424)
    others: dict[str, Float]  # the same parcels, cleaned otherwise
    n_dummy: int
    components: pd.DataFrame
    robust: dict[str, Any]

    @property
    def note(self) -> str:
        noise = self.components["classification"] == "noise"
        return f"{noise.sum()} of {noise.size} components removed"


def _run_app(bids: Path, folder: Path, *arguments: str, **environment: str) -> _Outputs:
    command = [
        sys.executable,
        "-m",
        "brainlm_bids",
        str(bids),
        str(folder / "out"),
    ]
    command += ["participant", "-w", str(folder / "work"), "--model", "none", "--offline"]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise RuntimeError(f"the chain failed on {bids}:\n{done.stderr[-3000:]}")
    func = next((folder / "out").glob("sub-*/func"))
    table = _read(next(func.glob("*_desc-confounds_timeseries.tsv")))
    n_dummy = sum(name.startswith("non_steady_state_outlier") for name in table)
    # what the chain had before it denoised lies in its work folder alone
    raw = np.load(next((folder / "work").rglob("parcels.npy")))
    others = denoising.peers(
        raw,
        table[list(confounds.MOTION_NAMES)].to_numpy(float),
        table["global_signal"].to_numpy(float),
        n_dummy,
        2.0,
    )
    return _Outputs(
        denoised=_read(next(func.glob("*_desc-denoised_timeseries.tsv"))).to_numpy(float),
        others=others,
        n_dummy=n_dummy,
        components=_read(next(func.glob("*_desc-aroma_metrics.tsv"))),
        robust=json.loads(next(func.glob("*_desc-robust_timeseries.json")).read_text()),
    )


def _phantom(seed: int, n_volumes: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantom(folder / "bids", n_subjects=1, n_volumes=n_volumes, seed=seed)
        embedded = ("--atlas", "A424approx", "--template", "MNI152NLin2009aSym")
        found = _run_app(folder / "bids", folder, *embedded)
        truth = _truth(folder / "bids" / "derivatives" / "phantom" / "sub-01" / "func")
    stage = "denoised parcels, phantom"
    yield from _shares(stage, found.denoised, found.others, truth, found.note)


def _studyforrest() -> Iterator[Row]:
    """A person who looks at pictures: do visual parcels follow them, before and after?"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(SHARED / "templateflow", folder / "templateflow")
        found = _run_app(
            SHARED / "data" / "studyforrest",
            folder,
            *("--atlas", str(SHARED / "atlas" / "A424+2mm.nii.gz")),
            TEMPLATEFLOW_HOME=str(folder / "templateflow"),
        )
    task = _task(len(found.denoised))
    ours = task_t(found.denoised[found.n_dummy :], task[found.n_dummy :])
    theirs = {
        name: task_t(values[found.n_dummy :], task[found.n_dummy :])
        for name, values in found.others.items()
    }
    visual = resources.parcels().network_index == VISUAL
    stage = "real run, pictures"
    best = {name: float(np.nanmax(t[visual])) for name, t in theirs.items()}
    yield Row(stage, "t of the best visual parcel", np.nanmax(ours[visual]), "", best, found.note)
    ten = {name: _of_ten(t[visual]) for name, t in theirs.items()}
    yield Row(stage, "median t of the ten best visual parcels", _of_ten(ours[visual]), "", ten)
    first = visual[np.argsort(-np.abs(np.nan_to_num(ours)))[:20]].sum()
    yield Row(stage, "visual parcels among the 20 strongest", first, ">= 18")
    for key, norm in (("StandardDeviationDemeaned", 41.4), ("StandardDeviationRobust", 0.83)):
        yield Row(stage, key, found.robust[key], "", {"UK Biobank": norm})


def _of_ten(t: Float) -> float:
    return float(np.median(np.sort(np.nan_to_num(t))[-10:]))


def _task(n_volumes: int) -> Float:
    """(T,) 'a picture is shown', through a haemodynamic response and the filter."""
    from nilearn.glm.first_level import compute_regressor

    events = _read(next((SHARED / "data" / "studyforrest").rglob("*run-1_events.tsv")))
    condition = np.column_stack([events[["onset", "duration"]], np.ones(len(events))]).T
    # volumes are taken at the middle of their 2 s
    times = np.arange(n_volumes) * 2.0 + 1.0
    regressor, _ = compute_regressor(condition, "glover", times)
    return temporal.highpass_matrix(n_volumes, 2.0) @ regressor[:, 0]


def task_t(series: Float, regressor: Float) -> Float:
    """t (P,) of columns (T, P) on a regressor (T,) of mean 0."""
    centred = series - series.mean(axis=0)
    beta = regressor @ centred / (regressor @ regressor)
    left = ((centred - np.outer(regressor, beta)) ** 2).sum(axis=0) / (len(series) - 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(beta / np.sqrt(left / (regressor @ regressor)))


def _truth(folder: Path) -> tuple[Float, Float, Float, int]:
    """Parcel series, oracle, nuisances, first steady volume of the phantom's only run."""

    def table(name: str) -> pd.DataFrame:
        return _read(next(folder.glob(f"*_desc-{name}.tsv")))

    courses = table("noise_timeseries")
    kept = [name for name in courses if name != "time" and not name.startswith("non_steady")]
    nuisance = true_nuisances(courses[kept].to_numpy(float), table("truth_motion").to_numpy(float))
    metrics = json.loads(next(folder.glob("*_desc-oracle_metrics.json")).read_text())
    series, oracle = (table(f"{name}_timeseries").to_numpy(float) for name in ("truth", "oracle"))
    return series, oracle, nuisance, int(metrics["NumberOfNonSteadyVolumes"])


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values="n/a")
