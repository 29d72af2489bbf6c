"""--me-denoise tedana: what tedana removes is removed, and without it the call says what to do."""

import importlib.util
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from benchmarks.multi_echo import MultiEcho, simulate
from brainlm_bids.commands import bids_app
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.derivatives.echoes import echo_fields, echo_warnings
from brainlm_bids.interfaces.images import load_image
from brainlm_bids.interfaces.tedana import decompose
from brainlm_bids.preproc import steps
from brainlm_bids.settings import Settings

TIMES = (0.014, 0.030, 0.046)
N_VOLUMES = 80
HAVE_TEDANA = importlib.util.find_spec("tedana") is not None
needs_tedana = pytest.mark.skipif(not HAVE_TEDANA, reason="tedana is not installed")


def _fluctuating(run: MultiEcho) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Echoes with BOLD signals in blobs and, in the right half, a change of S0; its place, course.

    A BOLD signal grows with the echo time; a change of S0 is the same share of every echo.
    """
    rng = np.random.default_rng(5)
    shape = run.brain.shape
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), -1)
    rate = np.zeros((*shape, N_VOLUMES))
    for _ in range(6):
        centre = rng.uniform(-0.5, 0.5, 3)
        blob = np.exp(-(((places - centre) / 0.25) ** 2).sum(-1))
        course = np.convolve(rng.standard_normal(N_VOLUMES + 9), np.hanning(10), "valid")
        rate += 0.8 * blob[..., None] * course / course.std()
    artefact = rng.standard_normal(N_VOLUMES)
    place = np.exp(-(((places - [0.4, 0.0, 0.0]) / 0.35) ** 2).sum(-1))
    change = 1 + 0.03 * place[..., None] * artefact
    echoes = [
        (echo * np.exp(time * rate) * change).astype(np.float32, order="F")
        for echo, time in zip(run.echoes, TIMES)
    ]
    return echoes, place > 0.5, artefact


@needs_tedana
def test_what_goes_on_is_what_tedana_denoised(tmp_path: Path) -> None:
    run = simulate(TIMES, shape=(20, 24, 14), n_volumes=N_VOLUMES, mm=0.0, noise=0.005)
    echoes, place, artefact = _fluctuating(run)
    kept: list[np.ndarray] = []
    masks: list[np.ndarray] = []

    def keep(echo: np.ndarray) -> np.ndarray:
        kept.append(echo)
        return echo

    def noise(own: list, mask: np.ndarray, volumes: np.ndarray) -> steps.TeDependence:
        masks.append(mask)
        return decompose(own, run.affine, TIMES, mask, volumes, tmp_path, seed=7)

    copies = (echo.copy(order="F") for echo in echoes)
    found = steps.realign_echoes(copies, run.affine, TIMES, n_dummy=2, keep=keep, decompose=noise)
    plain = steps.realign_echoes(
        (echo.copy(order="F") for echo in echoes), run.affine, TIMES, n_dummy=2
    )
    assert found.summary.version and found.summary.n_noise
    assert found.summary.n_noise < found.summary.n_components
    assert not list(tmp_path.iterdir())

    theirs = _by_tedana(kept, masks[0], run.affine, tmp_path)
    inner = masks[0] & (theirs != 0).all(axis=-1) & (found.decay.n_good >= 2)
    assert inner.sum() > 0.9 * masks[0].sum()
    ours = found.bold[..., 2:][inner]
    assert np.abs(ours / theirs[inner] - 1).max() < 1e-3
    # the change of S0 is gone, and volumes before the steady state are as they were
    assert np.array_equal(found.bold[..., :2], plain.bold[..., :2])

    def likeness(bold: np.ndarray) -> float:
        series = bold[..., 2:][masks[0] & place]
        return float(np.median([abs(np.corrcoef(one, artefact[2:])[0, 1]) for one in series]))

    assert likeness(plain.bold) > 0.5
    assert likeness(found.bold) < 0.6 * likeness(plain.bold)


def _by_tedana(
    echoes: list[np.ndarray], mask: np.ndarray, affine: np.ndarray, folder: Path
) -> np.ndarray:
    from tedana.workflows import tedana_workflow

    paths = []
    for number, echo in enumerate(echoes):
        paths.append(str(folder / f"own-{number}.nii"))
        nb.Nifti1Image(np.asarray(echo[..., 2:], np.float32), affine).to_filename(paths[-1])
    nb.Nifti1Image(mask.astype(np.uint8), affine).to_filename(folder / "own-mask.nii")
    tedana_workflow(
        paths,
        list(TIMES),
        out_dir=str(folder / "own"),
        mask=str(folder / "own-mask.nii"),
        fixed_seed=7,
        no_reports=True,
        quiet=True,
    )
    return load_image(str(folder / "own" / "desc-denoised_bold.nii.gz"))[0]


@needs_tedana
def test_a_failure_of_tedana_is_one_line(tmp_path: Path) -> None:
    echoes = [np.zeros((4, 4, 4, 30), np.float32) for _ in TIMES]
    mask = np.ones((4, 4, 4), bool)
    with pytest.raises(UserError, match=r"^tedana \S+ failed \(") as caught:
        decompose(echoes, np.eye(4), TIMES, mask, np.arange(30), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(HAVE_TEDANA, reason="tedana is installed")
def test_without_tedana_the_call_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bids").mkdir()
    command = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant"]
    with pytest.raises(UserError, match=r"is not installed .* pip install 'brainlm-bids\[multi"):
        bids_app.parse([*command, "--me-denoise", "tedana"])


def test_only_raw_images_have_echoes(tmp_path: Path) -> None:
    for folder in ("bids", "fmriprep"):
        (tmp_path / folder).mkdir()
    command = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--me-denoise"]
    command += ["tedana", "--derivatives", f"fmriprep={tmp_path / 'fmriprep'}"]
    with pytest.raises(UserError, match="--me-denoise has an effect on raw images only"):
        bids_app.parse(command)


def test_components_that_are_noise_are_removed_and_none_if_all_are() -> None:
    """By the definition: the noise part of a fit by all time courses is subtracted."""
    run = simulate(TIMES, shape=(20, 24, 14), n_volumes=40, mm=0.0)
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((37, 4))
    mixing -= mixing.mean(axis=0)

    def realigned(noise: list[bool] | None) -> steps.RealignedEchoes:
        copies = [echo.copy(order="F") for echo in run.echoes]
        copies[1][..., 20] = 0  # a bad volume takes no part
        decompose = None
        if noise is not None:
            found = steps.TeDependence(mixing, np.array(noise), "x")
            decompose = lambda echoes, mask, volumes: found  # noqa: E731
        return steps.realign_echoes(copies, run.affine, TIMES, n_dummy=2, decompose=decompose)

    plain, cleaned = realigned(None), realigned([True, False, True, False])
    good = np.array([t for t in range(2, 40) if t != 20])
    series = plain.bold[10, 12, 7, good].astype(np.float64)
    weights = np.linalg.lstsq(mixing, series - series.mean(), rcond=None)[0]
    expected = series - mixing[:, [0, 2]] @ weights[[0, 2]]
    assert np.allclose(cleaned.bold[10, 12, 7, good], expected, rtol=1e-5)
    middle = cleaned.bold[10, 12, 7, [19, 20, 21]]
    assert middle[1] == pytest.approx((middle[0] + middle[2]) / 2)
    everything = realigned([True] * 4)
    assert np.allclose(everything.bold, plain.bold, rtol=1e-5, atol=0.01)
    (warning,) = echo_warnings(everything.summary)
    assert warning.kind == "tedana_rejected_all"
    fields = echo_fields(TIMES, cleaned.summary)
    assert (fields["EchoDenoising"], fields["TedanaRejectedComponents"]) == ("tedana x", 2)
    assert Settings(Path("a"), Path("b")).me_denoise == "none"
