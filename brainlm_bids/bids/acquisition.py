"""What a raw run's scanner did: phase encoding, field map, single-band reference, slice times.

Files of a data set and the metadata of a run come in. What the run has goes out, and in one line
each why it lacks the rest. Nothing that is wrong with these files stops a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.bids.fieldmaps import Fieldmap
from brainlm_bids.bids.intended import is_same_run, labels
from brainlm_bids.bids.layout import Selected
from brainlm_bids.bids.measurements import (
    Attempt,
    RunImage,
    attempts,
    undeclared_partners,
    with_companions,
)
from brainlm_bids.bids.raw_images import Clock, RawImage
from brainlm_bids.bids.readout import Readout, phase_encoding_direction, total_readout_time
from brainlm_bids.bids.slices import SliceTable, slice_timing
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.bids.undeclared import Fieldmaps, identifiers, is_intended, why_none
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.settings import Settings

IGNORED = "--ignore fieldmaps"
_REMEMBERED = 20  # runs: of each, several things are asked one after another


class Acquired(NamedTuple):
    """What is known of a run's acquisition; the fields are those of `Run`."""

    fieldmap: Fieldmap | None = None
    phase_encoding: tuple[str, float] | None = None
    no_fieldmap: str = ""
    sbref: Path | None = None
    slices: SliceTable | None = None
    warnings: tuple[Notice, ...] = ()


class _Group(NamedTuple):
    """Images that were declared together for a run, and the identifier that they share."""

    images: Sequence[RawImage]
    identifier: str = ""
    declared: bool = True


