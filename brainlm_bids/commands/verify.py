"""Parser of `brainlm verify`. Nothing heavy is imported before the work begins."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brainlm_bids.commands.parser import (
    add_option,
    add_options,
    add_positional,
    given_values,
    shared,
)
from brainlm_bids.commands.training import ATLAS, SEED, SPACE
from brainlm_bids.values import Option

DESCRIPTION = """\
Check the weights of a model: that every name and shape fits, their checksum and number of
parameters, and what the network makes of a simulated recording, beside stored numbers where there
are some, and beside the same network with random weights. With --recordings, how well it predicts
masked values of your recordings, beside what its training reported. The result is a file without
names of recordings that can be sent to the developers."""
MODEL = Option(
    name="model",
    kind=str,
    metavar="MODEL",
    help="111M, 650M, 13M, demo, random:NAME, or a folder with config.json and weights",
)
OPTIONS = (
    Option(
        name="recordings",
        kind=Path,
        metavar="OUT",
        default_text="none",
        help="output folder of brainlm-bids whose recordings are scored",
    ),
    Option(
        name="output",
        kind=Path,
        metavar="FILE",
        default_text="verify-<model>.json in this folder",
        help="where the result is written",
    ),
)


def add_verify_command(commands: Any) -> None:
    """Add `verify` to the subparsers of `brainlm`."""
    parser = commands.add_parser(
        "verify", help="check the weights of a model", description=DESCRIPTION
    )
    add_positional(parser, MODEL)
    add_options(parser, (*OPTIONS, SPACE, ATLAS))
    rows = (shared("device"), shared("precision"), shared("offline"))
    add_options(parser, rows, suppress=True)
    add_option(parser, SEED, dest="seed")
    parser.set_defaults(work=_verify)


def _verify(args: argparse.Namespace) -> int:
    from brainlm_bids.experiments.verify import VerifyOptions, verify

    return verify(VerifyOptions(**given_values(args)))
