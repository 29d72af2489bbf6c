"""A T1w and a BOLD run through the whole preprocessing, against a plain chain of library calls.

The peers' chain: N4, rigid motion correction, rigid BOLD to T1w, SyN T1w to template (all antspyx,
its defaults), resampling to 2 mm (antspyx), FastICA (scikit-learn), cleaning and label means
(nilearn). Steps whose time grows with the volumes are given `n_volumes` of them and scaled up.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.process import measured
from benchmarks.table import Row


def chain_rows(dataset: Path, n_volumes: int) -> Iterator[Row]:
    dataset = dataset.resolve()
    t1w = next(dataset.glob("sub-*/**/anat/*_T1w.nii.gz"))
    bold = next(dataset.glob("sub-*/**/func/*_bold.nii.gz"))
    ours, _, stages = measured(our_chain, t1w, bold)
    theirs: dict[str, float] = {}
    for step in (anatomy, run_to_parcels, components):
        theirs |= measured(step, t1w, bold, n_volumes)[2]
    for name, seconds in stages.items():
        yield Row("ours", f"{name} (s)", seconds)
    for name, seconds in theirs.items():
        yield Row("peers", f"{name} (s)", seconds)
    total = sum(theirs.values())
    yield Row("chain", "s", ours, peers={"library calls": total}, note=bold.name)
    yield Row("chain", "times faster than library calls", total / ours, ">= 5")


def _timed(seconds: dict[str, float], name: str, call: Callable[[], Any], scale: float = 1) -> Any:
    started = time.process_time()
    result = call()
    seconds[name] = (time.process_time() - started) * scale
    return result


def _template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from brainlm_bids import resources

    found = resources.find_template(resources.EMBEDDED_SPACE)
    data, affine = found.load_t1w()
    return data, found.load_brain_mask()[0], affine


def our_chain(t1w: Path, bold: Path) -> Iterator[Any]:
    """The nodes of a run in their order, one after another."""
    # as the peers' libraries, those of the nodes are loaded before the clock starts
    import ants  # noqa: F401
    import deepbet  # noqa: F401
    import sklearn.decomposition  # noqa: F401

    from brainlm_bids import resources
    from brainlm_bids.interfaces import anatomical, denoising, functional, images

    tr = float(nib.Nifti1Image.from_filename(bold).header.get_zooms()[3])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, mask, affine = _template()
        template = images.save_image(folder / "template.nii.gz", data, affine)
        template_mask = images.save_image(folder / "mask.nii.gz", mask > 0, affine)
        labels, atlas_affine = resources.approximate_atlas()
        atlas = images.save_image(folder / "atlas.nii.gz", labels, atlas_affine)
        yield
        seconds: dict[str, float] = {}

        def run(name: str, node: Any, *sources: Any, **given: Any) -> Any:
            """A node whose inputs are those outputs of earlier nodes that have their names."""
            for source in sources:
                known = {
                    k: v for k, v in source.get().items() if k in node.inputs.copyable_trait_names()
                }
                node.inputs.trait_set(**known)
            node.inputs.trait_set(**given)
            work = folder / name
            work.mkdir()
            return _timed(seconds, name, lambda: node.run(cwd=str(work)).outputs)

        prepared = run("T1w", anatomical.PrepareT1w(t1w=str(t1w)))
        normalised = run(
            "normalise",
            anatomical.Normalise(kind="T1w", seed=1),
            image=prepared.t1w,
            brain_mask=prepared.brain_mask,
            template=template,
            template_mask=template_mask,
        )
        realigned = run("realign", functional.Realign(bold=str(bold)))
        coregistered = run(
            "coregister",
            functional.Coregister(seed=1),
            realigned,
            t1w=prepared.t1w,
            t1w_mask=prepared.brain_mask,
        )
        located = run(
            "project",
            functional.Project(
                atlas=atlas, transform=normalised.transform, min_parcel_coverage=0.5
            ),
            realigned,
            coregistered,
        )
        thresholds = {"fd_spike_threshold": 0.5, "dvars_spike_threshold": 1.5}
        extracted = run("extract", functional.Extract(tr=tr, **thresholds), realigned, located)
        found = run("ICA", denoising.Decompose(seed=1), realigned, extracted)
        decided = run("AROMA", denoising.Classify(tr=tr, seed=1), realigned, located, found)
        run(
            "denoise",
            denoising.Denoise(tr=tr, mode="nonaggr", high_pass=100.0),
            realigned,
            extracted,
            found,
            decided,
        )
        yield seconds


def anatomy(t1w: Path, bold: Path, n_volumes: int) -> Iterator[Any]:
    import ants

    from brainlm_bids.preproc.registration import transforms

    image = ants.image_read(str(t1w))
    data, _, affine = _template()
    template = transforms.to_ants(data, affine)
    first, bold_affine, _ = _volumes(bold, 1)
    volume = transforms.to_ants(first[..., 0], bold_affine)
    yield
    seconds: dict[str, float] = {}
    corrected = _timed(seconds, "N4", lambda: ants.n4_bias_field_correction(image))
    # the template shows a brain alone
    brain = ants.mask_image(corrected, ants.get_mask(corrected))
    _timed(seconds, "SyN", lambda: ants.registration(template, brain, "SyN"))
    _timed(seconds, "BOLD to T1w", lambda: ants.registration(brain, volume, "Rigid"))
    yield seconds


def run_to_parcels(t1w: Path, bold: Path, n_volumes: int) -> Iterator[Any]:
    import ants
    from nilearn.image import clean_img
    from nilearn.maskers import NiftiLabelsMasker

    from brainlm_bids import resources
    from brainlm_bids.preproc.registration.transforms import resample_to

    data, affine, total = _volumes(bold, n_volumes)
    scale = total / data.shape[3]
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
    series = ants.from_numpy(np.ascontiguousarray(data), spacing=[*spacing, 1.0])
    labels, atlas_affine = resources.approximate_atlas()
    target = ants.make_image(labels.shape, spacing=(2.0, 2.0, 2.0))
    identity = ants.create_ants_transform()
    yield
    seconds: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        path = f"{folder}/identity.mat"
        ants.write_transform(identity, path)
        _timed(
            seconds,
            "motion",
            lambda: ants.motion_correction(series, type_of_transform="Rigid"),
            scale,
        )
        resampled = _timed(
            seconds,
            "resampling",
            lambda: ants.apply_transforms(target, series, [path], imagetype=3),
            scale,
        )
    # a filter's time does not grow with the volumes alone: it gets all of them, and the brain only
    repeats = -(-total // data.shape[3])
    whole = np.tile(resampled.numpy(), repeats)[..., :total]
    image = nib.Nifti1Image(whole, atlas_affine)
    _, mask, affine = _template()
    brain = resample_to(mask, affine, labels.shape, atlas_affine, np.eye(4)) > 0.5
    brain_image = nib.Nifti1Image(brain.astype(np.uint8), atlas_affine)
    cleaned = _timed(
        seconds,
        "cleaning",
        lambda: clean_img(image, high_pass=0.01, t_r=2.0, mask_img=brain_image),
    )
    atlas = nib.Nifti1Image(labels, atlas_affine)
    masker = NiftiLabelsMasker(atlas, resampling_target=None)
    _timed(seconds, "label means", lambda: masker.fit_transform(cleaned))
    yield seconds


def components(t1w: Path, bold: Path, n_volumes: int) -> Iterator[Any]:
    from scipy import ndimage
    from sklearn.decomposition import FastICA

    data, _, _ = _volumes(bold, 10_000)
    mean = data.mean(axis=3)
    brain = mean > 0.5 * np.percentile(mean, 98)
    yield
    seconds: dict[str, float] = {}

    def decompose() -> None:
        smooth = np.stack([ndimage.gaussian_filter(v, 0.85) for v in np.moveaxis(data, 3, 0)])
        FastICA(40, whiten="unit-variance", random_state=1).fit(smooth[:, brain].T)

    _timed(seconds, "FastICA", decompose)
    yield seconds


def _volumes(bold: Path, n_volumes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The first volumes, float32, the affine, and how many there are."""
    image = nib.Nifti1Image.from_filename(bold)
    data = np.asarray(image.dataobj[..., :n_volumes], dtype=np.float32)
    return data, image.affine, image.shape[3]
