"""A BIDS data set whose truth is known: head, motion, parcel series and noise, all simulated.

In: counts, TR (seconds), voxel size (mm), a kind of motion, a seed. Out: a raw BIDS folder, its
truth under `derivatives/phantom`, and the comparison of a pipeline's outputs with that truth.
Points are (3, N) or (N, 3) RAS+ mm as said, images (X, Y, Z), series (T, columns).

Chain of coordinates, every arrow a pull: voxel of volume t -> scanner world -> (inverse of M_t)
reference pose -> (bold_to_t1w) T1w world -> (pose, smooth field, affine) MNI152NLin2009aSym.
"""

from brainlm_bids.phantom.score import recovered
from brainlm_bids.phantom.writing import write_phantom

__all__ = ["recovered", "write_phantom"]
