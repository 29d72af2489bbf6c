"""Simulates the runs of one person in one session, and writes images, sidecars and truth."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainlm_bids import files
from brainlm_bids.phantom.acquisition import FLIP_DEGREES, RUN, SBREF, Acquisition
from brainlm_bids.phantom.field import Distortion, Field, PhaseEncoding
from brainlm_bids.phantom.fieldmap_files import field_fields
from brainlm_bids.phantom.head import Warp, apply_affine, drawn_pose
from brainlm_bids.phantom.oracle import Oracle
from brainlm_bids.phantom.scene import Run, bold_affine, build_scene, single_band, volumes
from brainlm_bids.phantom.slices import slice_times, time_course
from brainlm_bids.phantom.storing import write_nifti
from brainlm_bids.phantom.truth import write_field_truth, write_truth


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


def write_run(
    folders: tuple[Path, Path],
    name: str,
    visit: Visit,
    acquisition: Acquisition,
    numbers: tuple[int, int, int],
) -> list[str]:
    """Simulate one run, write image and sidecar, and its truth; returns the names of the images.

    folders: of the data and of the truth; numbers: of subject, session and run, which seed it.
    """
    folder, truth = folders
    rng = np.random.default_rng([RUN, acquisition.seed, *numbers])
    warp = visit.warp
    bold_to_t1w = drawn_pose(rng, 3.0, 4.0)
    # the middle of the field of view: the vertex lies a few mm below its top
    middle = warp.to_t1w(np.array([[0.0, -18.0, 22.0]])).T
    centre = apply_affine(np.linalg.inv(bold_to_t1w), middle)[:, 0].round(1)
    affine = bold_affine(acquisition.shape, acquisition.voxel, centre)
    changes = time_course(acquisition, centre, rng)
    encoding = PhaseEncoding.from_bids(acquisition.phase_encoding)
    run = Run(
        scene=build_scene(warp, bold_to_t1w, affine, acquisition),
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
    coil = copy.deepcopy(rng)
    points = apply_affine(np.linalg.inv(bold_to_t1w), visit.points.T).T
    oracle = Oracle(run, points, visit.labels)

    def observed() -> Iterator[np.ndarray]:
        for volume in volumes(run, rng):
            stored = np.rint(volume)
            oracle.add(stored)
            yield stored

    common = {
        "TaskName": "rest",
        "RepetitionTime": acquisition.tr,
        "FlipAngle": FLIP_DEGREES,
        "Manufacturer": "brainlm phantom",
        "MagneticFieldStrength": 3,
        "Instructions": "None: a simulation.",
        **(field_fields(encoding, visit.identifiers) if visit.field else {}),
    }
    header = nib.Nifti1Image(np.zeros(1), affine).header
    header.set_data_shape((*acquisition.shape, acquisition.n_volumes))
    header.set_zooms((*[acquisition.voxel] * 3, acquisition.tr))
    write_nifti(folder / f"{name}_bold.nii.gz", header, observed())
    files.write_json(folder / f"{name}_bold.json", common | _slice_fields(acquisition))
    images = [f"{name}_bold.nii.gz"]
    if acquisition.sbref:
        still = np.random.default_rng([SBREF, acquisition.seed, *numbers])
        header = nib.Nifti1Image(np.zeros(1), affine).header
        header.set_data_shape(acquisition.shape)
        volume = np.rint(single_band(run, coil, still))
        write_nifti(folder / f"{name}_sbref.nii.gz", header, [volume])
        files.write_json(folder / f"{name}_sbref.json", common)
        images.append(f"{name}_sbref.nii.gz")
    write_truth(truth, name, run, changes.parameters, centre, warp, bold_to_t1w, oracle.series())
    if run.distortion:
        write_field_truth(truth, name, run, (visit.labels, points))
    return images


def _slice_fields(acquisition: Acquisition) -> dict[str, Any]:
    """What the sidecar of a series says of its slices."""
    if acquisition.slices == "none":
        return {}
    times = [round(float(time), 6) for time in slice_times(acquisition)]
    bands = acquisition.multiband
    return {"SliceTiming": times} | ({"MultibandAccelerationFactor": bands} if bands > 1 else {})
