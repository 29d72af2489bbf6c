"""Writes the raw data set, and its truth under `derivatives/phantom`."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from brainlm_bids import files
from brainlm_bids.errors import UserError
from brainlm_bids.phantom.acquisition import (
    ANATOMY,
    ATLAS,
    FLIP_DEGREES,
    PARAMETERS,
    PEOPLE,
    RUN,
    SESSION,
    SWITCHES,
    Acquisition,
)
from brainlm_bids.phantom.courses import (
    motion_parameters,
    noise_courses,
    parcel_series,
    rigid_matrices,
    saturation,
)
from brainlm_bids.phantom.head import (
    Warp,
    apply_affine,
    epi_tissues,
    spline_weights,
    subject_warp,
    t1w_intensity,
)
from brainlm_bids.phantom.oracle import Oracle, oracle_metrics
from brainlm_bids.phantom.scene import Run, bold_affine, build_scene, volumes
from brainlm_bids.resources import EMBEDDED_SPACE, approximate_atlas, parcels

T1W_VOXEL = 1.25  # mm; finer than the blur of an average template brings nothing but time


def write_phantom(
    out: Path,
    *,
    n_subjects: int = 2,
    n_sessions: int = 0,
    n_runs: int = 1,
    n_volumes: int = 240,
    tr: float = 2.0,
    voxel: float = 3.5,
    motion: str | Path = "low",
    seed: int = 42,
    drift: bool = True,
    respiration: bool = True,
    cardiac: bool = True,
    global_signal: bool = True,
    spin_history: bool = True,
    non_steady: bool = True,
    thermal_noise: bool = True,
    coil_shading: bool = True,
    dropout: bool = True,
) -> Path:
    """Write the data set into `out` (made if missing, must be empty) and return `out`.

    voxel in mm (BOLD, isotropic), tr in seconds; motion: "none", "low", "high" or the path of an
    FSL `.par` file (3 rotations in rad, 3 translations in mm, a row per volume). n_sessions 0
    leaves the session level out. Each bool switches one source of noise or of distortion.
    The truth lies in `out/derivatives/phantom`. Raises UserError for a folder that is not empty,
    a count or a size that makes no sense, an unknown kind of motion, a `.par` file that is missing
    or too short.
    """
    out = Path(out)
    values = locals()
    switches = {name: bool(values[name]) for name in SWITCHES}
    acquisition = Acquisition(n_volumes, float(tr), float(voxel), motion, seed, switches)
    _check(acquisition, n_subjects=n_subjects, n_sessions=n_sessions, n_runs=n_runs)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: name a new one for the phantom")
    truth = out / "derivatives" / "phantom"
    _write_dataset_files(out, truth, n_subjects, acquisition)
    for subject in range(1, n_subjects + 1):
        anatomy = subject_warp(np.random.default_rng([ANATOMY, seed, subject]))
        for session in range(1, n_sessions + 1) if n_sessions else [0]:
            _write_session(out, truth, anatomy, acquisition, (subject, session), n_runs)
    return out


def _check(acquisition: Acquisition, n_subjects: int, n_sessions: int, n_runs: int) -> None:
    if min(n_subjects, n_runs) < 1 or n_sessions < 0:
        raise UserError("a phantom needs at least one subject and one run")
    if acquisition.n_volumes < 2 or acquisition.tr <= 0:
        raise UserError("a phantom needs at least two volumes and a TR above 0 s")
    if not 1.0 <= acquisition.voxel <= 10.0:
        raise UserError(f"voxels of {acquisition.voxel} mm: choose between 1 and 10 mm")
    motion_parameters(acquisition, np.random.default_rng(0))  # complain before anything is written


def _write_session(
    out: Path,
    truth: Path,
    anatomy: Warp,
    acquisition: Acquisition,
    ids: tuple[int, int],
    n_runs: int,
) -> None:
    """Write the T1w and the runs of one session (0: no session level)."""
    subject, session = ids
    rng = np.random.default_rng([SESSION, acquisition.seed, subject, session])
    folder = f"sub-{subject:02d}" + (f"/ses-{session:02d}" if session else "")
    prefix = folder.replace("/", "_")
    pose = _pose(rng, 4.0, 4.0) if session > 1 else np.eye(4)
    warp = Warp(pose, anatomy.affine, anatomy.control, anatomy.origin, anatomy.spacing)
    _write_t1w(out / folder / "anat", truth / folder / "anat", prefix, warp, rng)
    labels, atlas_affine = approximate_atlas()
    voxels = np.array(np.nonzero(labels))
    points = warp.to_t1w(apply_affine(atlas_affine, voxels).T)
    atlas = labels[tuple(voxels)].astype(int), points
    for number in range(1, n_runs + 1):
        name = f"{prefix}_task-rest" + (f"_run-{number}" if n_runs > 1 else "")
        rng = np.random.default_rng([RUN, acquisition.seed, subject, session, number])
        folders = out / folder / "func", truth / folder / "func"
        _write_run(folders, name, warp, atlas, acquisition, rng)


def _pose(rng: np.random.Generator, degrees: float, millimetres: float) -> np.ndarray:
    matrix = np.eye(4)
    angles = np.radians(rng.uniform(-degrees, degrees, 3))
    matrix[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    matrix[:3, 3] = rng.uniform(-millimetres, millimetres, 3)
    return matrix


def _write_t1w(
    folder: Path, truth: Path, prefix: str, warp: Warp, rng: np.random.Generator
) -> None:
    """Write the T1w and its warp. The grid is laid on the head, as a scanner's planning does."""
    shape = tuple(round(size / T1W_VOXEL) for size in (200.0, 250.0, 240.0))
    on_head = np.diag([T1W_VOXEL] * 3 + [1.0])
    on_head[:3, 3] = (-100.0, -140.0, -140.0)
    axes = [on_head[i, 3] + T1W_VOXEL * np.arange(n) for i, n in enumerate(shape)]
    weights = [
        spline_weights((axis - warp.origin[i]) / warp.spacing, warp.control.shape[i])
        for i, axis in enumerate(axes)
    ]
    data = np.empty(shape, np.float32)
    coil = rng.uniform(-0.25, 0.25, 3)
    for k in range(0, shape[2], 16):
        slab = slice(k, k + 16)
        grid = np.stack(np.meshgrid(axes[0], axes[1], axes[2][slab], indexing="ij"))
        field = np.einsum(
            "xi,yj,zk,ijkc->cxyz", *weights[:2], weights[2][slab], warp.control, optimize=True
        )
        points = (grid + field).reshape(3, -1)
        values = t1w_intensity(apply_affine(warp.affine, points)).reshape(grid.shape[1:])
        data[:, :, slab] = values * np.exp(np.tensordot(coil, grid / 100, 1))
    noise = rng.normal(0, 0.02, (2, *shape)).astype(np.float32)
    data = np.hypot(data + noise[0], noise[1])
    header = nib.Nifti1Image(np.zeros(1), np.linalg.inv(warp.pose) @ on_head).header
    header.set_data_shape(shape)
    _write_nifti(folder / f"{prefix}_T1w.nii.gz", header, [np.rint(600 * data)])
    files.write_json(
        folder / f"{prefix}_T1w.json",
        {"Modality": "MR", "Manufacturer": "brainlm phantom", "MagneticFieldStrength": 3},
    )
    _write_npz(
        truth / f"{prefix}_from-T1w_to-{EMBEDDED_SPACE}_mode-points_xfm.npz",
        pose=warp.pose,
        affine=warp.affine,
        control=warp.control,
        origin=warp.origin,
        spacing=warp.spacing,
    )


