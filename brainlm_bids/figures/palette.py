"""Colours and labels that figures and reports share: no drawing, and no import of matplotlib.

INK and MUTED are colours of words: their contrast with white is at least 4.5:1.
"""

from __future__ import annotations

from typing import NamedTuple

INK = "#1f2933"
MUTED = "#5c6166"
FAINT = "#d9dee4"
NOISE = "#cd3318"
SIGNAL = "#1f8696"
ACCENT = "#31508c"
AMBER = "#da910f"
# Behind bad volumes
BAD = "#fbe3b5"

PURPLE = "#8d74b0"
GREEN = "#0fa468"
BROWN = "#8d6e53"

# Of the categories of a variable, in the order of their names. They differ as those of NETWORKS do.
CATEGORIES = (
    *("#103a76", "#9b3f20", "#9180bb", "#3be67c", "#a88f00"),
    *("#3a251a", "#4a7361", "#e3affc", "#50a192", "#f21771"),
)

# Of ranges of a number, from the lowest to the highest: viridis in seven steps
SEQUENTIAL = ("#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#fde725")


class Network(NamedTuple):
    """One of the seven networks AA-7: abbreviation, name, and its colour in every figure."""

    abbreviation: str
    name: str
    colour: str


# Akiki & Abdallah (2019), https://doi.org/10.1038/s41598-019-55738-y. Index 0 is network 1.
# Any two colours, and each and white or FAINT, differ by a CIEDE2000 of at least 15, for people who
# lack one kind of cone (Machado et al. 2009), too. Found by annealing near the usual hues.
NETWORKS: tuple[Network, ...] = (
    Network("VI", "Visual", "#8e51d1"),
    Network("VS", "Ventral Salience", "#bd96c4"),
    Network("CE", "Central Executive", "#f49b00"),
    Network("SM", "Sensorimotor", "#255676"),
    Network("DM", "Default Mode", "#c3344b"),
    Network("DS", "Dorsal Salience", "#40b484"),
    Network("SC", "Subcortical", "#634009"),
)


def ink_on(colour: str) -> str:
    """Colour of words on a patch: white or INK, whichever stands out more.

    Parameters
    ----------
    colour
        Of the patch, such as "#8e51d1".

    Returns
    -------
    str
        A hexadecimal colour.

    References
    ----------
    Contrast as in WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio

    Examples
    --------
    >>> ink_on("#000000"), ink_on("#ffffff")
    ('#ffffff', '#1f2933')
    """
    behind, dark = _luminance(colour) + 0.05, _luminance(INK) + 0.05
    return "#ffffff" if 1.05 / behind > behind / dark else INK


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# What networks are made from: name in the tables, label
NETWORK_FEATURES = {
    "model": "model",
    "attention": "attention of the model",
    "series": "functional connectivity",
    "untrained": "random weights",
    "coordinates": "coordinates of the parcels",
    "spatial_null_mean": "smooth random fields, mean",
    "spatial_null_95": "smooth random fields, 95 %",
}


# Of what targets are decoded from, by the column `features` of the table of decodings
DECODED_FROM = {
    "embedding": NOISE,
    "finetuned": PURPLE,
    "connectivity": ACCENT,
    "series": SIGNAL,
    "motion": AMBER,
    "untrained": MUTED,
    "coordinates": BROWN,
    "baseline": FAINT,
}
