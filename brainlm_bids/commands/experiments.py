"""Arguments of `brainlm forecast`, `perturb` and `finetune`; nothing heavy before the work."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from brainlm_bids.commands.training import add_data, count, fraction, not_negative, positive, whole

FORECAST = """\
Predict the next volumes at several places of each recording, from the volumes before them alone,
and compare with what came: the error for each volume ahead, beside the parcel's median, the last
value, and autoregressive models. The volumes behind the recording's end are predicted too."""

PERTURB = """\
Change the series of some parcels and look at what the model makes of it: how far the embedding
moves, and how much the predictions of all other parcels change, beside the same change of random
sets of as many parcels."""


def add_experiment_commands(commands: Any) -> None:
    """Add `forecast`, `perturb` and `finetune` to the subparsers of `brainlm`."""
    _add_forecast(commands)
    _add_perturb(commands)
    _add_finetune(commands)


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


FINETUNE = """\
Fit BrainLM to a variable of the participants (--target: a number is regressed, words are
classified) or to the prediction of the last time patches (--future). Whole subjects are tested that
had no part in the fit; beside the result stand a linear probe of the untouched embedding,
functional connectivity and the mean, or, of the future, the untouched model and autoregressions."""


def _add_finetune(commands: Any) -> None:
    parser = commands.add_parser(
        "finetune", help="fit BrainLM to a variable, or to the future", description=FINETUNE
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="13M, 111M, 650M, a folder, or random:NAME"
    )
    add_data(parser)
    task = parser.add_argument_group("the task (one of these is needed)")
    task.add_argument(
        "--target", nargs="+", default=(), metavar="COLUMN", help="of participants.tsv or phenotype"
    )
    task.add_argument(
        "--future", type=count, metavar="N", help="predict the last N time patches of a window"
    )
    task.add_argument(
        "--bids-dir", type=Path, metavar="DIR", help="holds participants.tsv (as OUT says)"
    )
    task.add_argument("--phenotype", type=Path, metavar="FILE", help="a TSV with participant_id")
    _add_validation(parser)
    _add_learning(parser)
    parser.set_defaults(work=_finetune)


def _add_validation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who is tested")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--folds",
        type=count,
        default=5,
        metavar="K",
        help="cross-validation by subject; a fifth of the training subjects stops the training (5)",
    )
    either.add_argument(
        "--split",
        nargs="?",
        const="80/10/10",
        metavar="FILE",
        help="one split instead: the seeded 80/10/10, or a TSV with participant_id and split",
    )
    group.add_argument(
        "--permutations", type=whole, default=1000, metavar="N", help="for p, with --target (1000)"
    )
    group.add_argument(
        "--origins", type=count, default=8, metavar="K", help="per recording, with --future (8)"
    )


def _add_learning(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is learnt (AdamW)")
    group.add_argument(
        "--frozen",
        action="store_true",
        help="the encoder stays as it is: only the head learns, or with --future the decoder",
    )
    group.add_argument("--pooling", choices=("cls", "mean"), default="cls", help="(cls)")
    group.add_argument(
        "--dropout", type=not_negative, default=0.0, metavar="R", help="of the head (0)"
    )
    numbers: dict[str, tuple[Any, Any, str]] = {
        "epochs": (count, 50, "at most"),
        "patience": (count, 10, "epochs without a better validation loss until it ends"),
        "batch": (count, 16, "recordings per step, one window of each"),
        "learning-rate": (positive, 1e-4, "of the network"),
        "head-learning-rate": (positive, 1e-3, "of the head"),
        "weight-decay": (not_negative, 0.01, "of all that learns"),
        "seed": (whole, 42, "of folds, first weights, windows"),
    }
    for name, (kind, default, text) in numbers.items():
        group.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{text} ({default:g})"
        )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    machine.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    machine.add_argument(
        "--micro-batch", type=count, metavar="N", help="windows per pass (CPU: 2; CUDA: the batch)"
    )
    machine.add_argument("--offline", action="store_true", help="download nothing")


def _finetune(args: argparse.Namespace) -> int:
    from brainlm_bids.errors import UserError
    from brainlm_bids.training.finetune import finetune
    from brainlm_bids.training.finetune_start import Parameters

    given = _given(args)
    if given["dropout"] >= 1:
        raise UserError(f"--dropout {given['dropout']:g}: expected a number below 1")
    single = given["split"] == "80/10/10"
    given["split"] = None if given["split"] is None or single else Path(given["split"])
    return finetune(Parameters(**given, single=single))


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
