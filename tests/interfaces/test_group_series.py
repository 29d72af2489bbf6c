"""The cohort reads a series with bad volumes as the participant level scales it."""

from pathlib import Path

import numpy as np

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.statistics import demeaned
from brainlm_bids.interfaces.group import CollectSeries, steady_series


def test_bad_volumes_do_not_count_for_the_statistics_of_a_cohort(tmp_path: Path) -> None:
    naming = Naming(str(tmp_path), "sub-1_task-rest", "MNI152NLin6Asym", "A424")
    names = list(resources.parcels().names)
    values = np.random.default_rng(0).normal(10000, 40, (60, 424))
    values[:2] = np.nan  # before the steady state
    values[:, 5] = np.nan
    values[[30, 58, 59]] = np.nan
    path = naming.path("denoised")
    path.parent.mkdir(parents=True)
    files.write_tsv(path, names, values.T.tolist())
    sidecar = {"DummyVolumes": 2, "RepetitionTime": 0.735, "BadVolumes": [30, 58, 59]}
    files.write_json(naming.path("denoised", extension=".json"), sidecar)
    made, _ = steady_series(naming, 0.735)
    assert made.measured is not None
    assert np.flatnonzero(~made.measured).tolist() == [28]
    assert len(made.series) == 56
    collect = CollectSeries(namings=[naming], model_tr=0.735, first=None)
    store = np.load(collect.run(cwd=str(tmp_path)).outputs.store)
    good = np.delete(values, [0, 1, 30, 58, 59], axis=0)
    assert np.allclose(store, demeaned(good), atol=1e-2, equal_nan=True)
