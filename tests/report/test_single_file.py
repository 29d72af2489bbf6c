"""A page with its pictures in it: all of them, byte for byte, and nothing else changed."""

import base64
import re
from pathlib import Path

from brainlm_bids.report.figure_files import FigureFile
from brainlm_bids.report.page import environment
from brainlm_bids.report.single_file import with_pictures

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><text y="9">µ</text></svg>'
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
PAGE = (
    '{% from "macros.html.j2" import figures %}{% extends "page.html.j2" %}'
    "{% block title %}T{% endblock %}{% block contents %}{% endblock %}"
    "{% block main %}<h1>T</h1>{{ figures(items) }}"
    '<p><a href="./table.tsv">Table</a></p>{% endblock %}'
)


def write_page(folder: Path) -> str:
    """A page with an interactive SVG, a PNG with a space in its name, and one that is missing."""
    from brainlm_bids.report.page import Places

    (folder / "figures").mkdir()
    (folder / "figures" / "a.svg").write_text(SVG, encoding="utf-8")
    (folder / "figures" / "b c.png").write_bytes(PNG)
    items = [
        FigureFile("A", "Caption.", "An A", "figures/a.svg", True, (20, 10)),
        FigureFile("B", "Caption.", "A B", "figures/b c.png"),
        FigureFile("C", "Caption.", "A C", "figures/gone.svg"),
    ]
    return environment().from_string(PAGE).render(places=Places(), items=items)


def test_every_picture_is_in_the_page(tmp_path: Path) -> None:
    page = with_pictures(write_page(tmp_path), tmp_path)
    found = re.findall(r'src="data:([a-z+/]+);base64,([^"]+)"', page)
    pictures = [(kind, base64.b64decode(content)) for kind, content in found]
    assert pictures == [("image/svg+xml", SVG.encode()), ("image/png", PNG)]
    assert page.count("figures/gone.svg") == 2  # its link, too
    assert page.count('<button type="button" class="opens" hidden>Open the figure</button>') == 2
    assert '<a href="./table.tsv">Table</a>' in page


def test_the_policy_allows_data_in_place_of_files(tmp_path: Path) -> None:
    linked = write_page(tmp_path)
    policies = [
        re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]  # type: ignore[index]
        for page in (linked, with_pictures(linked, tmp_path))
    ]
    assert "object-src 'self' file:; frame-src 'self' file:" in policies[0]
    assert "object-src data:; frame-src data:" in policies[1]
    scripts = [re.findall("script-src '[^']+'", policy) for policy in policies]
    assert scripts[0] == scripts[1] != []


def test_a_page_without_pictures_stays_as_it_is(tmp_path: Path) -> None:
    page = '<p>&lt;img src="./a.svg"&gt;</p><a href="./sub-01.html">sub-01</a>'
    assert with_pictures(page, tmp_path) == page
