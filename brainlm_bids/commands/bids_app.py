"""`brainlm-bids`: arguments in, a `Settings` and an exit code out.

Nothing heavy is imported before the arguments are known, so that `--help` answers at once.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from brainlm_bids import __version__
from brainlm_bids.app import machine
from brainlm_bids.bids.names import without_prefix
from brainlm_bids.errors import Stopped, UserError

# of nilearn.interfaces.fmriprep.load_confounds_strategy
STRATEGIES = ("simple", "scrubbing", "compcor", "ica_aroma")
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERNAL = 0, 1, 2, 70


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line, and where to look: argparse would print the whole usage of forty flags.
        self.exit(EXIT_USAGE, f"brainlm-bids: {message} (see brainlm-bids --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser: fMRIPrep's vocabulary, every flag with dashes or with underscores."""
    parser = _Parser(
        prog="brainlm-bids",
        description="Raw BIDS fMRI to A424 parcel series to BrainLM embeddings, reconstructions "
        "and network maps.",
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="the raw BIDS data set (never written to)")
    parser.add_argument("output_dir", type=Path, help="where the BIDS derivatives go")
    parser.add_argument(
        "analysis_level",
        nargs="+",
        choices=["participant", "group"],
        help="participant: run by run; group: the cohort, from what participant wrote",
    )
    parser.add_argument("--version", action="version", version=f"brainlm-bids {__version__}")
    _add_selection(parser.add_argument_group("which data"))
    _add_preprocessing(parser.add_argument_group("preprocessing"))
    _add_model(parser.add_argument_group("BrainLM"))
    _add_cohort(parser.add_argument_group("the cohort (group)"))
    _add_execution(parser.add_argument_group("how it runs (never changes a number)"))
    return parser


def _flag(group: Any, name: str, *short: str, **kwargs: Any) -> None:
    spellings = [*short, f"--{name}"]
    if "-" in name:
        spellings.append(f"--{name.replace('-', '_')}")
    # No defaults here: a flag that was not given must not hide a value of the --config-file.
    group.add_argument(*spellings, default=argparse.SUPPRESS, **kwargs)


def _add_selection(group: Any) -> None:
    _flag(
        group,
        "participant-label",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="participants, with or without 'sub-' (default: all)",
    )
    _flag(
        group,
        "session-label",
        nargs="+",
        action="extend",
        metavar="LABEL",
        help="sessions (default: all)",
    )
    _flag(
        group,
        "task-id",
        "-t",
        nargs="+",
        action="extend",
        metavar="TASK",
        help="tasks (default: all)",
    )
    _flag(group, "run-id", nargs="+", action="extend", metavar="RUN", help="runs (default: all)")
    _flag(
        group,
        "bids-filter-file",
        type=Path,
        metavar="FILE",
        help='JSON with PyBIDS filters under "bold" and "t1w", as in fMRIPrep',
    )
    _flag(
        group,
        "skip-bids-validation",
        action="store_true",
        help="take files whose names are not valid BIDS",
    )
    _flag(
        group,
        "derivatives",
        "-d",
        nargs="+",
        action="extend",
        type=_derivatives,
        metavar="fmriprep=PATH",
        help="start from what fMRIPrep left instead of from the raw BOLD",
    )
    _flag(
        group,
        "input-space",
        choices=["auto", "MNI152NLin6Asym", "fsLR", "T1w", "boldref", "MNI152NLin2009cAsym"],
        help="which of fMRIPrep's BOLD files to take (auto: the first of these that is there)",
    )
    _flag(
        group,
        "cifti-atlas",
        type=Path,
        metavar="FILE",
        help="A424.dlabel.nii, for fMRIPrep's CIFTI (default: cache, else download)",
    )
    _flag(
        group,
        "timeseries",
        nargs="+",
        action="extend",
        type=_existing,
        metavar="FILE",
        help="parcel series of A424 made elsewhere (.tsv, .csv, .dat, .npy, .ptseries.nii), for "
        "scaling and BrainLM alone",
    )
    _flag(
        group,
        "timeseries-tr",
        type=_positive,
        metavar="S",
        help="their repetition time (default: that of the file, or of a JSON beside it)",
    )
    _flag(
        group,
        "bids-database-dir",
        type=Path,
        metavar="DIR",
        help="keep the PyBIDS index here and use it again",
    )


