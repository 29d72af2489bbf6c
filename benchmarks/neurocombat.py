"""Make the golden file of tests/cohort/test_harmonisation.py with neuroCombat, the oracle.

neuroCombat needs older versions of numpy and pandas than this project, so it has an environment of
its own:

    python3 -m venv combat && combat/bin/pip install "numpy<2" "pandas<2.3" neuroCombat==0.2.12
    combat/bin/python benchmarks/neurocombat.py tests/cohort/neurocombat.tsv

The input is simulated: 40 people of three sites, eight features that depend on age, sex and site.
The output is what neuroCombat makes of it with its defaults, without covariates (`plain_`), and
with sex and age to keep (`kept_`).
"""

import sys
from pathlib import Path

import numpy as np

FEATURES = 8


def simulate() -> dict[str, np.ndarray]:
    """Columns of people, and their features (40, 8)."""
    rng = np.random.default_rng(20)
    site = rng.permutation(np.repeat([0, 1, 2], [9, 13, 18]))
    age, sex = rng.integers(20, 80, 40), rng.integers(0, 2, 40)
    features = rng.normal(size=(40, FEATURES)) * rng.uniform(0.5, 2, (3, FEATURES))[site]
    features += rng.normal(size=(3, FEATURES))[site] + 10 * rng.normal(size=FEATURES)
    features += 0.02 * age[:, None] * rng.normal(size=FEATURES)
    features += 0.5 * sex[:, None] * rng.normal(size=FEATURES)
    names = np.array(["a", "b", "c"])[site]
    return {"site": names, "age": age, "sex": sex, "given": features.round(6)}


def main(path: Path) -> None:
    """Write the file."""
    import pandas
    from neuroCombat import neuroCombat

    made = simulate()
    people = pandas.DataFrame({name: made[name] for name in ("site", "age", "sex")})
    kept = {"categorical_cols": ["sex"], "continuous_cols": ["age"]}
    blocks = {"given": made["given"]}
    for name, options in (("plain", {}), ("kept", kept)):
        blocks[name] = neuroCombat(made["given"].T.copy(), people, "site", **options)["data"].T
    for name, block in blocks.items():
        for k in range(FEATURES):
            people[f"{name}_{k}"] = block[:, k]
    people.to_csv(path, sep="\t", index=False, float_format="%.10g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
