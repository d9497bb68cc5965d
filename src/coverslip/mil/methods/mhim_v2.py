"""MHIM-v2: the easiest tiles for a class are hidden, and most of what is left out comes back as a few tokens.

Tang et al.: Multiple instance learning framework with masked hard instance mining for gigapixel histopathology image
analysis, 2025, https://arxiv.org/abs/2509.11526. Written from the paper's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from coverslip.mil.bags import BagOutput
from coverslip.mil.methods._masked import MaskedHost, require_share
from coverslip.mil.parts.masked_teaching import MaskedTeaching, MaskPolicy, Masks, Teaching
from coverslip.mil.parts.masking import class_score, largest_rows, set_aside, spare_one
from coverslip.mil.parts.recycler import Recycler
from coverslip.mil.supervised import Supervised
from coverslip.nn.segments import Segments, full

ENTRIES = {
    "mhim_v2": {
        "build": "MhimV2",
        "summary": "mhim by class scores, with the rows left out recycled as tokens",
        "origin": "Tang et al. 2025, arXiv:2509.11526",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class MhimV2(MaskedHost):
    """The host's output; logits, attention, evidence and inference are those of the host (abmil, transmil, dsmil).

    In training a teacher, the moving average of the host (the student), sees each whole bag of N rows. With u_i what
    row i adds to the teacher's logits, its evidence,

        score_i = -sum_c expm1(u_ic - max u_i)       the order of max_c softmax(u_i)_c
        masked      the ceil(N mask_high) rows of the largest scores
        kept        floor(L keep_ratio) of the L others, drawn evenly
        recycled    the rest: `tokens` tokens by the recycler (`mil.parts.recycler`), behind the kept rows

    A bag always keeps a row; one with nothing to recycle gets no tokens. The loss is the host's on kept rows and
    tokens, whatever the task, plus the consistency loss of `mhim`. Tokens are made in training alone. The recycler's
    queries follow its tokens with `query_momentum`, once a step, and get no gradient. For the teacher's start
    (`warmup`) and momentum see `mhim`.

    keep_ratio is the share that stays. The paper speaks of masking at large scale; in the released code the number
    (merge_ratio) is the share kept, .8 or .9 in its commands and .2 in its defaults. keep_ratio = .2 is the other
    reading. The published grid: mask_high .01, .03, .05; keep_ratio .8, .9; tokens 1, 5, 10; consistency .5. Ours is
    inside it.

    preset = "official" has what the released code does and we do not: `score` "softmax", the probability itself, which
    for large bags is decided by rounding (of 5,000 rows 2,290 different values in float32, 5 in float16); the
    teacher's dropout on while it scores; `momentum` .9997 and `query_momentum` .9999. Ours are a tenth of training.
    Otherwise we differ: rows are scored by the host's evidence, for TransMIL along its last layer (there its first),
    for dsmil too (there by the largest row logit), which is judged by the mean of two losses (there by the loss of mean
    logits); kept rows stay in their order, which TransMIL sees (there in a random one); the teacher has no recycler of
    its own, which nothing reads there; mask_high = 0 works. abmil has a gate and biases and a ReLU projection (there
    ReLU attention without either, and GELU).
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        host: Literal["abmil", "transmil", "dsmil"] = "abmil",
        preset: Literal["fixed", "official"] = "fixed",
        mask_high: float = 0.03,
        keep_ratio: float = 0.8,
        tokens: int = 5,
        consistency: float = 0.5,
        temperature: float = 0.1,
        warmup: float = 0.2,
        momentum: float | None = None,
        settles: bool = False,
        query_momentum: float | None = None,
        teacher_dropout: bool | None = None,
        score: Literal["stable", "softmax"] | None = None,
        **host_options: Any,
    ) -> None:
        super().__init__(dim, num_outputs, host, host_options)
        require_share(mask_high=mask_high, keep_ratio=keep_ratio)
        if tokens < 0:
            raise ValueError("tokens is 0 or more")
        official = preset == "official"
        self.recycler = Recycler(self.width, tokens=tokens) if tokens and keep_ratio < 1 else None
        self.policy = HighThenSplit(mask_high, keep_ratio, score or ("softmax" if official else "stable"))
        self.query_momentum = 0.9999 if official and query_momentum is None else query_momentum
        self.how = Teaching(
            consistency,
            temperature,
            momentum=0.9997 if official and momentum is None else momentum,
            settles=settles,
            warmup=warmup,
            dropout=official if teacher_dropout is None else teacher_dropout,
        )

    def teaching(self, plain: Supervised) -> MaskedTeaching:
        return MaskedTeaching(
            plain, self.host, self.policy, self.how, recycler=self.recycler, query_momentum=self.query_momentum
        )


@dataclass(frozen=True)
class HighThenSplit(MaskPolicy):
    """The rows of the largest class scores are masked, the others split into kept and recycled."""

    high: float
    keep: float
    score: Literal["stable", "softmax"]

    @property
    def needs_teacher(self) -> bool:
        return self.high > 0

    def draw(self, seen: BagOutput | None, segments: Segments, progress: float) -> Masks | None:
        if self.high == 0 and self.keep == 1:
            return None
        kept = torch.ones(segments.num_rows, dtype=torch.bool, device=segments.offsets.device)
        if self.high > 0 and seen is not None and seen.evidence is not None:
            kept = ~spare_one(largest_rows(self._scores(seen.evidence), segments, self.high), segments)
        if self.keep == 1:
            return Masks(kept)
        return Masks(*set_aside(kept, segments, self.keep))

    def _scores(self, u: Tensor) -> Tensor:
        if self.score == "stable":
            return class_score(u)
        pair = torch.cat([u, torch.zeros_like(u)], 1) if u.shape[1] == 1 else u
        return full(pair).softmax(1).amax(1)
