"""Writes the raw data set, and its truth under `derivatives/phantom`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from brainlm_bids.errors import UserError
from brainlm_bids.phantom.acquisition import (
    ANATOMY,
    FIELD,
    FIELD_MAP_KINDS,
    LESION,
    SESSION,
    SLICE_ORDERS,
    SWITCHES,
    Acquisition,
)
from brainlm_bids.phantom.anatomy import write_t1w
from brainlm_bids.phantom.courses import motion_parameters
from brainlm_bids.phantom.dataset import write_dataset_files
from brainlm_bids.phantom.echoes import MAX_ECHO_TIME
from brainlm_bids.phantom.field import (
    MAX_DISTORTION,
    READOUT,
    Field,
    PhaseEncoding,
    subject_field,
)
from brainlm_bids.phantom.fieldmap_files import FieldMapWriter
from brainlm_bids.phantom.head import Warp, apply_affine, drawn_pose, subject_warp
from brainlm_bids.phantom.lesion import Lesion, drawn_lesion
from brainlm_bids.phantom.runs import Visit, write_run
from brainlm_bids.phantom.slices import slice_times
from brainlm_bids.progress import Progress
from brainlm_bids.resources import approximate_atlas


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
    sbref: bool = False,
    slices: str = "none",
    multiband: int = 1,
    echoes: Sequence[float] = (),
    lesion: bool = False,
) -> Path:
    """Write the data set into `out` (made if missing, must be empty) and return `out`.

    voxel in mm (BOLD, isotropic), tr in seconds; motion: "none", "low", "high" or the path of an
    FSL `.par` file (3 rotations in rad, 3 translations in mm, a row per volume). n_sessions 0
    leaves the session level out. Each bool switches one source of noise or of distortion.
    distortion: largest displacement in mm along `phase_encoding` (i, i-, j, j-, k or k- of the
    array, which is LAS) by the field of each person, largest at the frontal and temporal
    poles; fieldmaps: which of "phasediff", "phases", "field" and "pair" are written to `fmap`;
    slices: "ascending" or "interleaved" acquires them one after another, `multiband` of them at
    once, and the truth is that of half of the TR; echoes: times in s of several echoes;
    sbref: a single-band reference of each run; lesion: the T1w shows a lesion, with its mask.
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
        sbref=bool(sbref),
        lesion=bool(lesion),
        slices=slices,
        multiband=multiband,
        echoes=tuple(map(float, echoes)),
    )
    _check(acquisition, n_subjects=n_subjects, n_sessions=n_sessions, n_runs=n_runs)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: name a new one for the phantom")
    truth = out / "derivatives" / "phantom"
    write_dataset_files(out, truth, n_subjects, acquisition)
    sessions = [*range(1, n_sessions + 1)] or [0]
    places = [(subject, session) for subject in range(1, n_subjects + 1) for session in sessions]
    with Progress("session" if n_sessions else "subject") as progress:
        for subject, session in progress.each(places, _title):
            anatomy = subject_warp(np.random.default_rng([ANATOMY, seed, subject]))
            _write_session(out, anatomy, acquisition, (subject, session), n_runs, progress)
    return out


def _title(place: tuple[int, int]) -> str:
    subject, session = place
    return f"sub-{subject:02d}" + (f", session {session}" if session else "")


def _check(acquisition: Acquisition, n_subjects: int, n_sessions: int, n_runs: int) -> None:
    if min(n_subjects, n_runs) < 1 or n_sessions < 0:
        raise UserError("a phantom needs at least one subject and one run")
    if acquisition.n_volumes < 3 or acquisition.tr <= 0:  # of two, a series may have no variance
        raise UserError("a phantom needs at least three volumes and a TR above 0 s")
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
    if acquisition.slices not in SLICE_ORDERS:
        raise UserError(f"slices '{acquisition.slices}' are none of {', '.join(SLICE_ORDERS)}")
    if acquisition.multiband < 1 or (acquisition.multiband > 1 and acquisition.slices == "none"):
        raise UserError("a multiband factor is a whole number, and needs an order of the slices")
    times = acquisition.echoes
    rising = all(a < b for a, b in pairwise(times))
    if times and not (len(times) > 1 and rising and times[0] > 0 and times[-1] <= MAX_ECHO_TIME):
        raise UserError(
            f"echo times must be two or more that rise, in s up to {MAX_ECHO_TIME}; "
            f"not {', '.join(map(str, times))}"
        )
    try:
        slice_times(acquisition)
        PhaseEncoding.from_bids(acquisition.phase_encoding)
    except ValueError as error:
        raise UserError(str(error)) from None
    motion_parameters(acquisition, np.random.default_rng(0))  # complain before anything is written


def _field(anatomy: Warp, acquisition: Acquisition, subject: int) -> Field | None:
    if not acquisition.has_field:
        return None
    rng = np.random.default_rng([FIELD, acquisition.seed, subject])
    return subject_field(rng, anatomy, acquisition.distortion / (READOUT * acquisition.voxel))


def _lesion(anatomy: Warp, acquisition: Acquisition, subject: int) -> Lesion | None:
    if not acquisition.lesion:
        return None
    return drawn_lesion(np.random.default_rng([LESION, acquisition.seed, subject]), anatomy)


def _write_session(
    out: Path,
    anatomy: Warp,
    acquisition: Acquisition,
    ids: tuple[int, int],
    n_runs: int,
    progress: Progress,
) -> None:
    """Write the T1w, the runs and the field maps of one session (0: no session level)."""
    subject, session = ids
    rng = np.random.default_rng([SESSION, acquisition.seed, subject, session])
    folder = f"sub-{subject:02d}" + (f"/ses-{session:02d}" if session else "")
    prefix = folder.replace("/", "_")
    truth = out / "derivatives" / "phantom" / folder
    pose = drawn_pose(rng, 4.0, 4.0) if session > 1 else np.eye(4)
    warp = Warp(pose, anatomy.affine, anatomy.control, anatomy.origin, anatomy.spacing)
    lesion = _lesion(anatomy, acquisition, subject)
    write_t1w(out / folder / "anat", truth / "anat", prefix, warp, rng, lesion)
    labels, atlas_affine = approximate_atlas()
    voxels = np.array(np.nonzero(labels))
    points = warp.to_t1w(apply_affine(atlas_affine, voxels).T)
    field = _field(anatomy, acquisition, subject)
    maps = FieldMapWriter(acquisition, warp, field, prefix, ids) if field else None
    visit = Visit(
        *(warp, field, labels[tuple(voxels)].astype(int), points),
        identifiers=maps.identifiers if maps else (),
    )
    names = []
    for number in progress.within(range(1, n_runs + 1), "run"):
        name = f"{prefix}_task-rest" + (f"_run-{number}" if n_runs > 1 else "")
        folders = out / folder / "func", truth / "func"
        images = write_run(folders, name, visit, acquisition, (subject, session, number))
        names += [f"{folder}/func/{image}" for image in images]
    if maps:
        maps.write(out / folder / "fmap", truth / "fmap", names)
