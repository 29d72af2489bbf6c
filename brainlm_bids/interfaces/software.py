"""The versions of the libraries that compute: what sidecars record and the methods text lists."""

import platform
from functools import cache
from importlib.metadata import version

# Libraries on which numbers depend.
LIBRARIES = (
    "antspyx",
    "deepbet",
    "nibabel",
    "nilearn",
    "nipype",
    "numpy",
    "scikit-learn",
    "scipy",
    "torch",
)


@cache
def software_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute, by their names.

    Examples
    --------
    >>> "numpy" in software_versions()
    True
    """
    return {"Python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
