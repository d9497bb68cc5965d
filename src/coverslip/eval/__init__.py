"""Floor 2: metrics, intervals, curves and the baseline. Takes arrays and tables; knows no cohort and no torch."""

from coverslip.eval.auroc_interval import auroc_interval
from coverslip.eval.baseline import baseline_predictions, mean_sd, mean_sd_logistic
from coverslip.eval.compare import Comparison, compare_folds, compare_scores
from coverslip.eval.evaluate import Evaluation, evaluate
from coverslip.eval.folds import FoldSize
from coverslip.eval.interval import Interval, nadeau_bengio, patient_bootstrap
from coverslip.eval.metrics import LOWER_IS_BETTER, METRICS, classification_metrics
from coverslip.eval.proportion import clopper_pearson, wilson

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "Comparison",
    "Evaluation",
    "FoldSize",
    "Interval",
    "auroc_interval",
    "baseline_predictions",
    "classification_metrics",
    "clopper_pearson",
    "compare_folds",
    "compare_scores",
    "evaluate",
    "mean_sd",
    "mean_sd_logistic",
    "nadeau_bengio",
    "patient_bootstrap",
    "wilson",
]
