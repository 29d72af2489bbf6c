"""The steps of a call in words, and about how long each takes.

The seconds are those of one core of the machine of docs/scaling.md. They weigh the steps against
one another while a call runs, where what its own steps took is the better measure, and they are
what a dry run expects. No result depends on them.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of step.

    Parameters
    ----------
    words : str
        What it is called.
    seconds : float
        What it takes for every recording.
    per_million : float
        And for a million values of the recording, which are voxels × volumes.
    """

    words: str
    seconds: float = 1.0
    per_million: float = 0.0


# By the names of the nodes; where a name goes on, a label or a number follows.
KINDS = {
    "prepare": Kind("bias field and brain", 13.0),
    "normalise": Kind("normalisation to the template", 8.0),
    "realign": Kind("head motion", 1.0, 0.15),
    "take": Kind("reading the series", 1.0, 0.05),
    "undistort": Kind("distortion, by the field map", 10.0),
    "unwarp": Kind("distortion, by the T1w image", 30.0),
    "coregister": Kind("registration to the T1w image", 13.0),
    "project": Kind("location of the parcels", 3.0),
    "extract": Kind("parcel series and confounds", 1.0, 0.06),
    "decompose": Kind("independent components", 1.0, 0.09),
    "classify": Kind("classification of components", 5.0),
    "strategy": Kind("confounds of fMRIPrep"),
    "denoise": Kind("denoising"),
    "scale": Kind("scaling"),
    "write": Kind("writing the files", 2.0),
    "draw": Kind("figures", 5.0),
    "save_bold": Kind("denoised volumes", 5.0, 0.3),
    "collect": Kind("reading the series", 2.0),
    "pool": Kind("median and range of the parcels", 2.0),
    "connectivity": Kind("connectivity", 5.0),
    "tables": Kind("tables", 5.0),
    "networks": Kind("networks", 5.0),
    "embed": Kind("embedding", 10.0),
    "gather": Kind("collecting features"),
    "decode": Kind("decoding", 20.0),
    "decoding": Kind("writing the decoding", 5.0),
    "audit": Kind("what else the embedding holds", 5.0),
    "blocks": Kind("embedding of blocks", 20.0),
    "states": Kind("decoding of states", 20.0),
    "write_states": Kind("writing the states", 5.0),
    "merge": Kind("collecting results", 0.0),
    "report": Kind("report", 3.0),
    "model": Kind("model", 8.0),
}
# Seconds of a model per second of a recording, without a GPU: 91 s for 111M and 360 s (measured,
# docs/scaling.md); the embedding of a window takes 650M 8.9 times as long, and 13M 1.5 times.
MODELS = {"650M": 2.2, "111M": 0.25, "13M": 0.38}


@dataclass(frozen=True)
class Size:
    """How much there is of a recording.

    Parameters
    ----------
    millions : float
        Millions of values: voxels × volumes.
    seconds : float
        Its length.
    """

    millions: float = 36.0
    seconds: float = 312.0


# Of a recording of unknown size: that of docs/scaling.md from studyforrest.
USUAL = Size()


def kind_of(node: str) -> str:
    """The key in `KINDS` of the name of a node, without those of the workflows around it.

    >>> [kind_of(name) for name in ("realign", "decode_0_cls_brainlmdemo", "write_states_x")]
    ['realign', 'decode', 'write_states']
    """
    parts = re.split(r"_", node)
    for length in range(len(parts), 0, -1):
        if (name := "_".join(parts[:length])) in KINDS:
            return name
    return node


@lru_cache(1024)  # recordings of a cohort are of one size
def expected_seconds(node: str, size: Size = USUAL, model: str = "") -> float:
    """About how long a step takes on one core.

    Parameters
    ----------
    node
        Name of its node.
    size
        Of its recording.
    model
        Label of its model, if it runs one.
    """
    kind = KINDS.get(kind_of(node), Kind(node))
    rate = next((rate for name, rate in MODELS.items() if model.endswith(name)), 0.0)
    return kind.seconds + kind.per_million * size.millions + rate * size.seconds
