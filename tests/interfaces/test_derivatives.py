"""What the writers of the derivatives note about a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.derivatives.functional import WriteFunctional
from brainlm_bids.notices import Kind
from brainlm_bids.preproc.registration.quality import Quality
from brainlm_bids.preproc.steps import Components, Decisions


@pytest.mark.parametrize(
    ("noise", "converged", "n_starts", "mode", "reported"),
    [
        ([True, False], True, 1, "nonaggr", []),
        ([False, False], True, 1, "nonaggr", []),
        ([True, True], True, 1, "none", ["All 2 components were classified as noise"]),
        ([True, False], True, 2, "nonaggr", ["converged in start 2 only"]),
        ([True, True], False, 3, "none", ["All 2 components", "not converge in 3 starts"]),
    ],
)
def test_what_the_ica_could_not_do_is_reported(
    caplog: pytest.LogCaptureFixture,
    noise: list[bool],
    converged: bool,
    n_starts: int,
    mode: str,
    reported: list[str],
) -> None:
    none = np.zeros(0)
    components = Components(none, none.astype(np.float32), none, converged, 10, n_starts)
    decisions = Decisions(none, none, none, none, none, np.array(noise), np.array(["", ""]))
    writer = WriteFunctional()
    writer._naming = SimpleNamespace(stem="sub-01_task-rest")
    writer._warnings, writer._mode = [], "nonaggr"
    writer._check_components(components, decisions)
    # a run from which nothing could be removed is marked as such
    assert writer._mode == mode
    assert len(caplog.messages) == len(reported)
    for message, text in zip(caplog.messages, reported, strict=True):
        assert message.startswith("sub-01_task-rest: ") and text in message
    assert len(writer._warnings) == sum("only" not in text for text in reported)


def test_the_numbers_of_the_registration_are_fields_and_bad_ones_a_danger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = payloads.save(Quality(contrast=2.7, cost=0.83, overlap=0.88), tmp_path / "quality")
    t1w = payloads.save(Quality(dice=0.98), tmp_path / "t1w_quality")
    matrix = payloads.save(np.eye(4), tmp_path / "matrix")
    writer = WriteFunctional(quality=found, t1w_quality=t1w, matrix=matrix)
    writer._naming = SimpleNamespace(stem="sub-01_task-rest")
    writer._warnings = []
    writer._quality = writer._registration()
    assert writer._quality_fields() == {
        "RegistrationContrast": 2.7,
        "RegistrationCost": 0.83,
        "BrainOverlap": 0.88,
        "TemplateDice": 0.98,
    }
    assert [warning.kind for warning in writer._warnings] == [Kind.SUSPECT_REGISTRATION]
    assert "T1w and BOLD are not of one person" in caplog.text
    writer = WriteFunctional()
    writer._warnings = []
    writer._quality = writer._registration()
    assert (writer._quality_fields(), writer._warnings) == ({}, [])


def test_the_series_before_denoising_has_data_where_the_denoised_one_has(tmp_path: Path) -> None:
    raw = np.arange(12.0).reshape(4, 3)
    denoised = np.where(raw > 2, raw - 5, np.nan)  # the first volume, and then a parcel
    denoised[:, 1] = np.nan
    writer = WriteFunctional(parcels=payloads.save(raw, tmp_path / "parcels"))
    written: dict[str, Any] = {}

    def table(key: str, names: list[str], columns: Any, **about: Any) -> None:
        written[key] = np.array(columns).T

    writer._context = SimpleNamespace(sources=[])
    for name in ("_acquisition", "_spaces"):
        setattr(writer, name, dict)
    writer._table = table
    writer._write_parcels(["a", "b", "c"], denoised)
    expected = raw.copy()
    expected[0] = expected[:, 1] = np.nan
    assert np.array_equal(written["preproc_series"], expected, equal_nan=True)
