"""Pretraining and fine-tuning of BrainLM."""
