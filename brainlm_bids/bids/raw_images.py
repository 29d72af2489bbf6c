"""Images of a raw data set beside its runs, each looked at once: sidecars, grid, time, faults."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any

from brainlm_bids.bids.headers import image_shape
from brainlm_bids.bids.names import Name, parse
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows, reading
from brainlm_bids.image_headers import Grid, check_head, check_stored, largest_distance, read_grid

# Corners of images on one grid lie no farther apart than rounded headers put them, mm.
SAME_GRID_MM = 0.5


@dataclass(frozen=True)
class RawImage:
    """An image, looked at when it is asked for.

    Attributes
    ----------
    path
        Of the file.
    root
        Of the data set.
    orientation
        Where its axes lead if its header does not record it.
    whole
        Whether its grid is told only if the file is whole, which takes long for a run.
    files
        Reads it.
    """

    path: Path
    root: Path
    orientation: str | None = field(default=None, repr=False)
    whole: bool = field(default=True, repr=False)
    files: SourceFiles = field(default_factory=SourceFiles, repr=False, compare=False)

    @cached_property
    def name(self) -> Name:
        """Its name taken apart."""
        return parse(self.path.name)

    @property
    def session(self) -> str:
        """Label of its session; empty without one."""
        return self.name.get("ses")

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The merged sidecars; UserError where one cannot be read."""
        return self.files.metadata(self.path, self.root)

    @cached_property
    def fault_of_sidecar(self) -> str:
        """What is wrong with its sidecars; empty if nothing is."""
        try:
            _ = self.metadata
        except UserError as error:
            return " ".join(str(error).split())
        return ""

    @cached_property
    def grid(self) -> Grid:
        """Where its voxels lie; UserError where the file is damaged or is no image of a head."""
        size = self.files.check(self.path, whole=self.whole)
        try:
            with reading(self.path):
                image = self.files.head(self.path)
                check_stored(image)
                grid = read_grid(image, self.orientation)
                check_head(grid)
            if self.whole:
                self.files.check_last_voxel(self.path, size)
        except UserError as error:
            text = str(error)
            text = text if self.path.name in text else f"{self.path.name}: {text}"
            raise UserError(text) from None
        return grid

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) or (X, Y, Z, T) by its header; UserError where it cannot be read."""
        return image_shape(self.path, self.files.head)

    def has_grid_of(self, other: "RawImage") -> bool:
        """Whether its voxels lie where those of another image do."""
        shape = self.grid.shape[:3]
        if shape != other.grid.shape[:3]:
            return False
        return largest_distance(self.grid.affine, other.grid.affine, shape) <= SAME_GRID_MM


class Clock:
    """When images were acquired, by `scans.tsv`, else by their sidecars."""

    def __init__(self) -> None:
        self._tables: dict[Path, dict[str, datetime]] = {}

    def seconds_between(self, one: RawImage, other: RawImage) -> float:
        """Time between two images of a session, s; infinite where it is not recorded."""
        pair = [self._of_table(image) or _of_sidecar(image) for image in (one, other)]
        if pair[0] is None or pair[1] is None:
            return float("inf")
        try:
            return abs((pair[0] - pair[1]).total_seconds())
        except TypeError:  # one with a time zone, and one without
            return float("inf")

    def _of_table(self, image: RawImage) -> datetime | None:
        folder = image.path.parent.parent
        if folder not in self._tables:
            self._tables[folder] = _read_scans(folder)
        return self._tables[folder].get(image.path.relative_to(folder).as_posix())


def _read_scans(folder: Path) -> dict[str, datetime]:
    found: dict[str, datetime] = {}
    for path in sorted(folder.glob("*_scans.tsv")):
        with contextlib.suppress(UserError):  # a table that cannot be read tells no times
            for row in read_rows(path):
                with contextlib.suppress(ValueError, TypeError):
                    found[row.get("filename", "")] = datetime.fromisoformat(row["acq_time"])
    return found


def _of_sidecar(image: RawImage) -> datetime | None:
    metadata: Mapping[str, Any] = {} if image.fault_of_sidecar else image.metadata
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(metadata.get("AcquisitionDateTime"), str):
            return datetime.fromisoformat(metadata["AcquisitionDateTime"])
        if isinstance(metadata.get("AcquisitionTime"), str):
            at = time.fromisoformat(metadata["AcquisitionTime"][:15])
            return datetime.combine(datetime(2000, 1, 1), at)
    return None
