"""BrainLM for BIDS data sets: raw fMRI to parcel series to embeddings.

The names below are imported when they are first used, so that `import brainlm_bids` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainlm_bids.api.derivatives import load_derivatives
    from brainlm_bids.api.embedder import BrainLMEmbedder
    from brainlm_bids.api.images import to_img
    from brainlm_bids.api.masker import A424Masker
    from brainlm_bids.api.model import BrainLM
    from brainlm_bids.api.parcellation_masker import ParcellationMasker

__version__ = "0.1.0.dev0"
__all__ = [
    "A424Masker",
    "BrainLM",
    "BrainLMEmbedder",
    "ParcellationMasker",
    "__version__",
    "load_derivatives",
    "to_img",
]
_HOMES = {
    "A424Masker": "masker",
    "BrainLM": "model",
    "BrainLMEmbedder": "embedder",
    "ParcellationMasker": "parcellation_masker",
    "load_derivatives": "derivatives",
    "to_img": "images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
