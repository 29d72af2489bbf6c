"""`brainlm`: the tools that come with the app.

In: a subcommand and its flags. Out: files or a table, and an exit code: 0 if all is done, 1 after
an error that is reported in one line, 2 for a malformed call. Heavy imports wait for the work.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from brainlm_bids import __version__, messages
from brainlm_bids.commands.experiments import add_experiment_commands
from brainlm_bids.commands.export import add_export_command
from brainlm_bids.commands.parser import Parser, add_option, add_options, add_positional
from brainlm_bids.commands.simulate import add_simulate_command
from brainlm_bids.commands.stopping import code_of, stoppable
from brainlm_bids.commands.training import SEED, add_training_commands
from brainlm_bids.commands.verify import add_verify_command
from brainlm_bids.errors import UserError
from brainlm_bids.remaining import in_words
from brainlm_bids.system_errors import in_one_line
from brainlm_bids.temporary import scratch
from brainlm_bids.values import Option

# Seconds from where on a command tells at its end what it took.
WAITED = 10.0
# as resources.FETCHABLE, kept here too so that --help needs no import; a test holds them equal
FETCHABLE = ("atlas", "cifti-atlas", "template", "111M", "650M", "13M")

FETCH = (
    Option(
        name="what",
        kind=str,
        several=True,
        choices=FETCHABLE,
        help="atlas: A424; cifti-atlas: A424 for CIFTI files; template: MNI152NLin6Asym; 111M, "
        "650M, 13M: BrainLM's published weights",
    ),
)
HOME = Option(
    name="home",
    kind=Path,
    metavar="DIR",
    default_text="$BRAINLM_BIDS_HOME, otherwise ~/.cache/brainlm-bids",
    help="folder of the cache",
)
PHANTOM = (
    Option(name="subjects", kind=int, default=2, bounds="[1, inf)", help="number of subjects"),
    Option(
        name="sessions",
        kind=int,
        default=0,
        bounds="[0, inf)",
        help="sessions per subject; 0: no session level",
    ),
    Option(name="runs", kind=int, default=1, bounds="[1, inf)", help="runs per session"),
    Option(name="volumes", kind=int, default=240, bounds="[3, inf)", help="volumes per run"),
    Option(
        name="tr",
        kind=float,
        default=2.0,
        unit="s",
        bounds="(0, 60]",
        metavar="S",
        help="repetition time",
    ),
    Option(
        name="voxel",
        kind=float,
        default=3.5,
        unit="mm",
        bounds="(0, inf)",
        metavar="MM",
        help="voxel size of the BOLD series",
    ),
    Option(
        name="motion",
        kind=str,
        default="low",
        metavar="none|low|high|FILE",
        help="head motion: none, low, high, or an FSL .par file",
    ),
)
REPORTED = Option(
    name="folder",
    kind=Path,
    several=True,
    metavar="FOLDER",
    help="folder of results of brainlm forecast, perturb, finetune or pretrain",
)
# as in phantom.acquisition; a test holds them equal
FIELD_MAP_KINDS = ("phasediff", "phases", "field", "pair")
SLICE_ORDERS = ("none", "ascending", "interleaved")
# What scanners do to a series of echo-planar images, off by default
SCANNER = (
    Option(
        name="distortion",
        kind=float,
        default=0.0,
        unit="mm",
        bounds="[0, 14]",
        metavar="MM",
        help="largest displacement in the brain by an inhomogeneous field, at the frontal and "
        "temporal poles",
    ),
    Option(
        name="phase_encoding",
        kind=str,
        default="j",
        choices=("i", "i-", "j", "j-", "k", "k-"),
        help="direction of the phase encoding, along which the field displaces",
    ),
    Option(
        name="fieldmaps",
        kind=str,
        several=True,
        default=(),
        default_text="none",
        choices=FIELD_MAP_KINDS,
        help="field maps in fmap/: a phase difference, two phases, a field in Hz, a pair of "
        "opposite phase encoding",
    ),
    Option(
        name="sbref",
        kind=bool,
        default=False,
        help="a single-band reference of each run, of higher contrast and with less noise",
    ),
    Option(
        name="slices",
        kind=str,
        default="none",
        choices=SLICE_ORDERS,
        help="order in which slices are acquired; none: all at the start of the volume",
    ),
    Option(
        name="multiband",
        kind=int,
        default=1,
        bounds="[1, inf)",
        help="slices that are acquired at once, where they have an order",
    ),
    Option(
        name="echoes",
        kind=float,
        several=True,
        default=(),
        default_text="one echo",
        unit="s",
        bounds="(0, 0.2]",
        metavar="S",
        help="echo times of several echoes",
    ),
    Option(
        name="lesion",
        kind=bool,
        default=False,
        help="a lesion of the brain in the T1w, with its mask",
    ),
)
# switch of `brainlm phantom` -> its help
PHANTOM_SWITCHES = {
    "drift": "slow drifts of the signal",
    "respiration": "respiratory noise",
    "cardiac": "cardiac noise",
    "global-signal": "a signal that is common to all voxels",
    "spin-history": "changes of brightness that follow motion",
    "non-steady": "bright volumes before the steady state",
    "thermal-noise": "thermal noise",
    "coil-shading": "uneven coil sensitivity",
    "dropout": "signal dropout near the sinuses",
}
SCORE = (
    Option(
        name="phantom", kind=Path, metavar="PHANTOM", help="data set written by brainlm phantom"
    ),
    Option(
        name="derivatives",
        kind=Path,
        metavar="DERIVATIVES",
        help="output folder of brainlm-bids for this data set",
    ),
)


def build_parser() -> Parser:
    """The parser of all subcommands; each stores its function under `work`."""
    parser = Parser(
        prog="brainlm",
        description="Tools of brainlm-bids: resources, simulated data, training and experiments.",
    )
    parser.add_argument("--version", action="version", version=f"brainlm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fetch(commands)
    _add_phantom(commands)
    _add_score(commands)
    add_simulate_command(commands)
    add_training_commands(commands)
    add_experiment_commands(commands)
    add_export_command(commands)
    add_verify_command(commands)
    _add_report(commands)
    return parser


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write the page of a forecast, perturbation or training again",
        description="Write forecast.html, perturb.html, finetune.html or pretrain.html again from "
        "the files of a folder of results, also of a training that is at work or was interrupted.",
    )
    add_positional(report, REPORTED)
    report.set_defaults(work=_report)


def _report(args: argparse.Namespace) -> None:
    from brainlm_bids.report.tools.page import write_pages

    for folder in args.folder:
        for page in write_pages(folder):
            print(page)


def _add_fetch(commands: Any) -> None:
    fetch = commands.add_parser(
        "fetch",
        help="download the atlas, the template or BrainLM's weights into the cache",
        description="Download resources into the cache, for later calls without a network.",
    )
    for argument in FETCH:
        add_positional(fetch, argument)
    add_option(fetch, HOME)
    fetch.set_defaults(work=_fetch)


def _add_phantom(commands: Any) -> None:
    phantom = commands.add_parser(
        "phantom",
        help="write a simulated BIDS data set with known ground truth",
        description="Write a simulated raw BIDS data set; its ground truth is stored in "
        "derivatives/phantom.",
    )
    out = Option(name="out", kind=Path, metavar="OUT", help="a new or empty folder")
    add_positional(phantom, out)
    add_options(phantom, PHANTOM)
    add_option(phantom, SEED, dest="seed")
    add_options(phantom.add_argument_group("what the scanner does, off by default"), SCANNER)
    switches = phantom.add_argument_group("sources of noise and distortion, all on by default")
    for name, text in PHANTOM_SWITCHES.items():
        switches.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=text
        )
    phantom.set_defaults(work=_phantom)


def _add_score(commands: Any) -> None:
    score = commands.add_parser(
        "phantom-score",
        help="compare the derivatives of a phantom with its ground truth",
        description="Print a row per run: motion and its error, agreement of the parcel series "
        "with the truth, and the best agreement that the noise allows.",
    )
    for argument in SCORE:
        add_positional(score, argument)
    score.set_defaults(work=_score)


def _fetch(args: argparse.Namespace) -> None:
    from brainlm_bids import resources

    resources.fetch(args.what, home=args.home)


def _phantom(args: argparse.Namespace) -> None:
    from brainlm_bids.phantom import write_phantom

    kinds = ("none", "low", "high")
    switches = {name.replace("-", "_") for name in PHANTOM_SWITCHES}
    with _whole(args.out):
        out = write_phantom(
            args.out,
            n_subjects=args.subjects,
            n_sessions=args.sessions,
            n_runs=args.runs,
            n_volumes=args.volumes,
            tr=args.tr,
            voxel=args.voxel,
            motion=args.motion if args.motion in kinds else Path(args.motion),
            seed=args.seed,
            distortion=args.distortion,
            phase_encoding=args.phase_encoding,
            fieldmaps=tuple(args.fieldmaps),
            sbref=args.sbref,
            slices=args.slices,
            multiband=args.multiband,
            echoes=tuple(args.echoes),
            lesion=args.lesion,
            **{name: getattr(args, name) for name in switches},
        )
    print(out)


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Remove what a failure leaves in a new or empty folder: a second call would refuse it."""
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    try:
        yield
    except BaseException as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(folder)  # libraries do not tell it
        raise


