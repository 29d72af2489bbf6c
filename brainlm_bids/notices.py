"""Warnings as data: what happened, how grave it is, and a sentence for the reader.

A warning is made where its cause is known, stored in the sidecars under `Warnings`, and read by the
reports and the cohort's table by its kind. The table of kinds is `Kind`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How grave a warning is; the gravest comes first."""

    DANGER = "danger"  # do not interpret the results
    WARNING = "warning"
    NOTE = "note"


class Kind(StrEnum):
    """What a warning is about: its name in sidecars, its level, and its meaning.

    >>> Kind.NO_T1W, Kind.NO_T1W.level
    (<Kind.NO_T1W: 'no_t1w'>, <Level.WARNING: 'warning'>)
    """

    level: Level
    meaning: str

    def __new__(cls, name: str, level: Level, meaning: str) -> "Kind":
        """Make a text that carries its level and its meaning."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.level, kind.meaning = level, meaning
        return kind

    # resources
    APPROXIMATE_ATLAS = (
        "approximate_atlas",
        Level.DANGER,
        "The parcels are those of the approximation A424approx, not of the published atlas.",
    )
    CUSTOM_ATLAS = (
        "custom_atlas",
        Level.WARNING,
        "The atlas is a file of the user, not the published A424.",
    )
    PARCELLATION = (
        "parcellation",
        Level.WARNING,
        "Something about a further parcellation was assumed, or some of its parcels have no voxel.",
    )
    EMBEDDED_TEMPLATE = (
        "embedded_template",
        Level.WARNING,
        "nilearn's template was used because MNI152NLin6Asym was not available.",
    )
    SPACE_MISMATCH = (
        "space_mismatch",
        Level.WARNING,
        "The atlas and the template are in different MNI spaces.",
    )
    DEMO_MODEL = (
        "demo_model",
        Level.DANGER,
        "The model is the demo checkpoint, which was trained on simulated recordings.",
    )
    UNTRAINED_MODEL = (
        "untrained_model",
        Level.DANGER,
        "The model has random weights: its results are a control.",
    )
    RESTRICTED_LICENCE = (
        "restricted_licence",
        Level.NOTE,
        "The licence of the weights forbids sharing weights made from them.",
    )
    # a run
    SIMULATED = (
        "simulated",
        Level.DANGER,
        "The series are simulated: no person was scanned.",
    )
    TR_MISMATCH = (
        "tr_mismatch",
        Level.WARNING,
        "The image header and the sidecar disagree about the repetition time.",
    )
    ORIENTATION_ASSUMED = (
        "orientation_assumed",
        Level.WARNING,
        "The header of an image does not record which way its axes run; what the user gave was "
        "used.",
    )
    ORIENTATION_CONTRADICTED = (
        "orientation_contradicted",
        Level.DANGER,
        "The header of an image contradicts itself about the directions of its axes, such as left "
        "and right.",
    )
    AFFINES_DISAGREE = (
        "affines_disagree",
        Level.WARNING,
        "The header of an image holds two positions or voxel sizes that differ.",
    )
    NON_FINITE_VOXELS = (
        "non_finite_voxels",
        Level.WARNING,
        "Voxels of the brain whose values are not finite numbers were left out.",
    )
    NO_T1W = (
        "no_t1w",
        Level.WARNING,
        "There was no T1w image that could be used: the BOLD reference was registered to the "
        "template directly.",
    )
    T1W_OF_OTHER_SESSION = (
        "t1w_of_other_session",
        Level.NOTE,
        "The run's session has no T1w image: one of another session was used.",
    )
    T1W_OF_SEVERAL = (
        "t1w_of_several",
        Level.NOTE,
        "There are several T1w images of the session; the first was used.",
    )
    T1W_DAMAGED = (
        "t1w_damaged",
        Level.WARNING,
        "The first T1w image cannot be read; the next was used.",
    )
    READOUT_DOUBTFUL = (
        "readout_doubtful",
        Level.WARNING,
        "Fields of a sidecar about the read-out of an image are impossible, or contradict each "
        "other.",
    )
    NO_FIELDMAP = (
        "no_fieldmap",
        Level.NOTE,
        "The run has no field map.",
    )
    FIELDMAP_NOT_USED = (
        "fieldmap_not_used",
        Level.WARNING,
        "A field map that is declared for the run, or was meant to be, could not be used.",
    )
    FIELDMAP_OF_OTHER_SHIM = (
        "fieldmap_of_other_shim",
        Level.WARNING,
        "The field map of the run was measured under another setting of the shim coils.",
    )
    SBREF_NOT_USED = (
        "sbref_not_used",
        Level.NOTE,
        "The single-band reference of the run cannot be read or does not fit the run; it was not "
        "used.",
    )
    MISSING_ECHOES = (
        "missing_echoes",
        Level.WARNING,
        "Not all echoes of a multi-echo run were in the selection.",
    )
    ECHO_ORDER = (
        "echo_order",
        Level.WARNING,
        "The echo times do not ascend with the numbers of the echoes.",
    )
    TWO_ECHOES = (
        "two_echoes",
        Level.NOTE,
        "The run has two echoes: nothing confirms the T2* by which they were combined.",
    )
    TEDANA_NOT_USED = (
        "tedana_not_used",
        Level.WARNING,
        "The run was to be denoised by tedana, and has fewer than three echoes: it was not.",
    )
    TEDANA_REJECTED_ALL = (
        "tedana_rejected_all",
        Level.DANGER,
        "tedana accepted no component: none was removed, so the run was not denoised by it.",
    )
    ECHO_TIMES_SUSPECT = (
        "echo_times_suspect",
        Level.DANGER,
        "The signal does not decay from echo to echo as that of a brain: the echo times of the "
        "sidecars are probably wrong, and so is the combination.",
    )
    LESION_MASKED = (
        "lesion_masked",
        Level.NOTE,
        "The lesion of the T1w image, by its mask, was left out of its registration.",
    )
    LESION_MASK_UNUSED = (
        "lesion_mask_unused",
        Level.WARNING,
        "A lesion mask was not used: it is damaged, empty, marks most of the brain, or is not of "
        "the T1w image.",
    )
    LESION_PARCELS = (
        "lesion_parcels",
        Level.WARNING,
        "More than half of some parcels lies in the lesion: their series come from damaged tissue.",
    )
    UNCLEAR_BOUNDARY = (
        "unclear_boundary",
        Level.WARNING,
        "The BOLD reference and the T1w image were registered by mutual information, "
        "not by the boundary of white matter.",
    )
    SUSPECT_REGISTRATION = (
        "suspect_registration",
        Level.DANGER,
        "A number by which the registration is judged is beyond its limit: it has probably failed, "
        "or T1w and BOLD are not of one person.",
    )
    DISTORTION_NOT_ESTIMATED = (
        "distortion_not_estimated",
        Level.WARNING,
        "The distortion of a run without a field map was to be estimated from its T1w image, which "
        "was impossible, or what was found was not believed: the run is not corrected.",
    )
    POLARITY_SUSPECT = (
        "polarity_suspect",
        Level.DANGER,
        "Where a correction of distortion moves the boundary of white matter by more than 2 mm, "
        "the opposite correction would make it sharper: the sign of the phase encoding or of the "
        "field map is probably wrong.",
    )
    ALL_COMPONENTS_NOISE = (
        "all_components_noise",
        Level.DANGER,
        "All independent components were classified as noise; the run is not denoised.",
    )
    ICA_NOT_CONVERGED = (
        "ica_not_converged",
        Level.WARNING,
        "The ICA did not converge.",
    )
    BAD_VOLUMES = (
        "bad_volumes",
        Level.WARNING,
        "Whole volumes of the run carry no usable signal; they take no part in any fit and are "
        "interpolated for the model.",
    )
    FILLED_PARCELS = (
        "filled_parcels",
        Level.WARNING,
        "Parcels without data, or hardly covered, were replaced by their median for the model.",
    )
    SCALE_FAR_OFF = (
        "scale_far_off",
        Level.WARNING,
        "The series fluctuate less than half or more than twice as much as BrainLM's training "
        "data, before scaling.",
    )
    SCALED_FAR_OFF = (
        "scaled_far_off",
        Level.WARNING,
        "The same after scaling.",
    )
    MISSING_FREQUENCIES = (
        "missing_frequencies",
        Level.WARNING,
        "The series lacks the upper frequencies of BrainLM's training data, because of its "
        "repetition time or a low-pass filter.",
    )
    AMPLITUDE_UNKNOWN = (
        "amplitude_unknown",
        Level.WARNING,
        "The series was made without its mean over time, so its amplitude cannot be compared with "
        "that of other recordings.",
    )
    START_UNKNOWN = (
        "start_unknown",
        Level.WARNING,
        "It is not known how many volumes at the start of the scan had been left out; times count "
        "from the first volume that is left.",
    )
    SMOOTH_SERIES = (
        "smooth_series",
        Level.DANGER,
        "A series to be forecast has next to no power at its upper frequencies: it was probably "
        "resampled or low-pass filtered, and its past holds its future.",
    )
    SLICES_HOLD_FUTURE = (
        "slices_hold_future",
        Level.DANGER,
        "Slice timing of a series to be forecast was corrected by interpolation between volumes: "
        "its past holds later volumes.",
    )
    PADDED_WINDOW = (
        "padded_window",
        Level.WARNING,
        "The run is shorter than a window of the model and was padded.",
    )
    SHORT_RUN = (
        "short_run",
        Level.DANGER,
        "The run is far shorter than the windows that an image model was trained on.",
    )
    SLICE_TIMING_NOT_CORRECTED = (
        "slice_timing_not_corrected",
        Level.WARNING,
        "Slice timing was to be corrected, and the slice times of the run cannot be used: it was "
        "processed without the correction.",
    )
    # a cohort
    MIXED_SETTINGS = (
        "mixed_settings",
        Level.WARNING,
        "The recordings of the cohort were not preprocessed alike.",
    )
    RATINGS_UNMATCHED = (
        "ratings_unmatched",
        Level.WARNING,
        "A table of ratings names recordings that the call does not have.",
    )
    RATED_DOUBTFUL = (
        "rated_doubtful",
        Level.WARNING,
        "Recordings that a person rated doubtful are included.",
    )
    PARTICIPANTS_ROWS = (
        "participants_rows",
        Level.NOTE,
        "Rows of a table of participants are repeated or name no participant.",
    )
    VALUES_UNCLEAR = (
        "values_unclear",
        Level.WARNING,
        "Numbers of a variable are, or may be, codes: for missing values, or of categories.",
    )
    PARTICIPANTS_UNCLEAR = (
        "participants_unclear",
        Level.WARNING,
        "Values of a table of participants are not used: its rows contradict each other, or it "
        "cannot be read.",
    )
    MIXED_SOURCE_TR = (
        "mixed_source_tr",
        Level.WARNING,
        "Reconstructions of recordings of different repetition times stand in one table: their R² "
        "cannot be compared.",
    )
    SITE_CONFOUNDED = (
        "site_confounded",
        Level.WARNING,
        "A target differs between sites, and nothing is done about it: what predicts the target "
        "may be the site.",
    )
    TARGET_NOT_KEPT = (
        "target_not_kept",
        Level.WARNING,
        "A target was to be kept in harmonisation, and is not where it is itself decoded.",
    )
    # experiments
    NO_UNCHANGED_PATCH = (
        "no_unchanged_patch",
        Level.WARNING,
        "Every patch holds a changed parcel: no prediction of the other parcels is possible.",
    )
    ROUNDING_ONLY = (
        "rounding_only",
        Level.WARNING,
        "Predictions change by no more than rounding errors.",
    )
    # sidecars of earlier versions
    UNCLASSIFIED = (
        "unclassified",
        Level.WARNING,
        "A warning of an earlier version, which recorded sentences alone.",
    )


# Warnings about what all recordings of a call share: they single no recording out.
OF_RESOURCES = frozenset(
    {
        Kind.APPROXIMATE_ATLAS,
        Kind.CUSTOM_ATLAS,
        Kind.EMBEDDED_TEMPLATE,
        Kind.SPACE_MISMATCH,
        Kind.DEMO_MODEL,
        Kind.UNTRAINED_MODEL,
        Kind.RESTRICTED_LICENCE,
        Kind.SIMULATED,
    }
)


@dataclass(frozen=True)
class Notice:
    """A warning: its kind, its level, and a sentence about this very case.

    `kind` and `level` are the names in `Kind` and `Level`; a sidecar of a later version may hold
    others.
    """

    kind: str
    level: str
    text: str

    def __str__(self) -> str:
        return self.text


def notice(kind: Kind, text: str) -> Notice:
    """Make a warning of a kind.

    >>> notice(Kind.NO_T1W, "No T1w image.").level
    'warning'
    """
    return Notice(kind.value, kind.level.value, text)


def to_json(notices: Iterable[Notice]) -> list[dict[str, str]]:
    """The content of a sidecar's field Warnings.

    >>> to_json([notice(Kind.NO_T1W, "No T1w image.")])
    [{'Kind': 'no_t1w', 'Level': 'warning', 'Text': 'No T1w image.'}]
    """
    return [{"Kind": entry.kind, "Level": entry.level, "Text": entry.text} for entry in notices]


def from_json(values: object) -> list[Notice]:
    """Read a sidecar's field Warnings; sentences of earlier versions are unclassified.

    >>> from_json(["Mind the gap."])
    [Notice(kind='unclassified', level='warning', text='Mind the gap.')]
    """
    listed = values if isinstance(values, list) else [] if values in (None, "") else [values]
    return [_one_from_json(value) for value in listed]


def _one_from_json(value: Any) -> Notice:
    if isinstance(value, Mapping) and "Kind" in value:
        level = str(value.get("Level", Level.WARNING.value))
        return Notice(str(value["Kind"]), level, str(value.get("Text", "")))
    return notice(Kind.UNCLASSIFIED, str(value))


def dangers(notices: Iterable[Notice]) -> list[Notice]:
    """Those because of which results must not be interpreted, each once.

    >>> grave = notice(Kind.DEMO_MODEL, "Demo.")
    >>> [one.text for one in dangers([notice(Kind.NO_T1W, "No T1w."), grave, grave])]
    ['Demo.']
    """
    return [one for one in dict.fromkeys(notices) if one.level == Level.DANGER]


def gravest_first(notices: Iterable[Notice]) -> list[Notice]:
    """Every warning once: the gravest level first, else in their order.

    >>> grave = notice(Kind.DEMO_MODEL, "Demo.")
    >>> gravest_first([notice(Kind.NO_T1W, "No T1w."), grave, grave])[0].text
    'Demo.'
    """
    order = {level.value: place for place, level in enumerate(Level)}
    return sorted(dict.fromkeys(notices), key=lambda entry: order.get(entry.level, len(order)))
