"""Names of files: taken apart and put together again, in the order of BIDS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm_bids.bids.names import ADDED, ENTITIES, build, common_stem, matches, parse

NOT_IN_BIDS = {"hash", "from", "to", "mode", "model", "scaling", "stat"}
LABELS = st.from_regex(r"[A-Za-z0-9]{1,6}", fullmatch=True)


def test_entities_are_in_the_order_of_the_schema() -> None:
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    order = [schema.objects.entities[key].name for key in schema.rules.entities]
    order[:2] = ["sub", "tpl"]  # never together
    assert [entity for entity in ENTITIES if entity not in NOT_IN_BIDS] == order
    assert len(set(ENTITIES)) == len(ENTITIES)
    assert set(ENTITIES) >= ADDED


def test_a_derivative_of_fmriprep_is_taken_apart() -> None:
    name = parse("sub-1_ses-2_task-a_acq-b_run-03_space-T1w_res-2_desc-preproc_bold.nii.gz")
    assert name.source == "sub-1_ses-2_task-a_acq-b_run-03"
    assert name.added == {"space": "T1w", "res": "2", "desc": "preproc"}
    assert (name.suffix, name.extension) == ("bold", ".nii.gz")
    assert (name.subject, name.get("ses"), name.get("echo")) == ("sub-1", "2", "")


@pytest.mark.parametrize(
    ("text", "entities", "source", "suffix"),
    [
        ("sub-1_task-n-back_bold.nii", {"sub": "1", "task": "n-back"}, "sub-1_task-n-back", "bold"),
        ("sub-1_task-a_eyes_bold.nii", {"sub": "1", "task": "a"}, "sub-1_task-a_eyes", "bold"),
        ("sub-01_task-a", {"sub": "01", "task": "a"}, "sub-01_task-a", ""),
        ("patient7.npy", {}, "", "patient7"),
        ("dataset_description.json", {}, "dataset", "description"),
    ],
)
def test_names_that_are_not_of_bids_keep_their_words(
    text: str, entities: dict[str, str], source: str, suffix: str
) -> None:
    name = parse(text)
    assert (name.entities, name.source, name.suffix) == (entities, source, suffix)
    assert str(name) == text


@given(st.dictionaries(st.sampled_from(ENTITIES), LABELS, min_size=1), LABELS)
def test_what_is_built_is_taken_apart_again(entities: dict[str, str], suffix: str) -> None:
    name = build("", entities, suffix, ".tsv")
    again = parse(str(name))
    assert again == name
    assert again.entities == entities
    assert list(again.entities) == [entity for entity in ENTITIES if entity in entities]
    # from the parts of the source, and what is added
    source = build("", {key: label for key, label in entities.items() if key not in ADDED}).stem
    assert again.source == source
    assert build(source, again.added, suffix, ".tsv") == name


def test_unknown_entities_are_refused() -> None:
    with pytest.raises(ValueError, match="'colour' is no entity"):
        build("sub-01", {"colour": "red"})


def test_the_source_is_kept_word_for_word() -> None:
    assert build("sub-01_run-1_task-odd", {"space": "X"}).stem == "sub-01_run-1_task-odd_space-X"
    assert build("sub-01_chunk-2", {"space": "X"}).stem == "sub-01_space-X_chunk-2"


def test_runs_are_compared_as_numbers() -> None:
    entities = parse("sub-01_task-a_run-01_bold.nii.gz").entities
    assert matches(entities, {"run": ["1"], "sub": ["sub-01"], "ses": []})
    assert matches(entities, {"run": ["run-001", "7"]})
    assert not matches(entities, {"run": ["10"]})
    assert not matches(entities, {"sub": ["1"]})
    assert not matches({"sub": "01"}, {"run": ["0"]})


def test_files_of_a_cohort_name_a_task_that_all_share() -> None:
    assert common_stem(["sub-01_task-a_run-1", "sub-02_task-a"]) == "group_task-a"
    assert common_stem(["sub-01_task-a", "sub-02"]) == "group"


def test_entities_of_a_name_can_be_changed() -> None:
    """A name is taken apart once; whoever changes its entities changes a copy."""
    entities = parse("sub-01_task-rest_bold.nii.gz").entities
    entities["sub"] = "02"
    assert parse("sub-01_task-rest_bold.nii.gz").entities == {"sub": "01", "task": "rest"}
