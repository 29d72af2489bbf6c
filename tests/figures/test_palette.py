"""Colours that carry a meaning differ for everybody, by the formulas of two other libraries.

What people see who lack one kind of cone is simulated as by Machado, Oliveira & Fernandes (2009),
https://doi.org/10.1109/TVCG.2009.113, at full severity, by colorspacious; differences are CIEDE2000
(Sharma, Wu & Dalal 2005), by scikit-image.
"""

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from brainlm_bids.figures import palette
from brainlm_bids.figures.mosaic import CONTOUR_COLOURS
from brainlm_bids.figures.networks import network_cmap, network_colours
from brainlm_bids.interfaces.cohort.tables import MOST_COLOURS

colorspacious = pytest.importorskip("colorspacious", reason="the extra dev is not installed")
VISIONS = ("normal", "protanomaly", "deuteranomaly", "tritanomaly")
LEAST = 15.0
NETWORKS = [network.colour for network in palette.NETWORKS]
GREYS = ["#000000", "#404040", "#808080", "#c0c0c0"]


def _rgb(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def _seen(colours: list[str], vision: str) -> np.ndarray:
    rgb = np.array([_rgb(colour) for colour in colours])
    if vision == "normal":
        return rgb
    space = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}
    return np.clip(colorspacious.cspace_convert(rgb, space, "sRGB1"), 0, 1)


def _least(colours: list[str], behind: list[str], vision: str) -> tuple[float, str, str]:
    """The smallest difference of two colours, or of one and what may be behind it."""
    names = [*colours, *behind]
    lab = rgb2lab(_seen(names, vision))
    pairs = [p for p in itertools.combinations(range(len(names)), 2) if p[0] < len(colours)]
    return min((float(deltaE_ciede2000(lab[i], lab[j])), names[i], names[j]) for i, j in pairs)


@pytest.mark.parametrize("vision", VISIONS)
def test_the_networks_differ(vision: str) -> None:
    assert _least(NETWORKS, ["#ffffff", palette.FAINT], vision)[0] >= LEAST


@pytest.mark.parametrize("vision", VISIONS)
def test_the_categories_differ(vision: str) -> None:
    assert _least(list(palette.CATEGORIES), ["#ffffff", palette.FAINT], vision)[0] >= LEAST


# What a legend tells apart in one panel, by colour alone
TOGETHER = {
    "axes of motion": [palette.NOISE, palette.SIGNAL, palette.ACCENT],
    "predictors": [palette.NOISE, palette.AMBER, palette.MUTED, palette.ACCENT],
    "models": [palette.NOISE, palette.ACCENT, palette.PURPLE, palette.GREEN],
}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("panel", TOGETHER)
def test_lines_and_bars_of_a_panel_differ(panel: str, vision: str) -> None:
    assert _least(TOGETHER[panel], ["#ffffff", palette.FAINT], vision)[0] >= LEAST


@pytest.mark.parametrize("vision", VISIONS)
def test_contours_differ_on_a_grey_image(vision: str) -> None:
    assert _least(list(CONTOUR_COLOURS), GREYS, vision)[0] >= LEAST


def test_the_measure_finds_colours_that_are_alike() -> None:
    """Of the two colours, red-green blindness leaves a difference of brightness at most."""
    alike = ["#cb3a45", "#8d6e53"]
    assert _least(alike, [], "normal")[0] > 20 > 10 > _least(alike, [], "protanomaly")[0]


def test_every_category_has_a_colour() -> None:
    assert len(set(palette.CATEGORIES)) >= MOST_COLOURS


def test_colours_of_networks_are_the_same_in_tables_and_figures() -> None:
    assert network_colours(np.arange(1, 8)) == NETWORKS
    assert network_colours(np.array([0])) == [palette.FAINT]
    assert list(network_cmap().colors) == [palette.FAINT, *NETWORKS]


def _contrast(one: str, other: str) -> float:
    low, high = sorted(
        0.05 + np.dot(colorspacious.cspace_convert(_rgb(c), "sRGB1", "XYZ1"), [0, 1, 0])
        for c in (one, other)
    )
    return float(high / low)


@pytest.mark.parametrize("ink", ["INK", "MUTED"])
def test_words_of_figures_can_be_read(ink: str) -> None:
    assert _contrast(getattr(palette, ink), "#ffffff") >= 4.5


@pytest.mark.parametrize("network", palette.NETWORKS, ids=lambda network: network.abbreviation)
def test_names_on_a_strip_can_be_read(network: palette.Network) -> None:
    chosen = palette.ink_on(network.colour)
    contrasts = {ink: _contrast(ink, network.colour) for ink in ("#ffffff", palette.INK)}
    assert contrasts[chosen] == max(contrasts.values()) >= 4.5
