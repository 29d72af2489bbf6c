"""The map of a cohort shows every recording at its place, in the class of its value."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from synthetic_group import ATLAS, HOSTILE, LABEL, SITES, SPACE, STEM, group_naming, write_group

from brainlm_bids.report.embedding_colours import category, measured
from brainlm_bids.report.embedding_map import dots, gather_map
from brainlm_bids.report.embedding_shapes import shape
from brainlm_bids.report.group import build_group_report


def _places(path: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r"M(-?\d+) (-?\d+)", path)]


def test_every_recording_is_where_the_table_says(tmp_path: Path) -> None:
    found = gather_map(write_group(tmp_path, 100), LABEL)
    assert found is not None
    assert [view.method for view in found.views] == ["pca", "umap"] and not found.no_umap
    assert [panel.key for panel in found.views[0].panels] == [
        *("embedding", "connectivity", "untrained")
    ]
    panel = found.views[0].panels[0]
    # a grid of 10 by 10 fills the square; its second axis points upwards
    assert (panel.x[0], panel.y[0]) == (40, 960) and (panel.x[99], panel.y[99]) == (960, 40)
    drawn = [place for _, path in found.drawn[0].paths for place in _places(path)]
    assert sorted(drawn) == sorted(zip(panel.x, panel.y, strict=True))
    assert "50 %" in panel.axes[0] and found.views[1].panels[0].axes == ("UMAP 1", "UMAP 2")
    note = found.views[1].note
    assert "15 neighbours" in note and "seed 42" in note and "mean nothing" in note


def test_colours_are_those_of_the_values(tmp_path: Path) -> None:
    found = gather_map(write_group(tmp_path, 100), LABEL)
    assert found is not None
    age, site = found.variables[:2]
    assert [one.name for one in found.variables] == ["age", "site", HOSTILE]
    assert age.classes.count("-") == 10 == found.missing
    assert len({entry.colour for entry in age.legend}) == 7
    assert {entry.shape for entry in site.legend} == {0, 1, 2}, "shapes as well as colours"
    assert Counter(site.classes) == {"0": 33, "1": 34, "2": 33}
    # hostile names sort before letters
    assert [entry.label for entry in site.legend] == sorted(SITES)
    for k, entry in enumerate(age.legend):
        values = [float(v) for v, c in zip(age.values, age.classes, strict=True) if c == str(k)]
        assert len(values) == entry.n
        numbers = [float(text) for text in re.findall(r"[\d.]+", entry.label)]
        low = -np.inf if entry.label.startswith("up to") else numbers[0]
        high = np.inf if entry.label.startswith("from") else numbers[-1]
        assert all(low - 0.06 <= value <= high + 0.06 for value in values), entry


def test_shares_are_those_of_the_audit(tmp_path: Path) -> None:
    found = gather_map(write_group(tmp_path, 30), LABEL)
    assert found is not None
    age, site = found.variables[:2]
    assert age.shares["embedding_pca"] == (
        "age: 25.0 % of the variance of all dimensions above chance (p = 0.002), 60.0 % of that in "
        "this map."
    )
    # distances in a UMAP mean nothing
    assert "this map" not in age.shares["embedding_umap"]
    assert "not measured" in site.shares["embedding_pca"]


@pytest.mark.parametrize("seed", range(20))
def test_ranges_hold_their_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_t(1.5, size=int(rng.integers(2, 120))) * 10.0 ** rng.integers(-3, 4)
    one = measured("x", [repr(float(value)) for value in values])
    assert one is not None and sum(entry.n for entry in one.legend) == len(values)
    order = np.argsort(values)
    assert [one.classes[k] for k in order] == sorted(one.classes), "larger values, higher classes"


def test_variables_that_do_not_differ_colour_nothing() -> None:
    assert measured("x", ["1", "1", "n/a"]) is None and measured("x", ["n/a"]) is None
    assert category("x", ["a", "a", "n/a"]) is None


def test_shapes_differ() -> None:
    assert len({shape(k, 10) for k in range(10)}) == 10


def test_without_umap_and_without_variables(tmp_path: Path) -> None:
    naming = write_group(tmp_path, 12, umap=False)
    naming.path("group_variables", model=LABEL).unlink()
    found = gather_map(naming, LABEL)
    assert found is not None and not found.variables
    assert "fewer than 30" in found.no_umap
    assert sum(len(_places(path)) for _, path in found.drawn[0].paths) == 12
    page = build_group_report(tmp_path, STEM, SPACE, ATLAS, version="0").read_text()
    assert "No variable differs between the recordings" in page
    assert gather_map(group_naming(tmp_path / "empty"), LABEL) is None


def test_names_from_the_data_do_not_run(tmp_path: Path) -> None:
    write_group(tmp_path, 30)
    page = build_group_report(tmp_path, STEM, SPACE, ATLAS, version="0").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page
    data = re.search(r'data-scatter="([^"]*)"', page)
    assert data is not None
    text = data[1].replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">")
    names = [one["name"] for one in json.loads(text.replace("&#39;", "'"))["variables"]]
    assert HOSTILE in names


def test_ten_thousand_recordings(tmp_path: Path) -> None:
    naming = write_group(tmp_path, 10_000, pages=False)
    start = time.perf_counter()
    found = gather_map(naming, LABEL)
    assert time.perf_counter() - start < 10
    assert found is not None and found.many
    # a path per class, not an element per recording
    assert all(len(drawn.paths) <= 8 for drawn in found.drawn)
    size = len(found.data) + sum(len(p) for drawn in found.drawn for _, p in drawn.paths)
    assert size < 4_000_000, "half of it is text that the page needs for the other colours"
    panel, one = found.views[0].panels[0], found.variables[0]
    assert dots(panel, one, ["z"] * 10) == dots(panel, one, ["z"] * 10)


def test_the_page_repeats_byte_for_byte(tmp_path: Path) -> None:
    write_group(tmp_path, 30)
    first = build_group_report(tmp_path, STEM, SPACE, ATLAS, version="0").read_bytes()
    assert build_group_report(tmp_path, STEM, SPACE, ATLAS, version="0").read_bytes() == first
