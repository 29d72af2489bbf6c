"""`A424Masker`: series of the 424 parcels from images, in the manner of nilearn's maskers."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from brainlm_bids import resources
from brainlm_bids.api.images import to_img
from brainlm_bids.api.series import value_errors
from brainlm_bids.parcels.operator import build_operator, parcellate
from brainlm_bids.preproc import affine as affines

IMAGE_DIMENSIONS = 4


class A424Masker(TransformerMixin, BaseEstimator):
    """Extract the series of the 424 parcels of A424 from images in MNI152NLin6Asym.

    The labels are never resampled: the image is interpolated at the centres of the atlas's voxels
    (cubic spline) and averaged there, as `brainlm-bids` does it, since A424 has parcels of one and
    of eighteen voxels. There are always 424 columns; a parcel without data is NaN.

    Parameters
    ----------
    atlas
        "A424", "A424approx" or a file; by default the real atlas if it can be had, else the
        approximation (a warning is in `atlas_.warning`).
    mask_img
        Image; voxels outside of it do not count. By default a voxel counts if it is finite in all
        volumes and not 0 in all of them.
    t_r
        Repetition time in seconds; by default that of the image's header. Needed by the filters.
    standardize, detrend, high_pass, low_pass
        As in nilearn's maskers (`nilearn.signal.clean`); high_pass and low_pass in Hz. Parcels
        without data stay NaN. All off by default: BrainLM scales by itself.
    offline
        Never download the atlas.

    Attributes
    ----------
    atlas_
        The atlas that was found: label, sha256, source, warning.
    labels_img_
        Its image.
    region_names_
        Names of the 424 columns.
    coverage_
        (424,) share of each parcel's voxels that lie in the last image that was transformed.
    t_r_
        Repetition time in seconds of the last image, None where neither the parameter nor the
        header says it.
    n_elements_
        424.

    Examples
    --------
    >>> import nibabel as nb
    >>> from brainlm_bids import A424Masker
    >>> masker = A424Masker("A424approx").fit()
    >>> data = np.random.default_rng(0).normal(100, 1, (45, 55, 45, 5)).astype("float32")
    >>> affine = np.array([[4.0, 0, 0, -88], [0, 4, 0, -124], [0, 0, 4, -70], [0, 0, 0, 1]])
    >>> masker.transform(nb.Nifti1Image(data, affine)).shape
    (5, 424)
    """

    def __init__(
        self,
        atlas: str | Path | None = None,
        *,
        mask_img: Any = None,
        t_r: float | None = None,
        standardize: str | None = None,
        detrend: bool = False,
        high_pass: float | None = None,
        low_pass: float | None = None,
        offline: bool = False,
    ) -> None:
        self.atlas = atlas
        self.mask_img = mask_img
        self.t_r = t_r
        self.standardize = standardize
        self.detrend = detrend
        self.high_pass = high_pass
        self.low_pass = low_pass
        self.offline = offline

    def fit(self, imgs: Any = None, y: Any = None) -> "A424Masker":
        """Find the atlas. `imgs` and `y` are ignored: nothing is learnt.

        Raises
        ------
        ValueError
            If the atlas cannot be had.
        """
        del imgs, y
        with value_errors():
            spec = None if self.atlas is None else str(self.atlas)
            self.atlas_ = resources.find_atlas(spec, offline=self.offline)
            labels, affine = self.atlas_.load()
        self.labels_img_ = nb.Nifti1Image(np.asarray(labels, dtype=np.int16), affine)
        self.region_names_ = list(resources.parcels().names)
        self.n_elements_ = len(self.region_names_)
        self._points = affines.labelled_points(np.asarray(labels, dtype=np.int32), affine)
        return self

    def transform(
        self, imgs: Any, confounds: Any = None, sample_mask: Any = None
    ) -> NDArray[np.float64]:
        """Extract the series of an image.

        Parameters
        ----------
        imgs
            4-D image or its path, in MNI152NLin6Asym, on any grid.
        confounds
            (T, K) array, DataFrame or TSV, regressed out (`nilearn.signal.clean`).
        sample_mask
            Volumes to keep.

        Returns
        -------
        (T, 424), NaN in parcels without data
        """
        check_is_fitted(self)
        image = _load(imgs)
        data = np.asanyarray(image.dataobj)
        mask = self._mask(image, data)
        names, points = self._points
        located = affines.world_to_voxel(points, np.asarray(image.affine, dtype=np.float64))
        operator, coverage = build_operator(names, located, mask.shape, mask)
        self.coverage_ = coverage.fraction
        self.t_r_ = self.t_r if self.t_r is not None else _repetition_time(image)
        if not coverage.n_covered.any():
            raise ValueError(
                "no voxel of the image lies in a parcel of A424; is it in MNI152NLin6Asym?"
            )
        series = parcellate(operator, np.where(mask[..., None], data, 0).astype(np.float32))
        return self._cleaned(series, confounds, sample_mask)

    def transform_single_imgs(
        self, imgs: Any, confounds: Any = None, sample_mask: Any = None
    ) -> NDArray[np.float64]:
        """As `transform`, under the name that nilearn's maskers have."""
        return self.transform(imgs, confounds, sample_mask)

    def fit_transform(
        self, X: Any, y: Any = None, confounds: Any = None, sample_mask: Any = None
    ) -> NDArray[np.float64]:
        """Find the atlas and extract the series of an image; see `transform`."""
        return self.fit(X, y).transform(X, confounds, sample_mask)

    def inverse_transform(self, X: Any) -> nb.Nifti1Image:
        """Paint values of parcels into the atlas's volume.

        Parameters
        ----------
        X
            (424,) for a 3-D image, or (T, 424) for a 4-D one.
        """
        check_is_fitted(self)
        values = np.asarray(X, dtype=np.float64)
        if values.ndim not in (1, 2) or values.shape[-1] != self.n_elements_:
            raise ValueError(f"shape {values.shape}; expected (424,) or (volumes, 424)")
        atlas = self.atlas_.label if self.atlas_.path is None else str(self.atlas_.path)
        if values.ndim == 1:
            return to_img(values, atlas=atlas, offline=self.offline)
        volumes = [to_img(row, atlas=atlas, offline=self.offline) for row in values]
        stacked = np.stack([np.asarray(volume.dataobj) for volume in volumes], axis=-1)
        return nb.Nifti1Image(stacked, volumes[0].affine)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the parcels."""
        del input_features
        check_is_fitted(self)
        return np.asarray(self.region_names_, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags

    def _mask(self, image: SpatialImage, data: NDArray[Any]) -> NDArray[np.bool_]:
        mask = np.isfinite(data).all(axis=3) & (data != 0).any(axis=3)
        if self.mask_img is None:
            return np.asarray(mask)
        from nilearn.image import resample_to_img

        given = resample_to_img(
            self.mask_img, _first_volume(image), interpolation="nearest", copy_header=True
        )
        return np.asarray(mask & (np.asarray(given.dataobj) > 0))

    def _cleaned(
        self, series: NDArray[np.float64], confounds: Any, sample_mask: Any
    ) -> NDArray[np.float64]:
        from nilearn import signal

        known = np.isfinite(series).all(axis=0)
        cleaned = signal.clean(
            series[:, known],
            detrend=self.detrend,
            standardize=self.standardize,
            confounds=confounds,
            sample_mask=sample_mask,
            high_pass=self.high_pass,
            low_pass=self.low_pass,
            t_r=self.t_r_,
            standardize_confounds=True,
        )
        result = np.full((len(cleaned), series.shape[1]), np.nan)
        result[:, known] = cleaned
        return result


def _load(imgs: Any) -> SpatialImage:
    from nilearn.image import load_img

    if isinstance(imgs, list | tuple):
        raise ValueError("one 4-D image is needed; call transform for each of a list")
    try:
        image = load_img(imgs)
    except (OSError, EOFError, nb.filebasedimages.ImageFileError) as error:
        raise ValueError(f"{imgs}: cannot be read ({error})") from None
    if len(image.shape) != IMAGE_DIMENSIONS:
        raise ValueError(f"an image of shape {image.shape}; a 4-D image is needed")
    if np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise ValueError("the image is complex; hand in its magnitude")
    return image


def _first_volume(image: SpatialImage) -> nb.Nifti1Image:
    return nb.Nifti1Image(np.asarray(image.dataobj[..., 0]), image.affine)


TIME_UNITS: dict[str, float] = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def _repetition_time(image: SpatialImage) -> float | None:
    """Seconds between volumes as the header says, None where it does not."""
    header = image.header
    step = float(header.get_zooms()[3])
    unit = header.get_xyzt_units()[1] if hasattr(header, "get_xyzt_units") else "unknown"
    if step <= 0 or unit not in TIME_UNITS:
        return None
    return step * TIME_UNITS[unit]
