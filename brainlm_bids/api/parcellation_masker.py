"""`ParcellationMasker`: as `A424Masker`, for any other parcellation."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.api.masker import A424Masker


class ParcellationMasker(A424Masker):
    """Extract the series of the parcels of any labelled image from images in its space.

    The operator is that of `A424Masker` and of `brainlm-bids --parcellation`: labels are never
    resampled, the image is interpolated at the centres of their voxels (cubic spline) and averaged
    there. Every parcel has a column; one without data, or of which too little lies in the image, is
    NaN. BrainLM cannot use these series.

    Parameters
    ----------
    parcellation
        `Schaefer<parcels>x<networks>`, such as "Schaefer400x17", from TemplateFlow
        (MNI152NLin6Asym); or FILE[:LABEL], an image of labels, whose names are read from the TSV
        beside it (columns index and name). The images have to be in the same space.
    mask_img, min_parcel_coverage, t_r, standardize, detrend, high_pass, low_pass, dtype
        As those of `A424Masker`.
    offline
        Never download anything.

    Attributes
    ----------
    atlas_
        The parcellation in use: label, space, sha256, source, warnings.
    labels_img_
        Its image, with labels from 1 to the number of parcels, in the order of the columns.
    region_names_
        Names of the parcels, the columns; in ascending order of their labels in the file.
    n_elements_
        Number of parcels.
    mask_img_, coverage_, t_r_
        As those of `A424Masker`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import nibabel as nb
    >>> import numpy as np
    >>> from brainlm_bids import ParcellationMasker
    >>> labels = np.zeros((6, 6, 6), "int16")
    >>> labels[:3], labels[3:] = 4, 9
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "space-MNI152NLin6Asym_atlas-Halves_dseg.nii.gz"
    ...     nb.Nifti1Image(labels, np.eye(4)).to_filename(path)
    ...     masker = ParcellationMasker(path).fit()
    >>> data = np.random.default_rng(0).normal(100, 1, (6, 6, 6, 5)).astype("float32")
    >>> masker.transform(nb.Nifti1Image(data, np.eye(4))).shape, masker.region_names_
    ((5, 2), ['Halves_4', 'Halves_9'])
    """

    def __init__(
        self,
        parcellation: str | Path,
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
        self.parcellation = parcellation
        super().__init__(
            mask_img=mask_img,
            min_parcel_coverage=min_parcel_coverage,
            t_r=t_r,
            standardize=standardize,
            detrend=detrend,
            high_pass=high_pass,
            low_pass=low_pass,
            dtype=dtype,
            offline=offline,
        )

    def _find_atlas(self) -> None:
        with value_errors():
            found = resources.find_parcellation(str(self.parcellation), offline=self.offline)
        labelled = found.labelled
        if labelled.affine is None:
            raise ValueError(f"{found.path}: grayordinates; an image of labels is needed")
        for notice in found.warnings:
            warnings.warn(str(notice), UserWarning, stacklevel=3)
        self.atlas_, self._called = found, (found.label, found.space)
        names = [str(name) for name in labelled.names]
        self._take_labels(labelled.labels, np.asarray(labelled.affine), names)
