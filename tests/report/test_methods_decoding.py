"""The methods text of a decoding says what the table has, and no more."""

from brainlm_bids.cohort.sources import SOURCES, Source, selected
from brainlm_bids.report.methods_decoding import decoding_text

ABOUT = {
    "Units": {"age": "subject", "mood": "session"},
    "Permutations": 500,
    "OuterFolds": 5,
    "InnerFolds": 3,
}


def _rows(sources: tuple[Source, ...]) -> list[dict[str, str]]:
    return [
        {
            "target": target,
            "type": "regression",
            "features": source.features,
            "readout": source.readout,
            "scaling": source.scaling,
            "metric": "r2",
            "n_recordings": "40",
            "n_subjects": "20",
            "n_repeats": "10" if source.kind == "linear" else "1",
        }
        for target in ("age", "mood")
        for source in sources
    ]


def test_everything_in_the_table_is_described() -> None:
    text = decoding_text(_rows(SOURCES), ABOUT)
    assert "age and mood were decoded by ridge regression" in text
    assert "the CLS token, the mean token and an attentive probe of all tokens" in text
    assert "the statistics of the recording itself and those of the cohort" in text
    assert "a multilayer perceptron on the parcel series" in text
    assert "random weights and the coordinates of the parcels that had data" in text
    assert "40 recordings of 20 participants" in text
    assert "predicted once was the subject (age) and session (mood); the features" in text
    assert "This was done 10 times" in text
    assert "The attentive probe and the multilayer perceptron were trained once in each" in text
    assert "predictions were kept while targets were permuted within the test folds" in text


def test_readouts_that_are_not_in_the_table_are_not_described() -> None:
    about = {**ABOUT, "RegressedOut": ["site"], "Units": {"age": "recording"}}
    text = decoding_text(_rows(selected(["linear"])), about)
    assert "site was regressed out of them" in text
    assert not any(
        word in text for word in ("attentive", "perceptron", "were kept", "averaged, and")
    )
    untested = decoding_text(_rows(SOURCES), {**about, "Permutations": 0})
    assert "No permutation test was made." in untested and "P values" not in untested
