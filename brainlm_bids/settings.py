"""Settings: one frozen value that names what a call computes and how; TOML in and out.

What comes in: command-line values or a TOML file. What goes out: a `Settings`, handed down as an
argument, and the part of it that numbers depend on, which (hashed with the resources) names a
configuration: outputs made under the same hash are not computed again.
"""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from brainlm_bids.errors import UserError

# The fields that preprocessing depends on, and those that the model stage adds.
PREPROCESSING_FIELDS = (
    "dummy_scans",
    "fd_spike_threshold",
    "dvars_spike_threshold",
    "high_pass",
    "low_pass",
    "denoise",
    "model_tr",
    "save_bold",
    "random_seed",
)
MODEL_FIELDS = (
    "mask_ratio",
    "input_gain",
    "pooling",
    "window_stride",
    "token_orders",
    "save_tokens",
    "precision",
    "random_seed",
)


@dataclass(frozen=True)
class Settings:
    """What one call of `brainlm-bids` was asked for (units: seconds, millimetres, GB)."""

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    analysis_level: tuple[str, ...] = ("participant",)
    # which data
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_id: tuple[str, ...] = ()
    run_id: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    skip_bids_validation: bool = False
    bids_database_dir: Path | None = None
    derivatives: tuple[str, ...] = ()  # NAME=PATH
    input_space: str = "auto"
    cifti_atlas: Path | None = None
    timeseries: tuple[Path, ...] = ()
    timeseries_tr: float | None = None
    # preprocessing
    dummy_scans: int | None = None
    fd_spike_threshold: float = 0.5
    dvars_spike_threshold: float = 1.5
    high_pass: float = 100.0
    low_pass: float | None = None
    denoise: str = "nonaggr"
    atlas: str | None = None
    template: str | None = None
    scaling_stats: Path | None = None
    save_bold: bool = False
    # BrainLM
    model: tuple[str, ...] = ("111M",)
    model_tr: float = 0.735
    mask_ratio: tuple[float, ...] = (0.2, 0.75, 0.9)
    input_gain: float = 1.0
    pooling: str = "cls"
    window_stride: int | None = None
    token_orders: int = 1
    save_tokens: bool = False
    precision: str = "auto"
    random_seed: int = 42
    # the cohort
    scaling_volumes: int | None = None
    max_mean_fd: float | None = None
    min_coverage: float = 0.5
    target: tuple[str, ...] = ()
    phenotype: Path | None = None
    regress_out: tuple[str, ...] = ()
    permutations: int = 500
    # how it is run: never changes a number
    device: str = "auto"
    nprocs: int = 1
    omp_nthreads: int = 1
    mem: float | None = None
    use_plugin: Path | None = None
    stop_on_first_crash: bool = False
    resource_monitor: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    clean_workdir: bool = False
    offline: bool = False
    dry_run: bool = False
    verbose: int = 0

    @property
    def strategy(self) -> str | None:
        """The strategy of `--denoise confounds:<strategy>`."""
        name, _, strategy = self.denoise.partition(":")
        return strategy if name == "confounds" else None

    @property
    def fmriprep_dir(self) -> Path | None:
        """The folder of `--derivatives fmriprep=PATH`."""
        given = dict(one.split("=", 1) for one in self.derivatives)
        return Path(given["fmriprep"]) if "fmriprep" in given else None

    def subset(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The named fields as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in names}

    def to_toml(self) -> str:
        """This configuration as TOML text that `--config-file` reads back."""
        import tomli_w

        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return tomli_w.dumps({key: value for key, value in values.items() if value is not None})


def read_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, checked against the fields and their types.

    Raises
    ------
    UserError
        If the file cannot be read, is not TOML, or names a setting that does not exist.
    """
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--config-file {path}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--config-file {path}: is not valid TOML: {error}") from error
    known = get_type_hints(Settings)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(
            f"--config-file {path}: unknown setting {unknown[0]!r}; "
            "the names are those of the command line, with underscores"
        )
    return {name: _typed(value, known[name], f"{path}: {name}") for name, value in values.items()}


def configuration_hash(values: dict[str, Any]) -> str:
    """A short name for a configuration: the first 16 hex digits of the SHA-256 of its JSON.

    >>> configuration_hash({"high_pass": 100.0}) == configuration_hash({"high_pass": 100.0})
    True
    >>> configuration_hash({"high_pass": 100.0}) == configuration_hash({"high_pass": 128.0})
    False
    """
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def replace(settings: Settings, **changes: Any) -> Settings:
    """A copy with some fields changed (`dataclasses.replace`, typed)."""
    return dataclasses.replace(settings, **changes)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Turn a TOML value into the type of its field, or say what was expected."""
    text = str(hint)
    if text.startswith("tuple"):
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, found {value!r}")
        kind = float if "float" in text else Path if "Path" in text else str
        return tuple(kind(item) for item in value)
    if "Path" in text and isinstance(value, str):
        return Path(value)
    if "float" in text and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    expected = {"bool": bool, "int": int, "str": str}
    wanted = [kind for name, kind in expected.items() if name in text]
    if wanted and type(value) in wanted:
        return value
    raise UserError(f"{where}: {value!r} has the wrong type")
