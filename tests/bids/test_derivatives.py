"""What lies in an output folder: identified by name, found, old names included."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.derivatives import find_derivatives, identify, read_table, selected
from brainlm_bids.bids.outputs import Naming, output_table
from brainlm_bids.bids.recordings import (
    distortion_of_series,
    find_recordings,
    warnings_of_series,
)
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

OUT = Path("/out")
STEM = "sub-01_ses-a_task-rest_run-1"


@pytest.mark.parametrize("key", list(output_table()))
@pytest.mark.parametrize("scaling", ["", "cohort"])
def test_every_name_is_taken_apart_again(key: str, scaling: str) -> None:
    """Whatever the model is called: also as parts of our own names."""
    row = output_table()[key]
    stem = "" if not row.source else STEM if row.datatype else "group_task-rest"
    naming = Naming(str(OUT), stem, "MNI152NLin6Asym", "A424", scaling)
    for model in ("brainlm111M", "brainlm111Mcohort", "recording", "cohort", "parcels"):
        for extension in (row.extension, ".json"):
            path = naming.path(key, model=model, extension=extension)
            one = identify(path, OUT)
            assert one is not None
            assert (one.key, one.formerly) == (key, False), path.name
            assert one.model == (model if "model" in row.entities else "")
            for entity in ("space", "atlas"):
                expected = getattr(naming, entity) if entity in row.entities else ""
                assert getattr(one.naming, entity) == expected
            fixed = "scaling-cohort" in row.entities
            expected = "cohort" if fixed else scaling if "scaling" in row.entities else ""
            assert one.naming.scaling == expected
            assert one.naming.stem == naming.stem


FORMER = {
    "desc-pearson_relmat.tsv": ("pearson", "", ""),
    "desc-robustcohort_timeseries.tsv": ("cohort_robust", "", "cohort"),
    "desc-brainlmdemo_embeddings.tsv": ("embeddings", "brainlmdemo", ""),
    "desc-brainlmdemorecording_embeddings.tsv": ("recording_embedding", "brainlmdemo", ""),
    "desc-brainlmdemocohort_embeddings.tsv": ("embeddings", "brainlmdemo", "cohort"),
    "desc-brainlmdemocohortrecording_embeddings.tsv": (
        *("recording_embedding", "brainlmdemo", "cohort"),
    ),
    "desc-brainlm13M_tokens.npz": ("tokens", "brainlm13M", ""),
    "desc-brainlm13Mattention_relmat.tsv": ("attention", "brainlm13M", ""),
    "desc-randomtinyreconstruction_timeseries.tsv": ("reconstruction", "randomtiny", ""),
    "desc-randomtiny_metrics.json": ("metrics", "randomtiny", ""),
    "desc-randomtinycohortparcels_metrics.tsv": ("parcel_metrics", "randomtiny", "cohort"),
    "desc-randomtinynetworks_dseg.nii.gz": ("networks", "randomtiny", ""),
}


@pytest.mark.parametrize("ending", list(FORMER))
def test_names_of_older_folders(ending: str) -> None:
    one = identify(OUT / f"{STEM}_space-S_atlas-A424_{ending}", OUT)
    assert one is not None
    assert (one.key, one.model, one.naming.scaling) == FORMER[ending]
    assert one.formerly
    assert (one.naming.stem, one.naming.space, one.naming.atlas) == (STEM, "S", "A424")


@pytest.mark.parametrize(
    ("ending", "key"),
    [
        ("desc-aroma_metrics.tsv", "aroma_metrics"),
        ("space-S_atlas-A424_desc-coverage_metrics.tsv", "coverage"),
        ("space-S_atlas-A424_desc-denoised_timeseries.tsv", "denoised"),
        ("desc-confounds_timeseries.tsv", "confounds"),
        ("from-boldref_to-T1w_mode-image_xfm.txt", "boldref_to_t1w"),
        ("from-boldref_to-S_mode-image_xfm.h5", "boldref_to_template"),
    ],
)
def test_no_model_is_called_as_a_fixed_label(ending: str, key: str) -> None:
    one = identify(OUT / f"{STEM}_{ending}", OUT)
    assert one is not None
    assert (one.key, one.model, one.formerly) == (key, "", False)


@pytest.mark.parametrize(
    "name",
    [
        f"{STEM}_space-S_res-2_desc-denoised_timeseries.tsv",
        f"{STEM}_bold.nii.gz",
        "dataset_description.json",
        "participants.tsv",
        "group_quality.tsv",
        "sub-01.html",
    ],
)
def test_other_files_are_not_ours(name: str) -> None:
    assert identify(OUT / name, OUT) is None


# --- folders ---------------------------------------------------------------------------------


def _write(naming: Naming, key: str, *, stage: str | None = "series", model: str = "") -> Path:
    names = list(resources.parcels().names)
    path = files.write_series(naming.path(key, model=model), names, np.ones((3, 424)))
    if stage is not None:
        outputs.write_record(Path(naming.output_dir), naming.stem, stage, "made", [path])
    return path


def test_files_are_found_once_under_their_present_name(tmp_path: Path) -> None:
    naming = Naming(str(tmp_path), "sub-01_task-rest", "S", "A424")
    present = _write(naming, "pearson", stage=None)
    former = present.with_name(f"{naming.stem}_space-S_atlas-A424_desc-pearson_relmat.tsv")
    present.rename(former)
    (one,) = find_derivatives(tmp_path, ["pearson"])
    assert (one.path, one.formerly) == (former, True)
    assert naming.existing("pearson") == former
    _write(naming, "pearson", stage=None)
    (one,) = find_derivatives(tmp_path, ["pearson"])
    assert (one.path, one.formerly) == (present, False)
    assert naming.existing("pearson") == present


def test_a_glob_over_one_kind_of_one_model_has_no_other_kind(tmp_path: Path) -> None:
    keys = ("embeddings", "recording_embedding")
    for stem, scaling in itertools.product(
        ("sub-01_task-a", "sub-02_ses-1_task-a"), ("", "cohort")
    ):
        naming = Naming(str(tmp_path), stem, "S", "A424", scaling)
        for key in keys:
            _write(naming, key, stage=None, model="m")
    found = find_derivatives(tmp_path, ["embeddings", "recording_embedding"])
    assert len(found) == 8
    for key in keys:
        of_key = [one.path for one in find_derivatives(tmp_path, [key])]
        pattern = f"*_model-m_scaling-cohort_desc-{output_table()[key].desc}_embeddings.tsv"
        globbed = [
            *tmp_path.glob(f"sub-*/func/{pattern}"),
            *tmp_path.glob(f"sub-*/*/func/{pattern}"),
        ]
        assert len(globbed) == 2
        assert set(globbed) < set(of_key)


def test_recordings_are_selected_and_checked(tmp_path: Path) -> None:
    namings = {
        stem: Naming(str(tmp_path), stem, "S", "A424")
        for stem in ("sub-01_task-a_run-01", "sub-01_task-a_run-02", "sub-02_ses-1_task-b")
    }
    paths = {stem: _write(naming, "robust") for stem, naming in namings.items()}
    paths["sub-01_task-a_run-02"].write_text("cut short")
    found = find_recordings(tmp_path, "robust")
    assert [one.stem for one in found] == list(namings)
    assert [one.status for one in found] == ["included", "failed", "included"]
    assert "is missing or not as it was written" in found[1].reason
    assert found[0].read(resources.parcels().names).shape == (3, 424)
    with pytest.raises(UserError, match="not as it was written"):
        found[1].read(resources.parcels().names)
    with pytest.raises(UserError, match="its columns are not the parcels"):
        found[0].read(resources.parcels().names[::-1])
    assert (found[2].session_id, found[0].session_id) == ("ses-1", None)
    settings = Settings(tmp_path, tmp_path, tmp_path, run_id=("1",))
    assert [one.stem for one in find_recordings(tmp_path, "robust", selection=settings)] == [
        "sub-01_task-a_run-01"
    ]
    nobody = dataclasses.replace(settings, task_id=("c",))
    assert not selected("sub-01_task-a_run-01", nobody)
    with pytest.raises(UserError, match="no recording of the selection; there are sub-01"):
        find_recordings(tmp_path, "robust", selection=nobody)


def test_an_older_folder_still_has_recordings_of_the_cohort(tmp_path: Path) -> None:
    naming = Naming(str(tmp_path), "sub-01_task-a", "S", "A424")
    path = _write(naming, "cohort_robust", stage=None)
    former = path.rename(
        path.with_name("sub-01_task-a_space-S_atlas-A424_desc-robustcohort_timeseries.tsv")
    )
    outputs.write_record(tmp_path, naming.stem, "robustcohort", "made", [former])
    (one,) = find_recordings(tmp_path, "cohort_robust")
    assert (one.status, one.path, one.naming.scaling) == ("included", former, "cohort")


def test_columns_of_older_tables_have_their_present_names(tmp_path: Path) -> None:
    path = tmp_path / "group_recordings.tsv"
    files.write_tsv(
        path, ["participant_id", "session", "task"], [["sub-1"] * 2, ["a", None], ["r"] * 2]
    )
    assert read_table(path) == [
        {"participant_id": "sub-1", "session_id": "ses-a", "task": "r"},
        {"participant_id": "sub-1", "session_id": "n/a", "task": "r"},
    ]


def test_records_repeat_what_is_told_of_complete_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecars are read only if the record is an older one, or they have changed."""
    naming = Naming(str(tmp_path), "sub-01_task-rest", "MNI152NLin6Asym", "A424")
    path = naming.path("denoised", extension=".json")
    correction = {"Method": "field map"}
    warned = {"Kind": "no_t1w", "Level": "warning", "Text": "No T1w."}
    sidecar = {"Warnings": [warned], "DistortionCorrection": correction, "RepetitionTime": 2.0}
    files.write_json(path, sidecar)
    record = outputs.write_record(tmp_path, naming.stem, "series", "made", [path])

    def told() -> tuple[list[str], object]:
        found = warnings_of_series(tmp_path, naming.stem)
        return [one.text for one in found], distortion_of_series(tmp_path, naming.stem)

    read: list[Path] = []
    read_json = outputs.read_json
    monkeypatch.setattr(outputs, "read_json", lambda one: read.append(one) or read_json(one))
    assert told() == (["No T1w."], correction)
    assert path not in read, "a complete recording costs reading its records, not its sidecars"
    files.write_json(path, sidecar | {"Warnings": ["No T1w.", "Another."]})
    assert told() == (["No T1w.", "Another."], correction), "the file has another size"
    kept = {name: files.read_json(record)[name] for name in ("Configuration", "Outputs")}
    files.write_json(record, kept)
    assert told() == (["No T1w.", "Another."], correction), "a record of an older version"
