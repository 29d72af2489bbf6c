"""Which recordings of an output folder count."""

from pathlib import Path

import numpy as np
import pytest
from simulated_cohort import ATLAS, SPACE, write_recording

from brainlm_bids.bids.cohort import find_cohort
from brainlm_bids.bids.ratings import Ratings
from brainlm_bids.notices import Kind, notice
from brainlm_bids.settings import Settings


@pytest.mark.parametrize("include", [False, True])
def test_a_suspect_registration_counts_only_if_it_is_asked_for(
    tmp_path: Path, include: bool
) -> None:
    series = np.random.default_rng(0).standard_normal((60, 424)) * 40 + 10000
    text = "The registration has probably failed: look at the figure."
    suspect = (notice(Kind.SUSPECT_REGISTRATION, text),)
    write_recording(tmp_path, "sub-01_task-rest", series)
    write_recording(tmp_path, "sub-02_task-rest", series, warnings=suspect)
    # other warnings are no reason
    write_recording(tmp_path, "sub-03_task-rest", series, warnings=(notice(Kind.NO_T1W, "None."),))
    settings = Settings(tmp_path, tmp_path, include_suspect=include)
    found = {one.stem: one for one in find_cohort(settings, SPACE, ATLAS, Ratings())}
    status = {stem: one.status for stem, one in found.items()}
    expected = "included" if include else "excluded"
    assert status == {
        "sub-01_task-rest": "included",
        "sub-02_task-rest": expected,
        "sub-03_task-rest": "included",
    }
    reason = found["sub-02_task-rest"].reason
    assert reason == ("" if include else f"{text} (--include-suspect)")
