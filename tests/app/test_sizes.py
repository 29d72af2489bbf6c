"""How many volumes a run has, of files of all kinds."""

import types
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.app.sizes import size_of

N_VOLUMES, N_PARCELS = 40, 424


def _array(path: Path) -> None:
    # bytes of many values are those of line ends
    np.save(path, np.full((N_VOLUMES, N_PARCELS), 0x0A0A, dtype=np.int16))


def _table(path: Path) -> None:
    rows = ["\t".join(f"p{k}" for k in range(N_PARCELS))] + ["\t".join("1" * N_PARCELS)] * N_VOLUMES
    path.write_text("\n".join(rows) + "\n")


def _parcels_of_cifti(path: Path) -> None:
    time = nb.cifti2.SeriesAxis(0, 2, N_VOLUMES)
    voxels = [(f"p{k}", np.array([[k, 0, 0]]), {}) for k in range(N_PARCELS)]
    parcels = nb.cifti2.ParcelsAxis(
        [name for name, _, _ in voxels],
        [place for _, place, _ in voxels],
        [vertices for _, _, vertices in voxels],
        affine=np.eye(4),
        volume_shape=(N_PARCELS, 1, 1),
    )
    values = np.zeros((N_VOLUMES, N_PARCELS), np.float32)
    nb.save(nb.Cifti2Image(values, header=(time, parcels)), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.npy", _array), ("a.tsv", _table), ("a.ptseries.nii", _parcels_of_cifti)],
)
def test_volumes_of_a_given_series(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    run: Any = types.SimpleNamespace(source=tmp_path / name, shape=None, echoes=(), tr=2.0)
    size = size_of(run)
    assert size is not None and (size.n_volumes, size.seconds) == (N_VOLUMES, 80.0)