def _add_preprocessing(group: Any) -> None:
    _flag(
        group,
        "dummy-scans",
        type=_natural,
        metavar="N",
        help="number of non-steady-state volumes (default: detected)",
    )
    _flag(
        group, "fd-spike-threshold", type=_positive, metavar="MM", help="motion outliers: FD (0.5)"
    )
    _flag(
        group,
        "dvars-spike-threshold",
        type=_positive,
        metavar="X",
        help="motion outliers: standardised DVARS (1.5)",
    )
    _flag(
        group,
        "high-pass",
        type=_positive,
        metavar="S",
        help="high-pass cut-off period in seconds, FSL's filter (100)",
    )
    _flag(
        group,
        "low-pass",
        type=_positive,
        metavar="S",
        help="low-pass cut-off period in seconds (default: none, as BrainLM was trained)",
    )
    _flag(
        group,
        "denoise",
        type=_denoise,
        metavar="nonaggr|aggr|none|confounds:STRATEGY",
        help="removal of ICA-AROMA's noise components (nonaggr); or, of fMRIPrep's confounds, "
        "those of nilearn's strategy " + ", ".join(STRATEGIES),
    )
    _flag(
        group,
        "atlas",
        metavar="A424|A424approx|FILE",
        help="the A424 volume at 2 mm (default: the real one if it can be had, "
        "otherwise an approximation under its own label)",
    )
    _flag(
        group,
        "template",
        choices=["MNI152NLin6Asym", "MNI152NLin2009aSym"],
        help="the template (default: TemplateFlow's MNI152NLin6Asym if it can be had, "
        "otherwise the packaged MNI152NLin2009aSym)",
    )
    _flag(
        group,
        "scaling-stats",
        type=Path,
        metavar="FILE",
        help="TSV of medians and interquartile ranges (default: the recording's own)",
    )
    _flag(
        group,
        "save-bold",
        action="store_true",
        help="also write the denoised BOLD in template space (large)",
    )


def _add_model(group: Any) -> None:
    _flag(
        group,
        "model",
        nargs="+",
        action="extend",
        metavar="MODEL",
        help="111M (default), 650M, 13M, demo (small, pretrained on simulated recordings, comes "
        "with the program), random:tiny|demo|13M|111M|650M (untrained control), none, or a folder "
        "with config.json and weights; several are allowed",
    )
    _flag(
        group, "model-tr", type=_positive, metavar="S", help="sampling that BrainLM expects (0.735)"
    )
    _flag(
        group,
        "mask-ratio",
        nargs="+",
        action="extend",
        type=_ratio,
        metavar="R",
        help="mask ratios of the reconstruction (0.2 0.75 0.9); the series is saved for the first",
    )
    _flag(
        group,
        "input-gain",
        type=_positive,
        metavar="G",
        help="factor on the robust series that the model sees (1)",
    )
    _flag(
        group,
        "window-stride",
        type=_count,
        metavar="N",
        help="volumes from one window of the embeddings to the next, at most 200 (200: no overlap)",
    )
    _flag(
        group,
        "pooling",
        choices=["cls", "mean", "max"],
        help="what stands for a window: the CLS token, or the mean or maximum of the others (cls)",
    )
    _flag(
        group,
        "token-orders",
        type=_count,
        metavar="K",
        help="13M: average the embeddings over K orders of its tokens, and report their spread (1)",
    )
    _flag(
        group,
        "save-tokens",
        action="store_true",
        help="also write all tokens of the encoder, float16 in an npz (10 MB and more per run)",
    )
    _flag(
        group, "random-seed", type=_natural, metavar="SEED", help="seed of every random step (42)"
    )
    _flag(
        group, "device", choices=["auto", "cpu", "cuda"], help="where motion and BrainLM run (auto)"
    )
    _flag(
        group,
        "precision",
        choices=["auto", "float32", "bfloat16"],
        help="of BrainLM's matrix products (auto: bfloat16 on CUDA, float32 on a CPU)",
    )


