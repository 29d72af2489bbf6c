"""A call of the BIDS App: planning, resources, execution, status and summary."""
