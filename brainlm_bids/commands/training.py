"""Arguments of the training commands of `brainlm`; imports nothing heavy before the work begins."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

# as model.config.ARCHITECTURES; here too so that --help needs no import (a test holds them equal)
SIZES = ("tiny", "demo", "13M", "111M", "650M")


def add_training_commands(commands: Any) -> None:
    """Add every training command to the subparsers of `brainlm`."""
    _add_pretrain(commands)


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def whole(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def not_negative(text: str) -> float:
    """A finite number from 0 on."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_data(parser: argparse.ArgumentParser) -> None:
    """What a command learns from, and where its results go."""
    parser.add_argument(
        "data",
        type=Path,
        metavar="OUT",
        help="output folder of brainlm-bids (its series are read once into OUT/training_store), "
        "or a store",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder for everything made")
    chosen = parser.add_argument_group("which series of OUT")
    chosen.add_argument(
        "--series",
        choices=("robust", "robustcohort"),
        default="robust",
        help="scaled by each recording's own statistics, or by the cohort's, which the level group "
        "writes and BrainLM was trained with (robust)",
    )
    chosen.add_argument("--space", metavar="LABEL", help="where OUT has several spaces")
    chosen.add_argument("--atlas", metavar="LABEL", help="where OUT has several atlases")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What changes speed alone; may differ when a run goes on."""
    machine = parser.add_argument_group("machine (changes no result beyond rounding)")
    machine.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: CUDA if there)"
    )
    machine.add_argument(
        "--micro-batch",
        type=count,
        metavar="N",
        help="windows per forward pass; gradients accumulate up to --batch (CUDA: as many as fit, "
        "at most 64; CPU: 2)",
    )
    machine.add_argument(
        "--workers", type=whole, metavar="N", help="processes that read windows (CUDA: 2; CPU: 0)"
    )
    machine.add_argument(
        "--save-minutes",
        type=positive,
        default=15.0,
        metavar="M",
        help="also save within an epoch, every M minutes (15)",
    )


PRETRAIN = """\
Masked prediction on windows of 200 volumes; the loss is the mean squared error of what was hidden.
Subjects are split 80/10/10. The same command goes on where an interrupted run stopped. On several
GPUs or machines: `accelerate launch -m brainlm_bids.commands.brainlm pretrain …` or
`torchrun --nproc-per-node N -m brainlm_bids.commands.brainlm pretrain …`; the result is that of
one process."""


def _add_pretrain(commands: Any) -> None:
    parser = commands.add_parser(
        "pretrain",
        help="train BrainLM by masked prediction, from scratch or from a checkpoint",
        description=PRETRAIN,
    )
    add_data(parser)
    start = parser.add_argument_group("the network (one of these is needed)")
    start.add_argument("--size", choices=SIZES, help="an architecture, untrained")
    start.add_argument(
        "--config", type=Path, metavar="FILE", help="config.json of an architecture, untrained"
    )
    start.add_argument(
        "--from",
        dest="start_from",
        metavar="CHECKPOINT",
        help="go on from weights: a checkpoint's folder, or 13M, 111M, 650M (released weights are "
        "CC BY-NC-ND 4.0: adapted ones may not be shared)",
    )
    _add_objective(parser)
    _add_optimiser(parser)
    add_machine(parser)
    parser.set_defaults(work=_pretrain)


def _add_objective(parser: argparse.ArgumentParser) -> None:
    task = parser.add_argument_group("the task")
    task.add_argument(
        "--mask-ratio",
        type=fraction,
        metavar="R",
        help="share of a window's tokens that is hidden; the paper's are 0.2, 0.75 and 0.9 "
        "(the architecture's: 0.2 for the 13M family, 0.75 for the image models)",
    )
    task.add_argument(
        "--windows-per-recording",
        type=count,
        default=1,
        metavar="N",
        help="random windows that an epoch draws from each recording, and validation too (1)",
    )
    task.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="TSV with participant_id and split (train, validation, test) in place of the seeded "
        "80/10/10",
    )
    task.add_argument(
        "--seed", type=whole, default=42, metavar="N", help="of split, weights and masks (42)"
    )
    task.add_argument(
        "--baseline-windows",
        type=whole,
        default=16,
        metavar="N",
        help="validation windows on which the ridge baseline is computed, once (16; 0: none)",
    )


def _add_optimiser(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the optimiser (AdamW, linear warm-up, cosine to 0)")
    group.add_argument("--epochs", type=count, default=100, metavar="N", help="(100, the paper's)")
    group.add_argument(
        "--batch",
        type=count,
        default=512,
        metavar="N",
        help="windows per step over all processes (512, the paper's; never more than an epoch has)",
    )
    group.add_argument(
        "--learning-rate",
        type=positive,
        metavar="LR",
        help="the peak (5e-3 for the 13M family and 5e-4 for the image models, as in the released "
        "checkpoints' training records; times batch/256 for batches below 256)",
    )
    group.add_argument(
        "--weight-decay",
        type=not_negative,
        metavar="W",
        help="of matrices; biases, gains and tokens have none (1e-5 for the 13M family, 0.05 else)",
    )
    group.add_argument(
        "--warm-up", type=share, default=0.05, metavar="R", help="share of all steps (0.05)"
    )
    group.add_argument(
        "--clip-norm",
        type=not_negative,
        default=1.0,
        metavar="N",
        help="largest norm of the gradient (1; 0: any)",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="bfloat16: matrix products under autocast (auto: bfloat16 on CUDA, else float32)",
    )


def _pretrain(args: argparse.Namespace) -> int:
    from brainlm_bids.training.pretrain import Parameters, pretrain

    given = {key: value for key, value in vars(args).items() if key != "work"}
    return pretrain(Parameters(**given))
