"""Parsers made from tables of options, and their one-line messages.

In: `Option` rows. Out: an argparse parser whose help shows every default, whose flags may be
written with dashes or underscores, and whose errors are one line that suggests what was meant.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

from brainlm_bids.errors import UserError
from brainlm_bids.settings import TABLE, Setting
from brainlm_bids.values import Option, did_you_mean

EXIT_USAGE = 2


class _Formatter(argparse.HelpFormatter):
    """Shows each flag with dashes only, and its value once."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = ""
        if action.nargs != 0:
            metavar = self._get_default_metavar_for_optional(action)
            value = f" {self._format_args(action, metavar)}"
        return ", ".join(flag for flag in action.option_strings if "_" not in flag) + value


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations: they would change their meaning with every new flag."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        values: dict[str, Any] = {"allow_abbrev": False, "formatter_class": _Formatter, **kwargs}
        super().__init__(*args, **values)

    def error(self, message: str) -> NoReturn:
        """Leave with one line; argparse would print the whole usage."""
        self.exit(EXIT_USAGE, f"{self.prog}: {self._plain(message)} (see {self.prog} --help)\n")

    def _plain(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            flag = unknown[1].partition("=")[0]
            return f"unknown argument {flag}{did_you_mean(flag, _flags(self))}"
        choice = re.fullmatch(r"argument .*: invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            known = [text.strip(" '") for text in choice[2].split(",")]
            return f"unknown command {choice[1]!r}{did_you_mean(choice[1], known)}"
        found = re.match(r"argument (\S+): ", message)
        if found is None:
            return message
        # "argument -w/--work-dir/--work_dir: …": one spelling is enough
        name = next((word for word in found[1].split("/") if word.startswith("--")), found[1])
        return f"{name}: {message[found.end() :]}"


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags of a parser and of its subcommands, with dashes."""
    for action in parser._actions:
        yield from (flag for flag in action.option_strings if "_" not in flag)
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _flags(command)


def add_options(group: Any, options: Iterable[Option], *, suppress: bool = False) -> None:
    """Add options to a parser or to a group of one.

    Parameters
    ----------
    group
        The parser or group.
    options
        Rows of a table.
    suppress
        Leave options out of the result that were not given: they must not hide the value of a
        settings file, or the default of a dataclass.
    """
    for option in options:
        add_option(group, option, suppress=suppress)


def add_option(
    group: Any, option: Option, *, suppress: bool = False, dest: str = "", required: bool = False
) -> None:
    """Add one option as `add_options` does; its value is called `dest` if that is given."""
    values: dict[str, Any] = {
        "dest": dest or option.name,
        "default": argparse.SUPPRESS if suppress else option.default,
        "help": _help(option),
    }
    if required:
        values["required"] = True
    spellings = [*option.spellings, *_both(option.flag)]
    if option.kind is bool:
        group.add_argument(*spellings, action="store_true", **values)
        return
    if option.counted:
        group.add_argument(*spellings, action="count", **values)
        return
    values["metavar"] = _metavar(option)
    if option.several:
        values |= {"nargs": "+", "action": "extend" if suppress else "store"}
    if option.alone is not None:
        values |= {"nargs": "?", "const": option.alone}
    aliases = dict(option.aliases or {})
    spellings += [word for alias, unit in aliases.items() if not unit for word in _both(alias)]
    group.add_argument(*spellings, type=_reader(option), **values)
    for alias, unit in aliases.items():
        if unit:
            values |= {"metavar": unit, "help": f"the same as {option.flag}, in {unit}"}
            group.add_argument(*_both(alias), type=_reader(option, unit), **values)


def add_positional(parser: argparse.ArgumentParser, option: Option) -> None:
    """Add an option that is recognised by its place; it is required."""
    parser.add_argument(
        option.name,
        type=_reader(option),
        nargs="+" if option.several else None,
        metavar=_metavar(option),
        help=option.help.replace("%", "%%"),
    )


def shared(name: str, /, **changes: Any) -> Setting:
    """A row of the table of settings for another command, with some columns changed."""
    return replace(TABLE[name], **changes)


def _both(flag: str) -> list[str]:
    underscores = "--" + flag[2:].replace("-", "_")
    return [flag] if underscores == flag else [flag, underscores]


def _metavar(option: Option) -> str:
    if option.metavar or not option.choices:
        return option.metavar or "N"
    return f"{{{','.join(option.choices)}}}"


def _help(option: Option) -> str:
    default = option.shown_default()
    text = f"{option.help} (default: {default})" if default else option.help
    return text.replace("%", "%%")


def _reader(option: Option, unit: str = "") -> Callable[[str], Any]:
    """Reads one item as argparse expects it; a bare number is in `unit`."""

    def read(text: str) -> Any:
        try:
            return option.read(text + unit if unit and text[-1:].isdigit() else text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def given_values(args: argparse.Namespace) -> dict[str, Any]:
    """The parsed values by name, lists as tuples, without a subcommand's function and words."""
    given = {key: value for key, value in vars(args).items() if key not in ("work", "words")}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