class Acquisition:
    """The field maps and single-band references of a data set.

    Parameters
    ----------
    files
        Of the selection.
    settings
        Of the call.
    sources
        Reads them.
    """

    def __init__(
        self, files: Selected, settings: Settings, sources: SourceFiles | None = None
    ) -> None:
        self._settings = settings
        self._sources = sources or SourceFiles()
        self._root = settings.bids_dir
        self._clock = Clock()
        self._fmap = self._by_subject(files.fmap)
        self._sbref = self._by_subject(files.sbref)
        self._bold = self._by_subject(files.indexed)
        self._own = lru_cache(_REMEMBERED)(partial(self._image, whole=False))

    def _by_subject(self, paths: Iterable[Path]) -> dict[str, list[RawImage]]:
        found: dict[str, list[RawImage]] = {}
        for path in paths:
            image = self._image(path)
            found.setdefault(image.name.subject, []).append(image)
        return {subject: _compressed_first(images) for subject, images in found.items()}

    def _image(self, path: Path, *, whole: bool = True) -> RawImage:
        orientation = self._settings.assume_orientation
        return RawImage(path, self._root, orientation, whole, self._sources)

    def of(self, path: Path, metadata: Mapping[str, Any]) -> Acquired:
        """What a run has.

        Parameters
        ----------
        path
            Of its image, which can be read.
        metadata
            Its merged sidecars.
        """
        image = self._own(path)
        direction, problem = phase_encoding_direction(metadata)
        readout = Readout(problem=problem)
        if direction is not None:
            fallback = self._settings.fallback_total_readout_time
            readout = total_readout_time(metadata, image.shape, direction, fallback)
        sbref, warnings = self._reference(image, direction)
        warnings += [
            notice(Kind.READOUT_DOUBTFUL, f"{path.name}: {doubt}.") for doubt in readout.doubts
        ]
        slices = None
        if self._settings.slice_timing:
            slices, odd = slice_timing(path.name, metadata, image.shape)
            warnings += odd
        found = Acquired(sbref=None if sbref is None else sbref.path, slices=slices)
        run = None
        if direction is not None and readout.seconds is not None:
            found = found._replace(phase_encoding=(direction, readout.seconds))
            fallback = self._settings.fallback_total_readout_time
            run = RunImage(image, direction, readout.seconds, sbref, fallback)
        found = self._with_fieldmap(found, image, run, f"{path.name}: {readout.problem}")
        return found._replace(warnings=(*warnings, *found.warnings))

    def needed(self, path: Path) -> list[Path]:
        """Files that a run's field map and single-band reference are chosen by, and made from.

        Where sidecars were not fetched, it is not known which images those are: then all of the
        session are listed.

        Parameters
        ----------
        path
            Of its image, which need not have been fetched.
        """
        image = self._own(path)
        references = [] if "sbref" in self._settings.ignore else self._references_of(image)[:1]
        if "fieldmaps" in self._settings.ignore:
            return [*self._texts([image, *references]), *(one.path for one in references)]
        images = self._in_session(image)
        texts = self._texts([image, *references, *images])
        if not self._sources.absent_among(texts) and not image.fault_of_sidecar:
            texts += self._texts([*self._echo_planar(image), *self._partners(image)])
        if not self._sources.absent_among(texts) and not image.fault_of_sidecar:
            images = self._of_fieldmap(image)
        return list(dict.fromkeys([*texts, *(one.path for one in (*references, *images))]))

    def candidates(self, path: Path) -> list[Path]:
        """Files that may be needed for a run, by their names alone: those of `needed`, and more."""
        run = self._own(path)
        images = [*self._in_session(run), *self._references_of(run), *self._partners(run)]
        return [*self._texts([run, *images]), *(one.path for one in images)]

    def _sidecars(self, path: Path) -> tuple[Path, ...]:
        return self._sources.sidecars(path, self._root)

    def _texts(self, images: Iterable[RawImage]) -> list[Path]:
        """Sidecars of images of a session, and its tables of times."""
        chosen = list(images)
        tables = {one.path.parent.parent for one in chosen}
        found = [path for one in chosen for path in self._sidecars(one.path)]
        for folder in sorted(tables):
            found += self._sources.tables_of_times(folder)
        return list(dict.fromkeys(found))

    # --- the single-band reference

    def _reference(
        self, run: RawImage, direction: str | None
    ) -> tuple[RawImage | None, list[Notice]]:
        """The single-band reference of a run; a note where there is one that does not fit."""
        if "sbref" in self._settings.ignore:
            return None, []
        for sbref in self._references_of(run):
            try:
                misfit = _misfit(sbref, run, direction)
            except UserError as error:
                misfit = " ".join(str(error).split())
            if misfit is None:
                return sbref, []
            text = f"{misfit}; this single-band reference is not used."
            return None, [notice(Kind.SBREF_NOT_USED, text)]
        return None, []

    def _references_of(self, run: RawImage) -> list[RawImage]:
        return _references(run, self._sbref.get(run.name.subject, []))

    # --- the field map

    def _with_fieldmap(
        self, found: Acquired, image: RawImage, run: RunImage | None, problem: str
    ) -> Acquired:
        """Add the run's field map, or the reason why it has none."""
        if "fieldmaps" in self._settings.ignore:
            return found._replace(no_fieldmap=IGNORED)
        groups = self._declared(image)
        if not groups and run is not None:
            groups = self._undeclared(image, run.direction)
        if not groups:
            return self._without(found, image)
        if run is None:
            return _unusable(found, [problem])
        faults: list[str] = []
        for group, attempt in self._attempts(groups, run):
            try:
                fieldmap = attempt()
            except UserError as error:
                faults.append(" ".join(str(error).split()))
                continue
            fieldmap = self._named(replace(fieldmap, identifier=group.identifier))
            found = _with_notice(found._replace(fieldmap=fieldmap), faults)
            return _with_shims(found, group.images, image)
        if not faults:
            first = groups[0].images[0].path.name
            faults = [f"{first}: is declared for the run, and no image that tells the field"]
        if not groups[0].declared:
            return found._replace(no_fieldmap=faults[0])
        return _unusable(found, faults)

    def _attempts(
        self, groups: Sequence[_Group], run: RunImage
    ) -> Iterable[tuple[_Group, Attempt]]:
        for group in groups:
            for attempt in attempts(group.images, run, self._clock):
                yield group, attempt

    def _named(self, fieldmap: Fieldmap) -> Fieldmap:
        relative = [path.relative_to(self._root).as_posix() for path in fieldmap.files]
        return replace(fieldmap, uris=tuple(f"bids:raw:{path}" for path in relative))

    def _without(self, found: Acquired, run: RawImage) -> Acquired:
        """A run for which no field map is declared, with the reason."""
        every, session = self._fmap.get(run.name.subject, []), self._in_session(run)
        elsewhere = [image for image in every if image not in session]
        reason = why_none(Fieldmaps(run, self._root, session, elsewhere))
        if reason.mistake:
            return _unusable(found, [reason.text])
        return found._replace(no_fieldmap=reason.text)

    def _in_session(self, run: RawImage) -> list[RawImage]:
        every = self._fmap.get(run.name.subject, [])
        return [image for image in every if image.session == run.session]

    def _declared(self, run: RawImage) -> list[_Group]:
        """Images of the session that sidecars declare to be for a run, the best group first."""
        session = self._in_session(run)
        candidates = [*session, *self._echo_planar(run)]
        groups = []
        for identifier in labels(run.metadata.get("B0FieldSource")):
            chosen = [one for one in candidates if identifier in identifiers(one)]
            if chosen:
                groups.append(_Group(with_companions(chosen, session), identifier))
        if groups:
            return groups
        chosen = [image for image in session if is_intended(image, run)]
        return [_Group(with_companions(chosen, session))] if chosen else []

    def _of_fieldmap(self, run: RawImage) -> list[RawImage]:
        """Images that a run's field map may be made from; of undeclared ones the best group."""
        groups = self._declared(run)
        direction, _ = phase_encoding_direction(run.metadata)
        if not groups and direction is not None:
            groups = self._undeclared(run, direction)[:1]
        return [image for group in groups for image in group.images]

    def _echo_planar(self, run: RawImage) -> list[RawImage]:
        """Other references and runs of the session, if the run names its field maps' identifier."""
        if not labels(run.metadata.get("B0FieldSource")):
            return []
        return [
            image
            for kind in (self._sbref, self._bold)
            for image in kind.get(run.name.subject, [])
            if image.session == run.session and not _is_of(image, run)
        ]

    def _partners(self, run: RawImage) -> list[RawImage]:
        """References and runs that differ from a run in the label of `dir` alone."""
        kinds = (kind.get(run.name.subject, []) for kind in (self._sbref, self._bold))
        return [one for images in kinds for one in undeclared_partners(run, images)]

    def _undeclared(self, image: RawImage, direction: str) -> list[_Group]:
        """Images of the opposite polarity that differ from a run in the label of `dir` alone."""
        groups = []
        for others in (self._sbref, self._bold):
            partners = undeclared_partners(image, others.get(image.name.subject, []))
            opposite = [one for one in partners if _direction(one) == _reversed(direction)]
            if opposite:
                groups.append(_Group(opposite, declared=False))
        return groups


