"""`brainlm verify`: whether weights are what they should be, and predict as was reported.

For whoever has the published weights for the first time. Everything is computed twice, by the
model and by the same network with random weights: a number that both reach says nothing about the
weights.
"""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import __version__, resources
from brainlm_bids.bids.recordings import find_recordings
from brainlm_bids.errors import UserError
from brainlm_bids.experiments.results import find_models, load
from brainlm_bids.files import DATA, read_json, write_json
from brainlm_bids.model.checkpoint import LoadedModel, control_seed, untrained_twin
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.reconstruction import reconstruct
from brainlm_bids.parcels.steps import scale
from brainlm_bids.progress import Progress
from brainlm_bids.resources import ModelResource
from brainlm_bids.temporary import PREFIX, remove_abandoned
from brainlm_bids.training.recordings import read_series

# Parameters of the published networks: computed from their configurations (docs/reference/networks)
PARAMETERS = {"13M": 13_429_292, "111M": 112_590_080, "650M": 658_337_868}
# R² of masked values that the training records of the published weights report (trainer_state.json
# of the repository of the weights), and the share that was masked.
REPORTED = {"13M": (0.463, 0.2), "650M": (0.257, 0.75)}
# The same in the paper (Ortega Caro et al., 2024), of UK Biobank and of HCP.
PAPER = {"UK Biobank": 0.46, "HCP": 0.28}
# Share that is masked where no training record says
MASK_RATIO = 0.2
# Largest difference from stored numbers that other versions of torch explain
TOLERANCE = 1e-4
VOLUMES = 240


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `brainlm verify`; field names are those of the command line."""

    model: str
    recordings: Path | None = None
    output: Path | None = None
    space: str | None = None
    atlas: str | None = None
    device: str = "auto"
    precision: str = "float32"
    seed: int = 42
    offline: bool = False


def verify(options: VerifyOptions) -> int:
    """Check a checkpoint, print what was found, and write it as a file that can be sent.

    Parameters
    ----------
    options
        The checkpoint, recordings, and where it runs.

    Returns
    -------
    int
        0; 1 if a number is not what it is known to be.

    Raises
    ------
    UserError
        If the checkpoint cannot be loaded: a name or a shape that does not fit is named.
    """
    (resource,) = find_models([options.model], options.offline)
    with Progress("step") as progress:
        with progress.doing(f"{resource.name}: loading"):
            model = load(resource, options)
        with progress.doing(f"{resource.name}: simulated recording"):
            found = _forward(model, options.seed)
        scores = _scores_of(options, resource, model, progress)
    problems = _problems(resource, model, found)
    report = _report(options, resource, model, found, scores, problems)
    path = options.output or Path(f"verify-{resource.label}.json")
    # by a call that was killed; the folder is the user's, in which nothing else is looked at
    remove_abandoned(path.parent.glob(f"{PREFIX}*-{escape(path.name)}"))
    write_json(path, report)
    print(_text(report, path))
    return 1 if problems else 0


def simulated_recording() -> NDArray[np.float64]:
    """A recording in closed form: every machine and every version of every library has the same.

    Returns
    -------
    ndarray
        (240, 424) robustly scaled: each network has twelve oscillations of 0.01 to 0.12 Hz, which
        its parcels share with their own weights and phases.

    Examples
    --------
    >>> simulated_recording().shape
    (240, 424)
    """
    parcels = resources.parcels()
    time = 0.735 * np.arange(VOLUMES)[:, None]
    number = np.arange(len(parcels.names))
    series = np.zeros((VOLUMES, len(number)))
    for k in range(12):
        frequency = 0.01 * (k + 1)
        of_network = 2.399963 * (k + 1) * (parcels.network_index + 1)
        own = 0.618034 * number * (k + 2)
        series += np.sin(2 * np.pi * frequency * time + of_network)
        series += 0.7 * np.sin(2 * np.pi * (frequency + 0.003) * time + own)
    return scale(series, 0.735, model_tr=0.735).series


def _forward(model: LoadedModel, seed: int) -> dict[str, Any]:
    """Embedding and masked R² of the simulated recording, beside those of random weights."""
    series, xyz = simulated_recording(), resources.parcels().xyz
    twin = untrained_twin(model, control_seed(seed))
    result: dict[str, Any] = {}
    for name, one in (("Model", model), ("Untrained", twin)):
        vector = embed(one, series, xyz, tr=0.735, seed=seed).vectors[0]
        result[name] = {
            "Mean": float(vector.mean()),
            "StandardDeviation": float(vector.std()),
            "First": [float(value) for value in vector[:8]],
        }
    ratio = MASK_RATIO
    result["MaskRatio"] = ratio
    result["MaskedR2"] = _masked(model, twin, series, ratio, seed)
    return result


def _masked(
    model: LoadedModel, twin: LoadedModel, series: NDArray[Any], ratio: float, seed: int
) -> dict[str, float]:
    xyz = resources.parcels().xyz
    scores = reconstruct(model, series, xyz, mask_ratio=ratio, seed=seed).metrics
    control = reconstruct(twin, series, xyz, mask_ratio=ratio, seed=seed, with_baselines=False)
    r2 = {name: float(values["r2"]) for name, values in scores.items()}
    return {"model": r2.pop("model"), "untrained": float(control.metrics["model"]["r2"]), **r2}


def _scores_of(
    options: VerifyOptions, resource: ModelResource, model: LoadedModel, progress: Progress
) -> dict[str, Any] | None:
    """Masked R² over the recordings of a folder: mean and standard deviation, without any name."""
    if options.recordings is None:
        return None
    ratio = REPORTED.get(resource.name, (0.0, MASK_RATIO))[1]
    items = find_recordings(options.recordings, "robust", space=options.space, atlas=options.atlas)
    twin = untrained_twin(model, control_seed(options.seed))
    rows = []
    for number, item in enumerate(progress.each(items, lambda one: f"{one.stem}: masked values")):
        try:
            rows.append(_masked(model, twin, read_series(item), ratio, options.seed + number))
        except UserError as error:
            progress.leave_out()
            print(f"brainlm: left out: {error}", file=sys.stderr)
    if not rows:
        raise UserError(f"{options.recordings}: no recording could be used")
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {
        "NumberOfRecordings": len(rows),
        "MaskRatio": ratio,
        "MaskedR2": {
            name: {
                "Mean": float(column.mean()),
                "StandardDeviation": float(column.std(ddof=1)) if len(column) > 1 else None,
            }
            for name, column in values.items()
        },
    }


def _known(resource: ModelResource) -> Mapping[str, Any]:
    """The stored numbers of a checkpoint with this checksum; empty if there are none."""
    known = read_json(DATA / "verify.json")
    return next((one for one in known.values() if one["Sha256"] == resource.sha256), {})


def _problems(resource: ModelResource, model: LoadedModel, found: Mapping[str, Any]) -> list[str]:
    problems = []
    count, expected = _parameters(model), PARAMETERS.get(resource.name)
    if expected is not None and count != expected:
        problems.append(f"it has {count:,} parameters; {resource.name} has {expected:,}")
    known = _known(resource)
    if known:
        pairs = [
            *zip(found["Model"]["First"], known["First"], strict=True),
            (found["MaskedR2"]["model"], known["MaskedR2"]),
        ]
        largest = max(abs(ours - theirs) for ours, theirs in pairs)
        if not largest <= TOLERANCE:
            problems.append(f"its numbers differ by {largest:.2g} from those that are known")
    own = np.array(found["Model"]["First"])
    if not np.isfinite(own).all() or found["Model"]["StandardDeviation"] == 0:
        problems.append("its embedding is constant, or has values that are not finite")
    return problems


def _parameters(model: LoadedModel) -> int:
    """Number of parameters, those included that a released checkpoint has and never uses."""
    own = sum(parameter.numel() for parameter in model.module.parameters())
    return own + sum(tensor.numel() for tensor in model.network.unused_tensors().values())


def _report(
    options: VerifyOptions,
    resource: ModelResource,
    model: LoadedModel,
    found: Mapping[str, Any],
    scores: Mapping[str, Any] | None,
    problems: Sequence[str],
) -> dict[str, Any]:
    reported = REPORTED.get(resource.name)
    return {
        "Model": resource.name if resource.name in PARAMETERS else resource.label,
        "Source": resource.source if resource.name in PARAMETERS else None,
        "Sha256": resource.sha256,
        "Licence": resource.licence,
        "Family": model.family,
        "Parameters": _parameters(model),
        "Simulated": dict(found),
        "Recordings": None if scores is None else dict(scores),
        "ReportedR2": None if reported is None else {"R2": reported[0], "MaskRatio": reported[1]},
        "StoredNumbers": bool(_known(resource)),
        "Problems": list(problems),
        "RandomSeed": options.seed,
        "Device": str(model.placement.device),
        "Precision": model.placement.precision,
        "GeneratedBy": {
            "Name": "brainlm-bids",
            "Version": __version__,
            "Python": platform.python_version(),
            "Torch": _version("torch"),
            "Machine": platform.machine(),
        },
    }


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def _text(report: Mapping[str, Any], path: Path) -> str:
    """What the screen shows."""
    lines = [
        f"model        {report['Model']}, {report['Family']}, {report['Parameters']:,} parameters",
        f"weights      sha256 {report['Sha256'] or 'none: they are random'}",
        f"licence      {report['Licence']}",
        "names        every name and every shape fits",
        "numbers      "
        + (
            "compared with those that are stored for these weights"
            if report["StoredNumbers"]
            else "none are stored for these weights: please send the file below"
        ),
    ]
    simulated = report["Simulated"]
    lines.append(f"simulated    {_in_words(simulated['MaskedR2'], simulated['MaskRatio'])}")
    recordings = report["Recordings"]
    if recordings is not None:
        means = {name: one["Mean"] for name, one in recordings["MaskedR2"].items()}
        count = recordings["NumberOfRecordings"]
        lines.append(f"recordings   {count}: {_in_words(means, recordings['MaskRatio'])}")
    if report["ReportedR2"] is not None:
        reported, paper = report["ReportedR2"], ", ".join(f"{k} {v}" for k, v in PAPER.items())
        lines.append(
            f"reported     R² {reported['R2']} at the end of its training, "
            f"{100 * reported['MaskRatio']:.0f} % masked; in the paper {paper}"
        )
    lines += [f"problem      {text}" for text in report["Problems"]]
    lines.append(f"file         {path}: holds no name of a recording, and can be sent to us")
    return "\n".join(lines)


def _in_words(r2: Mapping[str, float], ratio: float) -> str:
    values = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in r2.items())
    return f"R² of masked values ({100 * ratio:.0f} % at a time): {values}"


def stored_numbers(report: Path) -> str:
    """The entry of `data/verify.json` for a file that `brainlm verify` wrote.

    Parameters
    ----------
    report
        The file.

    Returns
    -------
    str
        JSON.
    """
    values = read_json(report)
    entry = {
        "Sha256": values["Sha256"],
        "First": values["Simulated"]["Model"]["First"],
        "MaskedR2": values["Simulated"]["MaskedR2"]["model"],
    }
    return json.dumps({str(values["Model"]): entry}, indent=2)
