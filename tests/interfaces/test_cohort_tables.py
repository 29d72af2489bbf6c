"""The table of reconstructions of a cohort: repetition times, and a warning where they differ."""

from pathlib import Path

import pytest

from brainlm_bids import files
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.interfaces.cohort.tables import GroupTables, mixed_repetition_times
from brainlm_bids.notices import from_json
from brainlm_bids.report.group_model import gather_model

LABEL, SPACE = "randomtiny", {"space": "MNI152NLin2009aSym", "atlas": "A424approx"}


@pytest.mark.parametrize(("second", "warned"), [(0.735, False), (2.0, True)])
def test_recordings_of_different_repetition_times(
    tmp_path: Path, second: float, warned: bool
) -> None:
    group, recordings = Naming(str(tmp_path), "group", **SPACE), []
    for number, tr in enumerate((0.72, second), start=1):
        stem = f"sub-{number}_task-rest"
        naming = Naming(str(tmp_path), stem, **SPACE)
        embedding = ([0.0], [147.0], [1], [0.1 * number], [0.2])
        names = ["onset", "duration", "n_windows", "cls_0000", "cls_0001"]
        files.write_tsv(naming.path("recording_embedding", model=LABEL), names, embedding)
        metrics = ([0.2, 0.2], ["model", "time"], [0.1, 0.3])
        columns = ["mask_ratio", "predictor", "r2"]
        files.write_tsv(naming.path("metrics", model=LABEL), columns, metrics)
        keys = {"participant_id": f"sub-{number}", "session_id": None, "task": "rest", "run": None}
        quality = {"mean_fd": 0.1, "coverage": 1.0, "repetition_time": tr}
        recordings.append({**keys, "stem": stem, **quality})
    GroupTables(
        naming=group,
        recordings=recordings,
        sidecar={"Warnings": []},
        label=LABEL,
        variables={"site": ["b", None], "recording": ["1", "2"]},
        kinds={"site": "category", "recording": "number"},
        seed=0,
    ).run(cwd=str(tmp_path))
    path = group.path("group_metrics", model=LABEL)
    rows = files.read_rows(path)
    found = [float(row["source_repetition_time"]) for row in rows]
    assert found == [0.72, 0.72, second, second]
    warnings = from_json(files.read_json(path.with_suffix(".json"))["Warnings"])
    assert [one.kind for one in warnings] == ["mixed_source_tr"] * warned
    shown = [one.kind for one in gather_model(group, LABEL, []).warnings]
    assert shown == ["mixed_source_tr"] * warned
    if warned:
        assert "0.72, 2 s" in warnings[0].text


def test_repetition_times_that_are_not_resampled_are_alike() -> None:
    assert mixed_repetition_times([]) == mixed_repetition_times([None, 2.0]) == []
    assert mixed_repetition_times([0.72, 0.735, 0.74]) == []
