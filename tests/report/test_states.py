"""What the report says about decoded states agrees with the table that it is read from."""

from pathlib import Path

from brainlm_bids import files
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.sources import STATE_SOURCES
from brainlm_bids.report.states import gather_states

SHOWN = {"embedding_mean_cohort": 0.8, "series_linear_recording": 0.9, "coordinates_linear": 0.5}


def written(folder: Path, p: float, **sidecar: object) -> Naming:
    naming = Naming(str(folder), "group_task-faces", "MNI", "A424", "cohort")
    rows, confusion = [], []
    for source in STATE_SOURCES:
        if source.name not in SHOWN:
            continue
        key = {
            "features": source.features,
            "readout": source.readout,
            "scaling": source.scaling,
        }
        value = SHOWN[source.name]
        for metric in ("balanced_accuracy", "auc"):
            row = {"metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1}
            counts = {"n_blocks": 40, "n_recordings": 4, "n_subjects": 4, "n_folds": 4}
            rows.append({**key, **row, "permutation_p": p, **counts})
        for true, right in (("face", 12), ("house", 20)):
            for guess in ("face", "house"):
                n = right if true == guess else 20 - right
                cells = {"truth": true, "predicted": guess, "n_blocks": n, "share": n / 20}
                confusion.append({**key, **cells})
    for name, table in (("states", rows), ("state_confusion", confusion)):
        path = naming.path(name, model="demo")
        files.write_tsv(path, list(table[0]), [[row[k] for row in table] for k in table[0]])
    values = {"DefaultReadout": "embedding_mean_cohort", "LeftOutTogether": "participants"}
    chance = {"Chance": {"balanced_accuracy": 0.5}}
    path = naming.path("states", model="demo", extension=".json")
    files.write_json(path, {**values, **chance, **sidecar})
    return naming


def test_the_default_readout_is_compared_with_chance_baseline_and_control(tmp_path: Path) -> None:
    found = gather_states(written(tmp_path, p=0.01), "demo")
    assert found is not None
    assert "finds the states better than chance (0.800; chance 0.500; p = 0.010)" in found.verdict
    baseline = "not distinguishable from that of the best baseline, mean activity of the parcels"
    control = "better than that of the control, coordinates of the parcels (0.500 [0.400, 0.600])"
    assert baseline in found.verdict and control in found.verdict
    assert next(line for line in found.lines if line[1])[0][1] == "0.800 [0.700, 0.900]"
    assert found.by_state == [("face", "20", "0.600", "house (0.4)"), ("house", "20", "1.000", "–")]


def test_without_a_significant_result_nothing_is_claimed(tmp_path: Path) -> None:
    found = gather_states(written(tmp_path, p=0.3), "demo")
    assert found is not None and "does not find the states" in found.verdict


def test_blocks_that_are_shorter_than_patches_are_warned_about(tmp_path: Path) -> None:
    naming = written(tmp_path, p=0.3, ShareOfTimePatchesWithinBlocks=0.2)
    found = gather_states(naming, "demo")
    assert found is not None and "20% lies within the block" in found.notes[-1]
    naming = written(tmp_path, p=0.3, ShareOfTimePatchesWithinBlocks=0.9)
    found = gather_states(naming, "demo")
    assert found is not None and not found.notes


def test_there_may_be_no_states(tmp_path: Path) -> None:
    assert gather_states(Naming(str(tmp_path), "group", "MNI", "A424", "cohort"), "demo") is None
