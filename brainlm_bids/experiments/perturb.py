"""`brainlm perturb`: how changing some parcels changes predictions, tested against random sets.

All recordings and models share the same random sets of parcels, so that means over subjects can
also be tested against them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.names import common_stem
from brainlm_bids.bids.outputs import model_stage
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort.means import mean_over, subject_means
from brainlm_bids.errors import UserError
from brainlm_bids.experiments.perturbation import (
    Changes,
    Design,
    against_null,
    change_parcels,
    embedding_change,
    false_discovery,
    mean_change,
    perturb,
    random_sets,
)
from brainlm_bids.experiments.perturbation_files import (
    DISTANCES,
    null_columns,
    read_null,
    window_columns,
    write_maps,
    write_null,
    write_parcels,
)
from brainlm_bids.experiments.recordings import (
    ExperimentOptions,
    Scaled,
    atlas_image,
    find_items,
    read_scaled,
)
from brainlm_bids.experiments.results import Results, load
from brainlm_bids.experiments.turned_sets import mean_distance, turned_sets
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import Embeddings, embed
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.selection import find_parcels
from brainlm_bids.progress import Progress
from brainlm_bids.report.tools.page import reported
from brainlm_bids.settings import configuration_hash

Array = NDArray[np.float64]
# Predictions are float32 of about one interquartile range.
SMALLEST_CHANGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class PerturbationOptions(ExperimentOptions):
    """The arguments of `brainlm perturb`."""

    parcels: tuple[str, ...]
    scale: float | None = None
    value: float | None = None
    lesion: bool = False
    n_null: int = 100
    match: str = "size"
    mask_ratio: float | None = None

    @property
    def change(self) -> dict[str, float]:
        """The change as keyword arguments of `change_parcels`."""
        if self.scale is not None:
            return {"scale": self.scale}
        return {"value": 0.0 if self.value is None else self.value}


def run(options: PerturbationOptions, command: Sequence[str] = ()) -> int:
    """Perturb all chosen recordings.

    Parameters
    ----------
    options
        The options of the command.
    command
        The words of the command line, for the page; none for a call from Python.

    Returns
    -------
    int
        0, or 1 if a recording failed.

    Raises
    ------
    UserError
        If no recording could be used.
    """
    try:
        chosen = find_parcels(options.parcels, resources.parcels())
    except UserError as error:
        raise UserError(f"--parcels: {error}") from error
    for flag, value in (("--scale", options.scale), ("--set", options.value)):
        if value is not None and not np.isfinite(value):
            raise UserError(f"{flag} {value}: expected a finite number")
    if options.scale == 1:
        raise UserError("--scale 1: changes nothing")
    items = find_items(options)
    atlas, affine = atlas_image(items[0].naming, options.input)
    results = Results(options.results, "perturb", options)
    design = _design(items, chosen, options)
    results.describe(options.input)
    with reported(results.folder, "perturb", command) as record:
        record["Failed"] = results.problems
        for resource in results.models:
            model = load(resource, options)
            work = functools.partial(
                _perturb_recording,
                label=resource.label,
                model=model,
                design=design,
                image=(atlas, affine),
                results=results,
                options=options,
            )
            done = results.each(items, work)
            _summarise(done, resource.label, design, (atlas, affine), results, options)
    return 1 if results.problems else 0


def _design(items: Sequence[Recording], chosen: list[int], options: PerturbationOptions) -> Design:
    """Random sets of parcels that have data in all recordings."""
    with_data = np.ones(len(resources.parcels().names), dtype=bool)
    for item in items:
        try:
            with_data &= (read_scaled(item, options).series != 0).any(axis=0)
        except UserError:
            continue  # reported when this recording is processed
    groups = resources.parcels().hemisphere if options.match == "hemisphere" else None
    sets = np.empty((0, len(chosen)), dtype=np.int64)
    if options.n_null:
        pool = np.flatnonzero(with_data)
        if options.match == "space":
            xyz, sides = resources.parcels().xyz, resources.parcels().hemisphere
            sets = turned_sets(chosen, pool, options.n_null, options.seed, xyz, sides)
        else:
            sets = random_sets(chosen, pool, options.n_null, options.seed, groups)
    return Design(chosen, sets, configuration_hash({"sets": sets.tolist()}))


# --- one recording ---------------------------------------------------------------------------


def _perturb_recording(
    item: Recording,
    *,
    label: str,
    model: LoadedModel,
    design: Design,
    image: tuple[NDArray[np.int16], Array],
    results: Results,
    options: PerturbationOptions,
) -> None:
    stage = f"{model_stage(label)}_perturb-{design.configuration}"
    if results.is_complete(item, stage):
        return
    scaled = read_scaled(item, options)
    has_data: NDArray[np.bool_] = (scaled.series != 0).any(axis=0)
    if not has_data[design.chosen].any():
        raise UserError("none of the parcels to change has data")
    before, effect, null = _responses(model, scaled, design, options, results.progress)
    test = against_null(effect.change, null.change)
    windows = against_null(effect.moved[:, 0], null.moved[..., 0])
    naming = item.naming
    names = resources.parcels().names
    sidecar = {
        "Sources": [str(item.path)],
        "RepetitionTime": scaled.tr,
        **_provenance(design, options),
        "Warnings": _warnings(effect),
        "MaskRatio": _mask_ratio(model, options),
        "ChangedParcelsWithoutData": [names[k] for k in design.chosen if not has_data[k]],
        "Device": model.placement.device,
        "Precision": model.placement.precision,
    }
    columns = window_columns(before, scaled.start, effect.moved, windows)
    written = [
        files.write_tsv(
            naming.path("perturbation_embeddings", model=label), list(columns), [*columns.values()]
        ),
        results.sidecar(naming, "perturbation_embeddings", label, **sidecar),
        *write_parcels(
            naming, "perturbation", label, effect.change, test, design, results, sidecar
        ),
        *write_maps(naming, "perturbation", label, effect.change, test.z, image, results, sidecar),
        write_null(naming, label, effect, null, design),
    ]
    written.append(results.sidecar(naming, "perturbation_null", label, **sidecar))
    results.complete(item, stage, written)


def _responses(
    model: LoadedModel,
    scaled: Scaled,
    design: Design,
    options: PerturbationOptions,
    progress: Progress,
) -> tuple[Embeddings, Changes, Changes]:
    """The embedding before, and the changes by the chosen parcels and by the random sets."""
    coords, seed = resources.parcels().xyz, options.seed
    gain = options.input_gain
    before = embed(model, scaled.series, coords, tr=scaled.tr, seed=seed, input_gain=gain)
    everything = []
    sets = [design.chosen, *design.sets.tolist()]
    for parcels in progress.within(sets, "set of parcels"):
        response = perturb(
            model,
            scaled.series,
            change_parcels(scaled.series, parcels, **options.change),
            coords,
            parcels=parcels,
            tr=scaled.tr,
            seed=seed,
            mask_ratio=_mask_ratio(model, options),
            input_gain=gain,
            embedded=before.vectors,
        )
        everything.append(
            Changes(
                mean_change(response.reconstruction),
                embedding_change(response.embedding, before.vectors),
            )
        )
    first, *rest = everything
    changes = np.array([effect.change for effect in rest]).reshape(len(rest), *first.change.shape)
    moved = np.array([effect.moved for effect in rest]).reshape(len(rest), *first.moved.shape)
    # what the model predicts for a parcel without data has no meaning
    empty = (scaled.series == 0).all(axis=0)
    first.change[empty], changes[:, empty] = np.nan, np.nan
    return before, first, Changes(changes, moved)


def _warnings(effect: Changes) -> list[Notice]:
    """Warnings that a reader of the results needs."""
    largest = effect.change[np.isfinite(effect.change)].max(initial=0)
    if not np.isfinite(effect.change).any():
        text = (
            "Other parcels cannot be predicted: every patch of the image model holds a changed "
            "parcel."
        )
        return [notice(Kind.NO_UNCHANGED_PATCH, text)]
    if largest < SMALLEST_CHANGE:
        text = (
            f"No prediction changes by more than {largest:.1g}, the size of rounding errors, so z "
            "and p of the parcels are meaningless."
        )
        return [notice(Kind.ROUNDING_ONLY, text)]
    return []


def _mask_ratio(model: LoadedModel, options: PerturbationOptions) -> float:
    return options.mask_ratio or model.config.mask_ratio


def _provenance(design: Design, options: PerturbationOptions) -> dict[str, Any]:
    names = resources.parcels().names
    alike = {
        "size": "number of parcels",
        "hemisphere": "number of parcels in each hemisphere",
        "space": "number of parcels in each hemisphere, and the distances between them",
    }
    xyz = resources.parcels().xyz
    distances = [mean_distance(parcels, xyz) for parcels in design.sets]
    return {
        "ChangedParcels": [names[k] for k in design.chosen],
        "Change": options.change,
        "ChangeUnits": "interquartile ranges (value); 0 is the parcel's median",
        "NullSets": len(design.sets),
        "NullMatchedFor": alike[options.match],
        "MeanDistance": mean_distance(design.chosen, xyz),
        "NullMeanDistance": float(np.mean(distances)) if distances else None,
        "DistanceUnits": "mm between parcels of a set",
        "NullDrawnFrom": "parcels with data in all recordings of the call, the changed ones too",
        "P": "(1 + sets with at least this change) / (1 + sets); q: Benjamini-Hochberg",
    }


# --- over subjects ---------------------------------------------------------------------------


def _summarise(
    done: Sequence[Recording],
    label: str,
    design: Design,
    image: tuple[NDArray[np.int16], Array],
    results: Results,
    options: PerturbationOptions,
) -> None:
    subjects = [recording.naming.subject for recording in done]
    tables = [
        read_null(recording.naming.path("perturbation_null", model=label)) for recording in done
    ]

    def mean(values: list[Array]) -> Array:
        return mean_over(subject_means(np.stack(values), subjects))

    change, null = mean([t["change"] for t in tables]), mean([t["null_change"] for t in tables])
    test = against_null(change, null)
    moved = [t["moved"][-1] for t in tables]
    null_moved = [t["null_moved"][:, -1, 0] for t in tables]
    together, null_together = mean(moved), mean(null_moved)
    rows = against_null(
        np.array([*(distances[0] for distances in moved), together[0]]),
        np.stack([*null_moved, null_together], axis=1),
    )
    stem = common_stem(recording.stem for recording in done)
    naming = dataclasses.replace(done[0].naming, stem=stem)
    sidecar = {
        **_provenance(design, options),
        "Recordings": [recording.stem for recording in done],
        "NumberOfSubjects": len(set(subjects)),
        "Warnings": _warnings(Changes(change, together)),
        "Failed": results.problems,
    }
    everyone = np.stack([*moved, together])
    columns = {
        "recording": [*(recording.stem for recording in done), "mean"],
        **{name: everyone[:, k].tolist() for k, name in enumerate(DISTANCES)},
        **null_columns(rows),
    }
    path = naming.path("group_perturbation_embeddings", model=label)
    files.write_tsv(path, list(columns), list(columns.values()))
    results.sidecar(naming, "group_perturbation_embeddings", label, **sidecar)
    key = "group_perturbation"
    table = write_parcels(naming, key, label, change, test, design, results, sidecar)[0]
    write_maps(naming, key, label, change, test.z, image, results, sidecar)
    from brainlm_bids.figures.experiments import plot_perturbation

    background = resources.find_template(offline=True).load_t1w()
    for picture in (table.with_suffix(".png"), naming.figure("perturbation", model=label)):
        plot_perturbation(
            picture,
            change,
            test.z,
            false_discovery(test.p),
            design.chosen,
            image,
            resources.parcels(),
            (float(together[0]), null_together),
            f"{label}: {_count(len(design.chosen), 'parcel')} {_words(options)}, "
            f"{_count(len(design.sets), 'null set')}",
            background=background,
        )
    print(table)


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _words(options: PerturbationOptions) -> str:
    if options.lesion:
        return "set to 0 (lesion)"
    name, value = next(iter(options.change.items()))
    return f"{'scaled by' if name == 'scale' else 'set to'} {value:g}"
