"""The documentation's page of options, made from the table of settings.

Run `python -m brainlm_bids.commands.options > docs/options.md` after a change of the table.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from brainlm_bids.commands.bids_app import CONFIG_FILE, NOTRACK
from brainlm_bids.settings import rows_in
from brainlm_bids.table import POSITIONAL, SECTIONS, Setting
from brainlm_bids.values import UNIT_NAMES, Bounds, Option

INTRODUCTION = """\
# Options

<!-- made by `python -m brainlm_bids.commands.options`: change brainlm_bids/settings.py instead -->

```
brainlm-bids BIDS_DIR OUTPUT_DIR {participant,group} [{participant,group}] [options]
```

Flags may be written with dashes or with underscores. A number may carry a unit: `100s`, `735ms` or
`0.01Hz` for times and periods, `8G` or `8000MB` for memory. `brainlm-bids --help` prints the same
list.

Each option is also a setting of the TOML file that `--config-file` reads, under its name with
underscores and with the same checks; options of the command line take precedence. The settings of
every call are stored in `logs/`, in this format:

```toml
high_pass = 100.0            # or "0.01Hz"
mask_ratio = [0.2, 0.75]
participant_label = ["01", "02"]
save_bold = true
```

The column **changes** says which results depend on an option: the parcel `series` of a run, the
results of a `model`, those of a `cohort` (group level), or `nothing`. Outputs are computed again
only if an option, or a file that it selects, changes them or what they are made from.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION, *_section("Arguments", rows_in(POSITIONAL))]
    for name in SECTIONS:
        parts += _section(name[0].upper() + name[1:], rows_in(name))
    parts += ["## Other flags\n", "| option | meaning |\n|---|---|"]
    parts += [f"| {_flags(row)} | {_cell(row.help)} |" for row in (CONFIG_FILE, NOTRACK)]
    parts += ["| `--version` | print the version |", "| `-h` `--help` | print the options |"]
    return "\n".join(parts) + "\n"


def _section(title: str, rows: Iterable[Setting]) -> list[str]:
    header = "| option | value | default | changes | meaning |\n|---|---|---|---|---|"
    return [f"## {title}\n", header, *(_line(row) for row in rows), ""]


def _line(row: Setting) -> str:
    default = row.shown_default() if row.group != POSITIONAL else ""
    if default and not row.default_text:
        default = f"`{default}`"
    cells = (_flags(row), _value(row), default, ", ".join(row.changes), row.help)
    return "| " + " | ".join(_cell(text) for text in cells) + " |"


def _flags(row: Option) -> str:
    if isinstance(row, Setting) and row.group == POSITIONAL:
        return f"`{row.name.upper()}`"
    return " ".join(f"`{flag}`" for flag in (*row.spellings, row.flag, *(row.aliases or ())))


def _value(row: Option) -> str:
    """What may be given, in words."""
    if row.kind is bool or row.counted:
        return "switch"
    if row.choices:
        text = ", ".join(f"`{choice}`" for choice in row.choices)
    elif row.kind in (int, float):
        noun = "whole number" if row.kind is int else "number"
        unit = UNIT_NAMES.get(row.unit or "", row.unit)
        noun = f"{noun} of {unit}" if unit else noun
        text = Bounds(row.bounds).described(noun) if row.bounds else noun
    else:
        text = f"`{row.metavar}`"
    if row.alone is not None:
        return f"{text}; alone: `{row.alone}`"
    return f"one or more: {text}" if row.several else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Print the page, or write it into the file that is given."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
