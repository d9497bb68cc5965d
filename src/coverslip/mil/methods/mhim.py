"""MHIM-MIL: a host method that learns from the hard tiles, since a teacher hides the easy ones.

Tang et al.: Multiple instance learning framework with masked hard instance mining for whole slide image classification,
ICCV 2023, https://arxiv.org/abs/2307.15254. Written from the paper's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from coverslip.mil.bags import BagOutput
from coverslip.mil.methods._masked import MaskedHost, require_share
from coverslip.mil.parts.masked_teaching import MaskedTeaching, MaskPolicy, Masks, Teaching
from coverslip.mil.parts.masking import largest_rows, random_rows, spare_one
from coverslip.mil.supervised import Supervised
from coverslip.nn.segments import Segments
from coverslip.train.schedules import cosine

ENTRIES = {
    "mhim": {
        "build": "Mhim",
        "summary": "a host trained on rows that a teacher finds hard",
        "origin": "Tang et al. 2023, arXiv:2307.15254",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class Mhim(MaskedHost):
    """The host's output; logits, attention, evidence and inference are those of the host (abmil, transmil, dsmil).

    In training a teacher, the moving average of the host (the student), sees each whole bag of N rows. By its attention
    a the student loses the union of

        mask_random    ceil(N mask_random) rows, drawn evenly
        mask_low       the ceil(N mask_low) rows of least attention
        mask_high      a share high_pick, drawn evenly, of the ceil(N mask_high / high_pick) rows of most attention

    Sizes count on N, so that where the parts overlap fewer rows go; mask_high falls to 0 along a cosine over training.
    Heads (the outputs of dsmil) are fused by votes: the rows that most heads have among their k. A bag always keeps a
    row. The loss is the host's on what is left, whatever the task, plus

        consistency * -sum_d softmax(z_T / temperature)_d log softmax(z_S)_d

    over the dimensions of the bag vectors of teacher and student, `BagOutput.embedding`.

    The papers start the teacher from a host trained to its end on the same fold, and the student anew. Here one run
    does both: for the first `warmup` of training the host learns by itself and the teacher is its copy, and no epoch
    of it is kept; with warmup = 0 the teacher starts as the untrained student. The teacher forgets over a tenth of
    training where `momentum` is not given, because a fixed one means another thing in a run of other length: the
    released .9999 over 200 epochs of some 270 slides forgets over a fifth. `settles` lets the momentum rise to 1 by
    the end.

    Published settings. Camelyon16, high_pick .5: abmil .5 random, .01 high; TransMIL .8 low, .03 high, settling. TCGA,
    high_pick 1: abmil .7 random, .2 low, .02 high, settling; TransMIL .6 random, .2 low, .02 high. `consistency` .1 and
    .5. Ours are the first. preset = "official" has what the released code does and we do not: the teacher's dropout
    stays on while it scores (`teacher_dropout`), and `momentum` is .9999. Its clipping of gradients before the backward
    pass, which does nothing, is `fit.clip` here. Otherwise we differ: rows are scored by the attention that the host
    itself gives, for TransMIL that of its last layer (there of its first), for dsmil by votes of its outputs (there by
    the largest row logit); and attention of abmil has a gate and biases (there a ReLU without either).
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        host: Literal["abmil", "transmil", "dsmil"] = "abmil",
        preset: Literal["fixed", "official"] = "fixed",
        mask_random: float = 0.5,
        mask_low: float = 0.0,
        mask_high: float = 0.01,
        high_pick: float = 0.5,
        consistency: float = 0.1,
        temperature: float = 0.1,
        warmup: float = 0.2,
        momentum: float | None = None,
        settles: bool = False,
        teacher_dropout: bool | None = None,
        **host_options: Any,
    ) -> None:
        super().__init__(dim, num_outputs, host, host_options)
        require_share(mask_random=mask_random, mask_low=mask_low, mask_high=mask_high)
        if not 0 < high_pick <= 1:
            raise ValueError("high_pick is above 0, up to 1")
        official = preset == "official"
        self.policy = HighLowRandom(mask_high, high_pick, mask_low, mask_random)
        self.how = Teaching(
            consistency,
            temperature,
            momentum=0.9999 if official and momentum is None else momentum,
            settles=settles,
            warmup=warmup,
            dropout=official if teacher_dropout is None else teacher_dropout,
        )

    def teaching(self, plain: Supervised) -> MaskedTeaching:
        return MaskedTeaching(plain, self.host, self.policy, self.how)


@dataclass(frozen=True)
class HighLowRandom(MaskPolicy):
    """The union of the three parts of `Mhim`."""

    high: float
    pick: float
    low: float
    random: float

    @property
    def needs_teacher(self) -> bool:
        return self.high > 0 or self.low > 0

    def draw(self, seen: BagOutput | None, segments: Segments, progress: float) -> Masks | None:
        high = cosine(self.high, 0.0, progress)
        # Where a part is off nothing is drawn, so that other draws of the step are those of the host by itself.
        masked: list[Tensor] = []
        if self.random > 0:
            masked.append(random_rows(segments, self.random))
        if seen is not None and seen.attention is not None:
            if self.low > 0:
                masked.append(largest_rows(-seen.attention, segments, self.low))
            if high > 0:
                masked.append(largest_rows(seen.attention, segments, high, pick=self.pick))
        if not masked:
            return None
        return Masks(~spare_one(torch.stack(masked).any(0), segments))