def _write_run(
    folders: tuple[Path, Path],
    name: str,
    warp: Warp,
    atlas: tuple[np.ndarray, np.ndarray],
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> None:
    """Simulate one run, write image and sidecar, and its truth.

    folders: of the data and of the truth; atlas: labels (P,) and their points (P, 3) mm in the T1w.
    """
    folder, truth = folders
    bold_to_t1w = _pose(rng, 3.0, 4.0)
    # the middle of the field of view: the vertex lies a few mm below its top
    middle = warp.to_t1w(np.array([[0.0, -18.0, 22.0]])).T
    centre = apply_affine(np.linalg.inv(bold_to_t1w), middle)[:, 0].round(1)
    affine = bold_affine(acquisition.shape, acquisition.voxel, centre)
    parameters = motion_parameters(acquisition, rng)
    run = Run(
        scene=build_scene(warp, bold_to_t1w, affine, acquisition),
        affine=affine,
        matrices=rigid_matrices(parameters, centre),
        series=parcel_series(rng, acquisition.n_volumes, acquisition.tr),
        courses=noise_courses(acquisition, rng),
        acquisition=acquisition,
    )
    labels, t1w_points = atlas
    oracle = Oracle(run, apply_affine(np.linalg.inv(bold_to_t1w), t1w_points.T).T, labels)

    def observed() -> Iterator[np.ndarray]:
        for volume in volumes(run, rng):
            stored = np.rint(volume)
            oracle.add(stored)
            yield stored

    header = nib.Nifti1Image(np.zeros(1), affine).header
    header.set_data_shape((*acquisition.shape, acquisition.n_volumes))
    header.set_zooms((*[acquisition.voxel] * 3, acquisition.tr))
    _write_nifti(folder / f"{name}_bold.nii.gz", header, observed())
    files.write_json(
        folder / f"{name}_bold.json",
        {
            "TaskName": "rest",
            "RepetitionTime": acquisition.tr,
            "FlipAngle": FLIP_DEGREES,
            "Manufacturer": "brainlm phantom",
            "MagneticFieldStrength": 3,
            "Instructions": "None: a simulation.",
        },
    )
    _write_truth(truth, name, run, parameters, centre, warp, bold_to_t1w, oracle.series())


def _write_truth(
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
    _write_tsv(truth / f"{name}_desc-truth_motion.tsv", parameters, PARAMETERS)
    files.write_json(
        truth / f"{name}_desc-truth_motion.json",
        {
            "Description": "trans in mm, rot in rad; x_volume = R (x_reference - c) + c + trans, "
            "R = Rx Ry Rz, RAS+ mm, c = CentreOfRotation; the reference is the pose whose "
            "parameters are zero (volume 0 unless the trace came from a file)",
            "CentreOfRotation": [float(value) for value in centre],
        },
    )
    voxels = np.indices(acquisition.shape).reshape(3, -1)
    t1w_points = apply_affine(bold_to_t1w @ run.affine, voxels)
    mni = warp.to_template(t1w_points.T).astype(np.float32)
    _write_npz(
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
    _write_nifti(path, header, [tissue.reshape(acquisition.shape)])
    files.write_json(
        truth / f"{name}_space-boldref_desc-tissue_dseg.json",
        {
            "Description": "the tissue that prevails in each voxel, by the noise-free simulation",
            "SpatialReference": "the pose of the head whose motion parameters are zero",
            "LabelMap": {"1": "grey matter", "2": "white matter", "3": "cerebrospinal fluid"},
        },
    )
    stem = f"{name}_space-{EMBEDDED_SPACE}_atlas-{ATLAS}"
    _write_tsv(truth / f"{stem}_desc-truth_timeseries.tsv", run.series, names)
    _write_tsv(truth / f"{stem}_desc-oracle_timeseries.tsv", oracle, names)
    courses = dict(run.courses)
    if acquisition.switches["non_steady"]:
        levels = saturation(acquisition.n_volumes, acquisition.tr) - 1
        courses |= dict(zip(("non_steady_gm", "non_steady_wm", "non_steady_csf"), levels.T))
    table = np.column_stack([np.arange(acquisition.n_volumes) * acquisition.tr, *courses.values()])
    _write_tsv(truth / f"{name}_desc-noise_timeseries.tsv", table, ["time", *courses])
    metrics = oracle_metrics(oracle, run, parameters)
    files.write_json(truth / f"{stem}_desc-oracle_metrics.json", metrics)


def _write_dataset_files(out: Path, truth: Path, n_subjects: int, acquisition: Acquisition) -> None:
    rng = np.random.default_rng([PEOPLE, acquisition.seed])
    truth.mkdir(parents=True, exist_ok=True)
    made_by = [{"Name": "brainlm phantom", "Description": "simulated, no person was scanned"}]
    common = {"BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["The brainlm-bids developers"]}
    raw = {"Name": "brainlm phantom", "DatasetType": "raw", "GeneratedBy": made_by, **common}
    files.write_json(out / "dataset_description.json", raw)
    derived: dict[str, Any] = {"Name": "Truth of the brainlm phantom", "DatasetType": "derivative"}
    derived |= {"GeneratedBy": made_by, **common}
    files.write_json(truth / "dataset_description.json", derived)
    ignored = ["*_motion.*", "*_xfm.*", "*_geometry.*", "*_timeseries.*", "*_metrics.*"]
    files.write_text(truth / ".bidsignore", "\n".join(ignored) + "\n")
    settings = {
        "seed": acquisition.seed,
        "motion": Path(acquisition.motion).name,
        "volumes": acquisition.n_volumes,
        "TR": f"{acquisition.tr} s",
        "voxel": f"{acquisition.voxel} mm",
        **acquisition.switches,
    }
    listed = "\n".join(f"- {key}: {value}" for key, value in settings.items())
    files.write_text(
        out / "README.md",
        "# A phantom\n\nSimulated heads: the ICBM 152 2009a template that nilearn packages, "
        "warped; no person was scanned. What is true of every run (motion, geometry, parcel "
        f"series, noise) lies in `derivatives/phantom`.\n\n{listed}\n",
    )
    text = "What is true of the simulated runs; see the sidecars.\n"
    files.write_text(truth / "README.md", text)
    ages, sexes = rng.integers(20, 80, n_subjects), rng.choice(["F", "M"], n_subjects)
    labels = [f"sub-{k + 1:02d}" for k in range(n_subjects)]
    files.write_tsv(
        out / "participants.tsv", ["participant_id", "age", "sex"], [labels, ages, sexes]
    )
    files.write_json(
        out / "participants.json",
        {
            "age": {"Description": "age of the imagined person", "Units": "year"},
            "sex": {"Description": "sex of the imagined person", "Levels": {"F": "f", "M": "m"}},
        },
    )


def _write_nifti(path: Path, header: Any, volumes: Any) -> None:
    """Write int16 volumes one after another: no more than one of them is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 3, raw, mtime=0) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for volume in volumes:
            clipped = np.clip(volume, -32768, 32767).astype("<i2")
            file.write(clipped.tobytes(order="F"))


def _write_npz(path: Path, **arrays: Any) -> None:
    with files.atomically(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _write_tsv(path: Path, table: np.ndarray, columns: list[str]) -> None:
    files.write_tsv(path, columns, table.T.tolist(), digits=8)
