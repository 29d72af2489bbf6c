"""Registration of BOLD, T1w image and template, brain masks and bias fields."""
