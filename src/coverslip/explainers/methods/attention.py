"""Attention: how much of the slide's summary each tile is."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from coverslip.explainers.contract import Explainer
from coverslip.mil import BagOutput, Bags, SlideModel

ENTRIES = {
    "attention": {
        "build": "Attention",
        "summary": "how much each tile counts, whatever it speaks for",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a method with attention",
    }
}


class Attention(Explainer):
    """Attention times the number of tiles, averaged over branches: 1 is an even share, 10 ten times that.

    The factor makes slides of different sizes comparable. Attention says where the model looked, not what it saw there:
    a tile may be looked at because it speaks against the class.
    """

    kind: ClassVar[str] = "attention"
    signed: ClassVar[bool] = False

    def offers(self, output: BagOutput) -> bool:
        return output.attention is not None

    def scores(self, model: SlideModel, bags: Bags, output: BagOutput, column: int) -> Float[Tensor, m]:
        assert output.attention is not None
        return output.attention.mean(1) * bags.lengths[bags.seg]
