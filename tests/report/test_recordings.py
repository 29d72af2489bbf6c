"""Every recording of an output folder has a summary that says what its files hold."""

import json
from pathlib import Path

import pytest
from synthetic_outputs import FAILED, SKIPPED, status_row, write_outputs, write_status

from brainlm_bids.bids.derivatives import OfParticipant
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.measures import outliers
from brainlm_bids.report.recordings import RecordingSummary, gather_recordings, measures_of


def _by_stem(folder: Path) -> dict[str, RecordingSummary]:
    return {one.stem: one for one in gather_recordings(folder)}


def _edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_all_recordings_are_there_with_the_numbers_of_their_files(tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 20, failed=2, skipped=1, outliers=2)
    found = _by_stem(tmp_path)
    assert sorted(found) == sorted([*made.stems, *made.failed, *made.skipped])
    assert {found[stem].status for stem in made.stems} == {"done"}
    assert {(found[s].status, found[s].reason) for s in made.failed} == {("failed", FAILED)}
    assert {(found[s].status, found[s].reason) for s in made.skipped} == {("skipped", SKIPPED)}
    stem = made.stems[5]
    naming = Naming(str(tmp_path), stem, "MNI152NLin6Asym", "A424")
    sidecar = json.loads(naming.path("denoised", extension=".json").read_text())
    one = found[stem]
    assert one.values["mean_fd"] == pytest.approx(sidecar["MeanFramewiseDisplacement"], rel=1e-6)
    missing = len(sidecar["MissingParcels"])
    assert one.values["parcels_without_data"] == missing
    assert one.values["coverage"] == pytest.approx(1 - missing / 424, rel=1e-6)
    assert one.values["n_volumes"] == 398 and one.values["bad_volumes"] == 0
    assert one.values["motion_outliers"] == pytest.approx(sidecar["MotionOutliers"] / 4)
    metrics = naming.path("metrics", model="brainlm111M").read_text().splitlines()[1].split("\t")
    assert metrics[:2] == ["0.2", "model"], "the first mask ratio, not the last"
    assert one.values["r2_brainlm111M_masked20"] == pytest.approx(float(metrics[4]))
    assert one.values["r2_brainlm111M_masked20_parcel_mean"] == pytest.approx(-0.02)
    assert (tmp_path / one.thumbnail).is_file()
    shown = measures_of(found.values())
    marked = dict(zip(found, outliers(list(found.values()), shown), strict=True))
    for planted, measure in made.planted.items():
        assert measure in marked[planted]
    assert found[made.stems[1]].level == "danger"


def test_a_broken_file_costs_its_own_numbers_alone(tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 4)
    whole = _by_stem(tmp_path)
    naming = [Naming(str(tmp_path), stem, "MNI152NLin6Asym", "A424") for stem in made.stems]
    naming[0].path("denoised", extension=".json").write_text("{broken")
    naming[1].path("coverage").write_bytes(b"\xff\xfe\x00")
    naming[2].path("metrics", model="brainlm111M").write_text("a\tb\n1\n")
    _edit(
        naming[3].path("denoised", extension=".json"),
        BadVolumes="none",
        NumberOfVolumes="many",
        MeanFramewiseDisplacement=[1],
        Warnings=3,
    )
    (tmp_path / "logs" / "20250101_status.tsv").write_bytes(b"\xff\xff")
    found = _by_stem(tmp_path)
    assert list(found) == list(whole)
    first, second, third, fourth = (found[stem] for stem in made.stems)
    assert first.status == "failed" and "not as it was written" in first.reason
    assert "mean_fd" not in first.values and "r2_brainlm111M_masked20" in first.values
    assert second.status == "failed" and "coverage" not in second.values
    assert second.values["mean_fd"] == whole[second.stem].values["mean_fd"]
    assert third.status == "done" and "r2_brainlm111M_masked20" not in third.values
    assert not {"bad_volumes", "n_volumes", "mean_fd"} & set(fourth.values)


