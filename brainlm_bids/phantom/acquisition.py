"""What is the same for all runs of a simulated data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ATLAS = "A424approx"
PARAMETERS = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
FIELD_OF_VIEW = (224.0, 224.0, 126.0)  # mm: 64 x 64 x 36 at 3.5 mm
# first numbers of seeds: numpy takes trailing zeros as absent, so a number must tell what is drawn
PEOPLE, ANATOMY, SESSION, RUN, FIELD, FIELD_MAPS, SBREF, LESION, ECHOES = range(1, 10)
FLIP_DEGREES = 80.0
SLICE_ORDERS = ("none", "ascending", "interleaved")
FIELD_MAP_KINDS = ("phasediff", "phases", "field", "pair")
SWITCHES = (
    "drift",
    "respiration",
    "cardiac",
    "global_signal",
    "spin_history",
    "non_steady",
    "thermal_noise",
    "coil_shading",
    "dropout",
)


@dataclass(frozen=True)
class Acquisition:
    """What is the same for all runs of a data set."""

    n_volumes: int
    tr: float  # seconds
    voxel: float  # mm
    motion: str | Path
    seed: int
    switches: Mapping[str, bool]
    distortion: float = 0.0  # mm, the largest in the brain
    phase_encoding: str = "j"
    fieldmaps: tuple[str, ...] = ()  # of FIELD_MAP_KINDS
    sbref: bool = False
    lesion: bool = False
    slices: str = "none"  # or ascending, interleaved
    multiband: int = 1
    echoes: tuple[float, ...] = ()  # times in s; none: one echo, of which nothing is said

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (X, Y, Z) of a volume."""
        x, y, z = (max(8, round(size / self.voxel)) for size in FIELD_OF_VIEW)
        return x, y, z

    @property
    def reference_time(self) -> float:
        """Time in s after the start of a volume that the truth is about.

        Half of the TR where slices have times of their own; otherwise all is seen at the start.
        """
        return 0.0 if self.slices == "none" else self.tr / 2

    @property
    def has_field(self) -> bool:
        """Whether there is a field, be it of 0 Hz, that sidecars, field maps and truth are of."""
        return self.distortion > 0 or bool(self.fieldmaps)
