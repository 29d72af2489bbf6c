"""The steps of a run: arrays in, one frozen record out.

A node of the graph, a notebook and a test call the same functions::

    raw run       realign → coregister → project → extract, measure_image → denoise
                     └────→ decompose → classify ──────────────┘
    several echoes  realign_echoes → the same
    a field map     measure_field → undistort, between realign and coregister
    fMRIPrep's    take_preprocessed → project → extract_preprocessed → …, or take_cifti → …
    XCP-D's       find_gaps → take_denoised → project → extract_denoised, or take_denoised_cifti
    a series      take_series
    anatomy       prepare_t1w → normalise

What follows, resampling in time and robust scaling, is `brainlm_bids.parcels.steps.scale`; at the
end `summarise` computes what tables and figures show beside the series.
"""

from brainlm_bids.preproc.denoising.ica import Components
from brainlm_bids.preproc.motion.sbref import SingleBand
from brainlm_bids.preproc.steps.anatomical import (
    Anatomy,
    Normalised,
    normalise,
    prepare_t1w,
    resample_anatomy,
)
from brainlm_bids.preproc.steps.denoised import (
    Censoring,
    DenoisedGrayordinates,
    Taken,
    extract_denoised,
    find_gaps,
    level_factor,
    take_denoised,
    take_denoised_cifti,
)
from brainlm_bids.preproc.steps.denoising import (
    Decisions,
    Denoised,
    Design,
    classify,
    clean,
    decompose,
    denoise,
    resample_denoised,
)
from brainlm_bids.preproc.steps.distortion import Undistorted, measure_field, undistort
from brainlm_bids.preproc.steps.echoes import (
    Decompose,
    EchoSummary,
    RealignedEchoes,
    TeDependence,
    realign_echoes,
)
from brainlm_bids.preproc.steps.fmriprep import (
    Grayordinates,
    extract_preprocessed,
    select_confounds,
    take_cifti,
    take_preprocessed,
)
from brainlm_bids.preproc.steps.functional import (
    Extracted,
    Motion,
    Realigned,
    SliceTimes,
    extract,
    realign,
)
from brainlm_bids.preproc.steps.image_quality import (
    ImageQuality,
    Voxels,
    measure_denoised,
    measure_grayordinates,
    measure_image,
)
from brainlm_bids.preproc.steps.registration import (
    AromaSamples,
    Coregistration,
    Placed,
    Projection,
    coregister,
    project,
)
from brainlm_bids.preproc.steps.series import Given, take_series
from brainlm_bids.preproc.steps.summary import (
    Movement,
    SeriesSummary,
    Summary,
    summarise,
    summarise_series,
)
from brainlm_bids.preproc.steps.unwarping import Unwarped, unwarp_by_boundary

__all__ = [
    "Anatomy",
    "AromaSamples",
    "Censoring",
    "Components",
    "Coregistration",
    "Decisions",
    "Decompose",
    "Denoised",
    "DenoisedGrayordinates",
    "Design",
    "EchoSummary",
    "Extracted",
    "Given",
    "Grayordinates",
    "ImageQuality",
    "Motion",
    "Movement",
    "Normalised",
    "Placed",
    "Projection",
    "Realigned",
    "RealignedEchoes",
    "SeriesSummary",
    "SingleBand",
    "SliceTimes",
    "Summary",
    "Taken",
    "TeDependence",
    "Undistorted",
    "Unwarped",
    "Voxels",
    "classify",
    "clean",
    "coregister",
    "decompose",
    "denoise",
    "extract",
    "extract_denoised",
    "extract_preprocessed",
    "find_gaps",
    "level_factor",
    "measure_denoised",
    "measure_field",
    "measure_grayordinates",
    "measure_image",
    "normalise",
    "prepare_t1w",
    "project",
    "realign",
    "realign_echoes",
    "resample_anatomy",
    "resample_denoised",
    "select_confounds",
    "summarise",
    "summarise_series",
    "take_cifti",
    "take_denoised",
    "take_denoised_cifti",
    "take_preprocessed",
    "take_series",
    "undistort",
    "unwarp_by_boundary",
]
