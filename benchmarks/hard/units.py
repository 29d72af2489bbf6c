"""The command line: units, flags of other programs, and what is misspelled."""

from pathlib import Path

from benchmarks.hard.benign import lines, names, series, series_dataset
from benchmarks.hard.case import REFUSED, RIGHT, Batch, Case

_BASE = ("{folder}/raw", "{folder}/out", "participant", "-w", "{folder}/work", "--offline")
_RUN = (
    *_BASE,
    *("--atlas", "A424approx", "--model", "none", "--dry-run"),
    *("--timeseries", "{folder}/series/sub-benign_task-rest_timeseries.tsv"),
)


def _refused(name: str, flags: str, about: str, says: str) -> Case:
    return Case(name, about, (REFUSED,), arguments=(*_RUN, *flags.split()), says=says)


def _same(name: str, flags: str, like: str, about: str) -> Case:
    return Case(
        name,
        about,
        (RIGHT,),
        arguments=(*_RUN, *flags.split()),
        like=(*_RUN, *like.split()),
    )


def _prepare(folder: Path) -> None:
    series_dataset(folder)
    func = folder / "raw" / "sub-01" / "func"
    func.mkdir(parents=True)
    (func / "sub-01_task-film_bold.nii.gz").touch()
    (folder / "short.tsv").write_bytes(lines(list(names())[:3], series()[:, :3]))


UNITS = Batch(
    "command line",
    "Units, the flags of other programs, and what is misspelled.",
    _prepare,
    lambda folder: [],
    (
        _refused("hz", "--high-pass 0.01", "`--high-pass 0.01`, meant as Hz", "hz"),
        _same("hundredS", "--high-pass 100s", "--high-pass 100", "`--high-pass 100s`"),
        _same("hzUnit", "--high-pass 0.01Hz", "--high-pass 100", "`--high-pass 0.01Hz`"),
        _same("lowHz", "--low-pass 0.1Hz", "--low-pass 10", "`--low-pass 0.1Hz`"),
        _refused(
            "lowAbove", "--low-pass 200", "a low-pass filter below the high-pass filter", "pass"
        ),
        _refused("mem", "--mem 8000", "`--mem 8000`, meant as MB", "mb|gb"),
        _same("memG", "--mem 2G", "--mem 2", "`--mem 2G`"),
        _same("memMB", "--mem 2000MB", "--mem 2", "`--mem 2000MB`"),
        _same("memMbFlag", "--mem-mb 2000", "--mem 2", "fMRIPrep’s `--mem-mb`"),
        _same("nthreads", "--nthreads 2", "--nprocs 2", "fMRIPrep’s `--nthreads`"),
        _same("nCpus", "--n-cpus 2", "--nprocs 2", "fMRIPrep’s `--n-cpus`"),
        _refused(
            "tr735", "--timeseries-tr 735", "`--timeseries-tr 735`, meant as ms", "second|ms|60"
        ),
        _same("trMs", "--timeseries-tr 735ms", "--timeseries-tr 0.735", "`--timeseries-tr 735ms`"),
        _refused("flag", "--high-passs 100", "a misspelled flag", "--high-pass"),
        _refused("denoise", "--denoise nonagr", "a misspelled choice", "nonaggr"),
        Case(
            "model",
            "a misspelled model",
            (REFUSED,),
            arguments=(*_BASE, "--model", "11M", "--dry-run"),
            says="111m",
        ),
        _refused("negative", "--dummy-scans -1", "a negative number of volumes", "dummy"),
        _refused("ratio", "--mask-ratio 75", "a share as a percentage", "mask-ratio|mask_ratio"),
        _refused("nan", "--fd-spike-threshold nan", "a threshold of NaN", "fd-spike"),
        Case(
            "noSuchDir",
            "a BIDS_DIR that does not exist",
            (REFUSED,),
            arguments=("{folder}/nowhere", *_BASE[1:]),
            says="nowhere",
        ),
        Case(
            "nobody",
            "a participant that does not exist",
            (REFUSED,),
            arguments=(
                *_BASE,
                "--participant-label",
                "02",
                "--dry-run",
                "--model",
                "none",
                "--atlas",
                "A424approx",
            ),
            says="02|01",
        ),
        Case(
            "noTask",
            "a task that does not exist",
            (REFUSED,),
            arguments=(
                *_BASE,
                "--task-id",
                "rest",
                "--dry-run",
                "--model",
                "none",
                "--atlas",
                "A424approx",
            ),
            says="film",
        ),
        Case(
            "three",
            "a series of three columns as --scaling-stats",
            (REFUSED,),
            arguments=(*_RUN[:-3], "--scaling-stats", "{folder}/short.tsv", *_RUN[-2:]),
            says="short.tsv",
        ),
    ),
    dry=True,
    quick=True,
)