def _add_cohort(group: Any) -> None:
    _flag(
        group,
        "scaling-volumes",
        type=_count,
        metavar="N",
        help="volumes of each recording that count for the cohort's scaling, at the model's "
        "sampling (all; BrainLM's authors took 200)",
    )
    _flag(
        group,
        "max-mean-fd",
        type=_positive,
        metavar="MM",
        help="leave out recordings with a larger mean framewise displacement (none)",
    )
    _flag(
        group,
        "min-coverage",
        type=_share,
        metavar="F",
        help="leave out recordings that cover less of the parcels, 0 to 1 (0.5)",
    )
    _flag(
        group,
        "target",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="decode these columns of participants.tsv: numbers by regression, words by "
        "classification",
    )
    _flag(
        group,
        "phenotype",
        type=Path,
        metavar="FILE",
        help="TSV with participant_id (and session_id) and more columns for --target",
    )
    _flag(
        group,
        "regress-out",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="remove these from the features inside the training folds: columns, or mean_fd, "
        "coverage, n_volumes",
    )
    _flag(
        group,
        "permutations",
        type=_natural,
        metavar="N",
        help="shuffled targets behind a decoding's p (500)",
    )


def _add_execution(group: Any) -> None:
    _flag(
        group,
        "config-file",
        type=Path,
        metavar="FILE",
        help="TOML with these settings; the command line wins",
    )
    _flag(group, "work-dir", "-w", type=Path, metavar="DIR", help="work folder (./work)")
    _flag(
        group,
        "nprocs",
        type=_count,
        metavar="N",
        help="processes at a time (default: the cores that this job or container may use)",
    )
    _flag(
        group,
        "omp-nthreads",
        type=_count,
        metavar="N",
        help="threads in a process (1); may change the last digits",
    )
    _flag(
        group,
        "mem",
        type=_positive,
        metavar="GB",
        help="memory that may be used at a time (90 %% of the machine's, or of the job's limit)",
    )
    _flag(
        group, "use-plugin", type=Path, metavar="FILE", help="YAML that configures a Nipype plugin"
    )
    _flag(group, "stop-on-first-crash", action="store_true", help="stop at the first failed run")
    _flag(
        group, "resource-monitor", action="store_true", help="Nipype's resource monitor in work-dir"
    )
    _flag(group, "reports-only", action="store_true", help="only write the HTML reports again")
    _flag(
        group,
        "boilerplate-only",
        action="store_true",
        help="only write the methods text, logs/CITATION.md",
    )
    _flag(group, "write-graph", action="store_true", help="write the workflow graph into logs/")
    _flag(
        group,
        "clean-workdir",
        action="store_true",
        help="delete the work folder's contents at first",
    )
    _flag(group, "offline", action="store_true", help="never download anything")
    _flag(group, "dry-run", action="store_true", help="say what would be done, and stop")
    _flag(group, "notrack", action="store_true", help="accepted; there is no telemetry")
    _flag(
        group,
        "verbose",
        "-v",
        action="count",
        help="more messages: of Nipype (-v), of every step (-vv)",
    )


