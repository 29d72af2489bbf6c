"""Options: what a value may be, and how it is read from a command line or from a TOML file.

An `Option` is one row of a table: its name, type, default, unit, bounds, choices and help. Text
(`"0.01Hz"`) and values of TOML (`100`) go through the same checks. This module needs Python's
standard library alone.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from brainlm_bids.errors import UserError

UNIT_NAMES = {"s": "seconds", "mm": "millimetres", "GB": "gigabytes"}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµμ]*)\s*")
_FREQUENCIES = {"hz": 1.0, "mhz": 1e-3}
# What one of each is in the option's unit. Frequencies are reciprocals, and handled apart.
_FACTORS = {
    "s": {"s": 1.0, "sec": 1.0, "ms": 1e-3, "min": 60.0},
    "mm": {"mm": 1.0, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3},
    "GB": {
        **{"k": 1e-6, "kb": 1e-6, "kib": 1.024e-6, "m": 1e-3, "mb": 1e-3, "mib": 1.048576e-3},
        **{"g": 1.0, "gb": 1.0, "gib": 1.073741824, "t": 1e3, "tb": 1e3, "tib": 1099.511627776},
    },
}


@dataclass(frozen=True)
class Bounds:
    """An interval, written as in mathematics.

    Examples
    --------
    >>> 0 in Bounds("(0, 1]"), 1 in Bounds("(0, 1]")
    (False, True)
    """

    text: str

    @property
    def low(self) -> float:
        """Lower bound."""
        return float(self.text[1:-1].split(",")[0])

    @property
    def high(self) -> float:
        """Upper bound."""
        return float(self.text[1:-1].split(",")[1])

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.text[0] == "[" else value > self.low
        return above and (value <= self.high if self.text[-1] == "]" else value < self.high)

    def described(self, noun: str) -> str:
        """The interval in words.

        Examples
        --------
        >>> Bounds("[1, inf)").described("a whole number")
        'a whole number, 1 or more'
        >>> Bounds("(0, 1)").described("a number")
        'a number between 0 and 1'
        """
        low, high = f"{self.low:g}", f"{self.high:g}"
        if self.high == inf:
            return f"{noun} above {low}" if self.text[0] == "(" else f"{noun}, {low} or more"
        if self.text[0] + self.text[-1] == "()":
            return f"{noun} between {low} and {high}"
        if self.text[0] + self.text[-1] == "[]":
            return f"{noun} from {low} to {high}"
        start = f"above {low} and at most" if self.text[0] == "(" else f"from {low} to below"
        return f"{noun} {start} {high}"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a command.

    Parameters
    ----------
    name
        With underscores, as in TOML files; the flag has dashes.
    kind
        bool, int, float, str or Path: of each item where there are `several`.
    help
        What it does, without its default.
    default, default_text
        The value where it is not given, and what that means where the value does not say it.
    unit, bounds
        Of numbers; bounds as an interval, `"(0, 1]"`.
    choices
        The words that are allowed; of `words`, any other value is a path.
    spellings, aliases
        More flags; an alias may have a unit of its own.
    convert
        Reads text in a way of its own.
    alone
        The value where the flag is given without one.
    """

    name: str
    kind: type
    help: str
    default: Any = None
    default_text: str = ""
    several: bool = False
    unit: str | None = None
    bounds: str = ""
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    metavar: str = ""
    spellings: tuple[str, ...] = ()
    aliases: Mapping[str, str | None] | None = None
    counted: bool = False
    convert: Callable[[str], Any] | None = None
    alone: Any = None

    @property
    def flag(self) -> str:
        """Option of the command line, such as `--high-pass`."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, text: str) -> Any:
        """One item from text.

        Raises
        ------
        UserError
            If the text is no such value. The message does not name the option.
        """
        if self.convert is not None:
            return self.convert(text)
        if self.choices and text not in self.choices:
            raise UserError(f"{text!r} is none of {', '.join(self.choices)}")
        if self.kind is Path:
            # not resolve(): the links of a DataLad data set must keep their BIDS names
            return Path(text).expanduser().absolute()
        return self._number(text) if self.kind in (int, float) else text

    def check(self, value: Any) -> Any:
        """A value of TOML in the type of the option.

        Raises
        ------
        UserError
            If it is of another type or out of bounds. The message does not name the option.
        """
        if not self.several:
            return self._check_item(value)
        if not isinstance(value, list):
            raise UserError(f"{value!r} has the wrong type: a list is expected")
        return tuple(self._check_item(item) for item in value)

    def shown_default(self) -> str:
        """The default as help and documentation show it; empty for switches."""
        if self.default_text or self.default is None or self.kind is bool or self.counted:
            return self.default_text
        values = self.default if self.several else (self.default,)
        text = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        return f"{text} {self.unit}" if self.unit in UNIT_NAMES else text

    def _check_item(self, value: Any) -> Any:
        if isinstance(value, str) and (self.kind in (str, Path) or self.unit in UNIT_NAMES):
            return self.read(value)
        value = float(value) if self.kind is float and type(value) is int else value
        if type(value) is not self.kind:
            raise UserError(f"{value!r} has the wrong type: {self._noun()} is expected")
        if isinstance(value, int | float):
            self._check_bounds(value, f"{value:g}", bare=True)
        return value

    def _number(self, text: str) -> int | float:
        found = _NUMBER.fullmatch(text)
        if found is None:
            raise self._not_a_value(text)
        number, suffix = found[1], found[2].lower()
        if self.kind is int:
            if suffix or not number.lstrip("+-").isdigit():
                raise self._not_a_value(text)
            value: int | float = int(number)
        else:
            value = self._in_unit(float(number), suffix, text)
        self._check_bounds(value, text, bare=not suffix)
        return value

    def _in_unit(self, value: float, suffix: str, text: str) -> float:
        if not suffix:
            return value
        if self.unit == "s" and suffix in _FREQUENCIES and value > 0:
            return 1 / (value * _FREQUENCIES[suffix])
        factor = _FACTORS.get(self.unit or "", {}).get(suffix)
        if factor is None:
            raise self._not_a_value(text)
        return value * factor

    def _check_bounds(self, value: float, text: str, *, bare: bool) -> None:
        if not self.bounds or value in Bounds(self.bounds):
            return
        meant = self._meant(value, Bounds(self.bounds)) if bare and value > 0 else ""
        raise UserError(f"{text}? {meant}") if meant else self._not_a_value(text)

    def _meant(self, value: float, bounds: Bounds) -> str:
        """What a number out of bounds is if it was given in another unit; empty if nothing."""
        given, thousandth = f"{value:.10g}", f"{value / 1000:.10g}"
        if self.unit == "s" and value < bounds.low and 1 / value in bounds:
            return f"The unit is seconds: {1 / value:g} is {given} Hz"
        if self.unit in ("s", "mm") and value > bounds.high and value / 1000 in bounds:
            small = "ms" if self.unit == "s" else "micrometres"
            return f"The unit is {UNIT_NAMES[self.unit]}: {thousandth} is {given} {small}"
        if self.unit is None and bounds.high == 1 and 5 <= value <= 100 and value / 100 in bounds:
            return f"It is a fraction: {value / 100:g} is {given} %"
        return ""

    def _not_a_value(self, text: str) -> UserError:
        noun = self._noun()
        wanted = Bounds(self.bounds).described(noun) if self.bounds else noun
        return UserError(f"{text!r} is not {wanted}")

    def _noun(self) -> str:
        if self.unit in UNIT_NAMES:
            return f"a number of {UNIT_NAMES[self.unit]}"
        names = {bool: "true or false", int: "a whole number", float: "a number"}
        return names.get(self.kind, "a text")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to append to a message about an unknown word; empty where nothing is close.

    Examples
    --------
    >>> did_you_mean("--high-pas", ["--high-pass", "--low-pass"])
    '; did you mean --high-pass?'
    """
    lower = {text.lower(): text for text in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else ""
