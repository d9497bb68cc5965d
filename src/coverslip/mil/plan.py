"""Whether a study's method can be trained for its task at all, asked before any slide is read."""

from __future__ import annotations

import numpy as np
import torch

from coverslip.base.study import Study
from coverslip.mil.build import check_options, make_task
from coverslip.mil.fit import require_trainable
from coverslip.mil.source import BagSource
from coverslip.mil.target import Target
from coverslip.store import Features

# As wide as any method's default goes, and more classes than an option would name the place of: nothing is refused
# here that the true numbers would allow.
_DIM, _CLASSES, _BAGS = 1024, 32, 4


def check_plan(study: Study) -> None:
    """Nothing, where method, host, options, task, sampling and augment of a study go together.

    The method is built and its objective made, as training will, for a few rows of zeros; nothing is trained. What
    depends on the study's own rows and targets, such as the number of bags or the range of values, is asked when they
    are there. A kind of task that is not shipped with Coverslip is not looked at beyond the method's options.

    Raises:
        SettingsError: they do not; it names the option, what is accepted and the way out.
    """
    check_options(study.aggregator.name, study.aggregator.options)
    target = _example(study.task.kind)
    if target is None:
        return
    task = make_task(
        study.task.kind,
        classes=[str(number) for number in range(_CLASSES)],
        grid=(1.0, 2.0),
        weights=study.fit.class_weights,
        options=study.task.options,
    )
    rows = np.zeros((1, _DIM), np.float16)
    place = np.zeros((1, 2), np.int32)
    slides = [Features(f"example {bag}", rows, coords=place, mpp=0.5, span=224.0) for bag in range(_BAGS)]
    require_trainable(BagSource(slides, target=target), task, study.aggregator, study.fit)


def _example(kind: str) -> Target | None:
    """Targets of a few bags of that kind; None for one that is not shipped."""
    place = torch.arange(_BAGS)
    if kind in ("classification", "ordinal"):
        return Target(place)
    if kind == "multilabel":
        return Target((place[:, None] == torch.arange(_CLASSES)).float())
    if kind == "regression":
        # Numbers that nobody knows: bounds that an option sets are held against the true ones later.
        return Target(torch.full((_BAGS,), torch.nan))
    if kind in ("survival", "survival_cox", "survival_parametric", "competing_risks"):
        return Target(1.0 + place, event=place % 2)
    return None
