"""`A424Masker`: series of the 424 parcels from images, in the manner of nilearn's maskers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from brainlm_bids import resources
from brainlm_bids.api.images import binary_mask, load, load_atlas, paint
from brainlm_bids.image_headers import repetition_time
from brainlm_bids.parcels.operator import build_operator, parcellate
from brainlm_bids.preproc import affine as affines
from brainlm_bids.resources import REAL_SPACE, Parcellation
from brainlm_bids.resources.atlas import Atlas

Series = NDArray[np.float64]
# Shares of the parcels that have a series: below the first, an image is refused; below the second,
# there is a warning.
LEAST_COVERED, LOW_COVERED = 0.05, 0.5


class A424Masker(TransformerMixin, BaseEstimator):
    """Extract the series of the 424 parcels of A424 from images in MNI152NLin6Asym.

    The labels are never resampled: the image is interpolated at the centres of the atlas's voxels
    (cubic spline) and averaged there, as `brainlm-bids` does it, since A424 has parcels of one and
    of eighteen voxels. There are always 424 columns; a parcel without data, or of which too little
    lies in the image, is NaN.

    Parameters
    ----------
    atlas
        "A424", "A424approx" or a file; by default the real atlas if it is available, else the
        approximation (see `atlas_.warnings`).
    mask_img
        Image; voxels outside of it do not count. By default a voxel counts if it is finite in all
        volumes and not 0 in all of them.
    min_parcel_coverage
        Fraction of a parcel, from 0 to 1, that must lie in the image (and in the mask) for the
        parcel to have a series, as in `brainlm-bids --min-parcel-coverage`. 0: any data will do.
    t_r
        Repetition time in seconds; by default that of the image's header. Needed by the filters.
    standardize
        None, "zscore_sample" or "psc", as in nilearn's maskers. BrainLM scales by itself.
    detrend
        Remove linear trends.
    high_pass, low_pass
        Cut-off frequencies in Hz; None: no filter.
    dtype
        Type of the series; None: float64. "auto": float32.
    offline
        Never download the atlas.

    Attributes
    ----------
    atlas_
        The atlas in use: label, sha256, source, warnings.
    labels_img_
        Its image.
    region_names_
        Names of the 424 columns.
    n_elements_
        424.
    mask_img_
        The mask, 0 and 1, or None.
    coverage_
        (424,) share of each parcel's voxels that lie in the image passed to `fit`, (n, 424) for a
        list of images; None if there was none.
    t_r_
        Repetition time in seconds of the image passed to `fit`, a list for a list of images; None
        where neither the parameter nor the header records it.

    Examples
    --------
    >>> import nibabel as nb
    >>> import numpy as np
    >>> from brainlm_bids import A424Masker
    >>> masker = A424Masker("A424approx")
    >>> data = np.random.default_rng(0).normal(100, 1, (45, 55, 45, 5)).astype("float32")
    >>> affine = np.array([[4.0, 0, 0, -88], [0, 4, 0, -124], [0, 0, 4, -70], [0, 0, 0, 1]])
    >>> masker.fit_transform(nb.Nifti1Image(data, affine)).shape
    (5, 424)
    """

    def __init__(
        self,
        atlas: str | Path | None = None,
        *,
        mask_img: Any = None,
        min_parcel_coverage: float = 0.5,
        t_r: float | None = None,
        standardize: str | None = None,
        detrend: bool = False,
        high_pass: float | None = None,
        low_pass: float | None = None,
        dtype: Any = None,
        offline: bool = False,
    ) -> None:
        self.atlas = atlas
        self.mask_img = mask_img
        self.min_parcel_coverage = min_parcel_coverage
        self.t_r = t_r
        self.standardize = standardize
        self.detrend = detrend
        self.high_pass = high_pass
        self.low_pass = low_pass
        self.dtype = dtype
        self.offline = offline

    def fit(self, imgs: Any = None, y: Any = None) -> "A424Masker":
        """Find the atlas and, if images are given, how much of it they cover.

        Parameters
        ----------
        imgs
            None, an image, or a list of images, as for `transform`.
        y
            Ignored.

        Returns
        -------
        A424Masker

        Raises
        ------
        ValueError
            If the atlas is not available, or an image does not overlap with it.
        """
        self._find_atlas()
        if imgs is not None:
            self._describe(self._extracted(imgs))
        return self

    def transform(
        self, imgs: Any, confounds: Any = None, sample_mask: Any = None
    ) -> "Series | list[Series]":
        """Extract the series of an image, or of each of a list.

        Parameters
        ----------
        imgs
            Image or path in MNI152NLin6Asym, on any grid: 4-D (X, Y, Z, T), or 3-D for values of a
            map; a list of 3-D images is one 4-D image. Or a list of 4-D images.
        confounds
            (T, K) array, DataFrame or TSV, regressed out (`nilearn.signal.clean`). A list for a
            list of images.
        sample_mask
            Volumes to keep. A list for a list of images.

        Returns
        -------
        numpy.ndarray
            (T, 424), or (424,) for a 3-D image; NaN in parcels without data, or covered by
            less than `min_parcel_coverage`. A list for a list of images.

        Raises
        ------
        ValueError
            If an image cannot be read or covers hardly any parcel, or a parameter is not allowed.

        Warns
        -----
        UserWarning
            If less than half of the parcels have a series.
        """
        check_is_fitted(self)
        return self._cleaned_all(self._extracted(imgs), confounds, sample_mask)

    def transform_single_imgs(
        self, imgs: Any, confounds: Any = None, sample_mask: Any = None
    ) -> "Series | list[Series]":
        """As `transform`, under the name that it has in nilearn's maskers."""
        return self.transform(imgs, confounds, sample_mask)

    def fit_transform(
        self, imgs: Any, y: Any = None, confounds: Any = None, sample_mask: Any = None
    ) -> "Series | list[Series]":
        """Find the atlas and extract the series of an image, or of each of a list.

        See `transform` for the parameters. `y` is ignored.
        """
        del y
        self._find_atlas()
        extracted = self._extracted(imgs)
        self._describe(extracted)
        return self._cleaned_all(extracted, confounds, sample_mask)

    def inverse_transform(self, X: Any) -> nb.Nifti1Image:
        """Paint values of parcels into the atlas's volume.

        Parameters
        ----------
        X
            (424,) for a 3-D image, or (T, 424) for a 4-D one. NaN becomes 0.

        Returns
        -------
        nibabel.Nifti1Image
        """
        check_is_fitted(self)
        values = np.asarray(X)
        if values.ndim not in (1, 2) or values.shape[-1] != self.n_elements_:
            raise ValueError(
                f"Input to 'inverse_transform' has wrong shape {values.shape}; expected "
                f"({self.n_elements_},) or (volumes, {self.n_elements_})"
            )
        if not np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float64)
        image = self.labels_img_
        return paint(values, np.asarray(image.dataobj), np.asarray(image.affine))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the parcels."""
        del input_features
        check_is_fitted(self)
        return np.asarray(self.region_names_, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "atlas_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags

    def _find_atlas(self) -> None:
        found, labels, affine = load_atlas(self.atlas, offline=self.offline)
        self.atlas_: Atlas | Parcellation = found
        self._called = "A424", REAL_SPACE
        self._take_labels(labels, affine, list(resources.parcels().names))

    def _take_labels(
        self, labels: NDArray[Any], affine: NDArray[np.float64], names: list[str]
    ) -> None:
        """Labels (X, Y, Z) from 1 to the number of names."""
        self.labels_img_ = nb.Nifti1Image(labels, affine)
        self.region_names_ = names
        self.n_elements_ = len(self.region_names_)
        self._points = affines.labelled_points(labels, affine)
        self.mask_img_ = None if self.mask_img is None else binary_mask(self.mask_img)
        self.coverage_: NDArray[np.float64] | None = None
        self.t_r_: float | list[float | None] | None = self.t_r

    def _describe(self, extracted: "_Extracted | list[_Extracted]") -> None:
        if isinstance(extracted, list):
            self.coverage_ = np.stack([one.coverage for one in extracted])
            self.t_r_ = [one.t_r for one in extracted]
        else:
            self.coverage_, self.t_r_ = extracted.coverage, extracted.t_r

    def _extracted(self, imgs: Any) -> "_Extracted | list[_Extracted]":
        if isinstance(imgs, list | tuple) and not imgs:
            raise ValueError("the list of images is empty")
        if isinstance(imgs, list | tuple) and len(load(imgs[0])[1].shape) == 4:
            return [self._extract(image) for image in imgs]
        return self._extract(imgs)

    def _extract(self, imgs: Any) -> "_Extracted":
        image, data = load(imgs)
        volumes = data.reshape(*data.shape[:3], -1)
        mask = self._mask(image, volumes)
        names, points = self._points
        located = affines.world_to_voxel(points, np.asarray(image.affine, dtype=np.float64))
        least = self._least_coverage()
        operator, coverage = build_operator(
            names, located, mask.shape, mask, self.n_elements_, min_coverage=least
        )
        doubt = low_coverage(coverage.reaches(least), least, *self._called)
        if coverage.reaches(least).mean() < LEAST_COVERED:
            raise ValueError(doubt)
        if doubt:
            warnings.warn(doubt, UserWarning, stacklevel=2)
        series = parcellate(operator, np.where(mask[..., None], volumes, 0).astype(np.float32))
        t_r = repetition_time(image) if self.t_r is None else self.t_r
        return _Extracted(series, coverage.fraction, t_r, data.ndim == 3)

    def _least_coverage(self) -> float:
        least = self.min_parcel_coverage
        if not isinstance(least, Real) or not 0 <= least <= 1:
            raise ValueError(f"min_parcel_coverage={least!r}; expected a number from 0 to 1")
        return float(least)

    def _mask(self, image: SpatialImage, volumes: NDArray[Any]) -> NDArray[np.bool_]:
        mask = np.isfinite(volumes).all(axis=3) & (volumes != 0).any(axis=3)
        if self.mask_img_ is None:
            return np.asarray(mask)
        from nilearn.image import resample_to_img

        given = resample_to_img(
            self.mask_img_,
            nb.Nifti1Image(mask.astype(np.uint8), image.affine),
            interpolation="nearest",
            copy_header=True,
            force_resample=True,
        )
        return np.asarray(mask & (np.asarray(given.dataobj) > 0))

    def _cleaned_all(
        self, extracted: "_Extracted | list[_Extracted]", confounds: Any, sample_mask: Any
    ) -> Series | list[Series]:
        if not isinstance(extracted, list):
            return self._cleaned(extracted, confounds, sample_mask)
        n = len(extracted)
        each = zip(
            extracted,
            _one_each(confounds, n, "confounds"),
            _one_each(sample_mask, n, "sample_mask"),
            strict=True,
        )
        return [self._cleaned(*one) for one in each]

    def _cleaned(self, extracted: "_Extracted", confounds: Any, sample_mask: Any) -> Series:
        from nilearn import signal

        if (self.high_pass, self.low_pass) != (None, None) and extracted.t_r is None:
            raise ValueError("the image's header records no repetition time; pass t_r=, in seconds")
        series = extracted.series
        dtype = np.float32 if self.dtype == "auto" else self.dtype or np.float64
        if extracted.single:
            # a table has rows, also where it has one alone
            as_table = _get_output_config("transform", self)["dense"] != "default"
            return (series if as_table else series[0]).astype(dtype)
        known = np.isfinite(series).all(axis=0)
        cleaned = signal.clean(
            series[:, known],
            detrend=self.detrend,
            standardize=_standardization(self.standardize),
            confounds=confounds,
            sample_mask=sample_mask,
            high_pass=self.high_pass,
            low_pass=self.low_pass,
            t_r=extracted.t_r,
            standardize_confounds=True,
        )
        result = np.full((len(cleaned), series.shape[1]), np.nan, dtype=dtype)
        result[:, known] = cleaned
        return result


@dataclass(frozen=True)
class _Extracted:
    """series (T, 424); coverage (424,); t_r in s; single: whether the image was 3-D."""

    series: Series
    coverage: NDArray[np.float64]
    t_r: float | None
    single: bool


def low_coverage(
    seen: NDArray[np.bool_], least: float, atlas: str = "A424", space: str = REAL_SPACE
) -> str | None:
    """A sentence, if less than half of the parcels are seen (P,), by a fraction of `least`."""
    share = float(seen.mean())
    if share >= LOW_COVERED:
        return None
    what = f"are covered by at least {least:.0%}" if least else "have data"
    return f"only {share:.0%} of the parcels of {atlas} {what}; is the image in {space}?"


def _standardization(given: Any) -> Any:
    """The value by which the installed nilearn knows it: 0.13 replaced False by None."""
    import nilearn

    off = None if tuple(map(int, nilearn.__version__.split(".")[:2])) >= (0, 13) else False
    return off if given in (None, False) else "zscore_sample" if given is True else given


def _one_each(values: Any, n: int, name: str) -> Sequence[Any]:
    if values is None:
        return [None] * n
    if not isinstance(values, list | tuple) or len(values) != n:
        raise ValueError(f"{name}: a list of {n} is needed, one for each image")
    return values