def _compressed_first(images: Iterable[RawImage]) -> list[RawImage]:
    """One image of each name: the compressed one of two."""
    found: dict[tuple[Path, str], RawImage] = {}
    for image in sorted(images, key=lambda one: (one.path.suffix != ".gz", one.path)):
        found.setdefault((image.path.parent, image.name.bare), image)
    return sorted(found.values(), key=lambda one: one.path)


def _references(run: RawImage, images: Iterable[RawImage]) -> list[RawImage]:
    """Single-band references of a run: that of the first echo where there are several."""

    def labels_of(image: RawImage) -> dict[str, str]:
        left_out = ("echo", "part")
        return {key: label for key, label in image.name.entities.items() if key not in left_out}

    def order(image: RawImage) -> tuple[bool, int, str]:
        echo = image.name.get("echo")
        number = int(echo) if echo.isdecimal() else 0
        return image.name.stem != run.name.stem, number, image.path.as_posix()

    own = [image for image in images if labels_of(image) == labels_of(run)]
    return sorted((image for image in own if image.name.get("part") in ("", "mag")), key=order)


def _misfit(sbref: RawImage, run: RawImage, direction: str | None) -> str | None:
    """Why an image cannot be the reference of a run; UserError if it cannot be read."""
    name = sbref.path.name
    shape, of_run = sbref.grid.shape[:3], run.grid.shape[:3]
    if shape != of_run:
        return f"{name}: has {_by(shape)} voxels, and the run {_by(of_run)}"
    if not sbref.has_grid_of(run):
        return f"{name}: lies elsewhere than the run, by the affines of their headers"
    own, _ = phase_encoding_direction(sbref.metadata)
    if own is not None and direction is not None and own != direction:
        return f"{name}: PhaseEncodingDirection is {own}, and that of the run {direction}"
    return None


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in shape)


def _is_of(image: RawImage, run: RawImage) -> bool:
    """Whether an image is the run's own, or another echo or part of it."""
    return is_same_run(image.path.as_posix(), run.path.as_posix())


def _direction(image: RawImage) -> str | None:
    return None if image.fault_of_sidecar else phase_encoding_direction(image.metadata)[0]


def _reversed(direction: str) -> str:
    return direction[0] if direction.endswith("-") else f"{direction}-"


def _with_shims(found: Acquired, images: Iterable[RawImage], run: RawImage) -> Acquired:
    """Say where the shim was another when the field was measured: then so was the field."""
    used = () if found.fieldmap is None else found.fieldmap.files
    for image in images:
        if image.path in used and _differ(image.metadata, run.metadata):
            text = (
                f"{image.path.name}: its ShimSetting is not that of the run, so that the field may "
                "have changed between them. It is used; look at the corrected reference."
            )
            return found._replace(
                warnings=(*found.warnings, notice(Kind.FIELDMAP_OF_OTHER_SHIM, text))
            )
    return found


def _differ(metadata: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both sidecars record currents of the shim coils, and other ones."""
    shims = [one.get("ShimSetting") for one in (metadata, other)]
    return all(isinstance(shim, list) and shim for shim in shims) and shims[0] != shims[1]


def _unusable(found: Acquired, faults: Sequence[str]) -> Acquired:
    """A run whose field map cannot be used: it is processed without one."""
    text = f"{faults[0]}. The run is not corrected for distortion by a field map."
    warnings = (*found.warnings, notice(Kind.FIELDMAP_NOT_USED, text))
    return found._replace(no_fieldmap=faults[0], warnings=warnings)


def _with_notice(found: Acquired, faults: Sequence[str]) -> Acquired:
    """Say which better field map could not be used."""
    if not faults or found.fieldmap is None:
        return found
    text = f"{faults[0]}. Another field map, {found.fieldmap.images[0].name}, was used."
    return found._replace(warnings=(*found.warnings, notice(Kind.FIELDMAP_NOT_USED, text)))
