"""Every colour of a word stands out from what lies behind it, on the light and the dark page."""

import re

import pytest

from brainlm_bids.files import DATA, read_text

# The parts of the page: what is written in, on what
PAIRS = [
    *[(word, paper) for word in ("ink", "muted", "accent") for paper in ("paper", "pale")],
    *[(f"{level}-ink", f"{level}-pale") for level in ("danger", "warn", "ok", "note")],
    *[(word, "warn-pale") for word in ("ink", "muted")],  # an odd card
    *[(word, "note-pale") for word in ("ink", "muted", "accent")],  # the best row
    *[(word, "paper") for word in ("danger", "warn", "ok")],
    *[(word, "nav") for word in ("nav-ink", "nav-strong", "nav-muted", "nav-bad")],
    *[(word, "nav-hover") for word in ("nav-ink", "nav-strong", "nav-bad")],
    ("ink", "line"),  # a pill
    ("code-ink", "code"),
    ("on-accent", "accent"),
]
# WCAG 2.2, success criteria 1.4.3 and 1.4.11
WORDS, OUTLINE = 4.5, 3.0


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _colours(scheme: str) -> dict[str, str]:
    """Variables of the page; the dark page changes some of the light one."""
    light, dark = re.findall(r":root \{(.*?)\}", read_text(DATA / "styles" / "base.css"), re.S)[:2]
    text = light + (dark if scheme == "dark" else "")
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", text))


def test_the_contrast_is_that_of_wcag() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(scheme: str) -> None:
    colours = _colours(scheme)
    pale = {
        pair: round(_contrast(colours[pair[0]], colours[pair[1]]), 2)
        for pair in PAIRS
        if _contrast(colours[pair[0]], colours[pair[1]]) < WORDS
    }
    assert not pale


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_focus_can_be_seen(scheme: str) -> None:
    colours = _colours(scheme)
    for ring, paper in (("focus", "paper"), ("focus", "pale"), ("nav-focus", "nav")):
        assert _contrast(colours[ring], colours[paper]) >= OUTLINE, (ring, paper)


def test_no_style_has_colours_of_its_own() -> None:
    """A colour that is written out would be the same on the dark page."""
    for path in sorted((DATA / "styles").glob("*.css")):
        rules = re.sub(r":root \{.*?\}", "", read_text(path), flags=re.S)
        found = re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\s])|\brgba?\(|\bhsla?\(", rules)
        assert not found, f"{path.name}: {found}"
