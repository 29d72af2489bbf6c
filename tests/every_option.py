"""A Boutiques invocation that gives every option, and what the program must understand by it."""

import shlex
from typing import Any

from brainlm_bids.commands import bids_app, boutiques
from brainlm_bids.settings import TABLE

# where any text of the type would not do
VALUES: dict[str, Any] = {
    "bids_dir": "some data/bids",  # with a space
    "participant_label": ["01", "02"],
    "derivatives": ["fmriprep=fmriprep"],
    "assume_orientation": "LAS",
    "fallback_total_readout_time": "0.05",
    "denoise": "aggr",
    "harmonize": "combat:site",
}


def invocation() -> dict[str, Any]:
    """A value for every input of the descriptor, at its least number or first choice."""
    return {one["id"]: _value(one) for one in boutiques.descriptor()["inputs"]}


def _value(one: dict[str, Any]) -> Any:
    if one["id"] in VALUES:
        return VALUES[one["id"]]
    if one["type"] == "Flag":
        return True
    if one["type"] == "Number":
        low = one.get("minimum", 1)
        high = one.get("maximum", low + 2)
        value: Any = int(low + 1) if one["integer"] else (low + high) / 2
    else:
        value = one.get("value-choices", [f"some {one['id']}"])[0]
    return [value] if one.get("list") else value


def rendered(values: dict[str, Any]) -> list[str]:
    """The command line of an invocation, by the rules of the schema."""
    tool = boutiques.descriptor()
    words: list[str] = []
    keys = {one["value-key"]: one for one in tool["inputs"]}
    for word in tool["command-line"].split():
        one = keys.get(word)
        if one is None:
            words.append(word)
        elif one["id"] in values:
            given = values[one["id"]]
            words += [one["command-line-flag"]] if "command-line-flag" in one else []
            if one["type"] != "Flag":
                words += [str(item) for item in (given if isinstance(given, list) else [given])]
    return words


def check_understood(words: list[str]) -> None:
    """The program reads from a command line what the invocation gave."""
    assert words[0] == "brainlm-bids", shlex.join(words)
    given = vars(bids_app.build_parser().parse_args(words[1:]))
    wanted = invocation()
    for name, value in wanted.items():
        if name in ("notrack", "config_file"):
            continue
        row = TABLE[name]
        texts = value if isinstance(value, list) else [value]
        if row.kind is bool or row.counted:
            read: Any = [int(given[name])]
            assert read == [1], name
            continue
        read = list(given[name]) if row.several else [given[name]]
        assert read == [row.read(str(text)) for text in texts], name
    assert set(given) >= set(TABLE), "an option is missing in the descriptor"
