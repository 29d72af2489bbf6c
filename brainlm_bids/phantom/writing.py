"""Writes the raw data set, and its truth under `derivatives/phantom`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from brainlm_bids import files
from brainlm_bids.errors import UserError
from brainlm_bids.phantom.acquisition import (
    ANATOMY,
    FIELD,
    FIELD_MAP_KINDS,
    FLIP_DEGREES,
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
)
from brainlm_bids.phantom.dataset import write_dataset_files
from brainlm_bids.phantom.field import (
    MAX_DISTORTION,
    READOUT,
    Distortion,
    Field,
    PhaseEncoding,
    subject_field,
)
from brainlm_bids.phantom.fieldmap_files import FieldMapWriter, field_fields
from brainlm_bids.phantom.head import (
    Warp,
    apply_affine,
    drawn_pose,
    spline_weights,
    subject_warp,
    t1w_intensity,
)
from brainlm_bids.phantom.oracle import Oracle
from brainlm_bids.phantom.scene import Run, bold_affine, build_scene, volumes
from brainlm_bids.phantom.storing import write_nifti, write_npz
from brainlm_bids.phantom.truth import write_field_truth, write_truth
from brainlm_bids.resources import EMBEDDED_SPACE, approximate_atlas

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
    distortion: float = 0.0,
    phase_encoding: str = "j",
    fieldmaps: Sequence[str] = (),
) -> Path:
    """Write the data set into `out` (made if missing, must be empty) and return `out`.

    voxel in mm (BOLD, isotropic), tr in seconds; motion: "none", "low", "high" or the path of an
    FSL `.par` file (3 rotations in rad, 3 translations in mm, a row per volume). n_sessions 0
    leaves the session level out. Each bool switches one source of noise or of distortion.
    distortion: largest displacement in mm along `phase_encoding` (i, i-, j, j-, k or k- of the
    array, which is LAS) by the field of each person, largest at the frontal and temporal
    poles; fieldmaps: which of "phasediff", "phases", "field" and "pair" are written to `fmap`.
    The truth lies in `out/derivatives/phantom`. Raises UserError for a folder that is not empty,
    a count or a size that makes no sense, an unknown kind of motion, a `.par` file that is missing
    or too short.
    """
    out = Path(out)
    values = locals()
    switches = {name: bool(values[name]) for name in SWITCHES}
    acquisition = Acquisition(
        *(n_volumes, float(tr), float(voxel), motion, seed, switches),
        distortion=float(distortion),
        phase_encoding=phase_encoding,
        fieldmaps=tuple(fieldmaps),
    )
    _check(acquisition, n_subjects=n_subjects, n_sessions=n_sessions, n_runs=n_runs)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: name a new one for the phantom")
    truth = out / "derivatives" / "phantom"
    write_dataset_files(out, truth, n_subjects, acquisition)
    for subject in range(1, n_subjects + 1):
        anatomy = subject_warp(np.random.default_rng([ANATOMY, seed, subject]))
        for session in range(1, n_sessions + 1) if n_sessions else [0]:
            _write_session(out, anatomy, acquisition, (subject, session), n_runs)
    return out


def _check(acquisition: Acquisition, n_subjects: int, n_sessions: int, n_runs: int) -> None:
    if min(n_subjects, n_runs) < 1 or n_sessions < 0:
        raise UserError("a phantom needs at least one subject and one run")
    if acquisition.n_volumes < 2 or acquisition.tr <= 0:
        raise UserError("a phantom needs at least two volumes and a TR above 0 s")
    if not 1.0 <= acquisition.voxel <= 10.0:
        raise UserError(f"voxels of {acquisition.voxel} mm: choose between 1 and 10 mm")
    if not 0 <= acquisition.distortion <= MAX_DISTORTION:
        raise UserError(
            f"a distortion of {acquisition.distortion} mm: choose between 0 and {MAX_DISTORTION} mm"
        )
    unknown = [kind for kind in acquisition.fieldmaps if kind not in FIELD_MAP_KINDS]
    if unknown:
        known = ", ".join(FIELD_MAP_KINDS)
        raise UserError(f"field map '{unknown[0]}' is none of {known}")
    try:
        PhaseEncoding.from_bids(acquisition.phase_encoding)
    except ValueError as error:
        raise UserError(str(error)) from None
    motion_parameters(acquisition, np.random.default_rng(0))  # complain before anything is written


@dataclass(frozen=True)
class _Visit:
    """A person in one session: warp of the T1w, field of the head, atlas in the T1w.

    labels (P,) 1..424 and their points (P, 3) mm.
    """

    warp: Warp
    field: Field | None
    labels: np.ndarray
    points: np.ndarray
    identifiers: tuple[str, ...]  # of the field maps


def _field(anatomy: Warp, acquisition: Acquisition, subject: int) -> Field | None:
    if not acquisition.has_field:
        return None
    rng = np.random.default_rng([FIELD, acquisition.seed, subject])
    return subject_field(rng, anatomy, acquisition.distortion / (READOUT * acquisition.voxel))


def _write_session(
    out: Path, anatomy: Warp, acquisition: Acquisition, ids: tuple[int, int], n_runs: int
) -> None:
    """Write the T1w, the runs and the field maps of one session (0: no session level)."""
    subject, session = ids
    rng = np.random.default_rng([SESSION, acquisition.seed, subject, session])
    folder = f"sub-{subject:02d}" + (f"/ses-{session:02d}" if session else "")
    prefix = folder.replace("/", "_")
    truth = out / "derivatives" / "phantom" / folder
    pose = drawn_pose(rng, 4.0, 4.0) if session > 1 else np.eye(4)
    warp = Warp(pose, anatomy.affine, anatomy.control, anatomy.origin, anatomy.spacing)
    _write_t1w(out / folder / "anat", truth / "anat", prefix, warp, rng)
    labels, atlas_affine = approximate_atlas()
    voxels = np.array(np.nonzero(labels))
    points = warp.to_t1w(apply_affine(atlas_affine, voxels).T)
    field = _field(anatomy, acquisition, subject)
    maps = FieldMapWriter(acquisition, warp, field, prefix, ids) if field else None
    visit = _Visit(
        *(warp, field, labels[tuple(voxels)].astype(int), points),
        identifiers=maps.identifiers if maps else (),
    )
    names = []
    for number in range(1, n_runs + 1):
        name = f"{prefix}_task-rest" + (f"_run-{number}" if n_runs > 1 else "")
        rng = np.random.default_rng([RUN, acquisition.seed, subject, session, number])
        _write_run((out / folder / "func", truth / "func"), name, visit, acquisition, rng)
        names.append(f"{folder}/func/{name}_bold.nii.gz")
    if maps:
        maps.write(out / folder / "fmap", truth / "fmap", names)


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
    write_nifti(folder / f"{prefix}_T1w.nii.gz", header, [np.rint(600 * data)])
    files.write_json(
        folder / f"{prefix}_T1w.json",
        {"Modality": "MR", "Manufacturer": "brainlm phantom", "MagneticFieldStrength": 3},
    )
    write_npz(
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
    visit: _Visit,
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> None:
    """Simulate one run, write image and sidecar, and its truth.

    folders: of the data and of the truth.
    """
    folder, truth = folders
    warp = visit.warp
    bold_to_t1w = drawn_pose(rng, 3.0, 4.0)
    # the middle of the field of view: the vertex lies a few mm below its top
    middle = warp.to_t1w(np.array([[0.0, -18.0, 22.0]])).T
    centre = apply_affine(np.linalg.inv(bold_to_t1w), middle)[:, 0].round(1)
    affine = bold_affine(acquisition.shape, acquisition.voxel, centre)
    parameters = motion_parameters(acquisition, rng)
    encoding = PhaseEncoding.from_bids(acquisition.phase_encoding)
    run = Run(
        scene=build_scene(warp, bold_to_t1w, affine, acquisition),
        affine=affine,
        matrices=rigid_matrices(parameters, centre),
        series=parcel_series(rng, acquisition.n_volumes, acquisition.tr),
        courses=noise_courses(acquisition, rng),
        acquisition=acquisition,
        distortion=Distortion.of(visit.field, warp.pose @ bold_to_t1w, affine, encoding)
        if visit.field
        else None,
    )
    points = apply_affine(np.linalg.inv(bold_to_t1w), visit.points.T).T
    oracle = Oracle(run, points, visit.labels)

    def observed() -> Iterator[np.ndarray]:
        for volume in volumes(run, rng):
            stored = np.rint(volume)
            oracle.add(stored)
            yield stored

    header = nib.Nifti1Image(np.zeros(1), affine).header
    header.set_data_shape((*acquisition.shape, acquisition.n_volumes))
    header.set_zooms((*[acquisition.voxel] * 3, acquisition.tr))
    write_nifti(folder / f"{name}_bold.nii.gz", header, observed())
    files.write_json(
        folder / f"{name}_bold.json",
        {
            "TaskName": "rest",
            "RepetitionTime": acquisition.tr,
            "FlipAngle": FLIP_DEGREES,
            "Manufacturer": "brainlm phantom",
            "MagneticFieldStrength": 3,
            "Instructions": "None: a simulation.",
            **(field_fields(encoding, visit.identifiers) if visit.field else {}),
        },
    )
    write_truth(truth, name, run, parameters, centre, warp, bold_to_t1w, oracle.series())
    if run.distortion:
        write_field_truth(truth, name, run, (visit.labels, points))
