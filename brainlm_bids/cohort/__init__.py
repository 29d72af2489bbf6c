"""Analyses over the recordings of a cohort: statistics, means, consensus networks, decoding."""
