"""Scaled series as the participant level leaves them, of processes whose truth is known."""

from pathlib import Path

import numpy as np

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.parcels import steps
from brainlm_bids.parcels.scaling import recording_stats, scale
from brainlm_bids.phantom.cohort_files import write_atlas

SPACE, ATLAS, TR = "MNI152NLin2009aSym", "A424approx", 0.735


def autoregressive_process(phi: float, shape: tuple[int, int], seed: int) -> np.ndarray:
    """(T, P) with unit variance: x(t) = φ x(t − 1) + sqrt(1 − φ²) e."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((shape[0] + 100, shape[1]))
    values = noise.copy()
    for t in range(1, len(values)):
        values[t] = phi * values[t - 1] + np.sqrt(1 - phi**2) * noise[t]
    return values[100:]


def robust(series: np.ndarray) -> np.ndarray:
    return scale(series, recording_stats(series))[0]


def write_robust(out: Path, stem: str, series: np.ndarray, *, atlas: bool = True) -> Naming:
    """The robust series of one run, its sidecar and record; and the atlas of the folder."""
    naming = Naming(str(out), stem, SPACE, ATLAS)
    path = files.write_series(naming.path("robust"), list(resources.parcels().names), series)
    said = {"RepetitionTime": TR, "StartTime": 2 * TR}
    note = files.write_json(path.with_suffix(".json"), naming.sidecar("robust", said))
    outputs.write_record(out, stem, "series", f"made-{stem}", [path, note])
    if atlas:
        write_atlas(out)
    return naming


def write_run(out: Path, stem: str, series: np.ndarray, tr: float, **made: object) -> Naming:
    """The denoised volumes of one run, and the scaled series made from them."""
    naming, names = Naming(str(out), stem, SPACE, ATLAS), list(resources.parcels().names)
    scaled = steps.scale(series, tr, model_tr=TR)
    times = {"RepetitionTime": scaled.tr, "SourceRepetitionTime": tr, "StartTime": 0.0}
    about = {"DummyVolumes": 0, "HighPassCutoff": 100.0, "Denoising": "nonaggr", **made}
    written = [
        files.write_tsv(naming.path("denoised"), names, series.T.tolist()),
        files.write_series(naming.path("robust"), names, scaled.series),
    ]
    said = {"RepetitionTime": tr, **about}, times
    notes = [
        files.write_json(path.with_suffix(".json"), one)
        for path, one in zip(written, said, strict=True)
    ]
    outputs.write_record(out, stem, "series", f"made-{stem}", [*written, *notes])
    write_atlas(out)
    return naming
