"""All that is asked of sites, for any kind of task: what features and sites tell, and what is left within sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from coverslip.audit.shortcuts import confounding, label_from_site, site_from_features, within_sites
from coverslip.audit.site_numbers import explained_by_site, number_from_site
from coverslip.audit.site_times import risk_from_site, sites_part
from coverslip.eval.fold_rows import FoldRows

_BY_LABEL = "several labels: each by itself, under labels"


def ask_sites(
    tested: FoldRows,
    embedding: Float[ndarray, "n d"],
    sites: Sequence[str | None] | None,
    *,
    seed: int = 0,
    resamples: int = 500,
) -> dict[str, Any]:
    """The part "sites" of audit.json; `embedding` and `sites` (None: the table has none) have an entry a row of
    `tested`.

    Classes and levels are told by AUROC, numbers by r2, times by the c-index. Of several labels each is asked by
    itself, over the patients who know it: `labels` has by name what else stands at the top.
    """
    if sites is None:
        return {"reason": "the table has no column 'site' (the institution of each slide)"}
    first = _once(tested)
    accuracy, auroc = site_from_features(embedding[first], [sites[i] for i in first], seed=seed, resamples=resamples)
    told: dict[str, Any] = {
        "reason": None,
        "site_from_features": {"balanced_accuracy": accuracy.to_json(), "auroc": auroc.to_json()},
    }
    labels = tested.labels()
    if not labels:
        return told | _label_and_site(tested, sites, seed, resamples)
    null = {"value": None, "low": None, "high": None, "reason": _BY_LABEL}
    by_label = {name: _label_and_site(part, [sites[i] for i in rows], seed, resamples) for name, rows, part in labels}
    return told | {
        "label_from_site": {"what": "label from site", "metric": "auroc", "chance": 0.5, "red": False, **null},
        "confounding": {"cramers_v": None, "p": None, "red": False, "reason": _BY_LABEL},
        "within_sites": {"metric": tested.metric, "sites": [], "within": None, "overall": None, "reason": _BY_LABEL},
        "labels": by_label,
    }


def _label_and_site(tested: FoldRows, sites: Sequence[str | None], seed: int, resamples: int) -> dict[str, Any]:
    """Each patient once, but for the model's own figure within sites."""
    first = _once(tested)
    here, group, contrast = [sites[i] for i in first], tested.group[first], tested.contrasts[0]
    if contrast.time is not None:
        time = contrast.time[first]
        probe, tied = risk_from_site(time, group, here, seed=seed), sites_part(time, group, here)
    elif tested.shows is not None:  # numbers: `group` is only what they are shuffled within
        y = contrast.truth[first]
        probe, tied = number_from_site(y, here, seed=seed), explained_by_site(y, here, seed=seed)
    else:
        probe = label_from_site(group, here, seed=seed, resamples=resamples)
        tied = confounding(group, here, seed=seed)
    return {"label_from_site": probe.to_json(), "confounding": tied, "within_sites": within_sites(tested, sites)}


def _once(tested: FoldRows) -> ndarray:
    """The first row of each patient (n,)."""
    return np.unique(np.asarray(tested.patient, dtype=str), return_index=True)[1]
