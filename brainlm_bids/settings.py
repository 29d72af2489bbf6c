"""The table of settings: one row per setting, from which everything else about settings is made.

A row has a name, a type, a default, a unit, bounds, a group, a help text, and what it changes. The
command line, the defaults in its help, TOML files with their checks, the values that are hashed,
and the page of options in the documentation come from this table. A new setting is a new row.
"""

# ruff: noqa: RUF009  (`setting` makes fields of a dataclass)

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from brainlm_bids.bounds import LARGEST_SETTINGS
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_text, sha256
from brainlm_bids.table import (
    BRAINLM,
    COHORT,
    DATA,
    EXECUTION,
    GROUP_LEVEL,
    MODEL,
    NOTHING,
    POSITIONAL,
    PREPROCESSING,
    REQUIRED,
    SERIES,
    Setting,
    rows_of,
    setting,
)
from brainlm_bids.values import Option, did_you_mean

# of nilearn.interfaces.fmriprep.load_confounds_strategy
STRATEGIES = ("simple", "scrubbing", "compcor", "ica_aroma")


# Programs whose derivatives runs may start from; one that starts from another's comes after it.
DERIVATIVES = ("fmriprep", "xcp_d")


def _derivatives_folder(text: str) -> str:
    """`fmriprep=PATH` or `xcp_d=PATH`, with an absolute path."""
    name, _, path = text.partition("=")
    key = name.lower().replace("-", "_")
    if key not in DERIVATIVES or not path:
        raise UserError(f"{text!r} is not {'=PATH or '.join(DERIVATIVES)}=PATH")
    return f"{key}={Path(path).expanduser().absolute()}"


def _parcellation(text: str) -> str:
    """A name as it is, FILE[:LABEL] with an absolute path."""
    is_file = "/" in text or ".nii" in text
    return str(Path(text).expanduser().absolute()) if is_file else text


def _combat(text: str) -> str:
    """`combat:COLUMN`."""
    method, _, column = text.partition(":")
    if method.lower() != "combat" or not column:
        raise UserError(f"{text!r} is not combat:COLUMN, such as combat:site")
    return f"combat:{column}"


def _orientation(text: str) -> str:
    """Three letters, one for each axis: left or right, front or back, up or down."""
    code = text.strip().upper()
    if len(code) != 3 or any(len(set(code) & set(pair)) != 1 for pair in ("LR", "AP", "SI")):
        raise UserError(
            f"{text!r} is not a code such as LAS: one letter for each axis, of L or R, A or P, S "
            "or I, in the order of the axes"
        )
    return code


def _readout_time(text: str) -> float | str:
    """Seconds, or `estimated`."""
    seconds = Option(name="", kind=float, help="", unit="s", bounds="[0.001, 0.5]")
    if text == "estimated":
        return text
    try:
        return float(seconds.read(text))
    except UserError as error:
        raise UserError(f"{error}, or estimated") from None


