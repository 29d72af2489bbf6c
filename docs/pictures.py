"""The pictures of the documentation, drawn from simulated data.

python docs/pictures.py            writes docs/img/brainlm.png and docs/img/report/*.png

docs/img/report: each figure of the report as it should look and as it should not, drawn by the
functions that draw the report. docs/img/brainlm.png: what the network does with a window.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from brainlm_bids import BrainLM, resources
from brainlm_bids.figures import canvas, embeddings, model, motion, palette, parcels, registration
from brainlm_bids.phantom import courses, head

IMAGES = Path(__file__).resolve().parent / "img"
FOLDER = IMAGES / "report"
WIDTH = 800  # px
COLOURS = 96
LABELS = (("good", "#2a7f62"), ("look into it", "#b03a2e"))
HEADER, GAP = 28, 16  # px
TR, VOLUMES = 2.0, 180
Draw = Callable[[Path], None]
Box = tuple[
    float, float, float, float
]  # part of the figure that is shown: left, top, right, bottom


def pair(name: str, good: Draw, bad: Draw, box: Box, *, beside: bool = False) -> None:
    """Draw a part of a figure twice, and write both as one picture, below or beside each other."""
    width = (WIDTH - GAP) // 2 if beside else WIDTH
    with tempfile.TemporaryDirectory() as folder:
        pictures = [_draw(draw, Path(folder) / "figure.png", box, width) for draw in (good, bad)]
    height = pictures[0].height + HEADER
    size = (WIDTH, height if beside else 2 * height + GAP)
    sheet = Image.new("RGB", size, "white")
    for k, (picture, (label, colour)) in enumerate(zip(pictures, LABELS, strict=True)):
        left, top = (k * (width + GAP), 0) if beside else (0, k * (height + GAP))
        sheet.paste(picture, (left, top + HEADER))
        font = ImageFont.load_default(17)
        ImageDraw.Draw(sheet).text((left + 3, top + 2), label, fill=colour, font=font)
    FOLDER.mkdir(parents=True, exist_ok=True)
    sheet.quantize(COLOURS, kmeans=2).save(FOLDER / f"{name}.png", optimize=True)


def _draw(draw: Draw, path: Path, box: Box, width: int) -> Image.Image:
    draw(path)
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    left, top, right, bottom = box
    edges = (left * picture.width, top * picture.height)
    edges += (right * picture.width, bottom * picture.height)
    picture = picture.crop(tuple(round(edge) for edge in edges))
    height = round(picture.height * width / picture.width)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


# --- heads ---------------------------------------------------------------------------------------


def simulated_head() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A T1w image, a BOLD reference and the brain, (X, Y, Z) at 2 mm, and their affine."""
    shape = (96, 114, 100)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-95, -132, -96)
    points = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    rng = np.random.default_rng(1)
    t1w = head.t1w_intensity(points).reshape(shape) + rng.normal(0, 0.02, shape)
    tissues, intensity = head.epi_tissues(points)
    bold = intensity * head.signal_left(points)
    brain = ndimage.binary_fill_holes(tissues.sum(0).reshape(shape) > 0.5)
    bold = ndimage.gaussian_filter(bold.reshape(shape), 1.0) + rng.normal(0, 0.01, shape)
    return t1w, bold, _largest(brain), affine


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def draw_heads() -> None:
    """Brain masks and alignments."""
    t1w, bold, brain, affine = simulated_head()
    middle = (0.29, 0.04, 0.71, 1.0)
    # a mask that takes scalp and eyes with it, and loses the cerebellum
    wrong = ndimage.binary_dilation(brain, iterations=5)
    wrong[:, :40, :38] = False
    moved = ndimage.shift(ndimage.rotate(bold, 9, (1, 2), reshape=False, order=1), (0, 5, 4))

    def outline(image: np.ndarray, mask: np.ndarray) -> Draw:
        return lambda path: registration.plot_brain_mask(path, image, affine, mask)

    pair("mask", outline(t1w, brain), outline(t1w, wrong), middle, beside=True)
    pair("alignment", outline(bold, brain), outline(moved, brain), middle, beside=True)


# --- series --------------------------------------------------------------------------------------


def draw_motion() -> None:
    """A calm and a restless run."""
    rng = np.random.default_rng(2)
    calm = np.cumsum(rng.normal(0, 0.008, (VOLUMES, 6)), axis=0)
    restless = calm + np.cumsum(rng.normal(0, 0.03, (VOLUMES, 6)), axis=0)
    for start in (30, 31, 77, 78, 79, 120, 155):
        restless[start:] += rng.normal(0, 0.9, 6)

    def trace(values: np.ndarray) -> Draw:
        return lambda path: motion.plot_motion(path, _confounds(values), TR)

    pair("motion", trace(calm), trace(restless), (0.0, 0.5, 1.0, 1.0))


def _confounds(values: np.ndarray) -> dict[str, np.ndarray]:
    columns = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    scale = np.array([1.0] * 3 + [1 / 50] * 3)
    change = np.abs(np.diff(values, axis=0, prepend=np.nan)).sum(axis=1)
    noise = np.random.default_rng(3).normal(0, 0.04, len(values))
    found = dict(zip(columns, (values * scale).T, strict=True))
    return {**found, "framewise_displacement": change, "std_dvars": 1.05 + 0.35 * change + noise}


