"""The page of `brainlm forecast`: how far each model sees, beside baselines and controls."""

from __future__ import annotations

from typing import Any

from brainlm_bids.bids.derivatives import Derivative, find_derivatives
from brainlm_bids.report.figure_files import existing_figures
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools import horizons
from brainlm_bids.report.tools.models import (
    models_section,
    not_tabled,
    untrained_models,
    warnings_of,
)
from brainlm_bids.report.tools.parts import Section
from brainlm_bids.report.tools.records import FORECAST, Run
from brainlm_bids.report.values import Fact, as_list, number, read_json, read_tsv

LEAD = (
    "From several points of each recording, the volumes that follow were predicted from the "
    "volumes before, and compared with what the scanner measured. R² is 0 for a prediction that "
    "knows nothing of the dynamics (the median), and negative for a worse one."
)
NO_CONTROL = (
    "No untrained model was run beside the others, so what the architecture alone predicts is not "
    "known: give, for example, `--model 13M random:13M` with another folder for the results."
)


def sections(run: Run) -> list[Section]:
    """A section per group of recordings, and one on the models.

    Parameters
    ----------
    run
        The folder.
    """
    found = find_derivatives(run.folder, ["group_forecast"])
    models: dict[str, Any] = {}
    parts = []
    for number_, one in enumerate(found, start=1):
        sidecar = read_json(one.path.with_suffix(".json"))
        models |= mapping(sidecar.get("Models"))
        parts.append(_section(run, one, sidecar, f"forecasts-{number_}"))
    if parts:
        tabled = [
            name
            for one in found
            for name in as_list(read_json(one.path.with_suffix(".json")).get("Recordings"))
        ]
        parts[-1].notes += not_tabled(run.folder, "forecast_errors", tabled)
    else:
        parts = [
            Section("Forecasts", "forecasts", claims=["No recording has been forecast completely."])
        ]
    return [*parts, models_section(models)] if models else parts


def _section(run: Run, one: Derivative, sidecar: dict[str, Any], anchor: str) -> Section:
    errors = read_tsv(one.path)
    gains = read_tsv(one.naming.path("group_forecast_comparisons"))
    models = mapping(sidecar.get("Models"))
    untrained = untrained_models(models)
    names = [str(name) for name in models]
    by_tr = horizons.by_repetition_time(errors, gains, {k: k for k in names}, untrained)
    claims = [" ".join(horizons.claims(part, name)) for part in by_tr for name in names]
    recordings = [str(name) for name in as_list(sidecar.get("Recordings"))]
    own = [
        read_json(other.path.with_suffix(".json"))
        for other in find_derivatives(run.folder, ["forecast_errors"])
        if other.naming.stem in recordings
    ]
    task = one.naming.stem.removeprefix("group").removeprefix("_")
    section = Section(
        f"Forecasts: {task}" if task else "Forecasts",
        anchor,
        LEAD,
        claims,
        warnings_of([sidecar, *own]),
        _facts(run, errors, own, recordings),
        [one for part in existing_figures(one.naming, FORECAST).values() for one in part],
        [table for part in by_tr for table in horizons.tables(part)],
    )
    if not untrained:
        section.notes.append(NO_CONTROL)
    section.notes += _knowledge(own)
    return section


def _facts(
    run: Run, errors: list[dict[str, str]], own: list[dict[str, Any]], recordings: list[str]
) -> list[Fact]:
    trs = sorted({float(row["repetition_time"]) for row in errors})
    subjects = {name.partition("_")[0] for name in recordings}
    volumes = run.parameters.get("volumes")
    origins = sorted({len(as_list(one.get("Origins"))) for one in own})
    facts = [
        Fact("Recordings", str(len(recordings))),
        Fact("Participants", str(len(subjects))),
        Fact("Repetition time", f"{', '.join(number(tr, 3) for tr in trs)} s"),
        Fact("Samples predicted", str(volumes), "at the rate of the model, 0.735 s"),
    ]
    if origins:
        shown = " to ".join(dict.fromkeys((str(origins[0]), str(origins[-1]))))
        facts.append(Fact("Origins per recording", shown))
    return facts


def _knowledge(own: list[dict[str, Any]]) -> list[str]:
    """What still knows the future, as the sidecars record it."""
    fitted = dict.fromkeys(
        str(x) for one in own for x in as_list(one.get("FittedToWholeRecording"))
    )
    if not fitted:
        return []
    return [
        f"Fitted to whole recordings, and thus with knowledge of what is predicted: "
        f"{'; '.join(fitted)}. All predictors share this knowledge; `--causal` removes most of it."
    ]
