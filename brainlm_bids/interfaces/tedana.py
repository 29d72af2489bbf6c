"""TE-dependent analysis of realigned echoes by tedana, where that package is installed.

tedana works on files: the echoes are written for it, its workflow is called, and its time courses
and decisions are read back. Nothing else of it is used.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows
from brainlm_bids.interfaces.images import save_image
from brainlm_bids.preproc.steps import TeDependence


def decompose(
    echoes: Sequence[NDArray[Any]],
    affine: NDArray[np.float64],
    echo_times: Sequence[float],
    brain_mask: NDArray[np.bool_],
    volumes: NDArray[np.integer],
    folder: Path,
    *,
    seed: int = 42,
    n_threads: int = 1,
) -> TeDependence:
    """Decompose the echoes of a run by TEDPCA and TEDICA with tedana's defaults.

    Parameters
    ----------
    echoes
        E arrays (X, Y, Z, T), realigned, the shortest echo time first.
    affine
        (4, 4) to RAS+ mm.
    echo_times
        (E,) s.
    brain_mask
        (X, Y, Z).
    volumes
        (T',) indices of the volumes to use: good ones of the steady state.
    folder
        In which temporary files are written.
    seed
        Of its ICA.
    n_threads
        That it may use.

    Returns
    -------
    TeDependence
        Time courses of the volumes used, and which of them are noise.

    Raises
    ------
    UserError
        If tedana is not installed, or fails.
    """
    try:
        from tedana import __version__ as version
        from tedana.workflows import tedana_workflow
    except ImportError as error:
        raise UserError(f"tedana cannot be imported ({error})") from error

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        paths = [
            _saved(echo, affine, volumes, place / f"echo-{k}.nii")
            for k, echo in enumerate(echoes, 1)
        ]
        mask = save_image(place / "mask.nii", brain_mask, affine)
        out = place / "out"
        try:
            tedana_workflow(
                paths,
                list(echo_times),
                out_dir=str(out),
                mask=mask,
                fixed_seed=seed,
                no_reports=True,
                quiet=True,
                n_threads=n_threads,
            )
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"tedana {version} failed ({why})") from error
        finally:
            _forget_handlers()
        return _read(out, str(version))


def _saved(
    echo: NDArray[Any], affine: NDArray[np.float64], volumes: NDArray[np.integer], path: Path
) -> str:
    return save_image(path, np.asarray(echo[..., volumes], dtype=np.float32), affine)


def _read(out: Path, version: str) -> TeDependence:
    """The time courses and the decisions that tedana wrote."""
    courses = read_rows(out / "desc-ICA_mixing.tsv")
    decisions = read_rows(out / "desc-tedana_metrics.tsv")
    names = [row["Component"] for row in decisions]
    mixing = np.array([[float(row[name]) for name in names] for row in courses])
    noise = np.array([row["classification"] == "rejected" for row in decisions])
    return TeDependence(mixing, noise, version)


def _forget_handlers() -> None:
    """Close the log files that tedana opened in a folder that is about to go."""
    for name in ("GENERAL", "REPORT"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
