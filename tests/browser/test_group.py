"""The page of a cohort in a real browser: maps that answer, tables that sort, all on paper."""

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
)
from synthetic_group import ATLAS, HOSTILE, SPACE, STEM, write_group

from brainlm_bids.report.group import build_group_report

PANEL = ".scatter .panel:nth-child({}) svg"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("group")
    write_group(folder, 100)
    return build_group_report(folder, STEM, SPACE, ATLAS, version="0")


def _at(page: Any, x: int, y: int, number: int = 1) -> tuple[float, float]:
    """Where a place 0…1000 of a panel is in the window."""
    svg = page.locator(PANEL.format(number))
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    return box["x"] + box["width"] * x / 1000, box["y"] + box["height"] * y / 1000


def test_the_page_is_clean_at_every_width(page: Any, group: Path) -> None:
    open_page(page, group)
    assert_clean(page)
    for width in WIDTHS:
        no_sideways_scroll(page, width)
    for scheme in ("light", "dark"):
        if scheme == "dark":
            dark(page)
        assert not accessibility_findings(page)


def test_a_dot_is_named_in_all_maps_and_leads_to_its_recording(page: Any, group: Path) -> None:
    open_page(page, group)
    page.mouse.move(*_at(page, 42, 958))
    said = page.locator('[data-part="pointed"]')
    assert said.text_content() == "sub-000_task-rest, age: 20"
    rings = page.locator('.ring[visibility="visible"]')
    assert rings.count() == 3
    page.mouse.move(*_at(page, 958, 42))
    assert said.text_content() == "sub-099_task-rest, age: n/a"
    # between the dots of the grid lies none
    page.mouse.move(*_at(page, 91, 909))
    assert said.text_content() == ""
    page.mouse.move(*_at(page, 960, 40))
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/sub-099.html#task-rest")


def test_colours_and_maps_are_chosen(page: Any, group: Path) -> None:
    open_page(page, group)
    paths = page.locator(PANEL.format(1) + " [data-part=dots] path")
    assert paths.count() == 8, "seven ranges, and what is not known"
    before = paths.nth(1).get_attribute("d")
    page.locator("select[data-part=variable]").select_option(label="site")
    assert paths.count() == 3
    assert "not measured" in page.locator('[data-part="share"]').first.text_content()
    legend = page.locator('[data-part="legend"]')
    assert "onerror" in legend.text_content() and legend.locator("img").count() == 0
    page.locator("select[data-part=variable]").select_option(label=HOSTILE)
    page.locator("select[data-part=variable]").select_option(label="age")
    assert paths.nth(1).get_attribute("d") == before, "the script draws what the page had"
    page.locator("select[data-part=view]").select_option(label="UMAP")
    assert "mean nothing" in page.locator('[data-part="note"]').text_content()
    assert page.locator('[data-part="x"]').first.text_content() == "→ UMAP 1"
    assert_clean(page)


def test_the_keyboard_reaches_every_recording(page: Any, group: Path) -> None:
    open_page(page, group)
    page.locator(PANEL.format(1) + " a").focus()
    said = page.locator('[data-part="pointed"]')
    first = said.text_content()
    seen = {first}
    for _ in range(99):
        page.keyboard.press("ArrowRight")
        seen.add(said.text_content())
    assert len(seen) == 100
    page.keyboard.press("ArrowRight")
    assert said.text_content() == first
    page.keyboard.press("Enter")
    page.wait_for_url("**/sub-*.html#task-rest")


def test_the_map_can_be_read_without_the_script(browser: Any, group: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    open_page(page, group)
    assert page.locator(PANEL.format(1) + " path").count() == 8
    assert not page.locator(".scatter .controls").is_visible()
    assert "20 to" in page.locator('[data-part="legend"]').text_content()
    context.close()


def test_tables_are_complete_on_paper(page: Any, group: Path, tmp_path: Path) -> None:
    open_page(page, group)
    text = printed_text(page, tmp_path / "group.pdf")
    for k in (0, 50, 99):
        assert f"sub-{k:03d}" in text
    assert "Point at a dot" not in text


def test_ten_thousand_dots_answer(page: Any, tmp_path: Path) -> None:
    write_group(tmp_path, 10_000, pages=False)
    path = build_group_report(tmp_path, STEM, SPACE, ATLAS, version="0")
    page.set_default_timeout(60_000)
    open_page(page, path)
    assert page.locator(".scatter path").count() < 60
    page.mouse.move(*_at(page, 40, 960))
    seconds = page.evaluate(
        """() => {
          const svg = document.querySelector(".scatter .panel svg");
          const start = performance.now();
          for (let k = 0; k < 100; k += 1) svg.dispatchEvent(new PointerEvent("pointermove", {
            clientX: 400 + k, clientY: 400 }));
          return (performance.now() - start) / 1e5;
        }"""
    )
    assert seconds < 0.02, "a sixtieth of a second for each move of the pointer"
    page.locator("select[data-part=variable]").select_option(label="site")
    assert_clean(page)


def test_the_table_of_recordings_sorts(page: Any, group: Path) -> None:
    open_page(page, group)
    table = page.locator("#all-recordings table")
    table.get_by_role("button", name="Mean FD").click()
    names = [
        head.strip().rstrip("↕↑↓") for head in table.locator("th[scope=col]").all_inner_texts()
    ]
    column = next(k for k, name in enumerate(names) if name.startswith("Mean FD"))
    cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
    numbers = [float(text.split()[-1]) for text in cells]
    assert len(numbers) == 100 and numbers == sorted(numbers)


def test_a_row_is_shown_in_the_maps(page: Any, group: Path) -> None:
    open_page(page, group)
    page.locator("#all-recordings tbody a").nth(40).focus()
    assert page.locator('[data-part="pointed"]').text_content() == "sub-040_task-rest, age: 60"
    assert page.locator('.ring[visibility="visible"]').count() == 3
