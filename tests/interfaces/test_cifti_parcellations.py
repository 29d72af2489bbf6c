"""Grayordinates in further parcellations: the mean of each label's vertices, by every atlas."""

from pathlib import Path

import nibabel as nb
import numpy as np

from brainlm_bids import files
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.series import TakeCifti
from brainlm_bids.parcels.operator import Coverage
from brainlm_bids.resources import Labelled

VERTICES, VOLUMES = 900, 40


def test_every_atlas_averages_its_own_vertices(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    surface = nb.cifti2.BrainModelAxis.from_surface(range(VERTICES), VERTICES, "CORTEX_LEFT")
    data = rng.normal(1000, 10, (VOLUMES, VERTICES)).astype(np.float32)
    data[:, :30] = 0  # without signal
    series = nb.cifti2.SeriesAxis(0, 2.0, VOLUMES)
    nb.Cifti2Image(data, (series, surface)).to_filename(tmp_path / "run.dtseries.nii")
    a424 = np.arange(VERTICES) // 2 % 424 + 1
    table = {k: (str(k), (0, 0, 0, 1)) for k in range(425)}
    axis = nb.cifti2.LabelAxis(["A424"], [table])
    image = nb.Cifti2Image(a424[None].astype(np.float32), (axis, surface))
    image.to_filename(tmp_path / "A424.dlabel.nii")
    names = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    confounds = files.write_tsv(tmp_path / "confounds.tsv", names, [[0.0] * VOLUMES] * 6)
    labels = np.repeat([1, 2, 3, 0], [20, 60, 100, VERTICES - 180]).astype(np.int32)
    own = Labelled(labels, np.array([4, 8, 9]), np.array(["a", "b", "c"]))
    stored = payloads.save(own, tmp_path / "own")
    take = TakeCifti(
        bold=str(tmp_path / "run.dtseries.nii"),
        confounds=str(confounds),
        labels=str(tmp_path / "A424.dlabel.nii"),
        tr=2.0,
        dummy_scans=0,
        min_parcel_coverage=0.5,
        parcellations=[stored],
    )
    made = take.run(cwd=str(tmp_path)).outputs
    others = payloads.load(np.ndarray, made.others)
    (coverage,) = (payloads.load(Coverage, path) for path in made.others_coverage)
    # the first 30 vertices have no signal: all of a, and 10 of 60 of b
    assert coverage.n_covered.tolist() == [0, 50, 100] and np.isnan(others[:, 0]).all()
    wanted = np.stack([data[:, 30:80].mean(axis=1), data[:, 80:180].mean(axis=1)], 1)
    ratio = others[:, 1:] / wanted
    assert np.allclose(ratio, ratio[0, 0], rtol=1e-6)  # one factor for the run's grand mean
    assert np.allclose(ratio[0, 0] * np.median(data[:, 30:].mean(axis=0)), 10000, rtol=1e-3)
