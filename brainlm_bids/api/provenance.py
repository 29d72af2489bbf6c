"""How a result was made, for its `provenance`."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.api.preparation import Prepared
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.notices import to_json
from brainlm_bids.resources import ModelResource

VERSIONS = ("numpy", "scipy", "torch")


def provenance(
    resource: ModelResource, model: LoadedModel, prepared: Prepared, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The series, the network, and the options of the call, by name."""
    return {
        **prepared.provenance,
        "model": {
            "name": resource.name,
            "label": resource.label,
            "family": model.family,
            "sha256": model.sha256,
            "untrained": model.untrained,
            "licence": resource.licence,
            "warnings": to_json(resource.warnings),
        },
        "device": model.placement.device,
        "precision": model.placement.precision,
        "versions": {"brainlm_bids": __version__, **{n: version(n) for n in VERSIONS}},
        **options,
    }
