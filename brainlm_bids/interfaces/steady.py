"""The denoised series of a recording, as it enters scaling."""

from typing import Any

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.errors import UserError
from brainlm_bids.parcels import sampling

Plain = dict[str, Any]


def steady_series(naming: Naming, model_tr: float) -> tuple[sampling.Sampled, Plain]:
    """Read the denoised series of a recording as the participant level scales it.

    Parameters
    ----------
    naming
        The recording.
    model_tr
        Repetition time of the model, s.

    Returns
    -------
    series
        (T, 424) steady-state volumes at the sampling rate of the model; bad ones are left out at
        both ends and interpolated elsewhere.
    sidecar
        The sidecar of the denoised series.

    Raises
    ------
    UserError
        If the file cannot be read, or its columns are not the parcels.
    """
    path = naming.path("denoised")
    names, values = files.read_tsv(path)
    if tuple(names) != resources.parcels().names:
        raise UserError(f"{path}: its columns are not the 424 parcels of A424")
    sidecar = files.read_json(naming.path("denoised", extension=".json"))
    series, tr = values[int(sidecar["DummyVolumes"]) :], float(sidecar["RepetitionTime"])
    return sampling.sample(series, tr, model_tr), sidecar