def test_the_last_call_counts_and_the_disk_has_the_last_word(tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 3, failed=1)
    done, gone, again, failed = [*made.stems, *made.failed]
    rows = [
        status_row(done, "cached"),
        status_row(gone, "cached"),
        status_row(again, "failed", "no space left", "logs/crash/a.txt"),
        status_row("sub-09_task-rest", "failed", "no TR", "/etc/passwd"),
    ]
    write_status(tmp_path, rows, "20260202-000000_00000000_status.tsv")
    group = [{**status_row(done, "skipped", "of the group"), "participant_id": "group"}]
    write_status(tmp_path, group, "20260203-000000_00000000_status.tsv")
    for path in (tmp_path / gone.split("_")[0] / "func").iterdir():
        path.unlink()
    found = _by_stem(tmp_path)
    assert found[done].status == "done"
    assert found[gone].status == "failed" and "not in the folder" in found[gone].reason
    assert (found[again].status, found[again].reason) == ("failed", "no space left")
    assert found[again].values and found[again].crash_file == "logs/crash/a.txt"
    assert found[failed].reason == FAILED
    assert found["sub-09_task-rest"].crash_file == "", "no file outside of the folder"


def test_rows_of_earlier_versions_and_of_the_group_level(tmp_path: Path) -> None:
    """Their tables have no column `recording`; the group level's rows name the series."""
    made = write_outputs(tmp_path, 1)
    series = f"sub-01/func/{made.stems[0]}_space-MNI152NLin6Asym_atlas-A424"
    sources = {
        f"{series}_desc-denoised_timeseries.tsv": ("sub-01", "skipped"),
        "sub-02/func/sub-02_task-rest_echo-1_part-mag_bold.nii.gz": ("sub-02", "failed"),
        "patient_7.npy": ("sub-patient7", "failed"),
        "sub-03/func/sub-03_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz": (
            "sub-03",
            "skipped",
        ),
    }
    rows = [
        {"participant_id": who, "source": source, "status": status, "reason": "why"}
        for source, (who, status) in sources.items()
    ]
    write_status(tmp_path, rows, "20260303-000000_00000000_status.tsv")
    found = _by_stem(tmp_path)
    assert {stem: one.status for stem, one in found.items()} == {
        "sub-01_task-rest": "done",
        "sub-02_task-rest": "failed",
        "sub-03_task-rest": "skipped",
        "sub-patient7_task-unknown": "failed",
    }


def test_a_selection_and_the_pages_of_subjects(tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 3, sessions=("a", "b"), failed=1)
    (tmp_path / "sub-02.html").write_text("")
    (tmp_path / "sub-04.html").write_text("")
    chosen = gather_recordings(tmp_path, OfParticipant(("02",)))
    assert [one.stem for one in chosen] == made.stems[2:4]
    assert chosen[0].href == "sub-02.html#ses-a_task-rest" and chosen[0].session == "ses-a"
    found = _by_stem(tmp_path)
    assert found[made.stems[0]].href == ""
    assert found[made.failed[0]].href == "sub-04.html#errors"


def test_series_of_two_atlases_are_two_rows_and_the_cohorts_table_counts(tmp_path: Path) -> None:
    stem = write_outputs(tmp_path, 1).stems[0]
    other = Naming(str(tmp_path), stem, "MNI152NLin6Asym", "A424approx")
    one = Naming(str(tmp_path), stem, "MNI152NLin6Asym", "A424")
    for key, extension in (("denoised", None), ("denoised", ".json")):
        path = one.path(key, extension=extension)
        other.path(key, extension=extension).write_bytes(path.read_bytes())
    table = Naming(str(tmp_path), "group", "MNI152NLin6Asym", "A424").path("group_recordings")
    table.write_text(f"recording\tstatus\treason\n{stem}\texcluded\ttoo far\n")
    found = gather_recordings(tmp_path)
    assert [(s.atlas, s.cohort, s.cohort_reason) for s in found] == [
        ("A424", "excluded", "too far"),
        ("A424approx", "", ""),
    ]
    assert found[1].status == "failed", "no record vouches for the copy"
