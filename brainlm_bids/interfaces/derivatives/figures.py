"""The figures of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.context import XCP_D, RunContext, from_plain
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInterface, figures_trait
from brainlm_bids.interfaces.derivatives.run import AROMA_FEATURES, RunInputs, summarised
from brainlm_bids.interfaces.images import load_affine, load_image, load_mask
from brainlm_bids.report import drawing

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Motion

# What is drawn in place of the BOLD reference of runs that have none.
SHOWN = {XCP_D: "standard deviation of the BOLD"}


class _FiguresInputs(RunInputs):
    """As those of `WriteFunctional`: each figure is drawn if its data are available."""

    boldref = File(exists=True)
    brain_mask = File(exists=True)
    motion = File(exists=True, mandatory=True)
    confounds = File(exists=True)
    voxels = File(exists=True, desc="`Voxels` of the run before denoising")
    components = File(exists=True)
    decisions = File(exists=True)
    coverage = File(exists=True)
    parcels = File(exists=True)
    denoised = File(exists=True, mandatory=True)
    robust = File(exists=True, mandatory=True)
    fixed = File(exists=True, desc="T1w, or the template without one")
    fixed_mask = File(exists=True)
    transform = File(exists=True, desc="to the template, where that is what is drawn")
    matrix = File(exists=True, desc="boldref to T1w")
    distortion = File(exists=True, desc="of the run, where it is known")
    written = traits.List(traits.Str, mandatory=True)
    figures = figures_trait()


class DrawFunctional(ArrayInterface):
    """The run's figures, and the record that its series of A424 are complete."""

    input_spec = _FiguresInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        self._context = from_plain(RunContext, self.inputs.context)
        if not self._context.with_a424:
            return
        naming = self._context.naming
        self._summary = summarised(self.inputs)
        drawn: list[Path] = []
        drawing.forget(naming, "run", "index")
        if drawing.wanted(self.inputs.figures, naming):
            drawn += drawing.draw_recording(naming)
        if self.inputs.figures != "none":
            drawn += self._images(naming)
        configuration = self._context.configuration
        written = [*(Path(path) for path in self.inputs.written), *drawn]
        outputs.write_record(Path(naming.output_dir), naming.stem, "series", configuration, written)

    def _images(self, naming: Naming) -> list[Path]:
        """The figures that show what is not kept."""
        drawn: list[Path] = []
        if self.inputs.boldref:
            drawn += self._geometry(naming)
        if self.inputs.confounds and self.inputs.parcels:
            drawn.append(self._carpet(naming))
        if self.inputs.components:
            drawn.append(self._component_maps(naming))
        if self.inputs.voxels:
            drawn += self._voxels(naming)
        return drawn

    def _geometry(self, naming: Naming) -> list[Path]:
        from brainlm_bids.figures.registration import plot_brain_mask, plot_registration
        from brainlm_bids.figures.thumbnail import plot_thumbnail
        from brainlm_bids.preproc.registration.transforms import resample_to

        boldref, affine = load_image(self.inputs.boldref)
        mask_figure, coreg_figure = naming.figure("boldref_mask"), naming.figure("coregistration")
        small = naming.figure("thumbnail")
        mask = load_mask(self.inputs.brain_mask)
        title = outputs.figure_title("boldref_mask")
        plot_brain_mask(mask_figure, boldref, affine, mask, title=title)
        fixed, fixed_affine = load_image(self.inputs.fixed)
        on_t1w = bool(self.inputs.matrix) and not self.inputs.transform
        pull = payloads.load_pull(self.inputs.transform, self.inputs.matrix, self.inputs.distortion)
        moved = resample_to(boldref, affine, fixed.shape, fixed_affine, pull, 1)
        name = "T1w" if on_t1w else naming.space
        shown = SHOWN.get(self._context.input_data.kind, "BOLD reference")
        brain = load_mask(self.inputs.fixed_mask)
        plot_thumbnail(small, moved, fixed_affine, brain)
        plot_registration(
            coreg_figure,
            fixed,
            fixed_affine,
            moved,
            {f"{name} brain": brain},
            title=f"{shown} in {name} space",
            fixed_name=name,
            moving_name=shown,
        )
        return [mask_figure, coreg_figure, small, *self._distortion(naming, boldref, affine)]

    def _distortion(
        self, naming: Naming, boldref: NDArray[Any], affine: NDArray[np.float64]
    ) -> list[Path]:
        """The reference without its distortion, outlined by the brain of the T1w image."""
        from brainlm_bids.figures.distortion import plot_distortion
        from brainlm_bids.preproc.affine import invert
        from brainlm_bids.preproc.registration.transforms import resample_to

        distortion = payloads.load_distortion(self.inputs.distortion)
        if distortion is None:
            return []
        brain = None
        if self.inputs.matrix:
            to_t1w = invert(payloads.load(np.ndarray, self.inputs.matrix))
            mask, grid = load_image(self.inputs.fixed_mask)
            brain = resample_to(mask, grid, boldref.shape, affine, to_t1w, 0) > 0.5
        path, known = naming.figure("distortion"), self._context.distortion
        plot_distortion(
            path,
            boldref,
            distortion.undistorted(boldref),
            affine,
            distortion.millimetres,
            brain,
            title=outputs.figure_title("distortion"),
            direction=known.direction or "",
        )
        return [path]

    def _carpet(self, naming: Naming) -> Path:
        from brainlm_bids.figures.motion import plot_carpet

        motion, path = self._motion(), naming.figure("carpet")
        confounds = payloads.load(dict, self.inputs.confounds)
        plot_carpet(
            path,
            payloads.load(np.ndarray, self.inputs.parcels),
            payloads.load(np.ndarray, self.inputs.denoised),
            resources.parcels().network_index,
            self._context.tr,
            confounds.get("framewise_displacement"),
            n_dummy=motion.n_dummy,
            bad=_bad(motion),
        )
        return path

    def _voxels(self, naming: Naming) -> list[Path]:
        """Maps, and the carpet and the confounds before denoising."""
        from brainlm_bids.figures.voxels import (
            plot_confound_correlations,
            plot_maps,
            plot_tissue_carpet,
        )
        from brainlm_bids.preproc import steps
        from brainlm_bids.preproc.denoising.confounds import main_confounds
        from brainlm_bids.preproc.image_quality import temporal_snr

        voxels, motion = payloads.load(steps.Voxels, self.inputs.voxels), self._motion()
        bad = _bad(motion)
        drawn = [naming.figure("tissue_carpet"), naming.figure("confound_correlations")]
        plot_tissue_carpet(
            drawn[0],
            voxels.series,
            voxels.tissue,
            self._summary.confounds,
            self._context.tr,
            n_dummy=motion.n_dummy,
            bad=bad,
        )
        used = np.arange(len(voxels.series)) >= motion.n_dummy
        used &= True if bad is None else ~bad
        names = main_confounds(self._summary.confounds, used)
        plot_confound_correlations(drawn[1], self._summary.confounds, used, names)
        if voxels.mean is None or voxels.deviation is None:
            return drawn
        drawn.append(naming.figure("bold_maps"))
        ratio = temporal_snr(voxels.mean, voxels.deviation)
        mask, affine = load_mask(self.inputs.brain_mask), load_affine(self.inputs.boldref)
        plot_maps(drawn[-1], voxels.mean, voxels.deviation, ratio, affine, mask)
        return drawn

    def _component_maps(self, naming: Naming) -> Path:
        from brainlm_bids.figures.components import TimeAxis, plot_component_maps
        from brainlm_bids.figures.denoising import Limits
        from brainlm_bids.preproc import steps
        from brainlm_bids.preproc.denoising import aroma
        from brainlm_bids.preproc.denoising.mixture import threshold_maps

        decisions = payloads.load(steps.Decisions, self.inputs.decisions)
        table = {name: getattr(decisions, name) for name in AROMA_FEATURES}
        table["classification"] = np.where(decisions.noise, "noise", "signal")
        limits = Limits(aroma.CSF_THRESHOLD, aroma.HFC_THRESHOLD, aroma.HYPERPLANE)
        plate = naming.figure("component_maps")
        components = payloads.load(steps.Components, self.inputs.components)
        motion = payloads.load(steps.Motion, self.inputs.motion)
        n_volumes = motion.n_dummy + len(components.mixing)
        bad = np.zeros(n_volumes, bool) if motion.good is None else ~motion.good
        reference, affine = load_image(self.inputs.boldref)
        plot_component_maps(
            plate,
            threshold_maps(components.maps, decisions.map_limits),
            reference,
            load_mask(self.inputs.brain_mask),
            affine,
            table,
            components.mixing,
            TimeAxis(self._context.tr, motion.n_dummy, bad),
            limits,
        )
        return plate

    def _motion(self) -> "Motion":
        from brainlm_bids.preproc import steps

        return payloads.load(steps.Motion, self.inputs.motion)


def _bad(motion: "Motion") -> NDArray[np.bool_] | None:
    """(T,) True for bad volumes; None where there are none."""
    return None if motion.good is None else ~motion.good
