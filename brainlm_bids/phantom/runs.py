"""Simulates the runs of one person in one session, and writes images, sidecars and truth."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainlm_bids import files
from brainlm_bids.phantom.acquisition import ECHOES, FLIP_DEGREES, RUN, SBREF, Acquisition
from brainlm_bids.phantom.echoes import nearest_echo
from brainlm_bids.phantom.field import Distortion, Field, PhaseEncoding
from brainlm_bids.phantom.fieldmap_files import field_fields
from brainlm_bids.phantom.head import Warp, apply_affine, drawn_pose
from brainlm_bids.phantom.oracle import Oracle
from brainlm_bids.phantom.scene import Run, bold_affine, build_scene, single_band, volumes
from brainlm_bids.phantom.slices import slice_times, time_course
from brainlm_bids.phantom.storing import write_nifti
from brainlm_bids.phantom.truth import write_decay_truth, write_field_truth, write_truth


@dataclass(frozen=True)
class Visit:
    """A person in one session: warp of the T1w, field of the head, atlas in the T1w.

    labels (P,) 1..424 and their points (P, 3) mm.
    """

    warp: Warp
    field: Field | None
    labels: np.ndarray
    points: np.ndarray
    identifiers: tuple[str, ...]  # of the field maps


@dataclass(frozen=True)
class _Plan:
    """All that is decided of a run before its images are made.

    rng: the state from which coil and noise are drawn.
    """

    run: Run
    centre: np.ndarray
    bold_to_t1w: np.ndarray
    parameters: np.ndarray
    rng: np.random.Generator
    numbers: tuple[int, int, int]

    def stream(self, kind: int, *more: int) -> np.random.Generator:
        """Random numbers of this run that nothing else draws from."""
        return np.random.default_rng([kind, self.run.acquisition.seed, *self.numbers, *more])


def write_run(
    folders: tuple[Path, Path],
    name: str,
    visit: Visit,
    acquisition: Acquisition,
    numbers: tuple[int, int, int],
) -> list[str]:
    """Simulate one run, write images and sidecars, and its truth; returns the names of the images.

    folders: of the data and of the truth; numbers: of subject, session and run, which seed it.
    """
    folder, truth = folders
    plan = _planned(visit, acquisition, numbers)
    run, warp = plan.run, visit.warp
    points = apply_affine(np.linalg.inv(plan.bold_to_t1w), visit.points.T).T
    oracle = Oracle(run, points, visit.labels)
    if acquisition.echoes:
        images = _write_echoes(folder, name, visit, plan, oracle)
    else:
        images = _write_images(folder, name, visit, plan, run, oracle)
    write_truth(
        *(truth, name, run, plan.parameters, plan.centre, warp, plan.bold_to_t1w, oracle.series())
    )
    if run.distortion:
        write_field_truth(truth, name, run, (visit.labels, points))
    if acquisition.echoes:
        write_decay_truth(truth, name, run)
    return images


def _planned(visit: Visit, acquisition: Acquisition, numbers: tuple[int, int, int]) -> _Plan:
    rng = np.random.default_rng([RUN, acquisition.seed, *numbers])
    warp = visit.warp
    bold_to_t1w = drawn_pose(rng, 3.0, 4.0)
    # the middle of the field of view: the vertex lies a few mm below its top
    middle = warp.to_t1w(np.array([[0.0, -18.0, 22.0]])).T
    centre = apply_affine(np.linalg.inv(bold_to_t1w), middle)[:, 0].round(1)
    affine = bold_affine(acquisition.shape, acquisition.voxel, centre)
    changes = time_course(acquisition, centre, rng)
    encoding = PhaseEncoding.from_bids(acquisition.phase_encoding)
    echoes = acquisition.echoes
    echo = echoes[nearest_echo(echoes)] if echoes else None
    run = Run(
        scene=build_scene(warp, bold_to_t1w, affine, acquisition, echo),
        affine=affine,
        matrices=changes.truth.matrices,
        series=changes.truth.series,
        courses=changes.truth.courses,
        acquisition=acquisition,
        moments=changes.moments,
        group=changes.group if changes.moments else None,
        distortion=Distortion.of(visit.field, warp.pose @ bold_to_t1w, affine, encoding)
        if visit.field
        else None,
    )
    return _Plan(run, centre, bold_to_t1w, changes.parameters, rng, numbers)


def _write_echoes(folder: Path, name: str, visit: Visit, plan: _Plan, oracle: Oracle) -> list[str]:
    """Write the images of all echoes, which the same coil sees, with noise of their own."""
    acquisition, run = plan.run.acquisition, plan.run
    main = nearest_echo(acquisition.echoes)
    images = []
    for k, time in enumerate(acquisition.echoes):
        seen, watched = run, oracle if k == main else None
        if k != main:
            scene = build_scene(visit.warp, plan.bold_to_t1w, run.affine, acquisition, time)
            seen = replace(run, scene=scene)
        noise = plan.stream(ECHOES, k + 1)
        stem = f"{name}_echo-{k + 1}"
        images += _write_images(folder, stem, visit, plan, seen, watched, noise, time)
    return images


def _write_images(
    folder: Path,
    name: str,
    visit: Visit,
    plan: _Plan,
    run: Run,
    oracle: Oracle | None,
    noise: np.random.Generator | None = None,
    echo_time: float | None = None,
) -> list[str]:
    """Write the series, and its single-band reference if there is one; returns their names.

    noise: rng of the thermal noise of one of several echoes.
    """
    acquisition = run.acquisition

    def observed() -> Iterator[np.ndarray]:
        for volume in volumes(run, copy.deepcopy(plan.rng), noise):
            stored = np.rint(volume)
            if oracle:
                oracle.add(stored)
            yield stored

    common = _fields(visit, acquisition)
    if echo_time is not None:
        common["EchoTime"] = echo_time
    header = nib.Nifti1Image(np.zeros(1), run.affine).header
    header.set_data_shape((*acquisition.shape, acquisition.n_volumes))
    header.set_zooms((*[acquisition.voxel] * 3, acquisition.tr))
    write_nifti(folder / f"{name}_bold.nii.gz", header, observed())
    files.write_json(folder / f"{name}_bold.json", common | _slice_fields(acquisition))
    if not acquisition.sbref:
        return [f"{name}_bold.nii.gz"]
    still = plan.stream(SBREF, round(1e6 * (echo_time or 0)))
    header = nib.Nifti1Image(np.zeros(1), run.affine).header
    header.set_data_shape(acquisition.shape)
    volume = np.rint(single_band(run, copy.deepcopy(plan.rng), still))
    write_nifti(folder / f"{name}_sbref.nii.gz", header, [volume])
    files.write_json(folder / f"{name}_sbref.json", common)
    return [f"{name}_bold.nii.gz", f"{name}_sbref.nii.gz"]


def _fields(visit: Visit, acquisition: Acquisition) -> dict[str, Any]:
    """What all sidecars of a run say."""
    encoding = PhaseEncoding.from_bids(acquisition.phase_encoding)
    return {
        "TaskName": "rest",
        "RepetitionTime": acquisition.tr,
        "FlipAngle": FLIP_DEGREES,
        "Manufacturer": "brainlm phantom",
        "MagneticFieldStrength": 3,
        "Instructions": "None: a simulation.",
        **(field_fields(encoding, visit.identifiers) if visit.field else {}),
    }


def _slice_fields(acquisition: Acquisition) -> dict[str, Any]:
    """What the sidecar of a series says of its slices."""
    if acquisition.slices == "none":
        return {}
    times = [round(float(time), 6) for time in slice_times(acquisition)]
    bands = acquisition.multiband
    return {"SliceTiming": times} | ({"MultibandAccelerationFactor": bands} if bands > 1 else {})
