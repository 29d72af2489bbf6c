"""What the tests ask of a page in a real browser. The fixtures are in `tests/browser/conftest.py`.

def test_my_page(page: Page, output: Path) -> None:
    open_page(page, output / "index.html")
    assert_clean(page)
    no_sideways_scroll(page, 420)
    assert not accessibility_findings(page)
    assert "sub-24" in printed_text(page, tmp_path / "index.pdf")
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

# A phone, a tablet, a laptop; in CSS pixels
WIDTHS = (420, 768, 1280)
AXE = Path(__file__).parent / "browser" / "node_modules" / "axe-core" / "axe.min.js"
# axe-core's grades from minor to critical: what a page must not have
GRAVE = ("serious", "critical")
# Elements that reach beyond the window and do not lie in a box that scrolls by itself
_TOO_WIDE = """() => {
  const scrolls = (element) => {
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement) {
      if (getComputedStyle(box).overflowX !== "visible") return true;
    }
    return false;
  };
  const width = document.documentElement.clientWidth;
  return [...document.body.querySelectorAll("*")]
    .filter((element) => element.getBoundingClientRect().right > width + 1 && !scrolls(element))
    .map((element) => element.outerHTML.slice(0, 120));
}"""
_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} forbids ${event.blockedURI}`);
});"""


def required() -> bool:
    """Whether a missing browser is a failure (`REQUIRED=1`, as CI sets it) and not a skip."""
    return bool(os.environ.get("REQUIRED"))


def missing(reason: str) -> None:
    """Skip the test, or fail it where the browser is required."""
    if required():
        pytest.fail(reason)
    pytest.skip(reason)


def listen(context: Any) -> list[str]:
    """Collect what goes wrong in a browser's context: the list grows while pages are open.

    Messages of the console at any level, errors of scripts, requests that failed or were refused,
    and what the content policy forbade.
    """
    complaints: list[str] = []
    context.add_init_script(_VIOLATIONS)
    context.on("console", lambda said: complaints.append(f"console {said.type}: {said.text}"))
    context.on("weberror", lambda error: complaints.append(f"script: {error.error}"))
    context.on("requestfailed", lambda made: complaints.extend(_failure(made)))
    context.on(
        "response",
        lambda got: complaints.append(f"{got.status}: {got.url}") if got.status >= 400 else None,
    )
    context.complaints = complaints
    return complaints


def _failure(made: Any) -> list[str]:
    """What to complain of; a browser that leaves a page gives up what it still loads."""
    return [] if made.failure == "net::ERR_ABORTED" else [f"failed: {made.url} ({made.failure})"]


def open_page(page: Any, path: Path, anchor: str = "") -> None:
    """Open a file as a person does, by its path, and wait until all its pictures are there."""
    page.goto(path.resolve().as_uri() + anchor, wait_until="load")


def wait_until(page: Any, expression: str, seconds: float = 10.0) -> None:
    """Wait until an expression of JavaScript holds.

    `page.wait_for_function` would evaluate it again and again in the page, whose policy forbids it.
    """
    for _ in range(int(seconds / 0.05)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not after {seconds:g} s: {expression}")


def assert_clean(page: Any) -> None:
    """Fail if anything was written to the console, failed to load, or broke the content policy.

    Pictures that are on the page but show nothing are failures, too.
    """
    # not "networkidle": frames that a script adds, as of figures that fade, never report it
    page.wait_for_load_state("load")
    page.evaluate(
        "document.querySelectorAll('img[loading=lazy]').forEach(i => i.loading = 'eager')"
    )
    wait_until(page, "[...document.images].every((image) => image.complete)")
    page.wait_for_timeout(100)
    broken = page.evaluate(
        "[...document.images].filter((i) => i.getAttribute('src') && i.naturalWidth === 0)"
        ".map((i) => i.getAttribute('src').slice(0, 100))"
    )
    faults = [*page.context.complaints, *(f"picture shows nothing: {name}" for name in broken)]
    assert not faults, "\n".join(faults)


def no_sideways_scroll(page: Any, width: int) -> None:
    """Fail if the page is wider than a window of that width, and say which elements are."""
    page.set_viewport_size({"width": width, "height": 900})
    root = "document.documentElement"
    inner, outer = page.evaluate(f"[{root}.scrollWidth, {root}.clientWidth]")
    too_wide = page.evaluate(_TOO_WIDE)
    assert inner <= outer, f"{inner} px in a window of {outer}: {too_wide[:5]}"


def dark(page: Any) -> None:
    """Show the page as it looks to a person who prefers a dark screen."""
    page.emulate_media(color_scheme="dark")


def accessibility_findings(page: Any) -> list[str]:
    """Serious and critical findings of axe-core on the page as it is shown now.

    Returns
    -------
    list of str
        A line per finding: the rule, what it says, and up to three of the elements.
    """
    if not AXE.is_file():
        missing("axe-core is not installed: make browser-tools")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    # frames hold figures alone; they are looked at on their own
    found = page.evaluate("axe.run(document, {iframes: false, resultTypes: ['violations']})")
    return [
        f"{finding['id']} ({finding['impact']}): {finding['help']}: "
        + "; ".join(node["html"][:160] for node in finding["nodes"][:3])
        for finding in found["violations"]
        if finding["impact"] in GRAVE
    ]


def printed_text(page: Any, path: Path) -> str:
    """Print the page to `path` (PDF, A4), and return the words on its sheets."""
    import pypdf

    page.pdf(path=str(path), format="A4")
    sheets = pypdf.PdfReader(path).pages
    words = re.sub(r"\s+", " ", " ".join(sheet.extract_text() for sheet in sheets))
    # fonts join some letters, such as f and i, to one sign
    return unicodedata.normalize("NFKC", words)


def beyond_the_paper(pdf: Path) -> list[str]:
    """Words that start outside of their sheet, or are wider than what is left of it."""
    import pypdf

    outside: list[str] = []
    for sheet in pypdf.PdfReader(pdf).pages:
        right = float(sheet.mediabox.right)

        def look(text: str, current: Any, matrix: Any, *_: Any, right: float = right) -> None:
            x = matrix[4] * current[0] + current[4]
            if text.strip() and not 0 <= x < right - 10:
                outside.append(text)

        sheet.extract_text(visitor_text=look)
    return outside
