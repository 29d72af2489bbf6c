"""The methods text of what BrainLM was given and asked: embeddings, reconstruction, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.report import model_facts
from brainlm_bids.report.clauses import counted, quoted, said
from brainlm_bids.report.manuscript import Block, Bullets, Heading, Paragraph
from brainlm_bids.report.run_records import RunRecord, mapping
from brainlm_bids.report.values import as_float, as_list

Embedded = Mapping[str, Any]
_DEVICES = {"cpu": "a CPU", "cuda": "a GPU"}


def model_blocks(runs: Sequence[RunRecord]) -> list[Block]:
    """The section on BrainLM; none where no model was run."""
    labels = sorted({label for run in runs for label in run.models})
    if not labels:
        return []
    embedded = [one for run in runs for one in run.models.values()]
    what = "embeddings" if len(labels) > 1 else "runs"
    parts = [
        said([_embedding(one) for one in embedded], what),
        said([_padding(one) for one in embedded], what),
        said([_order(one) for one in embedded], what),
        said([_reconstruction(one) for one in embedded], what),
        said([_computation(one) for one in embedded], what),
    ]
    parts.append(
        "Parcels were clustered without labels into seven networks, which were compared with the "
        "AA-7 networks [@akiki], beside random features that are only smooth over space."
    )
    items = [_model(label, runs) for label in labels]
    return [
        Heading("BrainLM"),
        Paragraph(" ".join(part for part in parts if part)),
        Bullets(tuple(items)),
    ]


def _embedding(one: Embedded) -> str:
    pooling, window = quoted(one.get("Pooling", "")), one.get("WindowVolumes")
    stride = one.get("WindowStride")
    text = f"windows of {window} volumes were embedded by BrainLM [@brainlm] without masking"
    if stride and window and stride != window:
        step = counted(int(stride), "volume")
        text += f", starting every {step}"
    elif stride:
        text += " and without overlap"
    if pooling:
        text += f"; the embedding of a window is the {pooling}"
    gain = as_float(one.get("InputGain"))
    if gain is not None and gain != 1:
        text += f"; the scaled series were multiplied by {gain:g} before they entered the model"
    return text + "; the embedding of a recording is the mean over its windows"


def _padding(one: Embedded) -> str | None:
    padded = one.get("PaddedVolumes")
    return "the run was shorter than a window and was padded to its length" if padded else None


def _order(one: Embedded) -> str | None:
    seed, orders = one.get("TokenOrderSeed"), int(one.get("TokenOrders") or 1)
    if seed is None:
        return None
    if orders > 1:
        return f"embeddings were averaged over {orders} random orders of the tokens (seed {seed})"
    return f"tokens were given in one random order (seed {seed}), as in the training of the model"


def _reconstruction(one: Embedded) -> str | None:
    ratios = [as_float(ratio) for ratio in as_list(one.get("MaskRatios"))]
    known = [f"{100 * ratio:g}" for ratio in ratios if ratio is not None]
    if not known:
        return None
    shares = known[0] if len(known) == 1 else f"{', '.join(known[:-1])} and {known[-1]}"
    return (
        f"reconstruction was evaluated with {shares} % of the tokens masked, against simple "
        "predictors on the same masks"
    )


def _computation(one: Embedded) -> str:
    device = _DEVICES.get(str(one.get("Device")), f"the device {quoted(one.get('Device'))}")
    return (
        f"BrainLM ran on {device} in {quoted(one.get('Precision'))} precision with random seed "
        f"{quoted(one.get('RandomSeed'))}"
    )


def _model(label: str, runs: Sequence[RunRecord]) -> str:
    """A line of the list of models."""
    embedded = [run.models[label] for run in runs if label in run.models]
    about = mapping(embedded[0].get("Model"))
    number = len(embedded)
    where = "" if number == len(runs) else f", in {number} of {len(runs)} runs"
    family = f", family {quoted(about['family'])}" if about.get("family") else ""
    start = f"{quoted(label)}{family}{where}"
    if about.get("untrained"):
        return f"{start}: random, untrained weights, used as a control."
    weights = sorted({str(mapping(one.get("Model")).get("sha256")) for one in embedded})
    licence = quoted(model_facts.licence(about))
    text = f"{start}: weights with SHA-256 {' and '.join(weights)}, licence: {licence}."
    demo = [
        one
        for sidecar in embedded[:1]
        for one in as_list(sidecar.get("Warnings"))
        if mapping(one).get("Kind") == "demo_model"
    ]
    return " ".join([text, *(quoted(mapping(one).get("Text")) for one in demo)])
