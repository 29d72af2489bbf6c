"""A BIDS data set whose truth is known: head, motion, parcel series and noise, all simulated.

In: counts, TR (seconds), voxel size (mm), a kind of motion, a seed. Out: a raw BIDS folder, its
truth under `derivatives/phantom`, and the comparison of a pipeline's outputs with that truth.
"""

from pathlib import Path
from typing import Any


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
    an unknown kind of motion, a `.par` file that is missing or too short.
    """
    raise NotImplementedError


def recovered(out_derivatives: Path, phantom: Path) -> list[dict[str, Any]]:
    """Compare the derivatives of a pipeline with the truth of the phantom, a dict per run.

    Keys: run (str), motion_mm, motion_error_mm (mean displacement over the brain), series_r,
    oracle_r (medians over parcels of the correlation with the true series).
    """
    raise NotImplementedError
