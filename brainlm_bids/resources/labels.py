"""The word that stands for a model in file names: in a spec or a folder, out `[A-Za-z0-9]+`."""

import re
from pathlib import Path

from brainlm_bids.errors import UserError

# folders of the published checkpoints (vandijklab/brainlm on Hugging Face)
PUBLISHED = {"vitmae_111M": "111M", "vitmae_650M": "650M", "old_13M": "13M"}
DEMO = "demo"  # the checkpoint that comes with this package


def model_label(source: str | Path) -> str:
    """Return the label of a model: 111M -> brainlm111M, demo -> brainlmdemo, random:tiny ->
    randomtiny, or that of a folder.

    A folder of the published checkpoints carries their label, another folder its own name
    stripped to letters and digits. Raises UserError when nothing is left.
    """
    if isinstance(source, str):
        if source in PUBLISHED.values() or source == DEMO:
            return f"brainlm{source}"
        if source.startswith("random:"):
            return "random" + _alphanumeric(source.removeprefix("random:"))
    name = Path(source).expanduser().resolve().name
    if name in PUBLISHED:
        return f"brainlm{PUBLISHED[name]}"
    return _alphanumeric(name)


def _alphanumeric(name: str) -> str:
    label = re.sub(r"[^A-Za-z0-9]", "", name)
    if not label:
        raise UserError(f"{name!r}: no letter or digit to name the model by; rename the folder")
    return label
