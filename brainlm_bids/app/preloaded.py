"""What the steps of a graph import, loaded once per call: its workers are forked from there.

Each worker would spend some seconds and hundreds of MB on it, and every graph of a call has new
ones. None of these libraries starts threads when it is imported that would not survive a fork.
"""

import atexit
import shutil
import signal
import sys

# the process that loads this would otherwise end with a traceback at ^C, which the call handles;
# it was started with ^C blocked (`fork_server.start`)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

import matplotlib.figure  # noqa: E402
import nibabel  # noqa: E402
import nilearn.image  # noqa: E402
import pandas  # noqa: E402
import scipy.linalg  # noqa: E402
import sklearn.linear_model  # noqa: E402
import torch  # noqa: E402
from nipype.pipeline.plugins import multiproc  # noqa: E402

from brainlm_bids.app import fork_server  # noqa: E402

# matplotlib would remove its temporary folder (where no home can be written to) when this process
# ends, after the call that removes all of them
atexit.unregister(shutil.rmtree)

# what a worker raises before it has begun ends here: the server forks it, and calls the hook
sys.excepthook = fork_server.tell

__all__ = ["matplotlib", "multiproc", "nibabel", "nilearn", "pandas", "scipy", "sklearn", "torch"]
