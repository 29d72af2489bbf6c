"""The methods text of a decoding names what was done about sites."""

from typing import Any

import pytest

from brainlm_bids.report.methods_decoding import decoding_text

ROW = {
    "target": "age",
    "type": "regression",
    "features": "connectivity",
    "readout": "linear",
    "scaling": "n/a",
    "metric": "r2",
    "n_recordings": "60",
    "n_subjects": "60",
    "n_repeats": "10",
}


@pytest.mark.parametrize("with_sites", [False, True])
def test_harmonisation_is_described_with_its_references(with_sites: bool) -> None:
    about: dict[str, Any] = {"OuterFolds": 5, "Permutations": 500}
    if with_sites:
        kept = {"Method": "ComBat", "Column": "site", "Kept": {"age": ["sex"]}}
        about |= {"Harmonization": kept, "PermutedWithin": ["site"]}
    text = decoding_text([ROW], about)
    assert ("ComBat" in text and "[@johnson;@fortin]" in text) == with_sites
    assert ("keeping the effects of" in text and "sex" in text) == with_sites
    assert ("between participants with the same value of" in text) == with_sites
    assert "Cross-validation with 5 folds" in text


def test_sites_that_are_left_out_are_described() -> None:
    about = {"FoldsBy": "scanner", "PermutedWithin": ["scanner"], "OuterFolds": "one per site"}
    text = decoding_text([ROW], about)
    assert "was left out in turn" in text and "scanner" in text
    assert "Cross-validation with" not in text and "different folds" not in text
