"""What the group level starts from: the recordings of an output folder, with their quality.

An output folder that the participant level has filled comes in. `Recording` values go out, each
with the reason, in one line, where it is left out.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainlm_bids.bids.derivatives import Selection, find_derivatives
from brainlm_bids.bids.outputs import SERIES_STAGE, Naming, changed, is_a424, read_record
from brainlm_bids.bids.ratings import Ratings, Verdict
from brainlm_bids.bids.recordings import EXCLUDED, FAILED, INCLUDED, Recording, recording_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_rows
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.settings import Settings

# Warnings because of which a recording is left out, unless they are asked for.
SUSPECT = (Kind.SUSPECT_REGISTRATION,)
# What all recordings of a cohort should share.
PREPROCESSING = (
    *("Normalization", "Denoising", "HighPassCutoff", "LowPassCutoff", "MinimumParcelCoverage"),
    *("Atlas", "Template", "Registration", "Coregistration", "RepetitionTime", "GeneratedBy"),
    *("SliceTimingCorrected", "DistortionCorrection", "EchoTimes", "EchoCombination"),
    *("EchoDenoising", "RegressedConfounds", "GrandMean"),
)
ALIKE = "They should be preprocessed alike."
ADVICE = {
    "RepetitionTime": "Their series hold different frequencies; --regress-out repetition_time "
    "removes what goes along with it from the features.",
    "GrandMean": "Where it is missing, the amplitude is in arbitrary units, and statistics of the "
    "cohort do not fit it.",
}
# Digits of numbers that are compared: sidecars round differently.
DIGITS = 4


def find_cohort(settings: Settings, space: str, atlas: str, ratings: Ratings) -> list[Recording]:
    """The recordings of the group level, with their quality, in the order of their names.

    Where the folder has no series in `space`, but in one other, they are those.

    Raises
    ------
    UserError
        If there is none.
    """
    out = settings.output_dir
    every = find_derivatives(out, ["denoised"], settings)
    found = [one for one in every if one.naming.atlas == atlas]
    spaces = {one.naming.space for one in found}
    if space not in spaces and len(spaces) == 1:
        space = spaces.pop()
    found = [one for one in found if one.naming.space == space]
    if not found:
        raise UserError(_nothing(out, space, atlas))
    recordings = [recording_of(one) for one in found]
    recordings.sort(key=lambda one: one.stem)
    rated = (dataclasses.replace(one, rating=ratings.of_recording(one.stem)) for one in recordings)
    return [_judged(_with_quality(one), settings) for one in rated]


def all_recordings(output_dir: Path, selection: Selection | None = None) -> list[Recording]:
    """All recordings of an output folder with series of A424, in any space, with their quality.

    In the order of their names. One whose files are not whole is there with the reason.
    """
    found = find_derivatives(output_dir, ["denoised"], selection)
    return [_with_quality(recording_of(one)) for one in found if is_a424(one.naming.atlas)]


def _nothing(out: Path, space: str, atlas: str) -> str:
    others = find_derivatives(out, ["denoised"])
    if not others:
        return f"{out}: holds no parcel series; run the level participant first"
    example = others[0].naming
    return (
        f"{out}: no series of the selection with space-{space} and atlas-{atlas}; the folder has, "
        f"for example, space-{example.space} and atlas-{example.atlas}: give the same --atlas, "
        "--template and labels as for participant"
    )


def _with_quality(one: Recording) -> Recording:
    """With its sidecar and coverage, or `failed` with what is wrong with its files."""
    if one.status != INCLUDED:
        return one
    naming = one.naming
    out = Path(naming.output_dir)
    record = read_record(out, naming.stem, SERIES_STAGE)
    missing = None if record is None else changed(out, record[1])
    if missing is not None:
        reason = f"{missing}: is missing or not as it was written; run brainlm-bids again"
        return one.left_out(FAILED, reason)
    try:
        sidecar = read_json(naming.path("denoised", extension=".json"))
        coverage = _coverage(naming, sidecar)
        float(sidecar["RepetitionTime"]), int(sidecar["DummyVolumes"])
    except UserError as error:
        return one.left_out(FAILED, f"{naming.stem}: {error}")
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        kind = type(error).__name__
        reason = f"{naming.stem}: sidecar or coverage cannot be read ({kind}: {error})"
        return one.left_out(FAILED, reason)
    return dataclasses.replace(one, sidecar=sidecar, coverage=coverage)


def _coverage(naming: Naming, sidecar: dict[str, Any]) -> float:
    """Mean covered fraction of the parcels; of a series made elsewhere, the share with data."""
    path = naming.path("coverage")
    if path.is_file():
        fractions = [float(row["fraction"]) for row in read_rows(path)]
        return sum(fractions) / len(fractions)
    return 1.0 - len(sidecar["MissingParcels"]) / N_PARCELS


def _judged(one: Recording, settings: Settings) -> Recording:
    """Left out if it moved too much, covers too little, or was probably not registered.

    One that a person rated as failed is left out, too. One that a person let pass is kept although
    its registration is suspect: that person has seen it.
    """
    if one.status != INCLUDED or one.coverage is None:
        return one
    if one.rating is not None and one.rating.verdict == Verdict.FAIL:
        return one.left_out(EXCLUDED, f"{one.rating} (--ratings)")
    limit = settings.max_mean_fd
    if limit is not None and one.mean_fd is not None and one.mean_fd > limit:
        reason = f"mean FD {one.mean_fd:.3g} mm is above {limit:g} (--max-mean-fd)"
        return one.left_out(EXCLUDED, reason)
    if one.coverage < settings.min_coverage:
        share = f"covers {one.coverage:.3g} of the parcels on average"
        return one.left_out(
            EXCLUDED, f"{share}, less than {settings.min_coverage:g} (--min-coverage)"
        )
    suspect = [note for note in one.notices if note.kind in SUSPECT]
    passed = one.rating is not None and one.rating.verdict == Verdict.PASS
    if suspect and not (settings.include_suspect or passed):
        return one.left_out(EXCLUDED, f"{suspect[0].text} (--include-suspect)")
    return one


def mixed_settings(recordings: Sequence[Recording]) -> list[Notice]:
    """A warning for every setting of the preprocessing in which recordings differ."""
    warnings = []
    for key in PREPROCESSING:
        values: dict[str, list[str]] = {}
        for one in recordings:
            value = one.sidecar.get(key)
            value = round(value, DIGITS) if isinstance(value, float) else value
            if key == "DistortionCorrection" and isinstance(value, dict):
                value = value.get("Method")  # the field map is each recording's own
            if key == "RegressedConfounds" and isinstance(value, list):
                # how many components there are is each recording's own
                value = sorted({re.sub(r"\d+", "", str(name)) for name in value})
            text = json.dumps(value, sort_keys=True)
            values.setdefault(text, []).append(one.stem)
        if len(values) > 1:
            rarest = min(values.values(), key=lambda stems: (len(stems), stems))
            text = (
                f"Recordings differ in {key}: {len(rarest)} of {len(recordings)}, for example "
                f"{rarest[0]}, are not like the others. {ADVICE.get(key, ALIKE)}"
            )
            warnings.append(notice(Kind.MIXED_SETTINGS, text))
    return warnings
