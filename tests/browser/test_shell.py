"""What all pages share: tables that sort, boxes that scroll, a navigation that folds, print."""

from pathlib import Path
from typing import Any

import pytest
from browser_checks import (
    WIDTHS,
    accessibility_findings,
    assert_clean,
    beyond_the_paper,
    dark,
    no_sideways_scroll,
    open_page,
    printed_text,
    wait_until,
)

from brainlm_bids.report.page import Places, environment

FRAME = (
    '{% extends "page.html.j2" %}{% block title %}A title{% endblock %}'
    '{% block contents %}<li><a href="#first">First</a></li>{% endblock %}'
    "{% block main %}BODY{% endblock %}"
)
WORD = "Cerebellum"


def _open(page: Any, folder: Path, body: str, head: str = "<h1>A title</h1>") -> None:
    (folder / "index.html").write_text("<!DOCTYPE html><title>Index</title>")
    text = environment().from_string(FRAME.replace("BODY", f'<h2 id="first">First</h2>{body}'))
    path = folder / "page.html"
    path.write_text(text.render(places=Places(index="index.html")).replace("<h2", f"{head}<h2", 1))
    open_page(page, path)


def _table(cells: list[str], attributes: str = "data-sortable") -> str:
    rows = "".join(f"<tr><td>{at}</td>{cell}</tr>" for at, cell in enumerate(cells))
    head = "<th>Row</th><th>Value</th><th data-unsortable>Picture</th>"
    return f"<table {attributes}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _wide_table(n_rows: int = 60) -> str:
    head = "".join(f"<th>{WORD} {column}</th>" for column in range(14))
    rows = "".join(
        "<tr>" + "".join(f"<td>r{row}c{column} {WORD}</td>" for column in range(14)) + "</tr>"
        for row in range(n_rows)
    )
    return (
        '<section><div class="scroll tall"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _order(page: Any) -> list[int]:
    return [int(text) for text in page.locator("tbody td:first-child").all_inner_texts()]


@pytest.mark.parametrize(
    ("cells", "upwards", "downwards"),
    [
        (["10", "n/a", "9", "−1.5", "9"], [3, 2, 4, 0, 1], [0, 2, 4, 3, 1]),
        (["sub-10", "sub-2", "", "sub-1"], [3, 1, 0, 2], [0, 1, 3, 2]),
        (["0.2 mm", "–", "1e-3 mm", "0.1 mm"], [2, 3, 0, 1], [0, 3, 2, 1]),
        (["b", "10", "a", "9"], [3, 1, 2, 0], [0, 2, 1, 3]),
    ],
    ids=["numbers", "names", "units", "words"],
)
def test_a_table_is_sorted_by_keyboard(
    page: Any, tmp_path: Path, cells: list[str], upwards: list[int], downwards: list[int]
) -> None:
    _open(page, tmp_path, _table([f"<td>{cell}</td>" for cell in cells]))
    heading = page.locator("th", has_text="Value")
    assert heading.get_attribute("aria-sort") == "none"
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert (_order(page), heading.get_attribute("aria-sort")) == (upwards, "ascending")
    page.keyboard.press("Space")
    assert (_order(page), heading.get_attribute("aria-sort")) == (downwards, "descending")
    page.get_by_role("button", name="Row").click()
    assert _order(page) == list(range(len(cells)))
    assert heading.get_attribute("aria-sort") == "none"
    assert page.locator("th", has_text="Picture").locator("button").count() == 0
    assert accessibility_findings(page) == []
    assert_clean(page)


def test_the_value_counts_and_not_its_text(page: Any, tmp_path: Path) -> None:
    cells = [
        f'<td data-value="{value}">{text}</td>'
        for value, text in (("3", "a"), ("", "b"), ("20", "c"), ("1", "d"))
    ]
    _open(page, tmp_path, _table(cells))
    page.get_by_role("button", name="Value").click()
    assert _order(page) == [3, 0, 2, 1]


def test_a_table_that_is_not_sortable_is_left_alone(page: Any, tmp_path: Path) -> None:
    _open(page, tmp_path, _table(["<td>1</td>"], ""))
    assert page.locator("th button").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_a_wide_table_scrolls_in_its_box_by_keyboard(page: Any, tmp_path: Path, width: int) -> None:
    _open(page, tmp_path, _wide_table())
    no_sideways_scroll(page, width)
    wait_until(page, "document.querySelector('.scroll').tabIndex === 0")
    box = page.get_by_role("region", name="First")
    box.focus()
    page.keyboard.press("End")
    wait_until(page, "document.querySelector('.scroll').scrollTop > 100")
    assert accessibility_findings(page) == []
    # a cell holds two words; were they broken after each letter, it would be far higher
    assert page.locator("tbody td").first.bounding_box()["height"] < 60


def test_a_box_that_does_not_scroll_is_no_stop_of_the_keyboard(page: Any, tmp_path: Path) -> None:
    _open(page, tmp_path, '<div class="scroll"><table><tr><td>1</td></tr></table></div>')
    assert page.locator(".scroll").get_attribute("tabindex") is None
    assert page.locator(".scroll").get_attribute("role") is None


def test_the_navigation_folds_on_a_phone_and_only_there(page: Any, tmp_path: Path) -> None:
    _open(page, tmp_path, '<div style="height: 3000px"></div>')
    link = page.locator("nav li a")
    assert link.is_visible()
    assert not page.locator("nav summary").is_visible()
    page.set_viewport_size({"width": 420, "height": 800})
    link.wait_for(state="hidden")
    page.locator("nav summary").focus()
    page.keyboard.press("Enter")
    link.wait_for(state="visible")
    link.click()
    link.wait_for(state="hidden")
    page.set_viewport_size({"width": 1280, "height": 800})
    link.wait_for(state="visible")
    assert_clean(page)


def test_the_keyboard_skips_the_navigation(page: Any, tmp_path: Path) -> None:
    _open(page, tmp_path, "")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_printed_on_white(page: Any, tmp_path: Path, scheme: str) -> None:
    if scheme == "dark":
        dark(page)
    folded = "<details><summary>More</summary><p>What was folded</p></details>"
    _open(page, tmp_path, f"{_wide_table()}{folded}<pre>{'line<br>' * 100}last</pre>")
    pdf = tmp_path / "page.pdf"
    words = printed_text(page, pdf)
    assert all(f"r{row}c{column} " in words for row in range(60) for column in range(14))
    assert "What was folded" in words
    assert "last" in words
    assert "Skip" not in words and "Contents" not in words
    assert not beyond_the_paper(pdf)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 41, 51)"


def test_without_a_script_all_is_there(browser: Any, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 420, "height": 800})
    page = context.new_page()
    _open(page, tmp_path, _table(["<td>10</td>", "<td>9</td>"]))
    assert page.locator("nav li a").is_visible()
    assert page.locator("tbody tr").count() == 2
    context.close()
