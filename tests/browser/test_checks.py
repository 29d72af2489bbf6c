"""The checks themselves find what they are there to find, and pass a page without a fault."""

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

POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'"


def _write(folder: Path, body: str, style: str = "") -> Path:
    path = folder / "page.html"
    path.write_text(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A page</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{style}</style>'
        f"</head><body><main><h1>A page</h1>{body}</main></body></html>"
    )
    return path


def test_a_sound_page_passes(page: Any, tmp_path: Path) -> None:
    wide = '<div style="overflow-x: auto" tabindex="0" role="region" aria-label="Wide">'
    wide += '<p style="width: 2000px">wide</p></div>'
    open_page(page, _write(tmp_path, f"<p>Words</p>{wide}"))
    assert_clean(page)
    no_sideways_scroll(page, 420)
    assert accessibility_findings(page) == []
    assert printed_text(page, tmp_path / "page.pdf") == "A page Words wide"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<img src="gone.png" alt="gone">', "gone.png"),
        ("<script>console.log(1)</script>", "policy: script-src-elem forbids inline"),
        ('<img src="https://example.org/a.png" alt="far">', "policy: img-src forbids"),
        ('<p onclick="alert(1)">x</p>', "policy: script-src-attr forbids inline"),
    ],
    ids=["missing", "script", "network", "handler"],
)
def test_a_faulty_page_is_not_clean(page: Any, tmp_path: Path, body: str, complaint: str) -> None:
    open_page(page, _write(tmp_path, body))
    with pytest.raises(AssertionError) as failure:
        assert_clean(page)
    assert complaint in str(failure.value)


def test_a_broken_picture_is_not_clean(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    open_page(page, _write(tmp_path, '<img src="broken.png" alt="broken">'))
    with pytest.raises(AssertionError, match=r"broken\.png"):
        assert_clean(page)


def test_a_wide_page_is_told_with_its_element(page: Any, tmp_path: Path) -> None:
    open_page(page, _write(tmp_path, '<p id="wide" style="width: 900px">wide</p>'))
    no_sideways_scroll(page, 1280)
    with pytest.raises(AssertionError, match='id="wide"'):
        no_sideways_scroll(page, 420)


def test_axe_sees_pale_text_in_the_colours_that_are_shown(page: Any, tmp_path: Path) -> None:
    style = "@media (prefers-color-scheme: dark) { p { color: #888; background: #777; } }"
    open_page(page, _write(tmp_path, "<p>Words</p>", style))
    assert accessibility_findings(page) == []
    dark(page)
    assert [line.split()[0] for line in accessibility_findings(page)] == ["color-contrast"]
