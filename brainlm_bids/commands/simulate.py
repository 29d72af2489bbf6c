"""Parser of `brainlm simulate-cohort`.

Nothing heavy is imported before the work begins.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brainlm_bids.commands.parser import add_option, add_options, add_positional, given_values
from brainlm_bids.commands.training import COUNT, NOT_NEGATIVE, SEED
from brainlm_bids.values import Option

DESCRIPTION = """\
Simulate a cohort whose truth is known, as parcel series without images: a raw BIDS folder with
tables of people and events, and in its derivatives/brainlm-bids what the participant level would
have written, for the group level and for `brainlm finetune`, `forecast` and `perturb`."""

SHARE = "[0, 1]"
SIZE = (
    Option(name="subjects", kind=int, default=24, bounds=COUNT, help="number of subjects"),
    Option(name="sessions", kind=int, default=1, bounds=COUNT, help="sessions per subject"),
    Option(name="runs", kind=int, default=1, bounds=COUNT, help="runs per session"),
    Option(
        name="seconds",
        kind=float,
        default=300.0,
        unit="s",
        bounds="[60, 3600]",
        metavar="S",
        help="length of a run",
    ),
    Option(
        name="trs",
        kind=float,
        several=True,
        default=(0.735,),
        unit="s",
        bounds="[0.3, 5]",
        metavar="S",
        help="repetition times, which subjects get in turn",
    ),
)
PEOPLE = (
    Option(
        name="age_effect",
        kind=float,
        default=0.6,
        bounds="[-1, 1]",
        metavar="R",
        help="correlation of age with the planted variable, which changes coupling and amplitude "
        "of the default mode network; no decoding of age can exceed it but by chance; 0: none",
    ),
    Option(
        name="coupling",
        kind=float,
        default=0.08,
        bounds="[0, 0.08]",
        metavar="X",
        help="what one standard deviation of the planted variable adds to the network's share of "
        "the variance of its parcels",
    ),
    Option(
        name="amplitude",
        kind=float,
        default=0.15,
        bounds=NOT_NEGATIVE,
        metavar="X",
        help="what it adds to the log amplitude of these parcels",
    ),
    Option(
        name="icc",
        kind=float,
        default=0.6,
        bounds=SHARE,
        metavar="R",
        help="share of the differences in connectivity and amplitude between recordings that is "
        "stable over sessions: their intraclass correlation without measurement error",
    ),
)
SITES = (
    Option(
        name="sites",
        kind=int,
        default=1,
        bounds=COUNT,
        help="number of sites; with one, the other options of sites do nothing",
    ),
    Option(
        name="site_shift",
        kind=float,
        default=0.3,
        bounds=NOT_NEGATIVE,
        metavar="X",
        help="change of each parcel's log amplitude by site (standard deviation over parcels)",
    ),
    Option(
        name="site_scale",
        kind=float,
        default=0.3,
        bounds="[0, 2]",
        metavar="X",
        help="amplitudes vary between subjects of a site by factors from exp(-X) to exp(X)",
    ),
    Option(
        name="site_connectivity",
        kind=float,
        default=0.1,
        bounds="[0, 0.1]",
        metavar="R",
        help="share of the variance that follows maps of the site; scaling does not remove it",
    ),
    Option(
        name="site_age",
        kind=float,
        default=0.0,
        bounds=NOT_NEGATIVE,
        metavar="X",
        help="difference in mean age between one site and the next, in standard deviations",
    ),
)
TASK = (
    Option(
        name="states",
        kind=int,
        default=0,
        bounds="[0, 7]",
        help="number of task states, each with activity in a network; 0: rest",
    ),
    Option(
        name="state_effect",
        kind=float,
        default=0.8,
        bounds=NOT_NEGATIVE,
        metavar="X",
        help="activity during a block, in standard deviations of a parcel",
    ),
    Option(
        name="block",
        kind=float,
        default=24.0,
        unit="s",
        bounds="[4, 300]",
        metavar="S",
        help="length of a block",
    ),
)
MOTION = Option(
    name="motion",
    kind=float,
    default=0.0,
    bounds=NOT_NEGATIVE,
    metavar="X",
    help="strength of the spikes and of the distance-dependent correlation that follow head "
    "motion; 1 is strong, 0: motion leaves no trace in the series",
)


def add_simulate_command(commands: Any) -> None:
    """Add `simulate-cohort` to the subparsers of `brainlm`."""
    parser = commands.add_parser(
        "simulate-cohort",
        help="write a simulated cohort with known ground truth, as parcel series",
        description=DESCRIPTION,
    )
    out = Option(name="out", kind=Path, metavar="OUT", help="a new or empty folder")
    add_positional(parser, out)
    add_options(parser.add_argument_group("size"), SIZE)
    add_options(parser.add_argument_group("subjects"), PEOPLE)
    add_options(parser.add_argument_group("sites"), SITES)
    add_options(parser.add_argument_group("task"), TASK)
    other = parser.add_argument_group("other")
    add_option(other, MOTION)
    add_option(other, SEED, dest="seed")
    parser.set_defaults(work=_simulate)


def _simulate(args: argparse.Namespace) -> None:
    from brainlm_bids.amount import Amount
    from brainlm_bids.phantom.cohort import CohortOptions
    from brainlm_bids.phantom.cohort_files import write_cohort

    given = given_values(args)
    folder = given.pop("out")
    options = CohortOptions(**given)
    total = options.subjects * options.sessions * options.runs
    with Amount("simulating recordings", total, unit="recording") as amount:
        out = write_cohort(folder, options, lambda number, of: amount.advance())
    print(out)