@dataclass(frozen=True)
class Settings:
    """The settings of one call of `brainlm-bids`."""

    # fmt: off
    bids_dir: Path = setting(
        REQUIRED, POSITIONAL, SERIES, by_content=True, metavar="BIDS_DIR",
        help="the raw BIDS data set; nothing is ever written into it")
    output_dir: Path = setting(
        REQUIRED, POSITIONAL, NOTHING, metavar="OUTPUT_DIR",
        help="the folder for the derivatives")
    work_dir: Path = setting(
        Path("work"), EXECUTION, NOTHING, written=True, spellings=("-w",), metavar="DIR",
        help="folder for intermediate files")
    analysis_level: tuple[str, ...] = setting(
        ("participant",), POSITIONAL, NOTHING, choices=("participant", "group"),
        help="participant: process each run; group: analyse the cohort from the outputs of the "
        "participant level; both may be given")
    # --- input data
    participant_label: tuple[str, ...] = setting(
        (), DATA, COHORT, by_content=True, in_fmriprep=True, prefix="sub-", metavar="LABEL",
        default_text="all",
        help="participants to process, with or without 'sub-'")
    session_label: tuple[str, ...] = setting(
        (), DATA, COHORT, by_content=True, prefix="ses-", metavar="LABEL", default_text="all",
        help="sessions to process, with or without 'ses-'")
    task_id: tuple[str, ...] = setting(
        (), DATA, COHORT, by_content=True, prefix="task-", spellings=("-t",), metavar="TASK",
        default_text="all",
        help="tasks to process, with or without 'task-'")
    run_id: tuple[str, ...] = setting(
        (), DATA, COHORT, by_content=True, prefix="run-", metavar="RUN", default_text="all",
        help="runs to process, with or without 'run-'; 1 stands for run-1 and run-01")
    bids_filter_file: Path | None = setting(
        None, DATA, SERIES, by_content=True, file=True, in_fmriprep=True, metavar="FILE",
        default_text="none",
        help='JSON file with PyBIDS filters under "bold", "t1w", "fmap" and "sbref", as in '
        "fMRIPrep")
    skip_bids_validation: bool = setting(
        False, DATA, NOTHING, in_fmriprep=True,
        help="also use files whose names are not valid BIDS")
    bids_database_dir: Path | None = setting(
        None, DATA, NOTHING, written=True, in_fmriprep=True, metavar="DIR",
        default_text="in memory",
        help="folder in which the PyBIDS index is kept, so that later calls need not make it "
        "again")
    anat_fallback: bool = setting(
        False, DATA, SERIES, by_content=True,
        help="process runs whose T1w image is damaged, or was never fetched, without it: their "
        "BOLD reference is registered to the template directly, which is less accurate")
    derivatives: tuple[str, ...] = setting(
        (), DATA, SERIES, by_content=True, spellings=("-d",),
        metavar="fmriprep=PATH|xcp_d=PATH", convert=_derivatives_folder,
        default_text="start from the raw BOLD",
        help="start from existing derivatives of fMRIPrep, or of XCP-D, whose denoised BOLD is "
        "not denoised or filtered again; with fmriprep= beside xcp_d=, its amplitude is brought to "
        "the grand mean of fMRIPrep's BOLD")
    input_space: str = setting(
        "auto", DATA, SERIES, by_content=True,
        choices=("auto", "MNI152NLin6Asym", "fsLR", "T1w", "boldref", "MNI152NLin2009cAsym"),
        help="space of the BOLD files of --derivatives to use; auto takes the first of these that "
        "a run has")
    cifti_atlas: Path | None = setting(
        None, DATA, SERIES, by_content=True, file=True, metavar="FILE",
        default_text="from the cache, otherwise downloaded",
        help="A424.dlabel.nii, which CIFTI files (fsLR) of --derivatives need")
    timeseries: tuple[Path, ...] = setting(
        (), DATA, SERIES, by_content=True, file=True, metavar="FILE", default_text="none",
        help="existing A424 parcel series (.tsv, .csv, .dat, .npy, .ptseries.nii): they are "
        "scaled and given to BrainLM without preprocessing")
    timeseries_tr: float | None = setting(
        None, DATA, SERIES, by_content=True, unit="s", bounds="[0.05, 30]", metavar="S",
        default_text="from the file, or from a JSON file beside it",
        help="repetition time of the --timeseries")
    assume_orientation: str | None = setting(
        None, DATA, SERIES, metavar="CODE", convert=_orientation,
        default_text="such images are refused",
        help="where the three axes of the stored arrays lead, such as LAS (to the left, to the "
        "front, upwards), for raw images whose headers do not record it")
    datalad_get: bool = setting(
        False, DATA, NOTHING,
        help="fetch the files of runs that are not there with DataLad, which has to be installed, "
        "for as many runs at a time as there are processes")
    datalad_drop: bool = setting(
        False, DATA, NOTHING,
        help="with --datalad-get: drop the contents that this call has fetched as soon as no run "
        "needs them any more")
    # --- preprocessing
    ignore: tuple[str, ...] = setting(
        (), PREPROCESSING, SERIES, choices=("fieldmaps", "slicetiming", "sbref"),
        in_fmriprep=True, default_text="nothing",
        help="parts of the data set to leave out: field maps, slice times, single-band references")
    fallback_total_readout_time: float | str | None = setting(
        None, PREPROCESSING, SERIES, by_content=True, unit="s", bounds="[0.001, 0.5]",
        in_fmriprep=True, metavar="S|estimated", convert=_readout_time,
        default_text="such runs are not corrected by field maps",
        help="total read-out time of images whose sidecars do not tell it, or estimated, for the "
        "estimates that dcm2niix makes of it")
    use_syn_sdc: str | None = setting(
        None, PREPROCESSING, SERIES, by_content=True, choices=("warn", "error"), alone="error",
        in_fmriprep=True, metavar="[warn|error]",
        default_text="runs without a field map are not corrected",
        help="estimate the distortion of raw runs without a field map from their T1w image; where "
        "that is impossible, for want of a T1w image or of the axis of phase encoding, the run "
        "fails (error), or is processed without (warn); it also may be refused, and the run is "
        "processed without")
    dummy_scans: int | None = setting(
        None, PREPROCESSING, SERIES, bounds="[0, inf)", in_fmriprep=True, metavar="N",
        default_text="detected",
        help="number of non-steady-state volumes at the start of each run")
    fd_spike_threshold: float = setting(
        0.5, PREPROCESSING, SERIES, unit="mm", bounds="(0, 20]", metavar="MM",
        help="framewise displacement above which a volume is a motion outlier")
    dvars_spike_threshold: float = setting(
        1.5, PREPROCESSING, SERIES, bounds="(0, inf)", metavar="X",
        help="standardised DVARS above which a volume is a motion outlier")
    max_bad_volumes: float = setting(
        0.2, PREPROCESSING, SERIES, bounds="[0, 1)", metavar="SHARE",
        help="largest share of whole bad volumes (zero, missing, repeated, far too bright or dark) "
        "with which a run is processed: they take no part in any fit; a run with more fails")
    me_denoise: str = setting(
        "none", PREPROCESSING, SERIES, choices=("none", "tedana"),
        metavar="none|tedana",
        help="additional denoising of raw runs of three or more echoes by their dependence on the "
        "echo time, by tedana, which has to be installed; --denoise comes after it")
    slice_timing: bool = setting(
        False, PREPROCESSING, SERIES,
        help="correct slice timing, by the SliceTiming of the sidecars of raw runs: every slice is "
        "brought to the middle of its volume's acquisition; UK Biobank, most of BrainLM's training "
        "data, was not corrected")
    high_pass: float = setting(
        100.0, PREPROCESSING, SERIES, unit="s", bounds="[1, 10000]", metavar="S",
        help="cut-off of the high-pass filter: a period in seconds, or a frequency such as 0.01Hz")
    low_pass: float | None = setting(
        None, PREPROCESSING, SERIES, unit="s", bounds="[1, 1000]", metavar="S",
        default_text="no low-pass filter, as in the training of BrainLM",
        help="cut-off of the low-pass filter: a period in seconds, or a frequency such as 0.1Hz")
    denoise: str = setting(
        "nonaggr", PREPROCESSING, SERIES,
        choices=("nonaggr", "aggr", "none", *(f"confounds:{name}" for name in STRATEGIES)),
        metavar="nonaggr|aggr|none|confounds:STRATEGY",
        help="non-aggressive or aggressive removal of the components that ICA-AROMA classifies as "
        "noise, none, or regression of fMRIPrep's confounds by one of nilearn's strategies "
        + ", ".join(STRATEGIES))
    atlas: str | None = setting(
        None, PREPROCESSING, SERIES, by_content=True, words=("A424", "A424approx"),
        metavar="A424|A424approx|FILE",
        default_text="A424 if it is available, otherwise A424approx",
        help="the A424 atlas at 2 mm: the published one, the packaged approximation (its outputs "
        "carry its name), or a NIfTI file")
    parcellation: tuple[str, ...] = setting(
        (), PREPROCESSING, SERIES, by_content=True, metavar="NAME|FILE[:LABEL]",
        convert=_parcellation, default_text="A424 alone",
        help="also write coverage, series and connectivity in other parcellations: Schaefer100x7 "
        "to Schaefer1000x17 (parcels and networks, from TemplateFlow), or an image of labels in "
        "template space with its table beside it (columns index and name); LABEL names its "
        "outputs. BrainLM is given A424")
    template: str | None = setting(
        None, PREPROCESSING, SERIES, by_content=True,
        choices=("MNI152NLin6Asym", "MNI152NLin2009aSym"),
        default_text="MNI152NLin6Asym if it is available, otherwise MNI152NLin2009aSym",
        help="template space: that of TemplateFlow, or the packaged one")
    normalization: str = setting(
        "fast", PREPROCESSING, SERIES, choices=("fast", "syn"),
        help="how the T1w image is registered to the template nonlinearly: fast, a greedy "
        "diffeomorphism, or syn, SyN of ANTs, as a second opinion (one minute more)")
    scaling_stats: Path | None = setting(
        None, PREPROCESSING, (SERIES, COHORT), by_content=True, file=True, metavar="FILE",
        default_text="statistics of each recording; at group level, of the cohort",
        help="TSV file with the median and interquartile range of each parcel, used for scaling")
    min_parcel_coverage: float = setting(
        0.5, PREPROCESSING, SERIES, bounds="[0, 1]", metavar="F",
        help="parcels of which a smaller fraction lies in the brain of a run are n/a in its "
        "series; for the model they are replaced by their median")
    save_bold: bool = setting(
        False, PREPROCESSING, SERIES,
        help="also write the denoised BOLD series in template space (large files)")
    save_parcels: bool = setting(
        False, PREPROCESSING, SERIES,
        help="also write the parcel series before denoising and filtering, which "
        "`brainlm forecast --causal` needs")
    # --- BrainLM
    model: tuple[str, ...] = setting(
        ("111M",), BRAINLM, MODEL, by_content=True, words=("111M", "650M", "13M", "demo", "none"),
        metavar="MODEL",
        help="one or more models: 111M, 650M or 13M (published weights), demo (a small packaged "
        "model, pretrained on simulated recordings), random:NAME with NAME one of tiny, demo, "
        "13M, 111M, 650M (untrained, as a control), a folder with config.json and weights, or "
        "none to stop after the parcel series")
    model_tr: float = setting(
        0.735, BRAINLM, (SERIES, COHORT), unit="s", bounds="[0.05, 30]", metavar="S",
        help="sampling interval to which the series are resampled for BrainLM; the default is "
        "that of UK Biobank, most of its training data")
    mask_ratio: tuple[float, ...] = setting(
        (0.2, 0.75, 0.9), BRAINLM, MODEL, bounds="(0, 1)", metavar="R",
        help="share of the tokens that is masked when a series is reconstructed; one or more "
        "ratios are scored, and the series reconstructed with the first is saved")
    input_gain: float = setting(
        1.0, BRAINLM, MODEL, bounds="(0, inf)", metavar="G",
        help="factor by which the scaled series are multiplied before they enter the model")
    pooling: str = setting(
        "cls", BRAINLM, MODEL, choices=("cls", "mean", "max"),
        help="embedding of a window: the CLS token, or the mean or maximum of the other tokens")
    window_stride: int | None = setting(
        None, BRAINLM, MODEL, unit="volumes", bounds="[1, inf)", metavar="N",
        default_text="the length of a window, 200: no overlap",
        help="volumes from the start of one window to the start of the next")
    token_orders: int = setting(
        1, BRAINLM, MODEL, bounds="[1, inf)", metavar="K",
        help="13M only: average the embeddings over K random orders of the tokens, and report "
        "their spread")
    save_tokens: bool = setting(
        False, BRAINLM, MODEL,
        help="also write the tokens of the encoder (float16, npz; at least 10 MB per run)")
    precision: str = setting(
        "auto", BRAINLM, MODEL, choices=("auto", "float32", "bfloat16"),
        help="number format of the matrix products of BrainLM; auto: bfloat16 on a GPU, float32 "
        "on a CPU")
    random_seed: int = setting(
        42, BRAINLM, (SERIES, MODEL, COHORT), bounds="[0, inf)", in_fmriprep=True, metavar="SEED",
        help="seed of every random step")
    # --- group level
    scaling_volumes: int | None = setting(
        None, GROUP_LEVEL, COHORT, unit="volumes", bounds="[1, inf)", metavar="N",
        default_text="all",
        help="number of volumes, at the sampling of the model, that each recording contributes to "
        "the scaling statistics; BrainLM was trained with 200")
    max_mean_fd: float | None = setting(
        None, GROUP_LEVEL, COHORT, by_content=True, unit="mm", bounds="(0, 20]", metavar="MM",
        default_text="no limit",
        help="exclude recordings with a larger mean framewise displacement")
    min_coverage: float = setting(
        0.5, GROUP_LEVEL, COHORT, by_content=True, bounds="[0, 1]", metavar="F",
        help="exclude recordings that cover a smaller fraction of the parcels on average")
    include_suspect: bool = setting(
        False, GROUP_LEVEL, COHORT, by_content=True,
        help="also include recordings whose registration has probably failed, by its numbers")
    ratings: Path | None = setting(
        None, GROUP_LEVEL, COHORT, by_content=True, file=True, metavar="FILE", default_text="none",
        help="TSV file of ratings, as the report pages export it: recordings rated fail are "
        "excluded, and those rated pass are included even if their registration is suspect")
    target: tuple[str, ...] = setting(
        (), GROUP_LEVEL, COHORT, by_content=True, metavar="COLUMN", default_text="none",
        help="columns of participants.tsv to predict from the embeddings: numbers by regression, "
        "categories by classification; COLUMN:category and COLUMN:number decide for numbers")
    phenotype: Path | None = setting(
        None, GROUP_LEVEL, COHORT, by_content=True, file=True, metavar="FILE", default_text="none",
        help="TSV file with participant_id (and session_id) and further columns for --target and "
        "--regress-out")
    regress_out: tuple[str, ...] = setting(
        (), GROUP_LEVEL, COHORT, by_content=True, metavar="COLUMN", default_text="none",
        help="variables to regress out of the features within the training folds: columns, also "
        "as COLUMN:category or COLUMN:number, mean_fd, coverage, n_volumes or repetition_time")
    readouts: tuple[str, ...] = setting(
        ("linear", "attentive", "mlp"), GROUP_LEVEL, COHORT, by_content=True,
        choices=("linear", "attentive", "mlp"),
        help="readouts of --target and --decode-states: linear (of CLS and mean tokens, "
        "connectivity, motion, coordinates), attentive (a probe of all tokens), mlp (of the raw "
        "parcel series); linear alone takes a tenth of the time")
    harmonize: str | None = setting(
        None, GROUP_LEVEL, COHORT, by_content=True, metavar="combat:COLUMN", convert=_combat,
        default_text="none",
        help="remove the effects of the sites in a column from the features by ComBat, fitted in "
        "the training folds; linear readouts only")
    keep: tuple[str, ...] = setting(
        (), GROUP_LEVEL, COHORT, by_content=True, metavar="COLUMN", default_text="none",
        help="columns whose effects on the features --harmonize keeps, such as age sex")
    folds_by: str | None = setting(
        None, GROUP_LEVEL, COHORT, by_content=True, metavar="COLUMN",
        default_text="five folds of subjects",
        help="predict each site in a column, such as site, by a model of the others; scores, p and "
        "intervals are then those within sites")
    strict: bool = setting(
        False, GROUP_LEVEL, COHORT, by_content=True,
        help="refuse to decode a target that depends on the site, unless --harmonize, --folds-by "
        "or --regress-out take the site into account; a warning without it")
    decode_states: str | None = setting(
        None, GROUP_LEVEL, COHORT, by_content=True, metavar="COLUMN", alone="trial_type",
        default_text="none",
        help="also decode states within recordings: the words of a column of events.tsv, or task "
        "for the tasks of whole recordings")
    state_delay: float = setting(
        5.0, GROUP_LEVEL, COHORT, by_content=True, unit="s", bounds="[0, 30]", metavar="S",
        help="haemodynamic delay between events and the volumes that show them")
    permutations: int = setting(
        500, GROUP_LEVEL, COHORT, bounds="[0, inf)", metavar="N",
        help="number of permutations of the target behind each p value")
    # --- execution
    device: str = setting(
        "auto", EXECUTION, NOTHING, choices=("auto", "cpu", "cuda"),
        help="where motion correction and BrainLM run; auto: on a GPU if there is one")
    nprocs: int = setting(
        1, EXECUTION, NOTHING, bounds="[1, inf)", in_fmriprep=True,
        aliases={"--nthreads": None, "--n-cpus": None}, metavar="N",
        default_text="the cores that this job or container may use",
        help="number of processes that run at a time")
    omp_nthreads: int = setting(
        1, EXECUTION, NOTHING, bounds="[1, inf)", in_fmriprep=True, metavar="N",
        help="threads per process; may change the last digits of a result")
    mem: float | None = setting(
        None, EXECUTION, NOTHING, unit="GB", bounds="(0, inf)", aliases={"--mem-mb": "MB"},
        metavar="GB", default_text="90 % of the memory of the machine, job or container",
        help="memory that may be used at a time, such as 8, 8G or 8000MB")
    use_plugin: Path | None = setting(
        None, EXECUTION, NOTHING, file=True, aliases={"--nipype-plugin-file": None}, metavar="FILE",
        default_text="MultiProc on this machine",
        help="YAML file that configures a Nipype plugin")
    stop_on_first_crash: bool = setting(
        False, EXECUTION, NOTHING, in_fmriprep=True,
        help="stop all processing when one run fails")
    resource_monitor: bool = setting(
        False, EXECUTION, NOTHING,
        help="record memory and processor use with Nipype's resource monitor, in the work folder")
    figures: str = setting(
        "all", EXECUTION, NOTHING, choices=("all", "suspect", "none"),
        metavar="all|suspect|none",
        help="figures of recordings to draw: all; suspect, those of series and models only for "
        "recordings with a warning; or none. What was left out of these two kinds, --reports-only "
        "draws from the outputs; figures of images, such as the registrations, are not drawn "
        "later, since images are not kept")
    reports_only: bool = setting(
        False, EXECUTION, NOTHING,
        help="only write the HTML reports again, from existing outputs")
    single_file_report: bool = setting(
        False, EXECUTION, NOTHING,
        help="embed the pictures in the HTML reports, so that each is one file that can be mailed")
    boilerplate_only: bool = setting(
        False, EXECUTION, NOTHING,
        help="only write the methods text, logs/CITATION.md, again, from existing outputs")
    write_graph: bool = setting(
        False, EXECUTION, NOTHING,
        help="write a diagram of the workflow into logs/")
    clean_workdir: bool = setting(
        False, EXECUTION, NOTHING,
        help="empty the work folder before the run starts")
    verify_inputs: bool = setting(
        False, EXECUTION, NOTHING,
        help="read every input file again for its checksum; without it, one whose size, times and "
        "number on the disk are as recorded counts as unchanged")
    offline: bool = setting(
        False, EXECUTION, NOTHING,
        help="never download anything")
    dry_run: bool = setting(
        False, EXECUTION, NOTHING,
        help="list for each run what would be computed, with its inputs, space and time, and stop")
    verbose: int = setting(
        0, EXECUTION, NOTHING, bounds="[0, inf)", counted=True, spellings=("-v",),
        help="more messages: -v also a line for each step on a terminal, those of Nipype and "
        "warnings of other libraries, -vv also the start of every step")
    # fmt: on

    @property
    def strategy(self) -> str | None:
        """The strategy of `--denoise confounds:<strategy>`."""
        name, _, strategy = self.denoise.partition(":")
        return strategy if name == "confounds" else None

    @property
    def harmonised_column(self) -> str | None:
        """The column of `--harmonize combat:COLUMN`, with its kind if that is given."""
        return None if self.harmonize is None else self.harmonize.partition(":")[2]

    @property
    def derivatives_dirs(self) -> dict[str, Path]:
        """The folders of `--derivatives NAME=PATH` by their programs, in the order of these."""
        given = dict(text.split("=", 1) for text in self.derivatives)
        return {key: Path(given[key]) for key in DERIVATIVES if key in given}

    @property
    def producer(self) -> str | None:
        """The program whose derivatives runs start from, one of `DERIVATIVES`; None without.

        Of several folders it is that of the last program, which started from the others.
        """
        return next(reversed(self.derivatives_dirs), None)

    @property
    def derivatives_dir(self) -> Path | None:
        """The folder of the derivatives that runs start from."""
        return None if self.producer is None else self.derivatives_dirs[self.producer]

    def subset(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The named settings as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in names}

    def changing(self, stage: str) -> dict[str, Any]:
        """The settings whose values the results of a stage depend on, as plain JSON values.

        Parameters
        ----------
        stage
            "series", "model" or "cohort".

        Returns
        -------
        dict
            What names the configuration of the stage, together with the checksums of the files
            that other settings select. Before a model's results are named, `precision` has to be
            one that does not depend on the machine (`model.placement.resolve_precision`).
        """
        return dict(_changing(self, stage))

    def to_toml(self) -> str:
        """Return the settings as TOML text that `--config-file` reads."""
        import tomli_w

        values = self.subset(tuple(TABLE))
        return tomli_w.dumps({key: value for key, value in values.items() if value is not None})


