"""Floor 7: one loop trains everything; what it trains is an `Objective`."""

from coverslip.train.fit import Batches, FitResult, fit
from coverslip.train.objective import Objective, Remembered, StepOutput

__all__ = ["Batches", "FitResult", "Objective", "Remembered", "StepOutput", "fit"]
