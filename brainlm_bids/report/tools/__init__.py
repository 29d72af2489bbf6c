"""Pages of the tools of `brainlm`: the folder of a forecast, perturbation or training → a page."""
