"""Evidence: what each tile adds to the score of a class."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coverslip.explainers.contract import Explainer
from coverslip.mil import BagOutput, Bags, SlideModel

ENTRIES = {
    "evidence": {
        "build": "Evidence",
        "summary": "what each tile adds for or against a class, a value or a risk",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a method with evidence",
    }
}


class Evidence(Explainer):
    """What each tile adds to the number in question: over 0 speaks for it, below against.

    The task says what that number is (`Task.score`). For classes it is the logit minus the mean of the others', since
    logits mean something in comparison alone (a number added to all changes no probability); for labels the logit; for
    a value, a level or a risk that itself, to first order around the slide's own logits. How a method's evidence adds
    up to its logits stands in its docstring.
    """

    kind: ClassVar[str] = "evidence"
    signed: ClassVar[bool] = True

    def offers(self, output: BagOutput) -> bool:
        return output.evidence is not None

    def scores(self, model: SlideModel, bags: Bags, output: BagOutput, column: int) -> Float[Tensor, m]:
        assert output.evidence is not None
        with torch.enable_grad():
            logits = output.logits.to(model.device, copy=True).requires_grad_()
            (slope,) = torch.autograd.grad(model.task.score(logits)[:, column].sum(), logits)
        return (output.evidence * slope.cpu()[bags.seg]).sum(1)
