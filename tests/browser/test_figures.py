"""Figures with live text: the words of the plate of components stay in their columns."""

from pathlib import Path
from typing import Any

import numpy as np
from browser_checks import assert_clean

from brainlm_bids.figures import components
from brainlm_bids.figures.components import TimeAxis, plot_component_maps
from brainlm_bids.figures.denoising import Limits
from brainlm_bids.preproc.denoising import aroma

# Boxes of all words as they are drawn, in units of the figure
BOXES = """() => [...document.querySelectorAll('svg > text')].map(e => {
    const b = e.getBBox(); return [e.textContent, b.x, b.x + b.width, b.y, b.y + b.height]})"""


def test_words_of_the_plate_do_not_run_into_one_another(page: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 24, 16), bool)
    mask[2:18, 2:22, 2:14] = True
    n = 120
    maps = rng.normal(size=(n, np.count_nonzero(mask)))
    # the longest reasons, and the longest numbers
    features: dict[str, Any] = {
        name: np.full(n, 0.88) for name in ("max_rp_corr", "edge_fract", "csf_fract", "hfc")
    }
    features |= {"variance": np.full(n, 0.888), "classification": np.full(n, "noise")}
    features["classification"][1] = "signal"
    path = tmp_path / "plate.svg"
    plot_component_maps(
        *(path, 40 * maps, 100.0 * mask, mask, np.diag([8.0, 8.0, 8.0, 1.0]), features),
        *(rng.normal(size=(900, n)), TimeAxis(2.888, 8, np.zeros(908, bool))),
        Limits(aroma.CSF_THRESHOLD, aroma.HFC_THRESHOLD, aroma.HYPERPLANE),
    )
    page.goto(path.as_uri())
    boxes = page.evaluate(BOXES)
    assert len(boxes) > 8 * n
    words = [box[0] for box in boxes]
    left, right, top, bottom = np.array([box[1:] for box in boxes]).T
    assert left.min() >= 0 and right.max() <= components.WIDTH
    across = np.minimum(right[:, None], right) - np.maximum(left[:, None], left)
    down = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    # the boxes of two lines of text overlap a little, but not their letters
    overlap = np.triu((across > 0) & (down > 4), k=1)
    assert not overlap.any(), [(words[i], words[k]) for i, k in np.argwhere(overlap)[:5]]
    assert_clean(page)
