"""The field map of a run: what it was measured by, and where its images are."""

from dataclasses import dataclass
from pathlib import Path

# Ways to measure the field.
FIELD, PHASEDIFF, PHASES, PAIR = "field", "phasediff", "phases", "pair"


@dataclass(frozen=True)
class Fieldmap:
    """A measurement of the magnetic field that a run has.

    Attributes
    ----------
    kind
        `field` (a map of the field), `phasediff` (a phase difference), `phases` (two phases), or
        `pair` (images of opposite polarity).
    images
        One for `field` and `phasediff`; for `phases` that of the shorter echo first; for `pair`
        that of the run's own polarity first, then the opposite one. An image of a pair may hold
        several volumes.
    magnitude
        Shows the head on the grid of the images; None for a pair.
    echo_times
        s, of the two echoes, the shorter first; empty for `field` and `pair`.
    units
        `Hz`, `rad/s` or `T` for `field`, else empty.
    encodings
        For `pair`: (direction, total read-out time in s) of each image.
    identifier
        `B0FieldIdentifier`, if the run was given its field map by one.
    uris
        BIDS URIs of all of its images.
    """

    kind: str
    images: tuple[Path, ...]
    magnitude: Path | None = None
    echo_times: tuple[float, ...] = ()
    units: str = ""
    encodings: tuple[tuple[str, float], ...] = ()
    identifier: str = ""
    uris: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[object, ...]:
        """What the field depends on beside the contents of its images."""
        return self.kind, self.echo_times, self.units, self.encodings

    @property
    def files(self) -> tuple[Path, ...]:
        """Every image that the field is computed from."""
        return self.images if self.magnitude is None else (*self.images, self.magnitude)
