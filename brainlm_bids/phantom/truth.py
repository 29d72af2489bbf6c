"""Writes what is true of a run: motion, geometry, field, series, noise, tissue, oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from brainlm_bids import files
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.phantom.acquisition import ATLAS, PARAMETERS
from brainlm_bids.phantom.courses import saturation
from brainlm_bids.phantom.echoes import nearest_echo
from brainlm_bids.phantom.field import READOUT
from brainlm_bids.phantom.head import Warp, apply_affine, epi_tissues
from brainlm_bids.phantom.oracle import oracle_metrics
from brainlm_bids.phantom.scene import Run, View
from brainlm_bids.phantom.storing import write_nifti, write_npz, write_tsv
from brainlm_bids.resources import EMBEDDED_SPACE, parcels

TIMED = {
    "Description": "the series at half of the TR after the start of each volume, as is the motion; "
    "each slice was acquired at its own time"
}


def write_truth(
    truth: Path,
    name: str,
    run: Run,
    parameters: np.ndarray,
    centre: np.ndarray,
    warp: Warp,
    bold_to_t1w: np.ndarray,
    oracle: np.ndarray,
) -> None:
    """Write what is true of one run: motion, geometry, series, noise, tissue, oracle."""
    acquisition, names = run.acquisition, list(parcels().names)
    truth.mkdir(parents=True, exist_ok=True)
    start = acquisition.reference_time
    timing: dict[str, Any] = {"StartTime": start} if start else {}
    write_tsv(truth / f"{name}_desc-truth_motion.tsv", parameters, PARAMETERS)
    files.write_json(
        truth / f"{name}_desc-truth_motion.json",
        {
            "Description": "trans in mm, rot in rad; x_volume = R (x_reference - c) + c + trans, "
            "R = Rx Ry Rz, RAS+ mm, c = CentreOfRotation; the reference is the pose whose "
            "parameters are zero (volume 0 unless the trace came from a file)",
            "CentreOfRotation": [float(value) for value in centre],
            **timing,
        },
    )
    voxels = np.indices(acquisition.shape).reshape(3, -1)
    t1w_points = apply_affine(bold_to_t1w @ run.affine, voxels)
    mni = warp.to_template(t1w_points.T).astype(np.float32)
    write_npz(
        truth / f"{name}_desc-truth_geometry.npz",
        matrices=run.matrices,
        bold_to_t1w=bold_to_t1w,
        centre=centre,
        affine=run.affine,
        mni_at_bold=mni.reshape(*acquisition.shape, 3),
    )
    fractions, _ = epi_tissues(mni.T)
    tissue = np.where(fractions.sum(0) > 0.5, fractions.argmax(0) + 1, 0)
    header = nib.Nifti1Image(np.zeros(1), run.affine).header
    header.set_data_shape(acquisition.shape)
    path = truth / f"{name}_space-boldref_desc-tissue_dseg.nii.gz"
    write_nifti(path, header, [tissue.reshape(acquisition.shape)])
    files.write_json(
        truth / f"{name}_space-boldref_desc-tissue_dseg.json",
        {
            "Description": "the tissue that prevails in each voxel, by the noise-free simulation",
            "SpatialReference": "the pose of the head whose motion parameters are zero",
            "LabelMap": {"1": "grey matter", "2": "white matter", "3": "cerebrospinal fluid"},
        },
    )
    stem = f"{name}_space-{EMBEDDED_SPACE}_atlas-{ATLAS}"
    write_tsv(truth / f"{stem}_desc-truth_timeseries.tsv", run.series, names)
    if timing:
        files.write_json(truth / f"{stem}_desc-truth_timeseries.json", TIMED | timing)
    write_tsv(truth / f"{stem}_desc-oracle_timeseries.tsv", oracle, names)
    courses = {**run.courses}
    if acquisition.switches["non_steady"]:
        levels = saturation(acquisition.n_volumes, acquisition.tr) - 1
        courses |= dict(zip(("non_steady_gm", "non_steady_wm", "non_steady_csf"), levels.T))
    times = np.arange(acquisition.n_volumes) * acquisition.tr + start
    table = np.column_stack([times, *courses.values()])
    write_tsv(truth / f"{name}_desc-noise_timeseries.tsv", table, ["time", *courses])
    metrics = oracle_metrics(oracle, run, parameters)
    files.write_json(truth / f"{stem}_desc-oracle_metrics.json", metrics)


def write_field_truth(
    truth: Path, name: str, run: Run, atlas: tuple[np.ndarray, np.ndarray]
) -> None:
    """Write the field on the run's grid, and how far it moves each parcel.

    atlas: labels (P,) and points (P, 3) mm in the reference pose.
    """
    acquisition, distortion = run.acquisition, run.distortion
    assert distortion is not None
    world = apply_affine(run.affine, np.indices(acquisition.shape).reshape(3, -1))
    hertz = distortion.field.hertz(apply_affine(distortion.to_head, world))
    header = nib.Nifti1Image(np.zeros(1), run.affine).header
    header.set_data_shape(acquisition.shape)
    stem = f"{name}_space-boldref_desc-truth_fieldmap"
    write_nifti(truth / f"{stem}.nii.gz", header, [hertz.reshape(acquisition.shape)], "<f4")
    files.write_json(
        truth / f"{stem}.json",
        {
            "Description": "the field where tissue lies; the image shows it shifted along the axis "
            "of PhaseEncodingDirection by field times TotalReadoutTime voxels, towards larger "
            "indices if the direction has no minus and the field is positive. Elsewhere, too, "
            "truth is about where tissue lies, not where it is seen",
            "Units": "Hz",
            "PhaseEncodingDirection": acquisition.phase_encoding,
            "TotalReadoutTime": READOUT,
            "SpatialReference": "the pose of the head whose motion parameters are zero",
        },
    )
    labels, points = atlas
    sign = -1 if acquisition.phase_encoding.endswith("-") else 1
    at_parcels = distortion.field.hertz(apply_affine(distortion.to_head, points.T))
    millimetres = sign * at_parcels * np.linalg.norm(distortion.step)
    table = np.array([displacement_of(millimetres[labels == k + 1]) for k in range(N_PARCELS)])
    stem = f"{name}_space-{EMBEDDED_SPACE}_atlas-{ATLAS}_desc-truth_displacement"
    files.write_tsv(
        truth / f"{stem}.tsv",
        ["parcel", "mean", "mean_absolute", "max_absolute"],
        [list(parcels().names), *table.T.tolist()],
    )
    files.write_json(
        truth / f"{stem}.json",
        {
            "Description": "how far the field moves the voxels of each parcel, mm",
            "mean": {"Description": "positive towards larger indices", "Units": "mm"},
            "mean_absolute": {"Description": "mean distance", "Units": "mm"},
            "max_absolute": {"Description": "largest distance", "Units": "mm"},
        },
    )


def displacement_of(millimetres: np.ndarray) -> tuple[float, float, float]:
    """Mean, mean size and largest size of displacements (P,); 0 for none."""
    if millimetres.size == 0:
        return 0.0, 0.0, 0.0
    size = np.abs(millimetres)
    return float(millimetres.mean()), float(size.mean()), float(size.max())


def write_decay_truth(truth: Path, name: str, run: Run) -> None:
    """Write T2* on the run's grid; 0 where there is no signal."""
    acquisition, scene = run.acquisition, run.scene
    assert scene.decay is not None
    view = View(run.affine, acquisition.shape, scene.voxel_to_grid, None)
    signal, decay = (view(image, np.eye(4)) for image in (scene.base, scene.decay))
    seen = (signal > 0.02 * signal.max()) & (decay > 0)
    seconds = np.divide(signal, decay, out=np.zeros_like(signal), where=seen)
    header = nib.Nifti1Image(np.zeros(1), run.affine).header
    header.set_data_shape(acquisition.shape)
    stem = f"{name}_space-boldref_desc-truth_T2starmap"
    write_nifti(truth / f"{stem}.nii.gz", header, [seconds.reshape(acquisition.shape)], "<f4")
    time = acquisition.echoes[nearest_echo(acquisition.echoes)]
    files.write_json(
        truth / f"{stem}.json",
        {
            "Description": "T2* where tissue lies: 1 / T2* is how fast the logarithm of a voxel's "
            "signal falls at the EchoTime of this file",
            "Units": "s",
            "EchoTime": time,
            "SpatialReference": "the pose of the head whose motion parameters are zero",
        },
    )
