"""Parsers of the commands that fit weights: `brainlm pretrain` and `brainlm finetune`.

Nothing heavy is imported before the work begins.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from brainlm_bids.commands.parser import (
    add_option,
    add_options,
    add_positional,
    given_values,
    shared,
)
from brainlm_bids.values import Option

# as model.config.ARCHITECTURES; here too so that --help needs no import (a test holds them equal)
SIZES = ("tiny", "demo", "13M", "111M", "650M")
SEEDED_SPLIT = "80/10/10"

COUNT, POSITIVE, NOT_NEGATIVE = "[1, inf)", "(0, inf)", "[0, inf)"

SERIES = Option(
    name="series",
    kind=str,
    choices=("robust", "robustcohort"),
    default="robust",
    help="series scaled by the statistics of each recording, or by those of the cohort, which the "
    "group level writes and with which BrainLM was trained",
)
FINETUNE_SERIES = replace(
    SERIES,
    default=None,
    default_text="robust, as the default readout of the group level",
)
SPACE, ATLAS = (
    Option(
        name=name,
        kind=str,
        metavar="LABEL",
        default_text="the only one",
        help=f"{name} of the series, if the folder holds several",
    )
    for name in ("space", "atlas")
)
MICRO_BATCH = Option(
    name="micro_batch",
    kind=int,
    bounds=COUNT,
    default_text="2 on a CPU; on a GPU as many as fit, at most 64",
    help="windows per forward pass; gradients are accumulated over a batch",
)

PRETRAIN_DESCRIPTION = """\
Train BrainLM by masked prediction on windows of 200 volumes; the loss is the mean squared error of
the masked tokens. Subjects are split 80/10/10 into training, validation and test. The same command
continues an interrupted training. On several GPUs or machines, use
`accelerate launch -m brainlm_bids.commands.brainlm pretrain …` or
`torchrun --nproc-per-node N -m brainlm_bids.commands.brainlm pretrain …`; the result is that of a
single process."""

NETWORK = (
    Option(
        name="size",
        kind=str,
        choices=SIZES,
        help="train this architecture from scratch",
    ),
    Option(
        name="config",
        kind=Path,
        metavar="FILE",
        help="train the architecture of this config.json from scratch",
    ),
)
START_FROM = Option(
    name="from",
    kind=str,
    metavar="CHECKPOINT",
    help="continue from existing weights: the folder of a checkpoint, or 13M, 111M, 650M "
    "(published weights are licensed CC BY-NC-ND 4.0: adapted ones must not be shared)",
)
OBJECTIVE = (
    Option(
        name="windows_per_recording",
        kind=int,
        default=1,
        bounds=COUNT,
        help="random windows per recording and epoch, in training and validation",
    ),
    Option(
        name="split",
        kind=Path,
        metavar="FILE",
        default_text="80/10/10, by the random seed",
        help="TSV file with participant_id and split (train, validation, test)",
    ),
    Option(
        name="baseline_windows",
        kind=int,
        default=16,
        bounds=NOT_NEGATIVE,
        help="validation windows on which the baselines of reconstruction are computed, once; 0: "
        "no baselines",
    ),
)
OPTIMISER = (
    Option(
        name="epochs",
        kind=int,
        default=100,
        bounds=COUNT,
        help="passes over the training recordings, as many as in the BrainLM paper",
    ),
    Option(
        name="batch",
        kind=int,
        default=512,
        bounds=COUNT,
        help="windows per step over all processes, as in the BrainLM paper; at most the windows of "
        "an epoch",
    ),
    Option(
        name="learning_rate",
        kind=float,
        bounds=POSITIVE,
        metavar="LR",
        default_text="5e-3 for the 13M family and 5e-4 for the image models, as in the training "
        "records of the published checkpoints; multiplied by batch/256 for batches below 256",
        help="peak learning rate",
    ),
    Option(
        name="weight_decay",
        kind=float,
        bounds=NOT_NEGATIVE,
        metavar="W",
        default_text="1e-5 for the 13M family, 0.05 for the image models",
        help="weight decay of matrices; biases, gains and tokens have none",
    ),
    Option(
        name="warm_up",
        kind=float,
        default=0.05,
        bounds="[0, 1]",
        metavar="R",
        help="share of all steps in which the learning rate rises",
    ),
    Option(
        name="clip_norm",
        kind=float,
        default=1.0,
        bounds=NOT_NEGATIVE,
        help="largest norm of the gradient; 0: no limit",
    ),
)
MACHINE = (
    MICRO_BATCH,
    Option(
        name="workers",
        kind=int,
        bounds=NOT_NEGATIVE,
        default_text="2 with a GPU, 0 without",
        help="processes that read windows",
    ),
    Option(
        name="save_minutes",
        kind=float,
        default=15.0,
        bounds=POSITIVE,
        metavar="M",
        help="minutes between saves within an epoch",
    ),
)

FINETUNE_DESCRIPTION = """\
Fit BrainLM to a variable of the participants (--target: regression for numbers, classification for
categories) or to the prediction of the last time patches of a window (--future). Results are
measured on subjects that had no part in the fit. With --target, the same folds are predicted from
all that the group level decodes from: the unchanged embedding, baselines and controls. For the
future, the unchanged model and autoregressive models are the baselines."""

TASK = (
    shared("target", help="columns of participants.tsv or --phenotype to fit BrainLM to"),
    Option(
        name="future",
        kind=int,
        bounds=COUNT,
        help="predict the last N time patches of a window",
    ),
    Option(
        name="bids_dir",
        kind=Path,
        metavar="DIR",
        default_text="as recorded in OUT",
        help="the BIDS data set, which holds participants.tsv",
    ),
    shared("phenotype", help="TSV file with participant_id and further columns for --target"),
)
FOLDS = Option(
    name="folds",
    kind=int,
    default=5,
    bounds=COUNT,
    metavar="K",
    help="folds of the cross-validation by subject; in each, a fifth of the training subjects "
    "decides when to stop",
)
EVALUATION = (
    shared(
        "readouts",
        help="with --target, readouts of the unchanged model and of the baselines: linear (of CLS "
        "and mean tokens, connectivity, motion, coordinates), attentive (a probe of all tokens), "
        "mlp (of the raw parcel series); linear alone takes a fraction of the time",
    ),
    shared("permutations", help="permutations behind p values, with --target"),
    Option(
        name="origins",
        kind=int,
        default=8,
        bounds=COUNT,
        metavar="K",
        help="predictions per recording, with --future",
    ),
)
LEARNING = (
    Option(
        name="frozen",
        kind=bool,
        default=False,
        help="keep the encoder unchanged and train the head only (with --future, the decoder)",
    ),
    Option(
        name="dropout",
        kind=float,
        default=0.0,
        bounds="[0, 1)",
        metavar="R",
        help="dropout rate of the head",
    ),
    Option(name="epochs", kind=int, default=50, bounds=COUNT, help="largest number of epochs"),
    Option(
        name="patience",
        kind=int,
        default=10,
        bounds=COUNT,
        help="epochs without a better validation loss after which the training stops",
    ),
    Option(
        name="batch",
        kind=int,
        default=16,
        bounds=COUNT,
        help="recordings per step, with one window of each",
    ),
    Option(
        name="learning_rate",
        kind=float,
        default=1e-4,
        bounds=POSITIVE,
        metavar="LR",
        help="learning rate of the network",
    ),
    Option(
        name="head_learning_rate",
        kind=float,
        default=1e-3,
        bounds=POSITIVE,
        metavar="LR",
        help="learning rate of the head",
    ),
    Option(
        name="weight_decay",
        kind=float,
        default=0.01,
        bounds=NOT_NEGATIVE,
        metavar="W",
        help="weight decay of all trained parameters",
    ),
)
SEED = shared("random_seed", aliases={"--seed": None})


def add_training_commands(commands: Any) -> None:
    """Add `pretrain` and `finetune` to the subparsers of `brainlm`."""
    _add_pretrain(commands)
    _add_finetune(commands)


def _add_pretrain(commands: Any) -> None:
    parser = commands.add_parser(
        "pretrain",
        help="train BrainLM by masked prediction, from scratch or from a checkpoint",
        description=PRETRAIN_DESCRIPTION,
    )
    _add_data(parser)
    network = parser.add_argument_group("network (one of these is required)")
    add_options(network, NETWORK)
    add_option(network, START_FROM, dest="start_from")
    objective = parser.add_argument_group("objective")
    mask_ratio = shared(
        "mask_ratio",
        several=False,
        default=None,
        default_text="0.2 for the 13M family, 0.75 for the image models",
        help="share of the tokens of a window that is masked; 0.2, 0.75 and 0.9 in the BrainLM "
        "paper",
    )
    add_options(objective, (mask_ratio, *OBJECTIVE))
    add_option(objective, SEED, suppress=True, dest="seed")
    optimiser = parser.add_argument_group("optimiser (AdamW, linear warm-up, cosine decay to 0)")
    add_options(optimiser, OPTIMISER)
    add_option(optimiser, shared("precision"), suppress=True)
    machine = parser.add_argument_group("execution (changes no result beyond rounding)")
    add_option(machine, _device(), suppress=True)
    add_options(machine, MACHINE)
    parser.set_defaults(work=_pretrain)


def _pretrain(args: argparse.Namespace) -> int:
    from brainlm_bids.training.pretrain import PretrainOptions, pretrain

    return pretrain(PretrainOptions(**given_values(args)), args.words)


def _add_finetune(commands: Any) -> None:
    parser = commands.add_parser(
        "finetune",
        help="fit BrainLM to a variable of the participants, or to the future",
        description=FINETUNE_DESCRIPTION,
    )
    checkpoint = "13M, 111M, 650M, the folder of a checkpoint, or random:NAME"
    add_positional(
        parser, Option(name="checkpoint", kind=str, metavar="CHECKPOINT", help=checkpoint)
    )
    _add_data(parser, FINETUNE_SERIES)
    task = parser.add_argument_group("task (--target or --future is required)")
    add_options(task, TASK)
    _add_evaluation(parser.add_argument_group("evaluation"))
    learning = parser.add_argument_group("training (AdamW)")
    add_options(learning, LEARNING)
    pooling = shared(
        "pooling",
        choices=("cls", "mean"),
        help="input of the head: the CLS token, or the mean of the other tokens",
    )
    add_option(learning, pooling, suppress=True)
    add_option(learning, SEED, suppress=True, dest="seed")
    machine = parser.add_argument_group("execution")
    add_options(machine, (_device(), shared("precision"), shared("offline")), suppress=True)
    add_option(machine, MICRO_BATCH)
    parser.set_defaults(work=_finetune)


def _add_evaluation(group: Any) -> None:
    either = group.add_mutually_exclusive_group()
    add_option(either, FOLDS)
    either.add_argument(
        "--split",
        nargs="?",
        const=SEEDED_SPLIT,
        metavar="FILE",
        help="one split instead of cross-validation: 80/10/10 by the random seed, or a TSV file "
        "with participant_id and split (default: cross-validation)",
    )
    add_options(group, EVALUATION)


def _finetune(args: argparse.Namespace) -> int:
    from brainlm_bids.training.finetune import finetune
    from brainlm_bids.training.finetune_start import FinetuneOptions

    given = given_values(args)
    single = given["split"] == SEEDED_SPLIT
    given["split"] = None if given["split"] is None or single else Path(given["split"])
    options = FinetuneOptions(**given, single=single)
    if options.future is None:
        return finetune(options, args.words)
    from brainlm_bids.experiments.finetuned_future import finetune_future

    return finetune_future(options, args.words)


def _add_data(parser: argparse.ArgumentParser, series: Option = SERIES) -> None:
    """Add what a command learns from, and where its results go."""
    for name, metavar, text in (
        (
            "data",
            "OUT",
            "output folder of brainlm-bids (its series are read once into OUT/training_store), or "
            "a training store",
        ),
        ("run_dir", "RUN_DIR", "folder for the results"),
    ):
        add_positional(parser, Option(name=name, kind=Path, metavar=metavar, help=text))
    add_options(parser.add_argument_group("series of OUT"), (series, SPACE, ATLAS))


def _device() -> Option:
    return shared("device", help="where the network runs; auto: on a GPU if there is one")
