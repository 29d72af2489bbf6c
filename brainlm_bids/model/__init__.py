"""The BrainLM networks: loading, embeddings, reconstructions, network maps."""
