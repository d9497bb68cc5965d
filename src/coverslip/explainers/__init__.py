"""Floor 9: which tiles made the prediction. One way of explaining a file in `methods/`."""

from coverslip.explainers.contract import Explainer
from coverslip.explainers.explain import explain
from coverslip.explainers.scores import TileScores

__all__ = ["Explainer", "TileScores", "explain"]
