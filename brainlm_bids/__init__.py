"""BrainLM for BIDS data sets: raw fMRI to parcel series to embeddings."""

__version__ = "0.1.0.dev0"
