"""What a call does about sites: who is left out, what is refused, and what is warned about."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brainlm_bids.app.cohort import Cohort
from brainlm_bids.app.sites import ConfoundedError, SitePlanner
from brainlm_bids.bids.participants import Columns, Variables
from brainlm_bids.cohort.variables import Target, make_target
from brainlm_bids.commands.bids_app import parse
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

PEOPLE = [f"sub-{k:02d}" for k in range(40)]
SITE = ["1"] * 18 + ["2"] * 15 + ["3"] * 7
RNG = np.random.default_rng(0)
AGES = [f"{age:.1f}" for age in RNG.normal(50, 8, 40) + 20 * (np.array(SITE) == "2")]
NOISE = [f"{value:.3f}" for value in RNG.normal(size=40)]
SEX = ["f", "m"] * 20


def planner(columns: Columns, **settings: Any) -> tuple[SitePlanner, Cohort]:
    people = Variables(columns, ())
    given = Settings(Path("raw"), Path("out"), **settings)
    cohort = Cohort(
        given, SimpleNamespace(), "run", SimpleNamespace(), SimpleNamespace(), people, []
    )  # type: ignore
    recordings = [SimpleNamespace(participant=person) for person in PEOPLE]
    return SitePlanner(cohort, recordings, columns), cohort  # type: ignore[arg-type]


def planned(name: str, columns: Columns, **settings: Any) -> tuple[SitePlanner, Cohort, Target]:
    chosen, cohort = planner(columns, target=(name,), **settings)

    def make(column: Any) -> Target:
        return make_target(name, column, PEOPLE)

    target = chosen.restricted(make(columns[name]), columns[name], make)
    return chosen, cohort, chosen.checked(target)


def texts(cohort: Cohort, kind: str) -> list[str]:
    return [one.text for one in cohort.people.notices if one.kind == kind]


def test_a_confounded_target_is_warned_about_without_asking() -> None:
    """The site is found by the name of its column."""
    columns: Columns = {"age": AGES, "noise": NOISE, "site_id": SITE, "comment": SEX}
    chosen, cohort, _ = planned("age", columns)
    (text,) = texts(cohort, "site_confounded")
    assert "of the variance of age lies between the values of site_id (p = 0.001)" in text
    found = chosen.sidecar["SiteAssociation"]["age"]
    assert found["site_id"]["Confounded"] and set(found) == {"site_id"}
    chosen, cohort, _ = planned("noise", columns)
    assert not texts(cohort, "site_confounded")
    assert not chosen.sidecar["SiteAssociation"]["noise"]["site_id"]["Confounded"]


def test_classes_can_be_confounded_too() -> None:
    patients = ["patient" if site == "2" else "control" for site in SITE]
    _, cohort, _ = planned("dx", {"dx": patients, "scanner": SITE})
    assert (
        "dx differs between the values of scanner (Cramér's V 0.9"
        in texts(cohort, "site_confounded")[0]
    )


def test_strict_refuses_unless_the_site_is_taken_into_account() -> None:
    scanner = ["a" if site == "1" else "b" for site in SITE]  # follows from the site
    columns: Columns = {"age": AGES, "site": SITE, "scanner": scanner}
    with pytest.raises(ConfoundedError, match=r"--strict: .* of age .* values of site"):
        planned("age", columns, strict=True)
    for settings in (
        {"harmonize": "combat:site"},
        {"folds_by": "site"},
        {"regress_out": ("site",)},
        {"regress_out": ("site:category",)},
    ):
        _, cohort, target = planned("age", columns, strict=True, **settings)
        assert not texts(cohort, "site_confounded")
        assert any("site is taken into account" in note for note in target.notes)
    # the scanner says less than the site
    with pytest.raises(ConfoundedError, match="site"):
        planned("age", columns, strict=True, regress_out=("scanner",))


def test_recordings_without_a_site_or_of_a_small_one_are_left_out() -> None:
    site: list[str | None] = [*SITE[:-4], *["4"] * 3, None]
    columns: Columns = {"noise": NOISE, "site": site}
    chosen, _, target = planned("noise", columns, harmonize="combat:site")
    assert len(target.units) == 33
    assert "7 recordings are left out (--harmonize)" in target.notes[-1]
    assert "'3' has fewer than 5 subjects" in target.notes[-1]
    sites = chosen.of(target)
    assert set(sites.harmonised) == {"1", "2"} and len(sites.harmonised) == 33
    assert chosen.sidecar["SubjectsPerSite"] == {"noise": {"1": 18, "2": 15}}
    assert chosen.sidecar["Harmonization"]["Column"] == "site"
    # sites that are left out may be small
    chosen, _, target = planned("noise", columns, folds_by="site:category")
    assert len(target.units) == 39 and set(chosen.of(target).held_out) == {"1", "2", "3", "4"}
    assert chosen.sidecar["FoldsBy"] == "site"


def test_the_target_itself_is_never_kept() -> None:
    columns: Columns = {"noise": NOISE, "sex": SEX, "site": SITE}
    settings = {"harmonize": "combat:site", "keep": ("noise", "sex")}
    chosen, cohort, target = planned("noise", columns, **settings)
    kept = chosen.of(target).kept
    assert kept is not None and kept.shape == (40, 1)
    np.testing.assert_array_equal(kept[:, 0], [0, 1] * 20)
    assert "held-out values of it" in texts(cohort, "target_not_kept")[0]
    assert chosen.sidecar["Harmonization"]["Kept"] == {"noise": ["sex"]}
    chosen, cohort, target = planned("sex", columns, **settings)
    kept = chosen.of(target).kept
    assert kept is not None
    np.testing.assert_array_equal(kept[:, 0], np.array(NOISE, dtype=float))


def test_what_cannot_be_is_refused_in_one_line() -> None:
    columns: Columns = {"noise": NOISE, "age": AGES, "site": SITE, "one": ["a"] * 40}
    columns["scanner"] = [f"{site}{k % 2}" for k, site in enumerate(SITE)]
    with pytest.raises(UserError, match="--folds-by age: holds numbers, not sites"):
        planned("noise", columns, folds_by="age")
    with pytest.raises(UserError, match=r"--harmonize one: all .* are of a; two are needed"):
        planned("noise", columns, harmonize="combat:one")
    chosen, _, target = planned("noise", columns, harmonize="combat:site", folds_by="scanner")
    assert set(chosen.of(target).strata) == {f"{k}{j}|{k}" for k in "123" for j in (0, 1)}
    columns["region"] = ["north" if site == "1" else "south" for site in SITE]
    chosen, _, target = planned("noise", columns, harmonize="combat:site", folds_by="region")
    with pytest.raises(UserError, match="'1' is hardly known outside 'north' of --folds-by region"):
        chosen.of(target)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--harmonize", "site"], "is not combat:COLUMN"),
        (["--harmonize", "combat:site", "--folds-by", "site"], "cannot be combined"),
        (["--harmonize", "combat:site", "--keep", "site"], "this is what --harmonize removes"),
        (["--keep", "age"], "--keep needs --harmonize"),
    ],
)
def test_flags_that_contradict_each_other(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(tmp_path), str(tmp_path / "out"), "group", "--target", "age", *flags]
    with pytest.raises((UserError, SystemExit)) as raised:
        parse(command)
    assert message in str(raised.value) + capsys.readouterr().err
    for alone in (["--harmonize", "combat:site"], ["--folds-by", "site"], ["--strict"]):
        with pytest.raises(UserError, match="needs a --target"):
            parse([str(tmp_path), str(tmp_path / "out"), "group", *alone])
