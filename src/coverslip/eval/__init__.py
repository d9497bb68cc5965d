"""Floor 2: metrics, intervals, curves and the baseline. Takes arrays and tables; knows no cohort and no torch."""

from coverslip.eval.baseline import mean_sd, mean_sd_logistic
from coverslip.eval.evaluate import Evaluation, evaluate
from coverslip.eval.folds import FoldSize
from coverslip.eval.interval import Interval, nadeau_bengio, patient_bootstrap, wilson
from coverslip.eval.metrics import LOWER_IS_BETTER, METRICS, classification_metrics

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "Evaluation",
    "FoldSize",
    "Interval",
    "classification_metrics",
    "evaluate",
    "mean_sd",
    "mean_sd_logistic",
    "nadeau_bengio",
    "patient_bootstrap",
    "wilson",
]
