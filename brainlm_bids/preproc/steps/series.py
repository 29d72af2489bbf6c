"""The first step of a parcel series that was made elsewhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.preproc.denoising import volumes
from brainlm_bids.preproc.steps.functional import MAX_BAD_VOLUMES, Motion, check_length


@dataclass(frozen=True)
class Given:
    """A series, and which of its volumes are bad.

    Attributes
    ----------
    series
        (T, P), NaN in bad volumes and in parcels without data.
    motion
        Without parameters.
    """

    series: NDArray[np.float64]
    motion: Motion


def take_series(series: NDArray[np.float64], *, max_bad_volumes: float = MAX_BAD_VOLUMES) -> Given:
    """Find the bad volumes of a series: rows that are n/a, as of censored volumes, 0 or repeated.

    Parameters
    ----------
    series
        (T, P), NaN where missing.
    max_bad_volumes
        Largest share of bad volumes.

    Returns
    -------
    Given
        The series as it is, but for bad volumes, which are NaN throughout.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.
    UserError
        If more volumes are bad than may be.

    Examples
    --------
    >>> series = np.random.default_rng(0).normal(size=(30, 424))
    >>> series[[3, 4]] = np.nan
    >>> given = take_series(series)
    >>> given.motion.good.nonzero()[0].size, str(given.motion.reasons[3])
    (28, 'missing')
    """
    reasons = volumes.find_bad_rows(series)
    volumes.check_share(reasons, max_bad_volumes)
    good = reasons == ""
    if good.all():
        return Given(series, Motion(n_dummy=0))
    check_length(len(series), 0, good)
    return Given(np.where(good[:, None], series, np.nan), Motion(n_dummy=0, reasons=reasons))
