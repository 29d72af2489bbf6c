"""Pages of the tools as people see them: wide, on a phone, in the dark, on paper, by keyboard."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from browser_checks import (
    accessibility_findings,
    assert_clean,
    dark,
    no_sideways_scroll,
    open_page,
    printed_text,
)
from tool_folders import FOLDERS

from brainlm_bids.report.tools.page import write_pages

WIDTHS = (420, 768, 1280)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tools")
    return {tool: write_pages(make(folder / tool))[0] for tool, make in FOLDERS.items()}


@pytest.mark.parametrize("tool", FOLDERS)
def test_a_page_is_clean_at_every_width(page: Any, pages: dict[str, Path], tool: str) -> None:
    open_page(page, pages[tool])
    assert_clean(page)
    for width in WIDTHS:
        no_sideways_scroll(page, width)
    assert accessibility_findings(page) == []
    dark(page)
    assert accessibility_findings(page) == []
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("tool", FOLDERS)
def test_paper_has_all_rows_and_settings(
    page: Any, pages: dict[str, Path], tool: str, tmp_path: Path
) -> None:
    open_page(page, pages[tool])
    text = printed_text(page, tmp_path / "page.pdf")
    unfolded = page.locator("details td").all_text_contents()
    assert len(unfolded) > 10
    # on paper letters such as "fi" are one sign
    squeezed = unicodedata.normalize("NFKC", text).replace(" ", "")
    assert [one for one in unfolded if "".join(one.split()) not in squeezed] == []


def test_tables_sort_by_their_numbers_from_the_keyboard(page: Any, pages: dict[str, Path]) -> None:
    open_page(page, pages["forecast"])
    table = page.locator("table[data-sortable]").first
    heading = table.get_by_role("button", name="Mean R²")
    heading.focus()
    page.keyboard.press("Enter")
    values = [float(t) for t in table.locator("tbody tr td:nth-child(4)").all_text_contents()]
    assert values == sorted(values)
    page.keyboard.press("Enter")
    values = [float(t) for t in table.locator("tbody tr td:nth-child(4)").all_text_contents()]
    assert values == sorted(values, reverse=True)
    # the marked row is still the one with the largest mean
    assert "(marked)" in table.locator("tbody tr").first.inner_text()


def test_the_contents_lead_to_sections(page: Any, pages: dict[str, Path]) -> None:
    for path in pages.values():
        open_page(page, path)
        for link in page.locator("nav a[href^='#']").all():
            href = link.get_attribute("href")
            assert page.locator(f"main [id='{href[1:]}'], main{href}").count() == 1
