"""Folds made of sites: a model is tested at institutions that it has not learnt from.

Slides of one institution share scanner, stain and staff, and a network can tell them apart. Where outcomes differ
between institutions too, a model that reads the institution looks good in folds of patients and fails elsewhere (Howard
et al. 2021, https://doi.org/10.1038/s41467-021-24698-1). Folds of whole sites take that away.

A site is an institution. The tissue source site in a TCGA barcode is not: it stands for an institution and a tumour, so
that one institution has several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from coverslip.base.errors import SplitError
from coverslip.base.random import stream
from coverslip.base.study import SplitSettings
from coverslip.cohort.folds import Hand, patient_strata, shuffled, split_of
from coverslip.cohort.split import Split
from coverslip.cohort.table import some
from coverslip.cohort.targets import Targets

# Deals that are tried for site-preserved folds; the most even one is kept.
_DEALS = 50
_GIVE_SITES = (
    "Give every slide the institution it is from in the cohort's column 'site', or set split.design = 'patients'."
)


def leave_site_out(targets: Targets, sites: Mapping[str, str | None], settings: SplitSettings) -> Split:
    """A fold for each site: its patients are tested by a model that learnt from all other sites.

    `sites` is the site of each slide. Sites with under `split.least_site` patients are tested together, in the last
    fold. Sites that share a patient count as one. What each fold tests stands in its label and in `source`.

    Raises:
        SplitError: a slide has no site, all slides are of one site, or a fold would train on one class alone.
    """
    patients_of, warnings = site_groups(targets, sites)
    large = {site: members for site, members in patients_of.items() if len(members) >= settings.least_site}
    small = sorted(set(patients_of) - set(large))
    groups = [(site, sorted(members)) for site, members in sorted(large.items())]
    if small:
        groups.append((" + ".join(small), sorted(p for site in small for p in patients_of[site])))
    if len(groups) < 2:
        raise SplitError(
            f"No site is left to learn from: of {len(patients_of)} sites {len(large)} have {settings.least_site} "
            f"patients or more, and smaller ones are tested together ({some(_sizes(patients_of))}).",
            fix="Set split.least_site lower, or split.design = 'patients'.",
            code="too_few_sites",
        )
    if len(small) > 1:
        warnings.append(
            f"{len(small)} sites with under {settings.least_site} patients are tested together, by a model that has "
            f"seen none of them: {some(small)}."
        )
    everyone = sorted(patient_strata(targets))
    hands = [
        Hand(index, 0, members, sorted(set(everyone) - set(members)), label=site)
        for index, (site, members) in enumerate(groups)
    ]
    told = "; ".join(f"fold {hand.index} tests {some(hand.label.split(' + '), 3)}" for hand in hands[:12])
    more = f"; and {len(hands) - 12} more" if len(hands) > 12 else ""
    return split_of(hands, targets, settings, f"leave one site out: {told}{more}", warnings=warnings)


def site_preserved(targets: Targets, sites: Mapping[str, str | None], settings: SplitSettings) -> Split:
    """Folds of whole sites, each with about its share of every class: no site is on both sides of a fold.

    Large sites are dealt first, each to the fold that it makes least uneven; of many such deals the most even is kept,
    another one in each repeat. Greedy is enough here: what is left uneven is told.

    Raises:
        SplitError: a slide has no site, there are fewer sites than folds, or a fold would train on one class alone.
    """
    patients_of, warnings = site_groups(targets, sites)
    if len(patients_of) < settings.folds:
        raise SplitError(
            f"{len(patients_of)} sites cannot fill {settings.folds} folds ({some(_sizes(patients_of))}).",
            fix=f"Set split.folds = {len(patients_of)} or less.",
            code="too_few_sites",
        )
    stratum = patient_strata(targets)
    kinds = sorted(set(stratum.values()))
    table = {
        site: np.array([sum(stratum[p] == c for p in members) for c in kinds]) for site, members in patients_of.items()
    }
    hands = []
    for repeat in range(settings.repeats):
        chance = stream(settings.seed, "split", "sites", repeat)
        dealt = min((_dealt(table, settings.folds, chance) for _ in range(_DEALS)), key=lambda d: _uneven(d, table))
        for index, held in enumerate(dealt):
            test = sorted(p for site in held for p in patients_of[site])
            rest = sorted(set(stratum) - set(test))
            hands.append(Hand(index, repeat, test, rest, label=" + ".join(sorted(held))))
            warnings += _lopsided(len(test) / len(stratum) * settings.folds, hands[-1])
    source = f"{settings.folds} site-preserved folds of {len(patients_of)} sites, seed {settings.seed}"
    return split_of(hands, targets, settings, source, strata=stratum, warnings=warnings)


def site_groups(targets: Targets, sites: Mapping[str, str | None]) -> tuple[dict[str, list[str]], list[str]]:
    """The patients of each site, and warnings; sites that share a patient are one group, since patients stay whole.

    Raises:
        SplitError: slides without a site, or a single site.
    """
    unknown = [slide for slide in targets.slides if not _known(sites.get(slide))]
    if unknown:
        raise SplitError(
            f"{len(unknown)} of {len(targets.slides)} slides have no site ({some(unknown)}); on which side of a fold "
            "they belong is not known.",
            fix=_GIVE_SITES,
            code="no_site",
        )
    sites_of: dict[str, set[str]] = {}
    for slide, patient in targets.patient_of.items():
        sites_of.setdefault(patient, set()).add(str(sites[slide]))
    leader = {site: site for names in sites_of.values() for site in names}

    def root(site: str) -> str:
        while leader[site] != site:
            site = leader[site]
        return site

    for names in sites_of.values():
        first, *others = sorted(names)
        for other in others:
            leader[root(other)] = root(first)
    members: dict[str, set[str]] = {}
    for site in leader:
        members.setdefault(root(site), set()).add(site)
    name_of = {site: " + ".join(sorted(group)) for group in members.values() for site in group}
    patients_of: dict[str, list[str]] = {}
    for patient in sorted(sites_of):
        patients_of.setdefault(name_of[min(sites_of[patient])], []).append(patient)
    if len(patients_of) < 2:
        why = "through patients with slides of several sites they are one" if len(leader) > 1 else "there is one"
        raise SplitError(
            f"Folds of sites need two sites; {why} ({some(sorted(leader))}).",
            fix="Set split.design = 'patients'; how the model does elsewhere needs slides from elsewhere.",
            code="one_site",
        )
    joined = [name for name, group in ((name_of[min(g)], g) for g in members.values()) if len(group) > 1]
    return patients_of, [f"Sites that share patients count as one: {some(sorted(joined))}."] if joined else []


def _known(site: str | float | None) -> bool:
    return site is not None and site == site and str(site).strip() != ""


def _sizes(patients_of: Mapping[str, Sequence[str]]) -> list[str]:
    sizes = Counter({site: len(members) for site, members in patients_of.items()})
    return [f"{site}: {n}" for site, n in sizes.most_common()]


def _dealt(table: Mapping[str, np.ndarray], folds: int, chance: np.random.Generator) -> list[list[str]]:
    """One greedy deal. Sites of about the same size change places from deal to deal."""
    order = shuffled(sorted(table), chance)
    order.sort(key=lambda site: -int(np.log2(max(1, int(table[site].sum())))))
    ideal = np.maximum(sum(table.values()) / folds, 1e-9)
    held: list[list[str]] = [[] for _ in range(folds)]
    counts = np.zeros((folds, len(ideal)))
    for place, site in enumerate(order):
        # The last sites go to folds that are still empty, where there are just enough for them.
        empty = [f for f in range(folds) if not held[f]]
        open_folds = empty if len(order) - place <= len(empty) else range(folds)
        after = [(((counts[f] + table[site]) / ideal) ** 2 - (counts[f] / ideal) ** 2).sum() for f in open_folds]
        chosen = list(open_folds)[int(np.argmin(after))]
        held[chosen].append(site)
        counts[chosen] += table[site]
    return held


def _uneven(dealt: Sequence[Sequence[str]], table: Mapping[str, np.ndarray]) -> float:
    """How far the folds' counts of each class are from even shares; 0 for even ones."""
    ideal = np.maximum(sum(table.values()) / len(dealt), 1e-9)
    return float(sum(((sum(table[site] for site in held) / ideal - 1) ** 2).sum() for held in dealt))


def _lopsided(share: float, hand: Hand) -> list[str]:
    """A warning where a fold is under half or over twice its even share of patients."""
    if 0.5 <= share <= 2:
        return []
    return [f"Fold {hand.index} tests {len(hand.test)} patients, {share:.1f} times an even share: sites stay whole."]
