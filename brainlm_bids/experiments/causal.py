"""`brainlm forecast --causal`: the past of each origin is cleaned by itself alone.

The high-pass filter and the removal of components of the participant level are fitted to all
volumes of a run. Here they are fitted again, to the volumes before an origin. The maps of the
components, and which of them are noise, remain those of the whole run.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.experiments.recordings import Measured
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES, rows_with_data
from brainlm_bids.preproc.steps.denoising import denoise
from brainlm_bids.training.recordings import beside

Array = NDArray[np.float64]
Components = tuple[Array, NDArray[np.bool_]]
STILL_FITTED = "maps of the independent components and their classification"


class PastAlone:
    """Cleans the first volumes of a run by themselves alone."""

    def __init__(
        self, series: Array, denoised: Array, tr: float, components: Components | None, **how: Any
    ) -> None:
        """Take what the cleaning of a run depends on.

        Parameters
        ----------
        series, denoised
            (T, P) before and after denoising, NaN in volumes and in parcels without data.
        tr
            Repetition time, s.
        components
            Time courses (T, K), and (K,) whether each is noise; None: none is removed.
        **how
            `high_pass` and `mode`, see `denoise`.
        """
        self.denoised, self.tr, self.components, self.how = denoised, tr, components, how
        self.good = rows_with_data(denoised)
        # bad volumes may hold any finite values
        self.series = np.where(self.good[:, None], series, 0)

    def __call__(self, origin: int) -> Array:
        """Clean the volumes before an origin.

        Parameters
        ----------
        origin
            Number of volumes.

        Returns
        -------
        ndarray
            (origin, P), NaN in volumes and in parcels without data. Its level is that of the
            denoised series, with which the volumes that follow are compared.
        """
        components = self.components
        if components is not None:
            components = components[0][:origin], components[1]
        good = self.good[:origin]
        past = denoise(
            self.series[:origin],
            self.tr,
            components=components,
            good=None if good.all() else good,
            **self.how,
        ).series
        level = np.median(self.denoised[:origin][good], axis=0)
        return np.asarray(past - np.median(past[good], axis=0) + level)


def refit_on_the_past(measured: Measured, item: Recording, source: Path) -> Measured:
    """Have the past of a recording cleaned by itself alone at each origin.

    Parameters
    ----------
    measured
        The recording, from its denoised series.
    item
        The same in the input folder or, for a single file, in none.
    source
        The input: a folder, or the file of a series.

    Returns
    -------
    Measured
        The same recording; the volumes to predict stay those of the denoised series.

    Raises
    ------
    UserError
        If what this needs is not there: the message says what to do.
    """
    if source.is_file():
        raise UserError(f"--causal: how {source} was cleaned is not known; give an output folder")
    sidecar = measured.sidecar
    made = str(sidecar.get("Denoising"))
    if made.startswith("by "):
        raise UserError(
            f"--causal: {measured.path}: was denoised {made} as a whole, and not by the past "
            "alone; run the participant level on raw data or fMRIPrep's derivatives"
        )
    if sidecar.get("RegressedConfounds"):
        raise UserError(
            f"--causal: {measured.path}: the regression of fMRIPrep's confounds cannot be fitted "
            "to the past; run the participant level with another --denoise"
        )
    raw = beside(item, "preproc_series")
    if not raw.is_file():
        raise UserError(
            f"--causal: {raw}: is not there; run the participant level with --save-parcels"
        )
    names, values = files.read_tsv(raw)
    if tuple(names) != resources.parcels().names:
        raise UserError(f"{raw}: its columns are not the parcels of A424 in their order")
    course, first = measured.course, measured.first_row
    rows = slice(first, first + len(course.series))
    components, mode = _components(item, sidecar, rows), str(sidecar.get("Denoising", "none"))
    past = PastAlone(
        values[rows],
        course.series,
        course.tr,
        components,
        high_pass=float(sidecar["HighPassCutoff"]),
        mode=mode if components is not None else "none",
    )
    n_components = 0 if components is None else components[0].shape[1]
    fitted = [] if components is None else [STILL_FITTED]
    changed = course._replace(clean=past, least=n_components + MINIMUM_VOLUMES)
    return measured._replace(course=changed, fitted=fitted)


def _components(item: Recording, sidecar: dict[str, Any], rows: slice) -> Components | None:
    """Time courses of the volumes in use, and which are noise; None where none was removed."""
    if sidecar.get("Denoising") not in ("nonaggr", "aggr"):
        return None
    mixing, metrics = beside(item, "aroma_mixing"), beside(item, "aroma_metrics")
    if not (mixing.is_file() and metrics.is_file()):
        raise UserError(f"--causal: {mixing}: is not there; run the participant level again")
    courses = files.read_tsv(mixing)[1][rows]
    noise = [row["classification"] == "noise" for row in files.read_rows(metrics)]
    # bad volumes have no value, and no weight
    return np.nan_to_num(courses), np.array(noise)
