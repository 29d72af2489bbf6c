"""The Python interface: models, embedders, maskers and derivatives, as arrays and data frames."""
