"""Phase encoding and total read-out time of an echo-planar image, from its sidecars.

The merged sidecars come in. The direction and the time go out, or in one line why there is none.
Values that cannot be a read-out time, such as milliseconds, are refused and never used.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

DIRECTIONS = ("i", "i-", "j", "j-", "k", "k-")
# Total read-out times of echo-planar images of the brain lie well within, s.
SHORTEST, LONGEST = 0.001, 0.5
# Two ways to the same time that differ by more contradict each other.
TOLERANCE = 0.1
# Difference between the resonances of fat and water at body temperature, ppm, and the same in Hz
# for each tesla, as SDCflows and dcm2niix have them.
WATER_FAT_PPM = 3.39941
WATER_FAT_HZ_PER_TESLA = 144.7383333
ESTIMATED = "estimated"


class Readout(NamedTuple):
    """A total read-out time.

    Attributes
    ----------
    seconds
        As BIDS defines it; None where the sidecars do not tell it.
    source
        The fields that it comes from.
    problem
        Why there is none, without the name of the file; empty if there is one.
    doubts
        What is odd about the sidecars although there is one, each in one line.
    """

    seconds: float | None = None
    source: str = ""
    problem: str = ""
    doubts: tuple[str, ...] = ()


def phase_encoding_direction(metadata: Mapping[str, Any]) -> tuple[str | None, str]:
    """The direction of phase encoding, and why there is none.

    Parameters
    ----------
    metadata
        The merged sidecars.

    Returns
    -------
    direction : str or None
        One of i, i-, j, j-, k, k-: axes of the stored array.
    problem : str
        Empty if there is one.

    Examples
    --------
    >>> phase_encoding_direction({"PhaseEncodingDirection": "j-"})
    ('j-', '')
    >>> phase_encoding_direction({"PhaseEncodingAxis": "j"})[1]
    'no PhaseEncodingDirection in its sidecars, only PhaseEncodingAxis, which lacks the polarity'
    """
    value = metadata.get("PhaseEncodingDirection")
    if value in DIRECTIONS:
        return str(value), ""
    if value is not None:
        return None, f"PhaseEncodingDirection {value!r} is none of {', '.join(DIRECTIONS)}"
    problem = "no PhaseEncodingDirection in its sidecars"
    if "PhaseEncodingAxis" in metadata:
        problem += ", only PhaseEncodingAxis, which lacks the polarity"
    return None, problem


def phase_encoding_axis(metadata: Mapping[str, Any]) -> int | None:
    """The axis of the stored array along which a run is distorted; None if it is not known.

    >>> phase_encoding_axis({"PhaseEncodingAxis": "j"}), phase_encoding_axis({})
    (1, None)
    """
    direction, _ = phase_encoding_direction(metadata)
    if direction is None and "PhaseEncodingDirection" not in metadata:
        axis = metadata.get("PhaseEncodingAxis")
        direction = axis if axis in DIRECTIONS else None
    return None if direction is None else "ijk".index(direction[0])


def total_readout_time(
    metadata: Mapping[str, Any],
    shape: Sequence[int],
    direction: str,
    fallback: float | str | None = None,
) -> Readout:
    """The total read-out time by the first way that the sidecars allow.

    These are, in this order: `TotalReadoutTime`; `EffectiveEchoSpacing` times the number of
    phase-encoding steps of the reconstructed image less one; the same from `EchoSpacing` with
    `ParallelReductionFactorInPlane`; the same from Philips' `WaterFatShift` with `EPIFactor` and
    the field strength; dcm2niix' estimates and a given number, if the caller allows them.

    Parameters
    ----------
    metadata
        The merged sidecars.
    shape
        Of the image.
    direction
        Of phase encoding, such as `j-`.
    fallback
        `estimated`, or seconds, for images whose sidecars do not tell it.

    References
    ----------
    BIDS specification 1.11, MRI, "Phase encoding"; for Philips, `get_trt` of SDCflows.

    Examples
    --------
    >>> total_readout_time({"EffectiveEchoSpacing": 0.00059}, (90, 90, 60), "j-").seconds
    0.05251
    >>> total_readout_time({"TotalReadoutTime": 52.5}, (90, 90, 60), "j-").problem
    'TotalReadoutTime 52.5 is not a time in seconds (52.5 ms are 0.0525 s)'
    """
    steps = _steps(metadata, shape, direction)
    ways = [way for way in _ways(metadata, steps) if way is not None]
    if fallback == ESTIMATED:
        ways += [way for way in _estimates(metadata, steps) if way is not None]
    good = [(name, seconds) for name, seconds in ways if _is_plausible(seconds)]
    doubts = [_implausible(name, value) for name, value in ways if not _is_plausible(value)]
    if not good and isinstance(fallback, float | int) and not isinstance(fallback, bool):
        return Readout(float(fallback), "--fallback-total-readout-time", "", tuple(doubts))
    if not good:
        return Readout(problem=doubts[0] if doubts else _missing(metadata))
    name, seconds = good[0]
    for other, also in good[1:]:
        if abs(also - seconds) > TOLERANCE * seconds:
            doubts.append(
                f"{name} gives a total read-out time of {seconds:.4g} s, {other} one of "
                f"{also:.4g} s (was parallel acceleration taken into account?); the first is used"
            )
    return Readout(round(seconds, 9), name, "", tuple(doubts))


Way = tuple[str, Any]


def _ways(metadata: Mapping[str, Any], steps: int) -> list[Way | None]:
    """(fields, seconds) of each way; the value as it stands where it is no number."""
    return [
        _direct("TotalReadoutTime", metadata, 1),
        _direct("EffectiveEchoSpacing", metadata, steps - 1),
        _accelerated(metadata, steps),
        _philips(metadata, steps),
    ]


def _estimates(metadata: Mapping[str, Any], steps: int) -> list[Way | None]:
    return [
        _direct("EstimatedTotalReadoutTime", metadata, 1),
        _direct("EstimatedEffectiveEchoSpacing", metadata, steps - 1),
    ]


def _direct(name: str, metadata: Mapping[str, Any], factor: int) -> Way | None:
    if metadata.get(name) is None:
        return None
    value = metadata[name]
    return name, value * factor if _is_number(value) else value


def _accelerated(metadata: Mapping[str, Any], steps: int) -> Way | None:
    """The spacing of the echoes as they were acquired, of which acceleration skips some lines."""
    spacing = metadata.get("EchoSpacing")
    acceleration = metadata.get("ParallelReductionFactorInPlane")
    if not (_is_number(spacing) and _is_number(acceleration) and acceleration > 0):
        return None
    name = "EchoSpacing with ParallelReductionFactorInPlane"
    return name, spacing / acceleration * (steps - 1)


def _philips(metadata: Mapping[str, Any], steps: int) -> Way | None:
    """Water-fat shift, in voxels; the EPI factor counts the lines that were acquired."""
    shift, factor = metadata.get("WaterFatShift"), metadata.get("EPIFactor")
    hertz = _water_fat_hertz(metadata)
    if not (_is_number(shift) and _is_number(factor) and factor > 0 and hertz):
        return None
    return "WaterFatShift with EPIFactor", shift / (hertz * (factor + 1)) * (steps - 1)


def _water_fat_hertz(metadata: Mapping[str, Any]) -> float | None:
    megahertz, tesla = metadata.get("ImagingFrequency"), metadata.get("MagneticFieldStrength")
    if _is_number(megahertz) and megahertz > 0:
        return float(megahertz) * WATER_FAT_PPM
    if _is_number(tesla) and tesla > 0:
        return float(tesla) * WATER_FAT_HZ_PER_TESLA
    return None


def _steps(metadata: Mapping[str, Any], shape: Sequence[int], direction: str) -> int:
    """Phase-encoding steps of the reconstructed image."""
    recorded = metadata.get("ReconMatrixPE")
    if _is_number(recorded) and recorded > 1:
        return int(recorded)
    return int(shape["ijk".index(direction[0])])


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plausible(value: object) -> bool:
    return _is_number(value) and SHORTEST <= value <= LONGEST


def _implausible(name: str, value: Any) -> str:
    """What to say of a value that cannot be a read-out time in seconds."""
    if not _is_number(value):
        return f"{name} {value!r} is not a number of seconds"
    if name.endswith("TotalReadoutTime"):
        text = f"{name} {value:g} is not a time in seconds"
    else:
        text = f"{name} gives a total read-out time of {value:.4g} s, which is impossible"
    for unit, factor in (("ms", 1e-3), ("µs", 1e-6)):
        if value > LONGEST and _is_plausible(value * factor):
            return f"{text} ({value:.4g} {unit} are {value * factor:.4g} s)"
    return text


def _missing(metadata: Mapping[str, Any]) -> str:
    """Why the sidecars do not tell the time."""
    missing = "no TotalReadoutTime and no EffectiveEchoSpacing in its sidecars"
    if "WaterFatShift" in metadata:
        needed = "EPIFactor" if "EPIFactor" not in metadata else "MagneticFieldStrength"
        return f"{missing}; WaterFatShift needs {needed}, too"
    if "EchoSpacing" in metadata:
        return f"{missing}; EchoSpacing needs ParallelReductionFactorInPlane, too"
    if any(name.startswith("EstimatedTotalReadout") for name in metadata) or (
        "EstimatedEffectiveEchoSpacing" in metadata
    ):
        return f"{missing}; its estimate is used with --fallback-total-readout-time estimated"
    return missing
