"""Parsers of the commands that query a fitted model: `brainlm forecast` and `brainlm perturb`.

Nothing heavy is imported before the work begins.
"""

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
from brainlm_bids.commands.training import ATLAS, COUNT, NOT_NEGATIVE, SEED, SERIES, SPACE
from brainlm_bids.values import Option

FORECAST_DESCRIPTION = """\
Predict the volumes that follow several points of each recording from the volumes before them, and
compare them with the measured ones. Only the volumes before a point are resampled and scaled. The
error of each volume ahead is given beside that of the median of the parcel, of its last value, and
of autoregressive models. The volumes after the end of the recording are predicted too."""

PERTURB_DESCRIPTION = """\
Change the series of some parcels and measure the response of the model: how far the embedding
moves, and how much the predictions of all other parcels change. The same change of random sets of
as many parcels gives the null distribution."""

ARGUMENTS = (
    Option(
        name="input",
        kind=Path,
        metavar="INPUT",
        help="output folder of brainlm-bids, or the file of one series: a table with a column for "
        "each of the 424 parcels, scaled or not (it is scaled by its own median and interquartile "
        "range)",
    ),
    Option(
        name="results",
        kind=Path,
        metavar="RESULTS",
        help="folder for the results, other than INPUT",
    ),
)
SELECTION = ("participant_label", "session_label", "task_id", "run_id")
FORECAST = (
    Option(
        name="volumes",
        kind=int,
        default=20,
        bounds=COUNT,
        help="number of samples to predict, at the rate of the model (0.735 s); they are compared "
        "with the volumes that the scanner measured in this time",
    ),
    Option(
        name="origins",
        kind=int,
        default=8,
        bounds=COUNT,
        metavar="K",
        help="points of a recording from which the following volumes are predicted, evenly spread",
    ),
    Option(
        name="causal",
        kind=bool,
        default=False,
        help="fit the high-pass filter and the removal of components to the volumes before each "
        "point alone; needs the series that --save-parcels writes at the participant level",
    ),
)
PARCELS = Option(
    name="parcels",
    kind=str,
    several=True,
    metavar="NAME",
    default_text="required",
    help="names (R_V1) or numbers (1) of parcels as in the dseg.tsv of the atlas, or networks (VI "
    "VS CE SM DM DS SC, or 'Default Mode')",
)
CHANGES = (
    Option(name="scale", kind=float, metavar="F", help="multiply the series by F"),
    Option(
        name="lesion", kind=bool, default=False, help="set the series to 0, the median of a parcel"
    ),
)
SET_VALUE = Option(
    name="set",
    kind=float,
    metavar="V",
    help="set the series to V interquartile ranges",
)
NULL = (
    Option(
        name="n_null",
        kind=int,
        default=100,
        bounds=NOT_NEGATIVE,
        help="random sets of parcels for the null distribution; 0: none. The smallest p value is "
        "1 / (N + 1)",
    ),
    Option(
        name="match",
        kind=str,
        default="size",
        choices=("size", "hemisphere", "space"),
        help="random sets have the same number of parcels, in total or in each hemisphere; space: "
        "they also lie to one another as those to change do (the set is turned about the centre of "
        "each hemisphere)",
    ),
)


def add_experiment_commands(commands: Any) -> None:
    """Add `forecast` and `perturb` to the subparsers of `brainlm`."""
    _add_forecast(commands)
    _add_perturb(commands)


def _add_forecast(commands: Any) -> None:
    parser = commands.add_parser(
        "forecast",
        help="predict future brain states, with baselines",
        description=FORECAST_DESCRIPTION,
    )
    _add_data(parser)
    group = parser.add_argument_group("forecast")
    add_options(group, FORECAST)
    order = Option(
        name="order",
        kind=int,
        metavar="P",
        default_text="auto: chosen for each parcel by AIC",
        convert=_order,
        help="order of the autoregressive baseline",
    )
    add_option(group, order)
    _add_model(parser)
    parser.set_defaults(work=_forecast)


def _order(text: str) -> int | None:
    orders = Option(name="order", kind=int, bounds=NOT_NEGATIVE, help="")
    return None if text == "auto" else int(orders.read(text))


def _forecast(args: argparse.Namespace) -> int:
    from brainlm_bids.experiments.forecast import ForecastOptions, run

    return run(ForecastOptions(**given_values(args)), args.words)


def _add_perturb(commands: Any) -> None:
    parser = commands.add_parser(
        "perturb",
        help="change parcels in silico, with a null distribution from random parcels",
        description=PERTURB_DESCRIPTION,
    )
    _add_data(parser)
    group = parser.add_argument_group("experiment (--parcels and one change are required)")
    add_option(group, PARCELS, required=True)
    change = group.add_mutually_exclusive_group(required=True)
    add_options(change, CHANGES)
    add_option(change, SET_VALUE, dest="value")
    add_options(group, NULL)
    mask_ratio = shared(
        "mask_ratio",
        several=False,
        default=None,
        default_text="0.2 for the 13M family, 0.75 for the image models",
        help="share of the tokens of the other parcels that is masked when they are predicted",
    )
    add_option(group, mask_ratio)
    _add_model(parser)
    parser.set_defaults(work=_perturb)


def _perturb(args: argparse.Namespace) -> int:
    from brainlm_bids.experiments.perturb import PerturbationOptions, run

    return run(PerturbationOptions(**given_values(args)), args.words)


def _add_data(parser: argparse.ArgumentParser) -> None:
    for argument in ARGUMENTS:
        add_positional(parser, argument)
    recordings = parser.add_argument_group("recordings of an output folder")
    add_options(recordings, (shared(name) for name in SELECTION), suppress=True)
    add_options(recordings, (SERIES, SPACE, ATLAS))
    single = parser.add_argument_group("a single series")
    tr = shared(
        "timeseries_tr",
        name="tr",
        default_text="from a JSON file beside it",
        help="repetition time of the series",
    )
    add_option(single, tr)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and execution")
    model = shared(
        "model",
        help="one or more models: 13M, 111M, 650M, demo, a folder with config.json and weights, or "
        "random:NAME (untrained, as a control)",
    )
    device = shared("device", help="where the model runs; auto: on a GPU if there is one")
    rows = (model, shared("input_gain"), device, shared("precision"), shared("offline"))
    add_options(group, rows, suppress=True)
    add_option(group, SEED, suppress=True, dest="seed")
