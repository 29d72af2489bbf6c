"""Atlas, template, checkpoint and masks.

A name or a path given by the user becomes a frozen record of the resource: path or arrays, sha256,
source, licence, and warnings for the sidecars. Volumes are (X, Y, Z), affines 4 × 4 to RAS+
millimetres. Everything is located before the graph is built, in this order: explicit argument,
cache, download, copy in the installed packages.
"""

from brainlm_bids.resources.atlas import (
    ATLAS_FILE,
    Parcels,
    approximate_atlas,
    find_atlas,
    find_cifti_atlas,
    parcels,
)
from brainlm_bids.resources.cache import SOURCES, Sources, cache_home
from brainlm_bids.resources.checkpoint import (
    MODEL_REVISION,
    RANDOM_MODELS,
    UNTRAINED,
    ModelResource,
    find_model,
)
from brainlm_bids.resources.fetching import FETCHABLE, fetch
from brainlm_bids.resources.images import EMBEDDED_SPACE, MNI_2MM_AFFINE, REAL_SPACE
from brainlm_bids.resources.label_images import Labelled
from brainlm_bids.resources.labels import (
    NOT_STATED,
    WEIGHTS_LICENCE,
    WEIGHTS_LICENCE_NAME,
)
from brainlm_bids.resources.packaged import aroma_masks, tissue_maps
from brainlm_bids.resources.parcellation import (
    GRAYORDINATES,
    Parcellation,
    find_parcellation,
)
from brainlm_bids.resources.spatial_null import SPATIAL_NULL, spatial_null
from brainlm_bids.resources.template import (
    find_template,
    find_template_transform,
    other_space,
)

__all__ = [
    "ATLAS_FILE",
    "EMBEDDED_SPACE",
    "FETCHABLE",
    "GRAYORDINATES",
    "MNI_2MM_AFFINE",
    "MODEL_REVISION",
    "NOT_STATED",
    "RANDOM_MODELS",
    "REAL_SPACE",
    "SOURCES",
    "SPATIAL_NULL",
    "UNTRAINED",
    "WEIGHTS_LICENCE",
    "WEIGHTS_LICENCE_NAME",
    "Labelled",
    "ModelResource",
    "Parcellation",
    "Parcels",
    "Sources",
    "approximate_atlas",
    "aroma_masks",
    "cache_home",
    "fetch",
    "find_atlas",
    "find_cifti_atlas",
    "find_model",
    "find_parcellation",
    "find_template",
    "find_template_transform",
    "other_space",
    "parcels",
    "spatial_null",
    "tissue_maps",
]
