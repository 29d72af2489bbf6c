"""`brainlm fetch`: download resources into the cache and show their licences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from brainlm_bids.errors import UserError
from brainlm_bids.resources.atlas import ATLAS_LICENCE, find_cifti_atlas, real_atlas
from brainlm_bids.resources.cache import SOURCES, Sources, chosen_home, writable_home
from brainlm_bids.resources.checkpoint import find_model
from brainlm_bids.resources.labels import PUBLISHED, WEIGHTS_LICENCE
from brainlm_bids.resources.template import TEMPLATE_LICENCE, from_templateflow

FETCHABLE = ("atlas", "cifti-atlas", "template", *PUBLISHED)


def fetch(
    what: Iterable[str],
    *,
    home: Path | None = None,
    sources: Sources = SOURCES,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Download resources into the cache; complete ones are not fetched again.

    Parameters
    ----------
    what
        Any of "atlas", "cifti-atlas", "template", "13M", "111M" and "650M".
    home
        Folder of the cache.
    sources
        Addresses of downloads.
    report
        Receives messages.

    Returns
    -------
    list of Path
        Files or folders.

    Raises
    ------
    UserError
        For an unknown name, no network, another checksum, or a cache that cannot be written.
    """
    words: Sequence[str] = list(what)
    unknown = [word for word in words if word not in FETCHABLE]
    if unknown:
        raise UserError(f"cannot fetch {', '.join(unknown)}: choose from {', '.join(FETCHABLE)}")
    folder = writable_home(chosen_home(home))
    return [_fetch_resource(word, folder, sources, report) for word in words]


def _fetch_resource(word: str, home: Path, sources: Sources, report: Callable[[str], None]) -> Path:
    if word == "atlas":
        path, licence = real_atlas(home, False, sources), ATLAS_LICENCE
    elif word == "cifti-atlas":
        path, licence = find_cifti_atlas(home=home, sources=sources), ATLAS_LICENCE
    elif word == "template":
        path, licence = from_templateflow(home, False, sources)[0], TEMPLATE_LICENCE
    else:
        report(f"{word}: licence of the weights: {WEIGHTS_LICENCE}")
        model = find_model(word, home=home, sources=sources)
        assert model is not None and model.path is not None
        path, licence = model.path, model.licence
    report(f"{word}: {path} ({licence})")
    return path
