"""The agreement with AA-7 that smoothness over space alone reaches: a table in the package.

The parcels' centres and networks are constants, and so is what random smooth fields reach against
them. `python -m benchmarks.spatial_null` makes the table, by `model.spatial_null`.
"""

from __future__ import annotations

from functools import lru_cache

from brainlm_bids.files import DATA, read_rows

SPATIAL_NULL = DATA / "spatial_null.tsv"
_MEAN, _HIGH = "_mean", "_high"


@lru_cache(maxsize=1)
def _worst() -> dict[str, tuple[float, float]]:
    """Mean and 95th percentile by measure, at the smoothness with the highest 95th percentile."""
    rows = read_rows(SPATIAL_NULL)
    measures = [name.removesuffix(_HIGH) for name in rows[0] if name.endswith(_HIGH)]
    return {
        measure: max(
            ((float(row[measure + _MEAN]), float(row[measure + _HIGH])) for row in rows),
            key=lambda pair: pair[1],
        )
        for measure in measures
    }


def spatial_null() -> dict[str, dict[str, float]]:
    """Return the agreement with AA-7 of random features that are smooth over space.

    The features are Gaussian random fields on the 424 parcels, of widths of 15 to 30 mm, the same
    in both hemispheres or not, 20 to 1000 of them. For each measure, the values are those of the
    kind of fields with the highest 95th percentile, so that a model has to exceed all of them.

    Returns
    -------
    dict
        "spatial_null_mean" and "spatial_null_95", the mean and the 95th percentile over 100 sets
        of random features: accuracy, adjusted_rand, knn_accuracy and knn_accuracy_distant.

    Examples
    --------
    >>> spatial_null()["spatial_null_95"]["knn_accuracy"] > 0.6
    True
    """
    worst = _worst()
    return {
        "spatial_null_mean": {measure: mean for measure, (mean, _) in worst.items()},
        "spatial_null_95": {measure: high for measure, (_, high) in worst.items()},
    }
