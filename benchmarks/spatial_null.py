"""What smoothness over space alone reaches against AA-7: the table `data/spatial_null.tsv`.

    python -m benchmarks.spatial_null            writes the table into the package (about 5 minutes)

For every smoothness of `model.spatial_null.KINDS`, 100 sets of random features are compared with
the seven networks as the features of a model are.
"""

from typing import Any

from brainlm_bids import files, resources
from brainlm_bids.model.spatial_null import KINDS, Smoothness, null_scores, summary


def row(kind: Smoothness) -> dict[str, Any]:
    """One row of the table: a kind of features, and mean and 95th percentile of each measure."""
    parcels = resources.parcels()
    found = summary(null_scores(parcels.xyz, parcels.network_index, kind))
    cells = {f"{name}_{key}": value for name, s in found.items() for key, value in s.items()}
    about = {**kind._asdict(), "mirrored": str(kind.mirrored).lower()}
    return {**about, **{name: round(value, 4) for name, value in cells.items()}}


def main() -> int:
    """Compute and write the table."""
    rows = []
    for kind in KINDS:
        rows.append(row(kind))
        print(rows[-1], flush=True)
    columns = [[one[name] for one in rows] for name in rows[0]]
    files.write_tsv(resources.SPATIAL_NULL, list(rows[0]), columns)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