def draw_series() -> None:
    """Carpets and connectivity, clean and with motion left in them."""
    rng = np.random.default_rng(4)
    networks = resources.parcels().network_index
    signal = 40 * courses.parcel_series(rng, VOLUMES, TR)
    jerks = np.zeros(VOLUMES)
    jerks[[30, 31, 77, 78, 79, 120, 155]] = rng.uniform(2, 4, 7) * rng.choice([-1, 1], 7)
    artefact = 60 * jerks[:, None] * rng.normal(1, 0.3, len(networks))
    displacement = 0.12 + 0.03 * rng.random(VOLUMES) + 0.5 * np.abs(jerks)

    def carpet(left: float) -> Draw:
        return lambda path: motion.plot_carpet(
            path, signal + artefact, signal + left * artefact, networks, TR, displacement
        )

    def connectivity(left: float) -> Draw:
        matrix = np.corrcoef((signal + left * artefact).T)
        return lambda path: parcels.plot_connectivity(path, matrix, networks)

    pair("carpet", carpet(0.03), carpet(0.8), (0.0, 0.527, 1.0, 1.0))
    pair(
        "connectivity",
        connectivity(0.0),
        connectivity(0.8),
        (0.0, 0.0, 0.55, 0.93),
        beside=True,
    )


def draw_coverage() -> None:
    """A whole brain, and a field of view that ends above the cerebellum."""
    table = resources.parcels()
    rng = np.random.default_rng(5)
    whole = np.clip(rng.normal(0.97, 0.03, len(table.xyz)), 0, 1)
    cut = whole * np.clip((table.xyz[:, 2] + 28) / 16, 0, 1)

    def coverage(fraction: np.ndarray) -> Draw:
        return lambda path: parcels.plot_coverage(
            path, fraction, table.xyz, table.network_index, names=list(table.names)
        )

    pair("coverage", coverage(whole), coverage(cut), (0.0, 0.0, 1.0, 0.93))


def draw_reconstruction() -> None:
    """A model that recognises its input, and one that does not."""
    rng = np.random.default_rng(6)
    series = 0.83 * courses.parcel_series(rng, VOLUMES, TR)
    other = 0.83 * courses.parcel_series(rng, VOLUMES, TR)

    def reconstruction(share: float, noise: float) -> Draw:
        predicted = share * series + noise * other
        error = ((predicted - series) ** 2).sum(0) / ((series - series.mean(0)) ** 2).sum(0)
        values = {"model": 1 - error.mean(), "parcel_mean": -0.01, "ridge": 0.52}
        metrics = [{"mask_ratio": 0.2, "predictor": key, "r2": r2} for key, r2 in values.items()]
        return lambda path: model.plot_reconstruction(
            path, series, predicted, TR, 1 - error, metrics, names=list(resources.parcels().names)
        )

    whole = (0.0, 0.0, 1.0, 1.0)
    pair("reconstruction", reconstruction(0.42, 0.45), reconstruction(0.0, 0.4), whole)


def draw_embeddings() -> None:
    """Windows that change slowly, and one that differs from all others."""
    rng = np.random.default_rng(7)
    common = rng.normal(0, 1, 256)
    drift = np.cumsum(rng.normal(0, 0.02, (9, 256)), axis=0)
    jump = drift.copy()
    jump[5] += rng.normal(0, 0.3, 256)
    onset, bad = 144.0 * np.arange(9), np.zeros(1800, bool)
    moved = bad.copy()
    moved[1080:1092] = True

    def windows(change: np.ndarray, marked: np.ndarray) -> Draw:
        return lambda path: embeddings.plot_embeddings(
            path, common + change, onset, 144.0, bad=(marked, 0.72, 0.0)
        )

    pair("embeddings", windows(drift, bad), windows(jump, moved), (0.0, 0.0, 1.0, 1.0))


# --- the idea ------------------------------------------------------------------------------------


def draw_idea() -> None:
    """A window, what is hidden of it, what the demo model predicts there, and its embedding."""
    rng = np.random.default_rng(8)
    tr = 0.735
    network = BrainLM.from_pretrained("demo")
    series = courses.parcel_series(rng, 200, tr) + 0.3 * rng.normal(size=(200, 424))
    embedding = network.embed(series, tr).recording
    predicted = network.reconstruct(series, tr, mask_ratio=0.5).series.to_numpy()
    scaled = (series - np.median(series, 0)) / np.subtract(*np.percentile(series, [75, 25], 0))
    order = np.argsort(resources.parcels().network_index, kind="stable")
    hidden = np.repeat(rng.random((424, 4)) < 0.5, 50, axis=1)
    panels = {
        "A window: 424 parcels, 147 s": scaled.T,
        "Half of it is hidden": np.where(hidden, np.nan, scaled.T),
        "What the network predicts there": np.where(hidden, predicted.T, np.nan),
    }
    path = IMAGES / "brainlm.png"
    with canvas.canvas(path, height=3.0) as figure:
        axes = figure.subplots(1, 4, width_ratios=(4, 4, 4, 1.2))
        for axis, (title, values) in zip(axes, panels.items(), strict=False):
            axis.set_facecolor("#d9dde3")
            axis.imshow(values[order], cmap="RdBu_r", vmin=-1.6, vmax=1.6, aspect="auto")
            axis.set_title(title)
        axes[3].imshow(embedding[:, None], cmap="PuOr", aspect="auto")
        axes[3].set_title("Embedding")
        for axis in axes:
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel("parcels, by network", color=palette.INK)
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((1200, round(1200 * picture.height / picture.width)))
    small.quantize(COLOURS, kmeans=2).save(path, optimize=True)


if __name__ == "__main__":
    draw_idea()
    draw_heads()
    draw_motion()
    draw_series()
    draw_coverage()
    draw_reconstruction()
    draw_embeddings()
