"""Floor 7: one loop trains everything; what it trains is an `Objective`."""

from coverslip.train.fit import Batches, FitResult, fit
from coverslip.train.objective import Objective, StepOutput

__all__ = ["Batches", "FitResult", "Objective", "StepOutput", "fit"]
