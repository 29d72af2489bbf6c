"""`brainlm perturb`: how changing some parcels changes predictions, tested against a null.

The same random sets of parcels serve all recordings and models, so that means over subjects have
a null of their own.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.bids.names import common_stem
from brainlm_bids.bids.outputs import Naming, model_stage
from brainlm_bids.cohort.means import mean_over, subject_means
from brainlm_bids.errors import UserError
from brainlm_bids.experiments.perturbation import (
    NullTest,
    against_null,
    change_parcels,
    embedding_change,
    false_discovery,
    mean_change,
    perturb,
    random_sets,
)
from brainlm_bids.experiments.recordings import (
    ExperimentOptions,
    Scaled,
    atlas_image,
    find_items,
    read_scaled,
)
from brainlm_bids.experiments.results import Results, load
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import Embeddings, embed
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.selection import find_parcels
from brainlm_bids.settings import configuration_hash

Array = NDArray[np.float64]
# Predictions are float32 of about one interquartile range.
SMALLEST_CHANGE = 1e-6
DISTANCES = ("distance", "relative_distance", "cosine_distance")


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
        """As `change_parcels` takes it."""
        if self.scale is not None:
            return {"scale": self.scale}
        return {"value": 0.0 if self.value is None else self.value}


class Design(NamedTuple):
    """chosen (K,) parcels to change; sets (N, K) random ones; folder of the atlas."""

    chosen: list[int]
    sets: NDArray[np.int64]
    configuration: str


class Changes(NamedTuple):
    """The effect of perturbing one set of parcels.

    Attributes
    ----------
    change
        (P,) mean absolute change of the predictions.
    moved
        (windows + 1, 3) changes of the embeddings, see `embedding_change`.
    """

    change: Array
    moved: Array


def run(options: PerturbationOptions) -> int:
    """Perturb all chosen recordings; 0, or 1 if one failed. Raises UserError if none could be."""
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
    before, effect, null = _responses(model, scaled, design, options)
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
    columns = _window_columns(before, scaled.start, effect.moved, windows)
    written = [
        files.write_tsv(
            naming.path("perturbation_embeddings", model=label), list(columns), [*columns.values()]
        ),
        results.sidecar(naming, "perturbation_embeddings", label, **sidecar),
        *_parcel_files(
            naming, "perturbation", label, effect.change, test, design, results, sidecar
        ),
        *_maps(naming, "perturbation", label, effect.change, test.z, image, results, sidecar),
        _write_null(naming, label, effect, null, design),
    ]
    written.append(results.sidecar(naming, "perturbation_null", label, **sidecar))
    results.complete(item, stage, written)


def _responses(
    model: LoadedModel, scaled: Scaled, design: Design, options: PerturbationOptions
) -> tuple[Embeddings, Changes, Changes]:
    """The embedding before, what the chosen parcels do, and what the random sets do."""
    from tqdm import tqdm

    coords, seed = resources.parcels().xyz, options.seed
    gain = options.input_gain
    before = embed(model, scaled.series, coords, tr=scaled.tr, seed=seed, input_gain=gain)
    everything = []
    sets = [design.chosen, *design.sets.tolist()]
    for parcels in tqdm(sets, desc="sets of parcels", leave=False, disable=None):
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
    # a parcel without data is no target: what the model predicts for it means nothing
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
    alike = {"size": "number of parcels", "hemisphere": "number of parcels in each hemisphere"}
    return {
        "ChangedParcels": [names[k] for k in design.chosen],
        "Change": options.change,
        "ChangeUnits": "interquartile ranges (value); 0 is the parcel's median",
        "NullSets": len(design.sets),
        "NullMatchedFor": alike[options.match],
        "NullDrawnFrom": "parcels with data in all recordings of the call, the changed ones too",
        "P": "(1 + sets with at least this change) / (1 + sets); q: Benjamini-Hochberg",
    }


def _window_columns(
    before: Embeddings, start: float, moved: Array, test: NullTest
) -> dict[str, list[Any]]:
    n_windows = len(before.onset)
    return {
        "window": [*range(1, n_windows + 1), "mean"],
        "onset": [*(start + before.onset).tolist(), None],
        "duration": [*before.duration.tolist(), None],
        **{name: moved[:, k].tolist() for k, name in enumerate(DISTANCES)},
        **_test_columns(test),
    }


def _test_columns(test: NullTest) -> dict[str, list[Any]]:
    return {
        "null_mean": test.mean.tolist(),
        "null_sd": test.sd.tolist(),
        "z": test.z.tolist(),
        "p": test.p.tolist(),
        "n_null": test.n.tolist(),
    }


def _parcel_files(
    naming: Naming,
    key: str,
    label: str,
    change: Array,
    test: NullTest,
    design: Design,
    results: Results,
    sidecar: dict[str, Any],
) -> list[Path]:
    parcels = resources.parcels()
    columns = {
        "index": parcels.index.tolist(),
        "name": list(parcels.names),
        "hemisphere": list(parcels.hemisphere),
        "network": list(parcels.network),
        "changed": [int(k in set(design.chosen)) for k in range(len(parcels.names))],
        "change": change.tolist(),
        **_test_columns(test),
        "q": false_discovery(test.p).tolist(),
    }
    path = naming.path(key, model=label)
    files.write_tsv(path, list(columns), list(columns.values()))
    return [path, results.sidecar(naming, key, label, **sidecar)]


def _maps(
    naming: Naming,
    key: str,
    label: str,
    change: Array,
    z: Array,
    image: tuple[NDArray[np.int16], Array],
    results: Results,
    sidecar: dict[str, Any],
) -> list[Path]:
    import nibabel as nb

    labels, affine = image
    written = []
    for part, values in (("change", change), ("z", z)):
        path = naming.path(f"{key}_{part}", model=label)
        lookup = np.concatenate([[0], values]).astype(np.float32)
        picture = nb.Nifti1Image(lookup[labels.astype(np.int64)], affine)
        picture.header.set_xyzt_units("mm", "sec")
        with files.atomically(path) as temporary:
            picture.to_filename(temporary)
        written += [path, results.sidecar(naming, f"{key}_{part}", label, **sidecar)]
    return written


def _write_null(naming: Naming, label: str, effect: Changes, null: Changes, design: Design) -> Path:
    path = naming.path("perturbation_null", model=label)
    with files.atomically(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            chosen=np.array(design.chosen),
            sets=design.sets,
            change=effect.change,
            null_change=null.change,
            moved=effect.moved,
            null_moved=null.moved,
        )
    return path


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
        _read_null(recording.naming.path("perturbation_null", model=label)) for recording in done
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
        "Failed": results.problems,
    }
    everyone = np.stack([*moved, together])
    columns = {
        "recording": [*(recording.stem for recording in done), "mean"],
        **{name: everyone[:, k].tolist() for k, name in enumerate(DISTANCES)},
        **_test_columns(rows),
    }
    path = naming.path("group_perturbation_embeddings", model=label)
    files.write_tsv(path, list(columns), list(columns.values()))
    results.sidecar(naming, "group_perturbation_embeddings", label, **sidecar)
    key = "group_perturbation"
    table = _parcel_files(naming, key, label, change, test, design, results, sidecar)[0]
    _maps(naming, key, label, change, test.z, image, results, sidecar)
    from brainlm_bids.figures.experiments import plot_perturbation

    plot_perturbation(
        table.with_suffix(".png"),
        change,
        test.z,
        false_discovery(test.p),
        design.chosen,
        image,
        resources.parcels(),
        (float(together[0]), null_together),
        f"{label}: {_count(len(design.chosen), 'parcel')} {_words(options)}, "
        f"{_count(len(design.sets), 'null set')}",
    )
    print(table)


def _read_null(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _words(options: PerturbationOptions) -> str:
    if options.lesion:
        return "set to 0 (lesion)"
    name, value = next(iter(options.change.items()))
    return f"{'scaled by' if name == 'scale' else 'set to'} {value:g}"
