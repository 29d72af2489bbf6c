"""Parser of `brainlm export`. Nothing heavy is imported before the work begins."""

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
Write the parcel series of an output folder for other programs: as a data set of Hugging Face's
`datasets`, in the layout of Brainmarks or of BrainLM's toolkit, or as a file per recording. The
recordings are split by subject into train, validation and test."""
ARGUMENTS = (
    Option(name="input", kind=Path, metavar="OUT", help="output folder of brainlm-bids"),
    Option(name="destination", kind=Path, metavar="DEST", help="a new or empty folder"),
)
SELECTION = ("participant_label", "session_label", "task_id", "run_id")
FORM = (
    Option(
        name="format",
        kind=str,
        default="arrow",
        choices=("arrow", "npz", "csv"),
        help="arrow: a data set for datasets.load_from_disk (needs pyarrow); npz, csv: a file per "
        "recording",
    ),
    Option(
        name="layout",
        kind=str,
        default="brainmarks",
        choices=("brainmarks", "toolkit"),
        help="columns of the data set: brainmarks (bold with mean 0 and standard deviation 1, "
        "mean, std, tr, …) or toolkit (those of BrainLM's own toolkit, for its notebooks)",
    ),
    Option(
        name="series",
        kind=str,
        default="denoised",
        choices=("denoised", "robust", "robustcohort"),
        help="denoised: in grand-mean units, at the rate of the scanner; robust, robustcohort: "
        "scaled with the statistics of the recording or of the cohort, at the rate of the model. "
        "The layout toolkit has the unscaled series as well",
    ),
    Option(
        name="tr",
        kind=float,
        unit="s",
        bounds="(0, 60]",
        metavar="S",
        default_text="that of each series",
        help="bring all series to this repetition time",
    ),
    Option(
        name="frames",
        kind=int,
        bounds="[1, inf)",
        metavar="N",
        default_text="all",
        help="write the first N volumes, and leave shorter recordings out; Brainmarks puts "
        "recordings of one length into a batch",
    ),
)
TABLES = (
    Option(
        name="split",
        kind=Path,
        metavar="FILE",
        default_text="80, 10 and 10 % of the subjects, at random",
        help="TSV with participant_id and split (train, validation or test)",
    ),
    Option(
        name="bids_dir",
        kind=Path,
        metavar="DIR",
        default_text="as recorded in OUT",
        help="data set whose participants.tsv has the sites",
    ),
    Option(
        name="site",
        kind=str,
        default="site",
        metavar="COLUMN",
        help="column of the sites; where there is none, they are empty",
    ),
    Option(
        name="columns",
        kind=str,
        several=True,
        default=(),
        default_text="none",
        metavar="COLUMN",
        help="further columns of participants.tsv or --phenotype to write, as texts",
    ),
)


def add_export_command(commands: Any) -> None:
    """Add `export` to the subparsers of `brainlm`."""
    parser = commands.add_parser(
        "export", help="write series for other programs", description=DESCRIPTION
    )
    for argument in ARGUMENTS:
        add_positional(parser, argument)
    add_options(parser, FORM)
    group = parser.add_argument_group("recordings")
    add_options(group, (shared(name) for name in SELECTION), suppress=True)
    add_options(group, (SPACE, ATLAS))
    subjects = parser.add_argument_group("subjects")
    phenotype = shared("phenotype", help="TSV file with participant_id and further columns")
    add_options(subjects, (*TABLES, phenotype))
    add_option(subjects, SEED, dest="seed")
    parser.set_defaults(work=_export)


def _export(args: argparse.Namespace) -> int:
    from brainlm_bids.export.work import ExportOptions, export

    return export(ExportOptions(**given_values(args)))
