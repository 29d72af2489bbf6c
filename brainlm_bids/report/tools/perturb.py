"""The page of `brainlm perturb`: what the change of some parcels does, beside random sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.bids.derivatives import Derivative, find_derivatives
from brainlm_bids.figures.palette import NETWORKS
from brainlm_bids.notices import Kind, from_json
from brainlm_bids.report.best import best_rows
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.figure_files import existing_figures
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.tools.models import (
    models_section,
    not_tabled,
    untrained_models,
    warnings_of,
)
from brainlm_bids.report.tools.parts import Cell, Section, Table, cell, row, written
from brainlm_bids.report.tools.records import PERTURB, Run
from brainlm_bids.report.values import (
    Fact,
    Row,
    as_float,
    as_list,
    joined,
    number,
    read_json,
    read_tsv,
)

SIGNIFICANT = 0.05
_NETWORKS = {one.abbreviation: one.name for one in NETWORKS}
SHOWN_PARCELS = 5
LEAD = (
    "The series of the chosen parcels were changed, and two responses of the model were compared "
    "with those to the unchanged recording: how far the embedding moves, and how much the "
    "predictions for all other parcels change. The same change of random sets of parcels gives the "
    "null distribution. The result shows what the model does, not what the brain would do."
)
NO_CONTROL = (
    "No untrained model was perturbed beside this one, so what the architecture alone does is not "
    "known: give, for example, `--model 13M random:13M` with another folder for the results."
)


class Response(NamedTuple):
    """The responses of one model, mean over subjects.

    Attributes
    ----------
    label
        Of the model.
    untrained
        Whether its weights are random.
    moved
        The row of the mean in the table of embeddings.
    recordings
        The other rows of that table.
    parcels
        Rows of the table of parcels.
    sidecar
        Of the table of parcels.
    """

    label: str
    untrained: bool
    moved: Row
    recordings: Sequence[Row]
    parcels: Sequence[Row]
    sidecar: Mapping[str, Any]

    @property
    def n_sets(self) -> int:
        """Number of random sets that the embedding is compared with."""
        return int(as_float(self.moved.get("n_null")) or 0)

    @property
    def significant(self) -> list[Row]:
        """Parcels with q ≤ 0.05, the largest z first."""
        found = [one for one in self.parcels if _or(as_float(one.get("q")), 1.0) <= SIGNIFICANT]
        return sorted(found, key=lambda one: -_or(as_float(one.get("z")), 0.0))

    @property
    def known(self) -> list[Row]:
        """Parcels whose prediction could be compared."""
        return [one for one in self.parcels if as_float(one.get("change")) is not None]


def sections(run: Run) -> list[Section]:
    """A section per model and group of recordings, and one on the models.

    Parameters
    ----------
    run
        The folder.
    """
    found = find_derivatives(run.folder, ["group_perturbation"])
    responses = [(one, _response(one)) for one in found]
    controls = [response for _, response in responses if response.untrained]
    parts = [
        _section(one, response, controls, f"perturbation-{k}")
        for k, (one, response) in enumerate(responses, start=1)
    ]
    if not parts:
        text = "No recording has been perturbed completely."
        return [Section("Perturbation", "perturbation", claims=[text])]
    tabled = [name for _, one in responses for name in as_list(one.sidecar.get("Recordings"))]
    parts[-1].notes += not_tabled(run.folder, "perturbation", tabled)
    models: dict[str, Any] = {}
    for _, response in responses:
        models |= mapping(response.sidecar.get("Models"))
    return [*parts, models_section(models)]


def _response(one: Derivative) -> Response:
    sidecar = read_json(one.path.with_suffix(".json"))
    moved = read_tsv(one.naming.path("group_perturbation_embeddings", model=one.model))
    mean = next((line for line in moved if line.get("recording") == "mean"), {})
    return Response(
        one.model,
        one.model in untrained_models(mapping(sidecar.get("Models"))),
        mean,
        [line for line in moved if line.get("recording") != "mean"],
        read_tsv(one.path),
        sidecar,
    )


def _section(
    one: Derivative, response: Response, controls: Sequence[Response], anchor: str
) -> Section:
    section = Section(
        response.label,
        anchor,
        LEAD,
        claims(response, controls),
        warnings_of([response.sidecar, *_own(one)]),
        _facts(response),
        [
            figure
            for part in existing_figures(one.naming, PERTURB, one.model).values()
            for figure in part
        ],
        tables(response),
    )
    if not controls:
        section.notes.append(NO_CONTROL)
    section.notes.append(_matched(response))
    return section


def _own(one: Derivative) -> list[dict[str, Any]]:
    """Sidecars of the single recordings of a model."""
    own = find_derivatives(Path(one.naming.output_dir), ["perturbation"])
    return [read_json(x.path.with_suffix(".json")) for x in own if x.model == one.model]


def claims(response: Response, controls: Sequence[Response]) -> list[str]:
    """Sentences on the embedding, on the predictions, and on the control.

    Parameters
    ----------
    response
        Of the model.
    controls
        Those of untrained models to the same change.
    """
    sentences = []
    if response.untrained:
        sentences.append(f"{response.label} has random weights: its response is a control.")
    sentences.append(_moved(response))
    sentences.append(_changed(response))
    for control in controls:
        if not response.untrained:
            sentences += _against(response, control)
    return sentences


def _moved(response: Response) -> str:
    distance, p = (as_float(response.moved.get(key)) for key in ("distance", "p"))
    if distance is None:
        return "How far the embedding moves is not known."
    text = f"The embedding moves by {number(distance, 3)}"
    relative = as_float(response.moved.get("relative_distance"))
    if relative is not None:
        text += f" ({number(100 * relative, 2)} % of its length)"
    if not response.n_sets or p is None:
        return f"{text}; without random sets, whether that is much is not known."
    n_far = round(p * (response.n_sets + 1)) - 1
    far = f"{n_far} of {counted(response.n_sets, 'random set')} move it at least as far"
    if n_far == 1:
        far = far.replace("move it", "moves it")
    verdict = (
        "farther than random sets of parcels move it"
        if p <= SIGNIFICANT
        else "which is not distinguishable from random sets of parcels"
    )
    return f"{text}, {verdict}: {far} (p = {number(p, 2)})."


def _changed(response: Response) -> str:
    known = response.known
    if not known:
        return "The predictions for other parcels could not be compared."
    kinds = [one.kind for one in from_json(response.sidecar.get("Warnings"))]
    if Kind.ROUNDING_ONLY in kinds:
        return "No prediction for another parcel changes by more than rounding errors."
    n_sets = max(int(as_float(one.get("n_null")) or 0) for one in known)
    if not n_sets:
        return "Without random sets, which predictions change more than by chance is not known."
    found, n = response.significant, counted(len(known), "other parcel")
    if not found:
        text = f"The predictions for none of {n} change more than with random sets (q ≤ 0.05)"
        smallest = 1 / (n_sets + 1)
        if smallest * len(known) > SIGNIFICANT:
            text += (
                f"; with {counted(n_sets, 'random set')} the smallest p of a parcel is "
                f"{number(smallest, 2)}, so a single parcel cannot reach it: use more sets"
            )
        return f"{text}."
    names = joined([one["name"] for one in found[:SHOWN_PARCELS]])
    more = ", the largest z in " if len(found) > SHOWN_PARCELS else ": "
    return (
        f"The predictions for {len(found)} of {n} change more than with random sets (q ≤ 0.05)"
        f"{more}{names}."
    )


def _against(response: Response, control: Response) -> list[str]:
    own, other = (as_float(one.moved.get("z")) for one in (response, control))
    if own is None or other is None:
        return []
    return [
        f"Beside random sets its embedding moves by z = {number(own, 2)}, that of the untrained "
        f"control {control.label} by z = {number(other, 2)}; whether the two differ is not tested."
    ]


def _matched(response: Response) -> str:
    sidecar = response.sidecar
    alike = str(sidecar.get("NullMatchedFor") or "number of parcels")
    text = f"The random sets are matched for: {alike}."
    own, others = (as_float(sidecar.get(key)) for key in ("MeanDistance", "NullMeanDistance"))
    if own is not None and others is not None:
        text += (
            f" The mean distance between the changed parcels is {own:.0f} mm, in the random sets "
            f"{others:.0f} mm."
        )
    if "distance" in alike:
        return text
    return (
        f"{text} A compact set of similar parcels affects its neighbours more than scattered ones "
        "do in any model that has learned correlations: `--match space` draws sets that are as "
        "compact."
    )


def _facts(response: Response) -> list[Fact]:
    sidecar = response.sidecar
    changed = [str(name) for name in as_list(sidecar.get("ChangedParcels"))]
    shown = ", ".join(changed[:SHOWN_PARCELS]) + (" …" if len(changed) > SHOWN_PARCELS else "")
    return [
        Fact("Recordings", str(len(as_list(sidecar.get("Recordings"))))),
        Fact("Participants", str(sidecar.get("NumberOfSubjects", "n/a"))),
        Fact("Changed parcels", str(len(changed)), shown),
        Fact("Change", _change(mapping(sidecar.get("Change")))),
        Fact("Random sets", str(sidecar.get("NullSets", "n/a"))),
    ]


def _change(change: Mapping[str, Any]) -> str:
    """The change in words.

    >>> _change({"value": 0.0}), _change({"scale": 0.5}), _change({"value": 2.0})
    ('set to 0 (lesion)', 'multiplied by 0.5', 'set to 2 interquartile ranges')
    """
    if "scale" in change:
        return f"multiplied by {number(change['scale'])}"
    value = as_float(change.get("value"))
    if value is None:
        return "n/a"
    return "set to 0 (lesion)" if value == 0 else f"set to {number(value)} interquartile ranges"


def tables(response: Response) -> list[Table]:
    """Networks, recordings and parcels.

    Parameters
    ----------
    response
        Of the model.
    """
    return [_networks(response), _recordings(response), _parcels(response)]


def _networks(response: Response) -> Table:
    groups: dict[str, list[Row]] = {}
    for one in response.known:
        groups.setdefault(one["network"], []).append(one)
    means = {name: (_mean(rows, "change"), _mean(rows, "z")) for name, rows in groups.items()}
    has_z = any(z is not None for _, z in means.values())
    best = best_rows([z if has_z else change for change, z in means.values()], written)
    by = "z" if has_z else "change"
    significant = {one["name"] for one in response.significant}
    rows = tuple(
        row(
            [
                Cell(_NETWORKS.get(name, name)),
                cell(len(members)),
                cell(means[name][0]),
                cell(means[name][1]),
                cell(sum(one["name"] in significant for one in members)),
            ],
            best=place in best,
        )
        for place, (name, members) in enumerate(groups.items())
    )
    header = ("Network", "Parcels", "Mean change (IQR)", "Mean z", "Parcels with q ≤ 0.05")
    caption = f"Networks, without the changed parcels. The largest mean {by} is marked."
    return Table(caption, header, rows)


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [v for one in rows if (v := as_float(one.get(key))) is not None]
    return sum(values) / len(values) if values else None


def _recordings(response: Response) -> Table:
    lines = [*response.recordings, *([response.moved] if response.moved else [])]
    keys = ("distance", "relative_distance", "cosine_distance", "null_mean", "null_sd", "z", "p")
    rows = tuple(
        row(
            [Cell(str(line.get("recording"))), *(cell(line.get(key)) for key in keys)],
            best=line is response.moved,
        )
        for line in lines
    )
    header = ("Recording", "Distance", "Relative", "Cosine", "Null mean", "Null SD", "z", "p")
    caption = "How far the embedding moves. The mean over subjects is marked."
    return Table(caption, header, rows, folded=True)


def _parcels(response: Response) -> Table:
    ordered = sorted(
        response.known,
        key=lambda one: [-_or(as_float(one.get(k)), float("-inf")) for k in ("z", "change")],
    )
    significant = {one["name"] for one in response.significant}
    rows = tuple(
        row(
            [
                Cell(one["name"]),
                Cell(one["hemisphere"]),
                Cell(one["network"]),
                *(cell(one.get(key)) for key in ("change", "z", "p", "q")),
            ],
            best=one["name"] in significant,
        )
        for one in ordered
    )
    header = ("Parcel", "Hemisphere", "Network", "Change (IQR)", "z", "p", "q")
    caption = "All parcels whose prediction could be compared. Those with q ≤ 0.05 are marked."
    return Table(caption, header, rows, folded=True)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
