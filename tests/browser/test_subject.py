"""The page of a subject in a browser: navigation, lazily loaded figures, links, widths, colours."""

import json
from pathlib import Path
from typing import Any

import pytest
from browser_checks import (
    WIDTHS,
    accessibility_findings,
    assert_clean,
    dark,
    no_sideways_scroll,
    open_page,
    printed_text,
    wait_until,
)
from synthetic_outputs import write_outputs

from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.report.recordings import gather_recordings
from brainlm_bids.report.standing import Cohort
from brainlm_bids.report.subject import build_report

CURRENT = "document.querySelector('nav a[aria-current=true]').getAttribute('href')"


def _write(folder: Path, *labels: str) -> Path:
    cohort = Cohort(gather_recordings(folder))
    pages = [build_report(folder, label, version="0", cohort=cohort) for label in labels]
    return pages[0]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve subjects, one of whom moves a lot; the pages of three."""
    folder = tmp_path_factory.mktemp("cohort")
    write_outputs(folder, 12, tasks=("rest", "movie"), outliers=2, figures=True)
    _write(folder, "01", "02", "03")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one subject with twenty recordings in each of five sessions."""
    folder = tmp_path_factory.mktemp("many")
    tasks = [f"t{k:02d}" for k in range(20)]
    write_outputs(folder, 1, sessions=("a", "b", "c", "d", "e"), tasks=tasks, figures=True)
    return _write(folder, "01")


def test_the_page_is_clean_at_every_width_light_and_dark(page: Any, cohort: Path) -> None:
    open_page(page, cohort / "sub-02.html")
    assert_clean(page)
    for width in WIDTHS:
        no_sideways_scroll(page, width)
    assert not accessibility_findings(page)
    dark(page)
    assert not accessibility_findings(page)


def test_the_subjects_lead_to_each_other(page: Any, cohort: Path) -> None:
    open_page(page, cohort / "sub-01.html")
    assert page.locator("nav a[rel=prev]").count() == 0
    for label in ("02", "03"):
        page.locator("nav a[rel=next]").click()
        page.wait_for_url(f"**/sub-{label}.html")
    assert page.locator("nav a[rel=next]").count() == 0
    assert_clean(page)


def test_the_rank_and_the_mark_agree(page: Any, cohort: Path) -> None:
    open_page(page, cohort / "sub-01.html")
    # sub-01 has the planted mean FD of 2 mm: its mark is at the right end
    strip = page.locator("#task-rest .strips li", has_text="Mean FD")
    box, mark = strip.locator("svg").bounding_box(), strip.locator(".here").bounding_box()
    assert "the highest of 12" in strip.inner_text()
    assert mark["x"] > box["x"] + 0.95 * box["width"]
    assert page.locator("#task-rest .glance .bad h3").first.inner_text() == "Head motion"


def test_the_navigation_follows_a_hundred_recordings(page: Any, many: Path) -> None:
    open_page(page, many)
    assert page.locator("nav .session[open]").count() == 0
    page.evaluate("document.getElementById('ses-d_task-t07').scrollIntoView({behavior: 'instant'})")
    wait_until(page, f"{CURRENT} === '#ses-d_task-t07'")
    shown = page.locator("nav a[aria-current=true]")
    assert shown.is_visible() and shown.inner_text().startswith("task t07")
    assert page.locator("nav .session[open] > summary").inner_text() == "Session d (20)"
    # the parts of the recording that is read are listed, those of others are not
    assert page.locator("nav .run.read ul a", has_text="Motion").is_visible()
    assert not page.locator("nav .run:not(.read) ul a").first.is_visible()
    loaded = page.evaluate("performance.getEntriesByType('resource').length")
    assert loaded < 150, "of more than 900 figures, those near the screen"
    assert not page.context.complaints


def test_the_table_of_recordings_sorts_and_leads_to_them(page: Any, many: Path) -> None:
    open_page(page, many)
    values = (
        "[...document.querySelectorAll('.overview tbody tr')].map(r => +r.cells[4].dataset.value)"
    )
    page.locator(".overview th button", has_text="Head motion").click()
    found = page.evaluate(values)
    assert len(found) == 100 and found == sorted(found)
    link = page.locator(".overview tbody tr").first.locator("a")
    name = link.get_attribute("href")
    link.click()
    wait_until(page, f"{CURRENT} === '{name}'")


def test_a_phone_folds_the_navigation(page: Any, many: Path) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    open_page(page, many)
    entry = page.locator("nav a", has_text="About")
    assert not entry.is_visible()
    page.locator("nav > details > summary").click()
    entry.click()
    wait_until(page, f"{CURRENT} === '#about'")
    assert not entry.is_visible()
    no_sideways_scroll(page, 420)


def test_figures_fade_when_they_come_near(page: Any, cohort: Path) -> None:
    open_page(page, cohort / "sub-01.html")
    plate = page.locator("#task-rest .plate[data-interactive]").first
    assert plate.locator("img").count() == 1
    plate.scroll_into_view_if_needed()
    plate.locator("object").wait_for()
    assert plate.locator("object").get_attribute("aria-label")
    page.wait_for_timeout(300)
    assert not page.context.complaints


def test_a_flag_leads_to_the_warning_and_what_to_do(page: Any, tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 1, figures=True)
    sidecar = next(tmp_path.glob("**/*desc-denoised_timeseries.json"))
    grave = to_json([notice(Kind.SUSPECT_REGISTRATION, "The contrast is 0.3 %.")])
    text = sidecar.read_text()
    assert text.count('"Warnings"') == 1
    sidecar.write_text(json.dumps(json.loads(text) | {"Warnings": grave}))
    open_page(page, _write(tmp_path, "01"))
    page.locator(f"[data-recording={made.stems[0]}] .flag.danger").click()
    box = page.locator(".box.danger:target")
    assert "The contrast is 0.3 %." in box.inner_text() and "What to do:" in box.inner_text()
    assert not accessibility_findings(page)


def test_paper_has_the_page(page: Any, cohort: Path, tmp_path: Path) -> None:
    open_page(page, cohort / "sub-01.html")
    assert_clean(page)
    text = printed_text(page, tmp_path / "page.pdf")
    for words in ("Where this recording lies", "All numbers of this recording", "Repetition time"):
        assert words in text
