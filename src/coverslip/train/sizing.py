"""How many bags a step takes and how far it goes, where the user does not say: it depends on how many bags there are.

An epoch of 15 bags in steps of eight is two steps; fifty such epochs at the rate that suits a thousand bags end before
anything is learnt. So few bags are taken one at a time and with larger steps. Between the two ends both change evenly
(the rate in proportion to a power of the number of bags). `benchmarks/small_cohorts.py` shows both ends: settings of
one end cost as much on the other as they gain at home.
"""

from __future__ import annotations

import math

from coverslip.base.study import FitSettings

FEW, MANY = 32, 512
RATE_OF_FEW, RATE_OF_MANY = 1e-3, 2e-4
LARGEST_BATCH = 8


def sized(settings: FitSettings, num_bags: int) -> FitSettings:
    """The settings with `batch` and `lr` filled in for that many training bags, where they are not given."""
    batch = settings.batch or min(LARGEST_BATCH, max(1, num_bags // 16))
    return settings.model_copy(update={"batch": batch, "lr": settings.lr or rate_of(num_bags)})


def rate_of(num_bags: int) -> float:
    """The peak learning rate: 1e-3 up to 32 bags, 2e-4 from 512 on, a power law between."""
    power = math.log(RATE_OF_FEW / RATE_OF_MANY) / math.log(MANY / FEW)
    return min(RATE_OF_FEW, max(RATE_OF_MANY, RATE_OF_FEW * (FEW / max(1, num_bags)) ** power))
