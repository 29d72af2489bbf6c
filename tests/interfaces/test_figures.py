"""What the figures of a run are given: bad volumes at their times, and the maps of the decision."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.derivatives.figures import DrawFunctional
from brainlm_bids.interfaces.images import save_image
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.denoising.mixture import threshold_limits

N_VOLUMES, N_DUMMY, BAD = 60, 3, 20


def _drawn(folder: Path, limits: bool) -> str:
    """The plate of two components of a run with dummy volumes and a bad one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    mask = np.zeros((16, 18, 14), bool)
    mask[2:14, 2:16, 2:12] = True
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    maps = rng.normal(size=(2, np.count_nonzero(mask))).astype(np.float32)
    maps[:, :80] += 6
    mixing = rng.normal(size=(N_VOLUMES - N_DUMMY, 2))
    components = steps.Components(mixing, maps, np.array([0.3, 0.2]), True, 10, 1)
    decisions = steps.Decisions(
        *(np.array([0.7, 0.1]), np.array([0.9, 0.1]), np.array([0.0, 0.0])),
        *(np.array([0.2, 0.1]), components.explained_variance),
        noise=np.array([True, False]),
        reason=np.array(["motion and edge score 9.3 > 0", "below every threshold"]),
        map_limits=threshold_limits(maps),
    )
    reasons = np.where(np.arange(N_VOLUMES) == BAD, "empty", "")
    node: Any = DrawFunctional(
        components=payloads.save(components, folder / "components"),
        decisions=payloads.save(
            decisions if limits else replace(decisions, map_limits=None), folder / "decisions"
        ),
        motion=payloads.save(steps.Motion(N_DUMMY, reasons=reasons), folder / "motion"),
        boldref=save_image(folder / "boldref.nii.gz", 100.0 * mask, affine),
        brain_mask=save_image(folder / "mask.nii.gz", mask, affine),
    )
    node._context = SimpleNamespace(tr=2.0)
    node._component_maps(SimpleNamespace(figure=lambda key: folder / f"{key}.svg"))
    return (folder / "component_maps.svg").read_text()


def test_the_components_of_a_run_are_drawn_with_its_bad_volumes(tmp_path: Path) -> None:
    drawn = _drawn(tmp_path / "a", limits=True)
    assert "Classified as noise: 1 component, 30 %" in drawn
    assert re.search(r"noise:</tspan> edge 0.90, motion r 0.70<", drawn)
    assert "0 to 120 s" in drawn  # all volumes, dummies too
    dummy, bad = re.findall(r'<rect x="([\d.]+)" width="([\d.]+)" height="54"', drawn)
    step = float(dummy[1]) / N_DUMMY
    assert float(bad[0]) / step == BAD and float(bad[1]) == step
    # records of earlier versions have no thresholds: they are found again
    assert _drawn(tmp_path / "b", limits=False) == drawn
