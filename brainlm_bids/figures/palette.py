"""Colours and labels that figures and reports share: no drawing, and no import of matplotlib."""

from __future__ import annotations

from typing import NamedTuple

INK = "#1f2933"
MUTED = "#7b8794"
FAINT = "#d9dee4"
NOISE = "#c8553d"
SIGNAL = "#2a7f8e"
ACCENT = "#31508c"
AMBER = "#d98e04"
# Behind bad volumes
BAD = "#fbe3b5"

PURPLE = "#7d3c98"
PINK = "#e377c2"
GREEN = "#2e9e52"
BROWN = "#8d6e53"

# Of the categories of a variable, in the order of their names
CATEGORIES = (ACCENT, NOISE, GREEN, AMBER, PURPLE, SIGNAL, BROWN, PINK)

# Of ranges of a number, from the lowest to the highest: viridis in seven steps
SEQUENTIAL = ("#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#fde725")


class Network(NamedTuple):
    """One of the seven networks AA-7: abbreviation, name, and its colour in every figure."""

    abbreviation: str
    name: str
    colour: str


# Akiki & Abdallah (2019), https://doi.org/10.1038/s41598-019-55738-y. Index 0 is network 1.
NETWORKS: tuple[Network, ...] = (
    Network("VI", "Visual", PURPLE),
    Network("VS", "Ventral Salience", PINK),
    Network("CE", "Central Executive", "#f39c12"),
    Network("SM", "Sensorimotor", "#2e75b6"),
    Network("DM", "Default Mode", "#cb3a45"),
    Network("DS", "Dorsal Salience", GREEN),
    Network("SC", "Subcortical", BROWN),
)


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
