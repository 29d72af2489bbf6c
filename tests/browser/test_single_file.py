"""A page with its pictures in it, copied alone into an empty folder."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from browser_checks import assert_clean, no_sideways_scroll, open_page, printed_text, wait_until

from brainlm_bids.figures import canvas
from brainlm_bids.figures.mosaic import FLICKER
from brainlm_bids.report.figure_files import FigureFile
from brainlm_bids.report.page import Places, environment
from brainlm_bids.report.single_file import with_pictures

PAGE = (
    '{% from "macros.html.j2" import figures %}{% extends "page.html.j2" %}'
    "{% block title %}T{% endblock %}{% block contents %}{% endblock %}"
    "{% block main %}<h1>T</h1>{{ figures(items) }}{% endblock %}"
)


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The page, and nothing beside it: an interactive SVG, and a PNG."""
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    for name, style in (("a.svg", FLICKER), ("b.png", "")):
        with canvas.canvas(folder / "figures" / name, 2.0, style=style) as figure:
            figure.add_subplot().plot([1, 2], gid="fixed")
    items = [
        FigureFile("A", "Caption.", "An A", "figures/a.svg", True, (749, 144)),
        FigureFile("B", "Caption.", "A B", "figures/b.png"),
    ]
    page = environment().from_string(PAGE).render(places=Places(), items=items)
    shutil.move(folder / "figures", tmp_path / "hidden")
    (tmp_path / "mailed").mkdir()
    path = tmp_path / "mailed" / "sub-01.html"
    (folder / "figures").symlink_to(tmp_path / "hidden")
    path.write_text(with_pictures(page, folder), encoding="utf-8")
    shutil.rmtree(tmp_path / "hidden")
    return path


def _figure(page: Any) -> Any:
    """The document of the interactive figure, once it is there."""
    for _ in range(100):
        for frame in page.frames:
            if not frame.url.startswith("data:image/svg+xml"):
                continue
            if frame.evaluate("document.getElementById('fixed') !== null"):
                return frame
        page.wait_for_timeout(50)
    raise AssertionError("the figure is not loaded")


def _animation(page: Any, expected: str) -> tuple[str, str]:
    """Animation and opacity of the hidden image of the interactive figure, once it is so."""
    frame = _figure(page)
    style = "getComputedStyle(document.getElementById('fixed'))"
    for _ in range(100):
        found = tuple(frame.evaluate(f"[{style}.animationName, {style}.opacity]"))
        if found[0] == expected:
            break
        page.wait_for_timeout(50)
    return found


def test_it_shows_all_pictures_and_they_react(page: Any, alone: Path, tmp_path: Path) -> None:
    open_page(page, alone)
    wait_until(page, "document.querySelector('.plate object') !== null")
    assert_clean(page)
    assert _animation(page, "none") == ("none", "0")
    page.locator("object").hover()
    assert _animation(page, "flicker")[0] == "flicker"
    no_sideways_scroll(page, 420)
    assert "Caption." in printed_text(page, tmp_path / "page.pdf")
    assert_clean(page)


def test_the_keyboard_reaches_an_interactive_figure(page: Any, alone: Path) -> None:
    open_page(page, alone)
    wait_until(page, "document.querySelector('.plate object') !== null")
    # a figure that is not yet there takes no focus
    assert _animation(page, "none") == ("none", "0")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "OBJECT":
            break
    assert _animation(page, "flicker")[0] == "flicker"
    page.emulate_media(reduced_motion="reduce")
    assert _animation(page, "none") == ("none", "1")


@pytest.mark.parametrize(("number", "kind"), [(0, "svg"), (1, "png")])
def test_a_picture_opens_in_a_tab_of_its_own(
    page: Any, alone: Path, number: int, kind: str
) -> None:
    open_page(page, alone)
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Open the figure").nth(number).click()
    tab = opened.value
    tab.wait_for_load_state()
    assert tab.evaluate("document.contentType").startswith(f"image/{kind}")
    assert page.context.complaints == []
