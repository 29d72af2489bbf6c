"""Head motion correction of a run, on the CPU or on a GPU."""