def _score(args: argparse.Namespace) -> None:
    from brainlm_bids.phantom import recovered

    rows = recovered(args.derivatives, args.phantom)
    if not rows:
        raise UserError(f"{args.derivatives}: holds no run of the phantom {args.phantom}")
    print(_table(rows))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows of equal keys out in columns, numbers with three decimals."""
    lines = [list(rows[0])]
    lines += [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `brainlm` and return the exit code (argparse itself leaves with 2, or 0 for --help).

    One of several processes of torch does not return: see `_leave`.
    """
    words = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(words)
    args.words = ["brainlm", *words]
    messages.configure(0)
    began = time.monotonic()
    try:
        with stoppable("brainlm"), scratch():
            code = args.work(args) or 0
        _tell_end(time.monotonic() - began)
    except UserError as error:
        messages.tell(f"brainlm: {error}")
        code = 1
    except KeyboardInterrupt as error:
        messages.tell("brainlm: interrupted")
        code = code_of(error)
    except (OSError, MemoryError) as error:
        refused = in_one_line(error)
        if refused is None:
            raise
        messages.tell(f"brainlm: {refused}")
        code = 1
    if "torch" in sys.modules and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _leave(code)
    return code


def _tell_end(seconds: float) -> None:
    """What a command took, if one had to wait for it."""
    if seconds >= WAITED and os.environ.get("RANK", "0") == "0":  # the first of several processes
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB, on Linux
        messages.tell(f"brainlm: {in_words(seconds)}, at most {memory:.1f} GB of memory")


def _leave(code: int) -> NoReturn:
    """End this process at once; everything has been written by now.

    Threads of torch's process group may hold Python objects when the interpreter shuts down, and
    abort (pytorch/pytorch#179291): a finished training would count as failed, and be queued again.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
