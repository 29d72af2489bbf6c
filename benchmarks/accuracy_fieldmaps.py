"""Distortion by measured field maps against the phantom's field; ROMEO as a second opinion.

    python -m benchmarks.accuracy --only fieldmaps

The field displaces by 8 mm at most. Each kind of field map has a grid of its own, a head that lies
up to 3 mm and 2 degrees elsewhere, noise, and wraps. What is compared is the displacement (mm) in
the brain of the run, on its own grid. ROMEO (warpkit, of the extra `bench`) unwraps the same phase
difference in place of scikit-image; all else is the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np

from benchmarks.table import Row
from brainlm_bids import phantom
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.distortion import phase
from brainlm_bids.preproc.distortion.field import PhaseEncoding, distortion_of
from brainlm_bids.preproc.registration.brain import brain_mask_epi

PEAK_MM = 8.0
BOUNDS = {"mean (mm)": "<= 0.3", "95th percentile (mm)": "<= 1.0"}
SECONDS = "<= 15"
FILES = {
    "phasediff": ("phasediff", "magnitude1"),
    "phases": ("phase1", "phase2", "magnitude1"),
    "field": ("fieldmap", "magnitude"),
}
NAMES = {"phasediff": "phase difference", "phases": "two phases", "field": "field in Hz"}


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of measured field maps."""
    kinds = ["phasediff"] if quick else list(FILES)
    with TemporaryDirectory() as folder:
        data = Path(folder) / "bids"
        phantom.write_phantom(
            data,
            n_subjects=1 if quick else 2,
            n_volumes=4,
            motion="none",
            seed=seed,
            distortion=PEAK_MM,
            phase_encoding="j-",
            fieldmaps=kinds,
        )
        for kind in kinds:
            yield from kind_rows(data, kind, several=len(kinds) > 1)


def kind_rows(data: Path, kind: str, several: bool) -> Iterator[Row]:
    """Errors over the subjects, and the time of one core."""
    stage = f"field map: {NAMES[kind]}"
    errors, before, romeo, seconds = [], [], [], []
    for subject in sorted(data.glob("sub-*")):
        run = load_run(data, subject.name)
        started = time.process_time()
        errors.append(run.errors(measured(subject, kind, several)))
        seconds.append(time.process_time() - started)
        before.append(np.abs(run.truth))
        if kind == "phasediff":
            romeo += [run.errors(found) for found in by_romeo(subject, kind, several)]
    note = f"{len(errors)} heads, up to {PEAK_MM:g} mm"
    if kind == "phasediff" and not romeo:
        note += "; warpkit is not installed"
    for (measure, bound), of in zip(BOUNDS.items(), (np.mean, lambda x: np.percentile(x, 95))):
        peers = {"uncorrected": float(of(np.concatenate(before)))}
        if romeo:
            peers["ROMEO"] = float(of(np.concatenate(romeo)))
        yield Row(stage, measure, float(of(np.concatenate(errors))), bound, peers, note)
    yield Row(stage, "seconds of one core", max(seconds), SECONDS, {}, "field and its place")


class Run:
    """A run's reference, and the true displacements (mm) in its brain."""

    def __init__(self, bold: Any, hertz: Any, tissue: Any, sidecar: dict[str, Any]) -> None:
        self.affine = bold.affine
        # nothing moves; the first volume is brighter
        self.reference = np.asarray(bold.dataobj, np.float32)[..., 1:].mean(axis=3)
        self.encoding = PhaseEncoding.from_bids(
            sidecar["PhaseEncodingDirection"], sidecar["TotalReadoutTime"]
        )
        self.brain = np.asarray(tissue.dataobj) > 0
        field = np.asarray(hertz.dataobj, np.float64)
        self.truth = distortion_of(field, self.affine, self.encoding).millimetres[self.brain]

    def errors(self, field_map: Any) -> np.ndarray:
        mask = brain_mask_epi(self.reference, self.affine)
        found = steps.undistort(self.reference, self.affine, mask, self.encoding, field_map)
        if found.distortion is None:
            raise RuntimeError(found.refused)
        return np.asarray(np.abs(found.distortion.millimetres[self.brain] - self.truth))


def load_run(data: Path, subject: str) -> Run:
    truth = data / "derivatives" / "phantom" / subject / "func"
    func = data / subject / "func"
    return Run(
        _image(func, "*_bold.nii.gz"),
        _image(truth, "*_space-boldref_desc-truth_fieldmap.nii.gz"),
        _image(truth, "*_space-boldref_desc-tissue_dseg.nii.gz"),
        json.loads(next(func.glob("*_bold.json")).read_text()),
    )


def measured(subject: Path, kind: str, several: bool) -> Any:
    stem = f"{subject.name}_acq-{kind}" if several else subject.name
    images = [_image(subject / "fmap", f"{stem}_{suffix}.nii.gz") for suffix in FILES[kind]]
    loaded = [(np.asarray(image.dataobj, np.float32), image.affine) for image in images]
    times = [
        json.loads((subject / "fmap" / f"{stem}_magnitude{k}.json").read_text())["EchoTime"]
        for k in (1, 2)
        if kind != "field"
    ]
    return steps.measure_field(kind, loaded[:-1], loaded[-1], echo_times=times, units="Hz")


def by_romeo(subject: Path, kind: str, several: bool) -> Iterator[Any]:
    """The same with ROMEO's unwrapping; nothing without warpkit."""
    try:
        from warpkit.unwrap import romeo_unwrap3d
    except ImportError:
        return

    def unwrapped(radians: np.ndarray, brain: np.ndarray, seed: int = 0) -> np.ndarray:
        magnitude = _image(subject / "fmap", "*_magnitude1.nii.gz")
        wrapped = np.angle(np.exp(1j * radians.astype(np.float64)))
        whole = romeo_unwrap3d(
            wrapped.astype(np.float32), "romeo", np.asarray(magnitude.dataobj, np.float32), brain
        )
        turns = np.round(np.median(whole[brain]) / (2 * np.pi))
        return np.where(brain, whole - 2 * np.pi * turns, 0).astype(np.float32)

    with mock.patch.object(phase, "unwrapped", unwrapped):
        yield measured(subject, kind, several)


def _image(folder: Path, pattern: str) -> Any:
    return nib.Nifti1Image.from_filename(sorted(folder.glob(pattern))[0])
