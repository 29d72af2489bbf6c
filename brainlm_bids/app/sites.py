"""Sites in a decoding: harmonisation, folds that leave a site out, a check for confounding."""

import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from brainlm_bids.app.cohort import Cohort
from brainlm_bids.bids.participants import Columns
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort import variables
from brainlm_bids.cohort.coding import CATEGORY, Coded, asked_columns, in_words, summary, understand
from brainlm_bids.cohort.confounding import Association, association
from brainlm_bids.cohort.sites import (
    MINIMUM_PER_SITE,
    Sites,
    is_site,
    nested_site,
    sites_of_units,
    unusable,
)
from brainlm_bids.cohort.units import unit_means
from brainlm_bids.cohort.variables import Target
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, notice

LOG = logging.getLogger("brainlm_bids")
# A column of texts (N,) -> the target that it makes
MakeTarget = Callable[[Sequence[str | None]], Target]


class ConfoundedError(UserError):
    """A target that is not decoded, with --strict, because it depends on the site."""


class _Asked(NamedTuple):
    """A column that a flag names."""

    flag: str
    column: str
    kind: str | None


class SitePlanner:
    """The sites of the recordings of one model, understood once.

    Parameters
    ----------
    cohort
        Whose targets are decoded.
    recordings
        Those that the model embedded.
    columns
        Of the tables of participants, a value per recording.
    """

    def __init__(
        self,
        cohort: Cohort,
        recordings: Sequence[Recording],
        columns: Columns,
    ) -> None:
        settings = cohort.settings
        self._cohort, self._columns = cohort, columns
        self._subjects = [recording.participant for recording in recordings]
        self._coded: dict[str, Coded] = {}

        def kinds(names: Sequence[str]) -> dict[str, str | None]:
            return asked_columns(names, columns, cohort.people.measured)

        def asked(flag: str, *names: str | None) -> list[_Asked]:
            given = [name for name in names if name is not None]
            return [_Asked(flag, name, kind) for name, kind in kinds(given).items()]

        self._harmonised = next(iter(asked("--harmonize", settings.harmonised_column)), None)
        self._held_out = next(iter(asked("--folds-by", settings.folds_by)), None)
        self._keep = asked("--keep", *settings.keep)
        self._dealt_with = {
            one.column for one in (self._harmonised, self._held_out) if one is not None
        } | {*kinds(settings.regress_out)}
        self._kept: dict[str, list[str]] = {}
        self._sites: dict[str, dict[str, int]] = {}
        self._found: dict[str, dict[str, dict[str, Any]]] = {}

    def restricted(self, target: Target, column: Sequence[str | None], make: MakeTarget) -> Target:
        """The target without recordings that have no site, or one of too few subjects.

        Raises
        ------
        UserError
            If the column of sites is none, or too little is left.
        """
        notes: list[str] = []
        for asked, minimum in ((self._held_out, 1), (self._harmonised, MINIMUM_PER_SITE)):
            if asked is None:
                continue
            reasons = unusable(self._names(asked, target), self._owners(target), minimum)
            lost = {row for place in reasons for row in target.units[place]}
            if lost:
                text = ", ".join(sorted(set(reasons.values())))
                notes.append(f"{len(lost)} recordings are left out ({asked.flag}): {text}")
                column = [None if row in lost else cell for row, cell in enumerate(column)]
                target = make(column)
            sites = {name for name in self._names(asked, target) if name is not None}
            if len(sites) < 2:
                raise UserError(
                    f"{asked.flag} {asked.column}: all recordings with a value of {target.name} "
                    f"are of {' and '.join(sorted(sites)) or 'no site'}; two are needed"
                )
        return target._replace(notes=(*target.notes, *notes), doubts=(*target.doubts, *notes))

    def of(self, target: Target) -> Sites:
        """What folds and features of a target depend on.

        Raises
        ------
        UserError
            If a site that is harmonised is unknown to the training rows of a fold.
        """
        held_out, harmonised = (
            () if asked is None else tuple(map(str, self._names(asked, target)))
            for asked in (self._held_out, self._harmonised)
        )
        if held_out and harmonised:
            assert self._harmonised is not None and self._held_out is not None
            inside = nested_site(harmonised, held_out, self._owners(target))
            if inside is not None:
                site, fold = inside
                raise UserError(
                    f"--harmonize {self._harmonised.column}: {site!r} is hardly known outside "
                    f"{fold!r} of --folds-by {self._held_out.column}, so that its effect cannot be "
                    "estimated while that is left out"
                )
        sites = Sites(held_out, harmonised, self._covariates(target) if harmonised else None)
        sites.folds(self._owners(target), 2, 1, 0)  # refuses what leaves too few to train on
        if sites.strata:
            self._sites[target.name] = _counted(sites.strata, self._owners(target))
        return sites

    def checked(self, target: Target) -> Target:
        """Warn where a target depends on a site that nothing is done about; note it elsewhere.

        Raises
        ------
        ConfoundedError
            With --strict, in place of the warning.
        """
        if is_site(target.name):
            return target
        notes, warnings = [], []
        for column in self._site_columns(target.name):
            coded = self._coded[column]
            found = self._associated(target, coded)
            if found is None:
                continue
            of_target = self._found.setdefault(target.name, {})
            of_target[column] = {
                "Share": found.share,
                "P": found.p,
                "Confounded": found.confounded,
            }
            if not found.confounded:
                continue
            text = (
                f"{target.name} differs between the values of {column} (Cramér's V "
                f"{math.sqrt(found.share):.2f}, p = {found.p:.2g})"
                if target.classes
                else f"{found.share:.0%} of the variance of {target.name} lies between the values "
                f"of {column} (p = {found.p:.2g})"
            )
            by = self._covering(coded)
            if by is None:
                warnings.append(text)
            else:
                notes.append(f"{text}; {by} is taken into account")
        if warnings:
            self._warn(target.name, warnings)
        return target._replace(notes=(*target.notes, *notes))

    @property
    def sidecar(self) -> dict[str, Any]:
        """What the sidecars report of it."""
        values: dict[str, Any] = {"SiteAssociation": self._found}
        asked = [one.column for one in (self._held_out, self._harmonised) if one is not None]
        if asked:
            values["PermutedWithin"] = asked
        if self._held_out is not None:
            values["FoldsBy"] = self._held_out.column
        if self._harmonised is not None:
            values["Harmonization"] = {
                "Method": "ComBat",
                "Column": self._harmonised.column,
                "Kept": self._kept,
            }
        if self._sites:
            values["SubjectsPerSite"] = self._sites
        return values

    # --- columns

    def _names(self, asked: _Asked, target: Target) -> tuple[str | None, ...]:
        """The site of each unit."""
        coded = self._understood(asked)
        if coded.kind != CATEGORY:
            raise UserError(
                f"{asked.flag} {asked.column}: holds numbers, not sites; {asked.column}:{CATEGORY} "
                "takes each of them as one"
            )
        return sites_of_units(target.units, coded.texts)

    def _understood(self, asked: _Asked) -> Coded:
        if asked.column not in self._coded:
            coded = self._read(asked.column, asked.kind)
            self._coded[asked.column] = coded
            about = in_words(summary(coded.kind, coded.texts))
            LOG.info("%s (%s): %s", asked.column, asked.flag, about)
            self._cohort.doubt(asked.column, coded.doubts)
        return self._coded[asked.column]

    def _read(self, column: str, kind: str | None) -> Coded:
        levels = self._cohort.people.levels.get(column, ())
        return understand(column, self._columns[column], self._subjects, kind=kind, levels=levels)

    def _owners(self, target: Target) -> list[str]:
        return [self._subjects[unit[0]] for unit in target.units]

    def _covariates(self, target: Target) -> np.ndarray | None:
        """(U, K) what ComBat keeps, never the target itself."""
        kept = [one for one in self._keep if one.column != target.name]
        self._kept[target.name] = [one.column for one in kept]
        if len(kept) < len(self._keep):
            text = (
                f"--keep {target.name}: is not kept where {target.name} itself is decoded, since "
                "harmonisation would bring held-out values of it into the features."
            )
            self._cohort.warn(notice(Kind.TARGET_NOT_KEPT, text))
        if not kept:
            return None
        chosen = [self._understood(one) for one in kept]
        rows = [one._replace(texts=tuple(one.texts[row] for row in target.rows)) for one in chosen]
        try:
            return np.asarray(unit_means(variables.design(rows), target.places))
        except UserError as error:
            raise UserError(str(error).replace("--regress-out", "--keep")) from None

    # --- confounding

    def _site_columns(self, target: str) -> list[str]:
        """Columns that hold sites: those that are named, and those whose names say so."""
        named = [one.column for one in (self._harmonised, self._held_out) if one is not None]
        recognised = [name for name in self._columns if is_site(name)]
        found = []
        for name in dict.fromkeys([*named, *recognised]):
            if name == target:
                continue
            try:
                coded = self._coded.get(name) or self._read(name, None)
            except UserError:
                continue  # a column that nobody asked for
            if coded.kind == CATEGORY:
                self._coded.setdefault(name, coded)
                found.append(name)
        return found

    def _associated(self, target: Target, coded: Coded) -> Association | None:
        names = sites_of_units(target.units, coded.texts)
        known = [place for place, name in enumerate(names) if name is not None]
        owners = self._owners(target)
        if len({names[place] for place in known}) < 2:
            return None
        return association(
            target.unit_values[known],
            [str(names[place]) for place in known],
            [owners[place] for place in known],
            n_classes=len(target.classes),
            seed=self._cohort.settings.random_seed,
        )

    def _covering(self, coded: Coded) -> str | None:
        """A column that is taken into account and from which this one follows."""
        for name in sorted(self._dealt_with, key=lambda name: name != coded.name):
            if name == coded.name:
                return name
            if name in self._columns and _follows(coded.texts, self._columns[name]):
                return name
        return None

    def _warn(self, target: str, texts: Collection[str]) -> None:
        text = "; ".join(texts)
        if self._cohort.settings.strict:
            raise ConfoundedError(f"--strict: {text}; what predicts it may be the site alone")
        self._cohort.warn(
            notice(
                Kind.SITE_CONFOUNDED,
                f"{text}: what predicts it may be the site alone. --harmonize, --folds-by and "
                "--regress-out take a site into account.",
            )
        )


def _follows(column: Sequence[str | None], other: Sequence[str | None]) -> bool:
    """Whether the other column says what this one holds: each of its values goes with one."""
    pairs = {(there, here) for here, there in zip(column, other, strict=True) if there is not None}
    return len(pairs) == len({there for there, _ in pairs}) > 1


def _counted(sites: Sequence[str], subjects: Sequence[str]) -> dict[str, int]:
    members: dict[str, set[str]] = {}
    for site, subject in zip(sites, subjects, strict=True):
        members.setdefault(site, set()).add(subject)
    return {site: len(people) for site, people in sorted(members.items())}
