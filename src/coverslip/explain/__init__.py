"""Floor 9: which tiles made the prediction. One way of explaining a file in `methods/`."""

from coverslip.explain.contract import Explainer
from coverslip.explain.explain import explain
from coverslip.explain.scores import TileScores

__all__ = ["Explainer", "TileScores", "explain"]
