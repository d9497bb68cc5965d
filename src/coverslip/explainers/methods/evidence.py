"""Evidence: what each tile adds to the score of a class."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from coverslip.explainers.contract import Explainer
from coverslip.mil import BagOutput, Bags, SlideModel

ENTRIES = {
    "evidence": {
        "build": "Evidence",
        "summary": "what each tile adds for or against a class",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a method with evidence",
    }
}


class Evidence(Explainer):
    """The evidence for a class minus the mean of that for the others, in logits: over 0 speaks for it, below against.

    Logits mean something in comparison alone (a number added to all changes no probability), so the contrast is what
    is shown. How a method's evidence adds up to its logits stands in its docstring.
    """

    kind: ClassVar[str] = "evidence"
    signed: ClassVar[bool] = True

    def offers(self, output: BagOutput) -> bool:
        return output.evidence is not None

    def scores(self, model: SlideModel, bags: Bags, output: BagOutput, column: int) -> Float[Tensor, m]:
        assert output.evidence is not None
        evidence = output.evidence
        if evidence.shape[1] == 1:
            return evidence[:, 0]
        others = (evidence.sum(1) - evidence[:, column]) / (evidence.shape[1] - 1)
        return evidence[:, column] - others