TABLE: Mapping[str, Setting] = rows_of(Settings)


@lru_cache(16)  # every recording of a cohort asks for them
def _changing(settings: Settings, stage: str) -> dict[str, Any]:
    rows = (row for row in TABLE.values() if stage in row.changes and not row.by_content)
    return settings.subset(tuple(row.name for row in rows))


def rows_in(group: str) -> Iterator[Setting]:
    """The rows of one group, in the order of the table."""
    return (row for row in TABLE.values() if row.group == group)


def read_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, with the checks of the command line.

    Raises
    ------
    UserError
        If the file cannot be read, is not TOML, or has a setting that does not exist or a value
        that is not allowed.
    """
    try:
        values = tomllib.loads(read_text(path, LARGEST_SETTINGS))
    except UserError as error:
        raise UserError(f"--config-file {error}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise UserError(f"--config-file {path}: is not valid TOML: {error}") from error
    return {name: _checked(name, value, path) for name, value in values.items()}


def _checked(name: str, value: Any, path: Path) -> Any:
    if name not in TABLE:
        raise UserError(
            f"--config-file {path}: unknown setting {name!r}{did_you_mean(name, TABLE)}; the names "
            "are those of the command line, with underscores"
        )
    try:
        return TABLE[name].check(value)
    except UserError as error:
        raise UserError(f"--config-file {path}: {name}: {error}") from None


def configuration_hash(values: dict[str, Any]) -> str:
    """A short name for a configuration: the first 16 hex digits of the SHA-256 of its JSON.

    Examples
    --------
    >>> configuration_hash({"high_pass": 100.0}) == configuration_hash({"high_pass": 100.0})
    True
    >>> configuration_hash({"high_pass": 100.0}) == configuration_hash({"high_pass": 128.0})
    False
    """
    text = json.dumps(values, sort_keys=True, default=str)
    return sha256(text)[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
