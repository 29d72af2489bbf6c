"""The geometry rows of the accuracy table keep their bounds on a phantom, with a margin."""

import pytest

from benchmarks import table

# Share of a bound that may be used up, so that a slow decline shows before the bound is broken.
MARGIN = 0.9


@pytest.mark.slow
def test_geometry_keeps_its_bounds() -> None:
    pytest.importorskip("SimpleITK")
    from benchmarks import accuracy_geometry

    rows = list(accuracy_geometry.rows(seed=5, quick=True))
    assert {row.stage for row in rows} >= {
        "motion",
        "BOLD to T1w",
        "T1w to MNI",
        "BOLD to MNI, no T1w",
        "W x BOLD",
    }
    for row in rows:
        sign, bound = row.bound.split()
        tighter = MARGIN * float(bound) if sign == "<=" else float(bound)
        assert table.holds(row._replace(bound=f"{sign} {tighter}")), row


def test_a_missed_bound_is_seen() -> None:
    row = table.Row("motion", "mean (mm)", 0.07, "<= 0.06")
    assert not table.holds(row)
    assert "MISSED" in table.cells(row)
    assert table.holds(row._replace(bound=""))
    assert not table.holds(row._replace(ours=float("nan")))
    with pytest.raises(ValueError, match="bound"):
        table.holds(row._replace(bound="< 0.06"))
