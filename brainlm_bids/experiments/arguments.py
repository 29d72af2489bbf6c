"""Arguments of `brainlm forecast` and `brainlm perturb`; imports nothing heavy before the work."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brainlm_bids.training.arguments import count, fraction, positive, whole

FORECAST = """\
Predict the next volumes at several places of each recording, from the volumes before them alone,
and compare with what came: the error for each volume ahead, beside the parcel's median, the last
value, and autoregressive models. The volumes behind the recording's end are predicted too."""

PERTURB = """\
Change the series of some parcels and look at what the model makes of it: how far the embedding
moves, and how much the predictions of all other parcels change, beside the same change of random
sets of as many parcels."""


def add_experiment_commands(commands: Any) -> None:
    """Add `forecast` and `perturb` to the subparsers of `brainlm`."""
    _add_forecast(commands)
    _add_perturb(commands)


def _add_forecast(commands: Any) -> None:
    parser = commands.add_parser(
        "forecast", help="predict future brain states, with baselines", description=FORECAST
    )
    _add_data(parser)
    task = parser.add_argument_group("the forecast")
    task.add_argument(
        "--volumes", type=count, default=20, metavar="N", help="volumes to predict (20)"
    )
    task.add_argument(
        "--origins",
        type=count,
        default=8,
        metavar="K",
        help="places in a recording from which it is predicted, evenly spread (8)",
    )
    task.add_argument(
        "--order",
        type=_order,
        metavar="P",
        help="order of the autoregressive baseline (auto: each parcel's own, by AIC)",
    )
    _add_model(parser)
    parser.set_defaults(work=_forecast)


def _add_perturb(commands: Any) -> None:
    parser = commands.add_parser(
        "perturb", help="change parcels in silico, with a null from random parcels",
        description=PERTURB,
    )  # fmt: skip
    _add_data(parser)
    task = parser.add_argument_group("the experiment")
    task.add_argument(
        "--parcels",
        nargs="+",
        required=True,
        metavar="NAME",
        help="names (R_V1) or numbers (1) of parcels as in the atlas's dseg.tsv, or networks "
        "(VI VS CE SM DM DS SC, or 'Default Mode')",
    )
    change = task.add_mutually_exclusive_group(required=True)
    change.add_argument("--scale", type=float, metavar="F", help="multiply their series by F")
    change.add_argument(
        "--set", dest="value", type=float, metavar="V", help="set them to V interquartile ranges"
    )
    change.add_argument("--lesion", action="store_true", help="set them to 0, the parcels' median")
    task.add_argument(
        "--n-null",
        type=whole,
        default=100,
        metavar="N",
        help="random sets of as many parcels, which are changed in the same way (100; 0: none). "
        "The smallest p is 1 / (N + 1)",
    )
    task.add_argument(
        "--match",
        choices=("size", "hemisphere"),
        default="size",
        help="random sets have as many parcels, or as many of each hemisphere (size)",
    )
    task.add_argument(
        "--mask-ratio",
        type=fraction,
        metavar="R",
        help="share of the other tokens that is hidden to predict them (0.2 for the 13M family, "
        "0.75 for the image models)",
    )
    _add_model(parser)
    parser.set_defaults(work=_perturb)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="output folder of brainlm-bids, or one series: a table with the 424 parcels as "
        "columns, scaled or not (its own median and interquartile range are used)",
    )
    parser.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder for the results, not INPUT"
    )
    chosen = parser.add_argument_group("which recordings of the output folder (all)")
    for key in ("participant", "session"):
        chosen.add_argument(f"--{key}-label", nargs="+", default=(), metavar="LABEL")
    chosen.add_argument("--task-id", nargs="+", default=(), metavar="LABEL")
    chosen.add_argument("--run-id", nargs="+", default=(), metavar="RUN")
    chosen.add_argument(
        "--series",
        choices=("robust", "robustcohort"),
        default="robust",
        help="scaled by each recording's own statistics, or by the cohort's (robust)",
    )
    chosen.add_argument("--space", metavar="LABEL", help="where the folder has several spaces")
    chosen.add_argument("--atlas", metavar="LABEL", help="where the folder has several atlases")
    single = parser.add_argument_group("for one series")
    single.add_argument(
        "--tr", type=positive, metavar="S", help="repetition time, where no sidecar says it"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        nargs="+",
        default=["111M"],
        metavar="SPEC",
        help="13M, 111M, 650M, a folder, or random:NAME, untrained, the control (111M)",
    )
    model.add_argument("--input-gain", type=positive, default=1.0, metavar="G", help="(1)")
    model.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    model.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    model.add_argument(
        "--seed", type=whole, default=42, metavar="N", help="of every random number (42)"
    )
    model.add_argument("--offline", action="store_true", help="download nothing")


def _order(text: str) -> int | None:
    return None if text == "auto" else whole(text)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    given = {key: value for key, value in vars(args).items() if key != "work"}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}


def _forecast(args: argparse.Namespace) -> int:
    from brainlm_bids.experiments.forecast import Parameters, run

    return run(Parameters(**_given(args)))


def _perturb(args: argparse.Namespace) -> int:
    from brainlm_bids.experiments.perturb import Parameters, run

    return run(Parameters(**_given(args)))
