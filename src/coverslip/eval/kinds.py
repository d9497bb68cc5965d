"""The measures of each kind of task, by its name."""

from __future__ import annotations

from coverslip.eval.classification import Classification
from coverslip.eval.competing_risks import CompetingRisks
from coverslip.eval.kind import Kind
from coverslip.eval.multilabel import Multilabel
from coverslip.eval.ordinal import Ordinal
from coverslip.eval.regression import Regression
from coverslip.eval.survival import Survival

KINDS: dict[str, Kind] = {
    "classification": Classification(),
    "multilabel": Multilabel(),
    "regression": Regression(),
    "ordinal": Ordinal(),
    "survival": Survival(),
    "survival_cox": Survival(),
    "survival_parametric": Survival(),
    "competing_risks": CompetingRisks(),
}
