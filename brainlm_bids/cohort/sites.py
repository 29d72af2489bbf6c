"""What a decoding does about sites: which units it can use, its folds, and its features."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cohort import harmonisation
from brainlm_bids.cohort.coding import words_of
from brainlm_bids.cohort.folds import Split, leave_one_site_out, splits
from brainlm_bids.errors import UserError

Array = NDArray[np.float64]
MINIMUM_PER_SITE = 5  # so that every fold can spare one
MINIMUM_TRAINING = 10  # subjects that are left when a site is left out
# Words in names of columns that say where or how somebody was scanned
SITE_WORDS = {
    *("site", "sites", "scanner", "scanners", "centre", "center", "batch", "institution"),
    *("hospital", "manufacturer", "vendor", "magnet", "station", "coil"),
}
BETWEEN = "+"  # between the sites of a unit that was measured at several


class Sites(NamedTuple):
    """The sites of the units of a target, where folds or features depend on them.

    Attributes
    ----------
    held_out
        (U,) what is left out together, one fold for each; empty for folds of subjects.
    harmonised
        (U,) the site whose effect ComBat removes; empty for features as they are.
    kept
        (U, K) covariates whose effects ComBat keeps.
    alike
        (U,) values of categories that are regressed out of the features: targets are permuted
        between units with the same. A target that follows the category would be permuted to what
        features without the category cannot predict, and p would be too small.
    """

    held_out: tuple[str, ...] = ()
    harmonised: tuple[str, ...] = ()
    kept: Array | None = None
    alike: tuple[str, ...] = ()

    @property
    def strata(self) -> tuple[str, ...]:
        """(U,) what targets are permuted within; empty without any."""
        named = [one for one in (self.held_out, self.harmonised, self.alike) if one]
        return tuple(map("|".join, zip(*named, strict=True)))

    def plain(self) -> dict[str, list[Any]]:
        """The same as lists, for the inputs of a node; `Sites.of_plain` reads them."""
        kept = [] if self.kept is None else self.kept.tolist()
        names = {"held_out": [*self.held_out], "harmonised": [*self.harmonised]}
        return {**names, "kept": kept, "alike": [*self.alike]}

    @classmethod
    def of_plain(
        cls,
        held_out: Sequence[str],
        harmonised: Sequence[str],
        kept: Sequence[Sequence[float]],
        alike: Sequence[str] = (),
    ) -> "Sites":
        """What `plain` wrote."""
        covariates = np.array(kept) if len(kept) else None
        return cls(tuple(held_out), tuple(harmonised), covariates, tuple(alike))

    def folds(
        self, subjects: Sequence[str], n_folds: int, n_repeats: int, seed: int
    ) -> list[list[Split]]:
        """Splits of each repeat of a cross-validation.

        Parameters
        ----------
        subjects
            (U,) the subject of each unit.
        n_folds
            Folds of subjects, where no site is left out.
        n_repeats
            Repeats of these; leaving sites out is done once.
        seed
            Seed of the first repeat.

        Returns
        -------
        list of list of (train, test)

        Raises
        ------
        UserError
            If a site is nearly everybody.
        """
        people = np.asarray(subjects)
        if not self.held_out:
            sites = self.harmonised or None
            return [
                list(splits(people, n_folds, seed + repeat, sites=sites))
                for repeat in range(n_repeats)
            ]
        found = list(leave_one_site_out(people, self.held_out))
        for train, test in found:
            left = len(np.unique(people[train]))
            if left < MINIMUM_TRAINING:
                raise UserError(
                    f"leaving out {self.held_out[test[0]]!r} leaves {left} subjects to train on; "
                    f"{MINIMUM_TRAINING} are needed"
                )
        return [found]

    def prepare(self, features: NDArray, split: Split) -> NDArray:
        """Harmonise features by what the training rows of a split say about sites.

        Parameters
        ----------
        features
            (U, F), NaN where unknown; may be memory-mapped.
        split
            Training rows and test rows.

        Returns
        -------
        ndarray
            (U, F) of the same type; the features themselves where nothing is harmonised.
        """
        if not self.harmonised:
            return features
        train, sites = split[0], np.asarray(self.harmonised)
        known = None if self.kept is None else self.kept[train]
        record = harmonisation.fit(features[train], sites[train], known)
        even = np.empty_like(features)
        for start in range(0, features.shape[1], harmonisation.BLOCK):
            part = slice(start, start + harmonisation.BLOCK)
            even[:, part] = harmonisation.apply(
                record.columns(part), features[:, part], sites, self.kept
            )
        return even


NO_SITES = Sites()


def is_site(name: str) -> bool:
    """Whether the name of a column says where or how somebody was scanned.

    >>> is_site("site_id"), is_site("ScannerType"), is_site("education")
    (True, True, False)
    """
    return bool(words_of(name) & SITE_WORDS)


def sites_of_units(
    units: Sequence[Sequence[int]], column: Sequence[str | None]
) -> tuple[str | None, ...]:
    """The site of each unit.

    Parameters
    ----------
    units
        (U,) recordings of each unit.
    column
        (N,) site of each recording, None where it is missing.

    Returns
    -------
    tuple of str or None
        (U,) None where a recording has none. A unit that was measured at several sites belongs to
        all of them together: one more site.

    Examples
    --------
    >>> sites_of_units([(0, 1), (2,), (1, 2)], ["a", "a", "b"])
    ('a', 'b', 'a+b')
    """
    found: list[str | None] = []
    for rows in units:
        names = [column[row] for row in rows]
        known = sorted({name for name in names if name is not None})
        found.append(BETWEEN.join(known) if None not in names else None)
    return tuple(found)


def combined(
    units: Sequence[Sequence[int]],
    subjects: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
) -> tuple[tuple[str, ...], list[str]]:
    """Combine categories into what targets are permuted within.

    Parameters
    ----------
    units
        (U,) recordings of each unit.
    subjects
        (N,) the subject of each recording.
    columns
        (N,) a category of each recording by the name of the column. In their order they are
        combined as long as five subjects share a combination on average: there have to be subjects
        to permute a target between.

    Returns
    -------
    cells
        (U,) the combination of each unit; empty without any.
    used
        Names of the columns that are part of it.

    Examples
    --------
    >>> people = [f"sub-{k:02d}" for k in range(12)]
    >>> site, family = ["a", "b"] * 6, list("abcdefabcdef")
    >>> cells, used = combined([(k,) for k in range(12)], people, {"site": site, "family": family})
    >>> cells[:3], used
    (('a', 'b', 'a'), ['site'])
    """
    n_subjects = len({subjects[unit[0]] for unit in units})
    cells: tuple[str, ...] = ()
    used: list[str] = []
    for name, column in columns.items():
        values = [value or "" for value in sites_of_units(units, column)]
        finer = tuple("|".join(pair) for pair in zip(cells, values)) if cells else tuple(values)
        if n_subjects >= MINIMUM_PER_SITE * len(set(finer)):
            cells, used = finer, [*used, name]
    return cells, used


def unusable(
    sites: Sequence[str | None], subjects: Sequence[str], minimum: int
) -> Mapping[int, str]:
    """Units that have no site, or one of too few subjects.

    Parameters
    ----------
    sites
        (U,) see `sites_of_units`.
    subjects
        (U,) the subject of each.
    minimum
        Subjects that a site must have.

    Returns
    -------
    dict
        Index of a unit to the reason.

    Examples
    --------
    >>> unusable(["a", "a", None, "b"], ["s1", "s2", "s3", "s4"], 2)
    {2: 'no site is known', 3: "'b' has fewer than 2 subjects"}
    """
    members: dict[str, set[str]] = {}
    for site, subject in zip(sites, subjects, strict=True):
        if site is not None:
            members.setdefault(site, set()).add(subject)
    reasons = {}
    for place, site in enumerate(sites):
        if site is None:
            reasons[place] = "no site is known"
        elif len(members[site]) < minimum:
            reasons[place] = f"{site!r} has fewer than {minimum} subjects"
    return reasons


def nested_site(
    harmonised: Sequence[str], held_out: Sequence[str], subjects: Sequence[str]
) -> tuple[str, str] | None:
    """A harmonised site of which fewer than two rows are left when a fold is left out.

    Parameters
    ----------
    harmonised, held_out
        (U,) the site whose effect is removed, and the one that is left out, of each unit.
    subjects
        (U,) the subject of each.

    Returns
    -------
    tuple of str or None
        The harmonised site and the fold; None if there is none.

    Examples
    --------
    >>> people = ["s1", "s2", "s3", "s4"]
    >>> nested_site(["x", "x", "y", "y"], ["a", "a", "b", "b"], people)
    ('x', 'a')
    """
    sites = np.asarray(harmonised)
    for train, test in leave_one_site_out(np.asarray(subjects), held_out):
        for site in np.unique(sites[test]):
            if (sites[train] == site).sum() < 2:
                return str(site), held_out[test[0]]
    return None
