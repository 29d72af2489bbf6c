"""The model card of a checkpoint: README.md, as Hugging Face's hub and its readers expect it.

It carries what a copy of the folder must not lose: the licence and what it forbids, the data, how
well the weights predict beside what they have to beat, and how they are loaded.
"""

from collections.abc import Mapping
from typing import Any

from brainlm_bids.model.config import ModelConfig, config_content
from brainlm_bids.resources import NOT_STATED, WEIGHTS_LICENCE

# Identifiers of the hub for the licences that this program knows
_HUB = {WEIGHTS_LICENCE: "cc-by-nc-nd-4.0", "Apache-2.0": "apache-2.0"}
_SHOWN = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "decoder_hidden_size"),
    *("decoder_num_hidden_layers", "timepoint_patching_size", "patch_size", "image_size"),
)
_ADAPTED = (
    "**Do not share these weights.** They were made from weights under {licence}, which forbids "
    "sharing adapted material, and any commercial use. Share how they were made instead."
)
_RESTRICTED = (
    "The licence forbids any commercial use, and sharing weights that were made from these by "
    "further training. Unchanged copies may be passed on with their attribution: van Dijk Lab, "
    "Yale; Ortega Caro et al., *BrainLM: A foundation model for brain activity recordings*, ICLR "
    "2024."
)


def model_card(
    name: str, config: ModelConfig, about: Mapping[str, Any], *, licence: str = NOT_STATED
) -> str:
    """Write the card of a checkpoint.

    Parameters
    ----------
    name
        Of the checkpoint.
    config
        The architecture.
    about
        The record of its training, as in training.json; empty if there is none.
    licence
        Of the weights as they are, where the record does not name weights that they started from.

    Returns
    -------
    str
        Markdown with a header of metadata.

    Examples
    --------
    >>> from brainlm_bids.model.config import ARCHITECTURES
    >>> card = model_card("mine", ARCHITECTURES["tiny"], {})
    >>> card.splitlines()[:2], "from_pretrained" in card
    (['---', 'library_name: brainlm-bids'], True)
    """
    started = about.get("StartedFrom")
    origin = started if isinstance(started, Mapping) and started.get("Sha256") else None
    stated = str(origin.get("Licence") or NOT_STATED) if origin else licence
    parts = [
        _header(stated, origin),
        f"# {name}",
        f"A masked autoencoder of fMRI in the architecture of BrainLM (`{config.family}`): series "
        "of 424 parcels of the atlas A424 at 0.735 s a volume, robustly scaled per parcel. "
        f"{_of_what(origin, about)}",
        f"## Licence\n\n{_licence(stated, adapted=origin is not None and bool(about))}",
        f"## Training\n\n{_training(about)}",
        f"## Scores\n\n{_scores(about)}",
        f"## Architecture\n\n{_architecture(config)}",
        _USE.format(family=config_content(config)["model_type"]),
    ]
    return "\n\n".join(parts) + "\n"


_USE = """\
## Use

```python
from brainlm_bids import BrainLM

model = BrainLM.from_pretrained("FOLDER")       # this folder
embedding = model.embed(series, tr=2.0)         # volumes × 424 parcels
```

`brainlm-bids BIDS OUT participant --model FOLDER` uses it in the BIDS App. The names of the weights
and of the configuration (`model_type: {family}`) are those of the original repository
(vandijklab/BrainLM), whose classes load the folder; checkpoints of the image family are loaded by
transformers' `ViTMAEForPreTraining` as well, given `image_size` as in the configuration.

For research only; embeddings, reconstructions and network maps are not for diagnosis. Compare any
result with functional connectivity and with the same network with random weights
(`--model random:NAME`)."""


def _header(licence: str, origin: Mapping[str, Any] | None) -> str:
    lines = ["library_name: brainlm-bids"]
    if licence != NOT_STATED:
        lines.append(f"license: {_HUB.get(licence, 'other')}")
        if licence not in _HUB:
            lines.append(f"license_name: {_quoted(licence)}")
    if origin is not None and licence == WEIGHTS_LICENCE:
        lines.append("base_model: vandijklab/brainlm")
    lines += ["tags:", "- fmri", "- neuroimaging", "- brainlm", "- masked-autoencoder"]
    return "---\n" + "\n".join(lines) + "\n---"


def _quoted(text: str) -> str:
    """A text of one line in YAML's double quotes."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def _of_what(origin: Mapping[str, Any] | None, about: Mapping[str, Any]) -> str:
    if origin is not None:
        return (
            f"It was trained further from {origin.get('Source')} (sha256 {origin.get('Sha256')})."
        )
    return "It was trained from random weights." if about else "How it was trained is not recorded."


def _licence(licence: str, *, adapted: bool) -> str:
    if licence == NOT_STATED:
        return "None is stated. Ask whoever made the weights before you use or share them."
    if licence != WEIGHTS_LICENCE:
        return licence
    text = _ADAPTED if adapted else _RESTRICTED
    return f"{licence}.\n\n{text.format(licence=licence)}"


def _training(about: Mapping[str, Any]) -> str:
    if not about:
        return "Not recorded."
    rows = [("Step", about.get("Step")), ("Epoch", about.get("Epoch"))]
    rows += [(key, about.get(key)) for key in ("Target", "Fold", "Split", "Description")]
    store = about.get("Store")
    if isinstance(store, Mapping):
        rows.append(("Data", f"sha256 {store.get('Sha256')}, {store.get('Parcels')} parcels"))
    for key in ("Data", "Parameters"):
        values = about.get(key)
        if isinstance(values, Mapping):
            rows += [(name, value) for name, value in values.items()]
    return _table(("what", "value"), [row for row in rows if row[1] is not None])


def _scores(about: Mapping[str, Any]) -> str:
    scores = about.get("Scores")
    if not isinstance(scores, Mapping) or not scores:
        return "None are recorded. `brainlm-bids … --model FOLDER` scores every recording."
    rows = [(key, value) for key, value in scores.items() if value is not None]
    return "Of the validation subjects, beside the baselines on the same masks.\n\n" + _table(
        ("measure", "value"), rows
    )


def _architecture(config: ModelConfig) -> str:
    content = config_content(config)
    return _table(("parameter", "value"), [(k, content[k]) for k in _SHOWN if k in content])


def _table(names: tuple[str, str], rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {names[0]} | {names[1]} |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(_number(value))} |" for name, value in rows]
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """A text that cannot leave its cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
