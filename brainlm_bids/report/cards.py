"""The numbers of a recording at a glance: what they are about, in words, and whether they are fine.

The numbers are the measures of the whole folder; the limits are those of `data/cards.toml` and the
fixed ones of `brainlm_bids.report.measures`. A number without a limit has no colour, unless it is
unusual among the recordings of its task.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from brainlm_bids.files import DATA, read_text
from brainlm_bids.report.measures import (
    LOW,
    Measure,
    Range,
    fixed_limit,
    in_order,
    is_measure,
    measure,
    static_measures,
)
from brainlm_bids.report.values import joined

FINE, LOOK, BAD = "fine", "look", "bad"
# In words, beside a sign, so that no colour is needed.
WORDS = {FINE: "fine", LOOK: "take a look", BAD: "not good"}
SIGNS = {FINE: "✓", LOOK: "!", BAD: "✗"}
_REGISTRATION = "Registration"


@dataclass(frozen=True)
class Limits:
    """A row of the table of cards: see `data/cards.toml`."""

    title: str
    part: str
    look: float | None = None
    bad: float | None = None
    low: float | None = None
    beyond: str = ""
    source: str = ""


@dataclass(frozen=True)
class Card:
    """A number at a glance.

    Attributes
    ----------
    title
        What it is about, in a person's words.
    value
        As text.
    about
        What the number is.
    limit
        Its limits and their source; empty where there are none.
    verdict
        `fine`, `look`, `bad`, or empty where there is no limit.
    part
        The part of the recording's section that shows more.
    number
        The number by which recordings are sorted; None where it is not one.
    """

    title: str
    value: str
    about: str
    limit: str
    verdict: str
    part: str
    number: float | None = None

    @property
    def sign(self) -> str:
        """The verdict, for those who see no colours; empty where there is none."""
        return SIGNS.get(self.verdict, "")

    @property
    def words(self) -> str:
        """The same in words."""
        return f"{self.sign} {WORDS[self.verdict]}" if self.verdict else ""


@cache
def card_table() -> dict[str, Limits]:
    """The table, by the keys of the measures."""
    return {
        key: Limits(**row) for key, row in tomllib.loads(read_text(DATA / "cards.toml")).items()
    }


def cards(values: Mapping[str, float], unusual: Mapping[str, str], normalised: str) -> list[Card]:
    """The cards of a recording.

    Parameters
    ----------
    values
        Its numbers, by the keys of the measures.
    unusual
        Why a number is marked, in words, by the same keys (`measures.outliers`).
    normalised
        `T1w` or `boldref`: the image that was registered to the template.

    Returns
    -------
    list of Card
        The registration first: without it no number of a parcel means anything.
    """
    found = [_registration(values, normalised)]
    for key, limits in card_table().items():
        if key == "r2_model":
            found += _reconstructions(values, limits, unusual)
        elif key in values and is_measure(key):
            found.append(_card(measure(key), values[key], limits, unusual, normalised))
    return [one for one in found if one is not None]


def _card(
    one: Measure, value: float, limits: Limits, unusual: Mapping[str, str], normalised: str
) -> Card:
    fixed = fixed_limit(one, normalised) if limits.beyond else None
    verdict = _verdict(one, value, limits, fixed)
    notes = [_in_words(one, limits, fixed)]
    if verdict in (FINE, "") and one.key in unusual:
        verdict = LOOK
        notes.insert(0, unusual[one.key])
    text = "; ".join(filter(None, notes))
    shown = one.shown(value, unit=True)
    return Card(limits.title, shown, one.label, text, verdict, limits.part, value)


def _verdict(one: Measure, value: float, limits: Limits, fixed: Range | None) -> str:
    """What a number is by its own limits; empty where there are none."""
    if fixed is not None:
        return FINE if value in fixed else limits.beyond
    sign = -1.0 if one.bad == LOW else 1.0
    if limits.bad is not None and sign * value > sign * limits.bad:
        return BAD
    if limits.look is not None and sign * value > sign * limits.look:
        return LOOK
    if limits.low is not None and value <= limits.low:
        return LOOK
    return "" if limits.look is None else FINE


def _in_words(one: Measure, limits: Limits, fixed: Range | None) -> str:
    """The limits and where they come from.

    >>> _in_words(measure("mean_fd"), Limits("", "", 0.2, 0.5, source="a convention"), None)
    'fine up to 0.2 mm, not good above 0.5 mm (a convention)'
    """
    source = f" ({limits.source})" if limits.source else ""
    if fixed is not None:
        return f"fine: {fixed.shown(one)}{source}"
    if limits.look is None or limits.low is not None:
        return limits.source
    to, beyond = ("from", "below") if one.bad == LOW else ("up to", "above")
    if limits.look == 0 and limits.bad is None:
        return f"fine: 0{source}"
    text = f"fine {to} {one.shown(limits.look, unit=True)}"
    if limits.bad is not None:
        text += f", not good {beyond} {one.shown(limits.bad, unit=True)}"
    return f"{text}{source}"


def _registration(values: Mapping[str, float], normalised: str) -> Card | None:
    """All numbers of the registration on one card."""
    judged = [
        (one, limit)
        for one in static_measures()
        if one.section == _REGISTRATION and one.key in values
        if (limit := fixed_limit(one, normalised)) is not None
    ]
    if not judged:
        return None
    beyond = [one.short for one, limit in judged if values[one.key] not in limit]
    number = len(judged)
    within = number - len(beyond)
    value = f"{within} of {number} within limits"
    about = f"beyond: {joined(beyond)}" if beyond else joined([one.short for one, _ in judged])
    source = (
        "the limits stand below the figures; they come from simulated heads and a few real ones"
    )
    verdict = BAD if beyond else FINE
    return Card("Alignment", value, about, source, verdict, _REGISTRATION, float(-len(beyond)))


def _reconstructions(
    values: Mapping[str, float], limits: Limits, unusual: Mapping[str, str]
) -> list[Card]:
    """The R² of each model with the fewest values masked, beside the best of the baselines."""
    of_models = [one for one in in_order([key for key in values if is_measure(key)]) if _r2(one)]
    found: dict[str, Card] = {}
    for one in of_models:
        model = one.key.removeprefix("r2_").partition("_masked")[0]
        if model in found or one.bad != LOW:
            continue
        baselines = [
            other for other in of_models if other.key.startswith(f"{one.key}_") and other != one
        ]
        best = max(baselines, key=lambda other: values[other.key], default=None)
        card = _card(one, values[one.key], limits, unusual, "")
        about = one.label
        if best is not None:
            simple = best.short.removeprefix("R² ")
            about += f"; without the model: {best.shown(values[best.key])} ({simple})"
        found[model] = replace(card, title=f"{card.title} by {model}", about=about)
    return list(found.values())


def _r2(one: Measure) -> bool:
    return one.section == "Reconstruction"
