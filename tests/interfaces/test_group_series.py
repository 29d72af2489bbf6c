"""The cohort reads a series with bad volumes as the participant level scales it."""

from pathlib import Path

import numpy as np
from simulated_series import write_run

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort.states import Block, block_volumes
from brainlm_bids.cohort.statistics import demeaned
from brainlm_bids.interfaces.group import CollectSeries, ScaleToCohort, steady_series
from brainlm_bids.parcels.scaling import ScalingStats, save_stats
from brainlm_bids.training.recordings import read_volumes


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


def test_the_time_of_corrected_slices_goes_on_into_the_cohorts_series(tmp_path: Path) -> None:
    series = np.random.default_rng(0).normal(10000, 40, (60, 424))
    starts = {}
    for stem, about in {"sub-1_task-rest": {"StartTime": 0.975}, "sub-2_task-rest": {}}.items():
        naming = write_run(tmp_path, stem, series, 2.0, DummyVolumes=3, **about)
        correlations = np.corrcoef(series[3:].T)
        files.write_matrix(naming.path("pearson"), list(resources.parcels().names), correlations)
        statistics = ScalingStats(np.zeros(424), np.ones(424))
        save_stats(tmp_path / "stats.tsv", list(resources.parcels().names), statistics)
        ScaleToCohort(
            naming=naming,
            statistics=str(tmp_path / "stats.tsv"),
            description="ones",
            model_tr=0.735,
            configuration="x",
        ).run(cwd=str(tmp_path))
        made = files.read_json(naming.path("cohort_robust", extension=".json"))
        recording = Recording(naming, naming.path("robust"))
        starts[stem] = (made["StartTime"], read_volumes(recording).start)
    assert starts == {"sub-1_task-rest": (6.975, 6.975), "sub-2_task-rest": (6.0, 6.0)}
    # events are placed by it: volumes at 10.975, 12.975 s …, and at 10, 12 s …
    blocks = [Block(10.5, 4.0, "face")]
    places = [
        block_volumes(blocks, delay=0.0, start=start, tr=2.0, n_volumes=57).tolist()
        for start, _ in starts.values()
    ]
    assert places == [[[2, 4]], [[3, 5]]]
