"""Every page of an output folder, as it is seen on a phone, a tablet and a laptop, and on paper."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_checks import (
    WIDTHS,
    accessibility_findings,
    assert_clean,
    beyond_the_paper,
    dark,
    missing,
    no_sideways_scroll,
    open_page,
    printed_text,
)
from synthetic_group import write_group
from synthetic_outputs import write_outputs

from brainlm_bids.report.group import build_group_report
from brainlm_bids.report.index import rebuild_index
from brainlm_bids.report.places import refresh
from brainlm_bids.report.subject import build_report

DEMO = Path(os.environ.get("BRAINLM_BIDS_DEMO", Path(__file__).parents[2] / "demo" / "out"))
PAGES = ("index.html", "sub-01.html", "group.html")
# What is read from one page at a time: headings, landmarks, pictures without words
_OUTLINE = """() => ({
  levels: [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((one) => +one.tagName[1]),
  mains: document.querySelectorAll("main").length,
  navs: [...document.querySelectorAll("nav")].map((one) => one.getAttribute("aria-label")),
  silent: [...document.images].filter((one) => !one.alt.trim()).map((one) => one.outerHTML),
  twice: [...document.querySelectorAll("[id]")].map((one) => one.id)
    .filter((id, at, all) => all.indexOf(id) !== at),
  dangling: [...document.querySelectorAll("a[href^='#']")].map((one) => one.hash.slice(1))
    // the filters of the index are words such as status=done
    .filter((id) => id && !id.includes("=") && !document.getElementById(decodeURIComponent(id))),
})"""


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of four subjects and two sessions, two of which failed; a cohort of a dozen."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_outputs(folder, 4, sessions=("a", "b"), figures=True, failed=2, outliers=2)
    naming = write_group(folder, 12)
    for label in ("01", "02", "03", "04"):
        build_report(folder, label, version="1")
    rebuild_index(folder, version="1")
    build_group_report(folder, naming.stem, naming.space, naming.atlas, version="1")
    refresh(folder)
    return folder


@pytest.fixture(params=["synthetic", "demo"])
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    if request.param == "synthetic":
        yield request.getfixturevalue("synthetic")
    elif (DEMO / "group.html").is_file():
        yield DEMO
    else:
        missing(f"there is no demo in {DEMO}: make demo")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everybody(page: Any, folder: Path, name: str) -> None:
    open_page(page, folder / name)
    findings = accessibility_findings(page)
    for width in reversed(WIDTHS):
        no_sideways_scroll(page, width)
    dark(page)
    findings += [f"dark, at {WIDTHS[0]} px: {one}" for one in accessibility_findings(page)]
    assert findings == []
    assert_clean(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_an_outline(page: Any, folder: Path, name: str) -> None:
    open_page(page, folder / name)
    outline = page.evaluate(_OUTLINE)
    levels = outline.pop("levels")
    assert levels[0] == 1 and levels.count(1) == 1
    steps = [(one, other) for one, other in itertools.pairwise(levels) if other > one + 1]
    assert steps == []
    assert outline == {"mains": 1, "navs": ["Contents"], "silent": [], "twice": [], "dangling": []}


@pytest.mark.parametrize("name", PAGES)
def test_a_print_has_every_row_of_every_table(
    page: Any, folder: Path, name: str, tmp_path: Path
) -> None:
    open_page(page, folder / name)
    # words for screen readers alone
    page.evaluate("for (const one of document.querySelectorAll('.visually-hidden')) one.remove()")
    rows = page.evaluate("[...document.querySelectorAll('tbody tr')].map((row) => row.innerText)")
    printed = re.sub(r"\s", "", printed_text(page, tmp_path / "page.pdf"))
    words = {unicodedata.normalize("NFKC", word) for row in rows for word in row.split()}
    assert len(words) > 10
    lost = sorted(word for word in words if word.isascii() and word not in printed)
    assert lost == []
    assert beyond_the_paper(tmp_path / "page.pdf") == []


def test_pages_lead_to_each_other(page: Any, synthetic: Path) -> None:
    open_page(page, synthetic / "index.html")
    page.locator("table a[href*='sub-02']").first.click()
    assert page.url.split("#")[0].endswith("sub-02.html")
    page.locator("nav a[rel=next]").click()
    assert page.url.endswith("sub-03.html")
    page.get_by_role("link", name="Group").click()
    assert page.url.endswith("group.html")
    page.get_by_role("link", name="Index").first.click()
    assert page.url.endswith("index.html")
    assert_clean(page)


def test_pages_work_when_they_are_served(page: Any, synthetic: Path, serve: Any) -> None:
    address = serve(synthetic)
    for name in PAGES:
        page.goto(f"{address}/{name}")
        assert_clean(page)
