"""Ratings in a real browser: by key and by button, kept, and out and in again as a table."""

from pathlib import Path
from typing import Any

import pytest
from browser_checks import accessibility_findings, assert_clean, no_sideways_scroll, open_page
from synthetic_outputs import write_outputs

from brainlm_bids.bids.ratings import Verdict, read_ratings
from brainlm_bids.report.index import rebuild_index
from brainlm_bids.report.subject import build_report

RUNS = ("sub-01_task-rest_run-1", "sub-01_task-rest_run-2", "sub-01_task-rest_run-3")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    func = tmp_path / "sub-01" / "func"
    func.mkdir(parents=True)
    for run in RUNS:
        name = f"{run}_space-MNI152NLin6Asym_atlas-A424_desc-denoised_timeseries.json"
        (func / name).write_text('{"RepetitionTime": 2.0, "NumberOfVolumes": 300}')
    return build_report(tmp_path, "01", version="1")


def _export(page: Any, folder: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.keyboard.press("e")
    path = folder / "ratings.tsv"
    download.value.save_as(path)
    return dict(read_ratings(path).of)


def test_a_sitting_with_the_keyboard(page: Any, report: Path, tmp_path: Path) -> None:
    open_page(page, report)
    page.get_by_text("Reasons, note, export").click()
    page.get_by_label("Your name or initials").fill("AB")
    page.get_by_label("Go to the next recording after a rating").check()
    page.locator("body").click(position={"x": 5, "y": 5})
    for key in ("p", "d"):  # fast, as a person in a hurry: each goes to its own recording
        page.keyboard.press(key)
    page.keyboard.press("1")
    page.keyboard.press("n")
    page.keyboard.type("moved; see <b>the end</b>\tp")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    ratings = _export(page, tmp_path)
    assert [ratings[run].verdict for run in RUNS] == list(Verdict)
    assert ratings[RUNS[2]].reasons == "motion"
    assert ratings[RUNS[2]].note.startswith("moved; see <b>the end</b>")
    text = (tmp_path / "ratings.tsv").read_text()
    assert text.splitlines()[0] == "recording\trating\treasons\tnote\trater\trated"
    assert text.splitlines()[1].split("\t")[4] == "AB"
    assert_clean(page)


def test_ratings_are_kept_and_can_be_taken_back(page: Any, report: Path, tmp_path: Path) -> None:
    open_page(page, report)
    page.get_by_role("button", name="Fail").click()
    page.reload()
    assert page.get_by_role("button", name="Fail").get_attribute("aria-pressed") == "true"
    assert page.get_by_text("1 rated").is_visible()
    page.get_by_role("button", name="Fail").click()
    assert page.get_by_text("0 rated").is_visible()


def test_a_table_of_another_person_is_imported(page: Any, report: Path, tmp_path: Path) -> None:
    open_page(page, report)
    page.get_by_role("button", name="Pass").click()
    table = tmp_path / "other.tsv"
    table.write_text(
        "recording\trating\tnote\trated\n"
        f"{RUNS[0]}\tfail\tolder than what is here\t2020-01-01\n"
        f"{RUNS[1]}\tDoubtful\t<img src=x onerror=alert(1)>\tn/a\n"
        "sub-02_task-rest\tfine\tno rating\tn/a\n"
    )
    page.locator("[data-field=file]").set_input_files(table)
    page.get_by_text("Imported 1 ratings; 2 rows").wait_for()
    ratings = _export(page, tmp_path)
    assert {run: one.verdict for run, one in ratings.items()} == {
        RUNS[0]: Verdict.PASS,
        RUNS[1]: Verdict.DOUBTFUL,
    }
    assert_clean(page)


def test_keys_can_be_switched_off_and_do_not_fire_in_fields(page: Any, report: Path) -> None:
    open_page(page, report)
    page.get_by_text("Reasons, note, export").click()
    page.get_by_label("Your name or initials").type("fdp")
    page.get_by_label("Keyboard:").uncheck()
    page.keyboard.press("p")
    assert page.get_by_text("0 rated").is_visible()


def test_the_panel_is_for_everybody(page: Any, report: Path) -> None:
    open_page(page, report)
    page.get_by_text("Reasons, note, export").click()
    for width in (420, 768, 1280):
        no_sideways_scroll(page, width)
    assert accessibility_findings(page) == []


def test_the_index_shows_and_filters_what_was_rated(page: Any, tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 6)
    rebuild_index(tmp_path, version="1")
    first, second = made.stems[:2]
    build_report(tmp_path, first.split("_")[0], version="1")
    open_page(page, tmp_path / f"{first.split('_')[0]}.html")
    page.keyboard.press("f")
    open_page(page, tmp_path / "index.html")
    cell = page.locator(f"[data-rating='{first}']")
    assert cell.inner_text() == "fail"
    page.locator("[data-filter='rated']").select_option("fail")
    assert page.locator("#recordings tbody tr:visible").count() == 1
    page.locator("[data-filter='rated']").select_option("unrated")
    assert page.locator("#recordings tbody tr:visible").count() == len(made.stems) - 1
    table = tmp_path / "other.tsv"
    table.write_text(f"recording\trating\n{second}\tpass\n")
    page.locator("[data-field=file]").set_input_files(table)
    page.get_by_text("Imported 1 ratings").wait_for()
    assert page.locator("#recordings tbody tr:visible").count() == len(made.stems) - 2
    assert set(_export(page, tmp_path)) == {first, second}
    assert_clean(page)
    for width in (420, 768, 1280):
        no_sideways_scroll(page, width)


def test_a_sitting_goes_on_to_the_next_subject(page: Any, tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 3)
    subjects = sorted({stem.split("_")[0] for stem in made.stems})
    for subject in subjects:
        build_report(tmp_path, subject, version="1")
    build_report(tmp_path, subjects[0], version="1")
    open_page(page, tmp_path / f"{subjects[0]}.html")
    page.get_by_text("Reasons, note, export").click()
    page.get_by_label("Go to the next recording after a rating").check()
    page.locator("h1").click()
    page.keyboard.press("p")
    page.wait_for_url(f"**/{subjects[1]}.html*")
    page.keyboard.press("k")
    page.wait_for_url(f"**/{subjects[0]}.html*")
    assert page.get_by_role("button", name="Pass").get_attribute("aria-pressed") == "true"