def _number(text: str, kind: type, check: Any, wanted: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not check(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _denoise(text: str) -> str:
    allowed = ["nonaggr", "aggr", "none", *(f"confounds:{name}" for name in STRATEGIES)]
    if text not in allowed:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(allowed)}")
    return text


def _existing(text: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{path}: there is no such file")
    return path


def _derivatives(text: str) -> str:
    name, _, path = text.partition("=")
    folder = Path(path).expanduser().absolute()
    if name != "fmriprep" or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not fmriprep=PATH")
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{folder}: there is no such folder")
    return f"{name}={folder}"


def _positive(text: str) -> float:
    return float(_number(text, float, lambda x: 0 < x < float("inf"), "a positive number"))


def _ratio(text: str) -> float:
    return float(_number(text, float, lambda x: 0 < x < 1, "a ratio between 0 and 1"))


def _share(text: str) -> float:
    return float(_number(text, float, lambda x: 0 <= x <= 1, "a share between 0 and 1"))


def _natural(text: str) -> int:
    return int(_number(text, int, lambda x: x >= 0, "a whole number, 0 or more"))


def _count(text: str) -> int:
    return int(_number(text, int, lambda x: x >= 1, "a whole number, 1 or more"))


def parse(argv: Sequence[str] | None = None) -> Any:
    """Parse and check the command line into a `Settings`.

    Raises
    ------
    UserError
        If a path, a label or a combination of flags makes no sense.
    SystemExit
        With 2 for a malformed command line (argparse).
    """
    from brainlm_bids.settings import Settings, read_toml

    given = vars(build_parser().parse_args(argv))
    given.pop("notrack", None)
    config_file = given.pop("config_file", None)
    values: dict[str, Any] = {"work_dir": Path("work"), "nprocs": machine.available_cores()}
    if config_file is not None:
        values |= read_toml(config_file)
    values |= {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    for name, entity in (("participant_label", "sub"), ("session_label", "ses")):
        labels = (without_prefix(entity, label) for label in values.get(name, ()))
        values[name] = tuple(dict.fromkeys(labels))
    for name, value in values.items():
        if isinstance(value, Path):
            # nodes run in folders of their own; absolute() and not resolve(): DataLad's links
            # must keep their BIDS names
            values[name] = value.expanduser().absolute()
    settings = Settings(**values)
    _check(settings)
    _check_levels(settings, given)
    return settings


def _check_levels(settings: Any, given: dict[str, Any]) -> None:
    """Flags of the cohort that would do nothing."""
    flags = ("scaling_volumes", "max_mean_fd", "min_coverage", "target", "phenotype")
    for name in (*flags, "regress_out", "permutations"):
        if name in given and "group" not in settings.analysis_level:
            raise UserError(f"--{name.replace('_', '-')} belongs to the level group")
    if settings.regress_out and not settings.target:
        raise UserError("--regress-out: there is nothing to decode; give --target too")
    if settings.scaling_volumes is not None and settings.scaling_stats is not None:
        raise UserError("--scaling-volumes: --scaling-stats gives the statistics already")


def _check(settings: Any) -> None:
    if settings.input_space != "auto" and settings.fmriprep_dir is None:
        raise UserError("--input-space says which of fMRIPrep's files to take: give --derivatives")
    if settings.strategy is not None and settings.fmriprep_dir is None:
        raise UserError(
            f"--denoise {settings.denoise} takes fMRIPrep's confounds: give --derivatives"
        )
    _check_folders(settings)
    if settings.timeseries and settings.derivatives:
        raise UserError("--timeseries and --derivatives: give one of them")
    for name in ("bids_filter_file", "cifti_atlas", "scaling_stats", "use_plugin", "phenotype"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise UserError(f"--{name.replace('_', '-')} {path}: there is no such file")
    if "none" in settings.model and len(settings.model) > 1:
        raise UserError("--model none cannot be combined with other models")


def _check_folders(settings: Any) -> None:
    bids_dir, output_dir = settings.bids_dir, settings.output_dir
    if not bids_dir.is_dir():
        raise UserError(f"BIDS_DIR {bids_dir} is not a folder")
    if not os.access(bids_dir, os.R_OK | os.X_OK):
        raise UserError(f"BIDS_DIR {bids_dir}: cannot be read by user {os.getuid()}")
    if output_dir.resolve() == bids_dir.resolve():
        raise UserError(
            f"OUTPUT_DIR is BIDS_DIR ({bids_dir}): nothing may be written into the raw data; "
            f"give another folder, for example {bids_dir / 'derivatives' / 'brainlm-bids'}"
        )
    if _inside(settings.work_dir, bids_dir):
        raise UserError(
            f"--work-dir {settings.work_dir} lies in BIDS_DIR: nothing may be written into the "
            "raw data; give a folder outside of it"
        )


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the call in order. The first process of a container ignores it by default."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `brainlm-bids`; returns 0 (done), 1 (a run failed), 2 (usage) or 70 (internal).

    A call that was stopped returns 128 and the signal's number: 130 (^C), 143 (SIGTERM).
    """
    try:
        settings = parse(argv)
        with _stoppable():
            from brainlm_bids.app import participant as app

            return int(app.run(settings))
    except UserError as error:
        print(f"brainlm-bids: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        print("brainlm-bids: stopped; the same command continues", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(error, Stopped) else signal.SIGINT)
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(
            f"brainlm-bids: internal error ({type(error).__name__}: {error}); please report it "
            "with the lines above",
            file=sys.stderr,
        )
        return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
