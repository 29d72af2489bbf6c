"""Nipype interfaces of the group level, after the models: tables, networks, decoding, figures.

Each loads, calls the kernels of `cohort`, and writes. `recordings` are plain dictionaries in the
order of their names: stem, participant_id, session_id, task, run, mean_fd, coverage, n_volumes.
"""
