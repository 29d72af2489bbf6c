"""Why no field map is declared for a run, in one line, with the mistake where one is plain."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from brainlm_bids.bids.intended import exists, intended_paths, is_same_run, labels
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.raw_images import RawImage


class Reason(NamedTuple):
    """Why a run has no field map.

    Attributes
    ----------
    text
        One line.
    mistake
        Whether the data set seems to say something else than it was meant to.
    """

    text: str
    mistake: bool = False


class Fieldmaps(NamedTuple):
    """The images in the folders `fmap` of a run's subject.

    Attributes
    ----------
    run
        The run's own image.
    root
        Of the data set.
    session, elsewhere
        Images of the run's session, and of the subject's other ones.
    """

    run: RawImage
    root: Path
    session: Sequence[RawImage]
    elsewhere: Sequence[RawImage]


def why_none(there: Fieldmaps) -> Reason:
    """The first reason that holds."""
    looks: tuple[Callable[[Fieldmaps], Reason | None], ...] = (
        _of_other_session,
        _without_any,
        _broken_sidecar,
        _identifier_without_image,
        _target_that_is_missing,
        _identifier_without_source,
    )
    for look in looks:
        reason = look(there)
        if reason is not None:
            return reason
    first = there.session[0].path.name
    return Reason(f"no field map of its session is declared for it (see IntendedFor of {first})")


def identifiers(image: RawImage) -> tuple[str, ...]:
    """What an image measures, by its B0FieldIdentifier."""
    return () if image.fault_of_sidecar else labels(image.metadata.get("B0FieldIdentifier"))


def is_intended(image: RawImage, run: RawImage) -> bool:
    """Whether IntendedFor of an image names a run."""
    path = run.path.relative_to(run.root).as_posix()
    return any(is_same_run(target, path) for target in _targets(image))


def _targets(image: RawImage) -> tuple[str, ...]:
    return () if image.fault_of_sidecar else intended_paths(image.metadata, image.name.subject)


def _sources(run: RawImage) -> tuple[str, ...]:
    return labels(run.metadata.get("B0FieldSource"))


def _of_other_session(there: Fieldmaps) -> Reason | None:
    for image in there.elsewhere:
        named = [one for one in _sources(there.run) if one in identifiers(image)]
        if named:
            text = f"B0FieldSource {named[0]!r} is of another session only ({image.path.name})"
            return Reason(text, mistake=True)
        if is_intended(image, there.run):
            text = f"only a field map of another session is intended for it ({image.path.name})"
            return Reason(text, mistake=True)
    return None


def _without_any(there: Fieldmaps) -> Reason | None:
    if there.session or _sources(there.run):
        return None
    if there.elsewhere:
        name = there.elsewhere[0].path.name
        return Reason(f"only another session of the subject has field maps ({name})")
    return Reason("the data set has no field map of the subject")


def _broken_sidecar(there: Fieldmaps) -> Reason | None:
    broken = next((one for one in there.session if one.fault_of_sidecar), None)
    return None if broken is None else Reason(broken.fault_of_sidecar, mistake=True)


def _identifier_without_image(there: Fieldmaps) -> Reason | None:
    for source in _sources(there.run):
        return Reason(
            f"B0FieldSource {source!r} is the B0FieldIdentifier of no image", mistake=True
        )
    return None


def _target_that_is_missing(there: Fieldmaps) -> Reason | None:
    task = there.run.name.get("task")
    for image in there.session:
        for target in _targets(image):
            # a run of another task that was removed is no reason why this one is not named
            is_about_it = parse(PurePosixPath(target).name).get("task", task) == task
            if is_about_it and not exists(target, there.root):
                text = f"{image.path.name}: IntendedFor names {target}, which does not exist"
                return Reason(text, mistake=True)
    return None


def _identifier_without_source(there: Fieldmaps) -> Reason | None:
    for image in there.session:
        for identifier in identifiers(image):
            text = (
                f"{image.path.name}: its B0FieldIdentifier {identifier!r} is no B0FieldSource of "
                "the run"
            )
            return Reason(text)
    return None
