"""MambaMIL: a state carried from tile to tile, in two orders, then attention.

Yang, Wang, Chen: MambaMIL, enhancing long sequence modeling with sequence reordering in computational pathology,
MICCAI 2024, https://arxiv.org/abs/2403.06800. The defaults come from the released code,
https://github.com/isyangshu/MambaMIL; written from the formulas.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.target import Target
from coverslip.nn.layers import AttentionScores, default_hidden
from coverslip.nn.pooling import AttentionPool, Weights
from coverslip.nn.segments import Segments, full, position
from coverslip.nn.selective_scan import causal_conv, selective_scan

ENTRIES = {
    "mambamil": {
        "build": "MambaMil",
        "summary": "selective scans in two orders, then attention pooling",
        "origin": "Yang et al. 2024, arXiv:2403.06800",
        "licence": "Apache-2.0",
        "needs": "",
    }
}

# Rows of a batch whose inner numbers, some 80 KB a row and layer, are kept for the backward pass.
MOST_KEPT = 20_000


class MambaMil(StagedAggregator):
    """Rows that know the rows before them, in their own order and in a strided one; then attention pooling.

    For the rows x of a bag, in the order they are stored in (tiles are planned row by row over the slide):

        h = dropout(gelu(P x))                                       hidden
        h = h + SRMamba(h), `layers` times
        h = LayerNorm(h)
        a = softmax of w^T tanh(V h) over the bag                    BagOutput.attention (m, 1)
        z = sum of a h                                               BagOutput.embedding (b, hidden)
        logits = W z + c

    SRMamba(h) is W_out ((s(u) + s'(u)) silu(g)) with (u, g) = W_in LayerNorm(h), each `expand` times as wide as h. A
    scan s is

        v = silu(conv(u))                                            depthwise, causal, `kernel` taps
        (d, B, C) = W_x v;  dt = softplus(W_dt d + b)                d of width hidden / 16
        k_t = exp(dt_t A) k_(t-1) + dt_t B_t v_t                     `states` numbers a channel, A negative
        s_t = C_t k_t + D v_t

    and s' is the same with weights of its own, over the rows in the order 0, R, 2R, ..., 1, R + 1, ... with R `rate`,
    put back afterwards: rows that lie R apart become neighbours. R = 1 is two scans of the natural order.
    The order of rows matters: `order_matters`.

    Evidence is a row's own term of the last sum, W (a h): over a bag it adds up to the logits minus c. h knows of the
    rows before it, so a row's evidence is not that of its tile alone.

    The released code: hidden 512, expand 2, states 16, kernel 4, layers 2, rate 10 (5 in its scripts), attention 128,
    not gated, dropout 0 (.25 for survival), Adam's decay on A and D as on all else. Ours are these with rate 10,
    dropout .25 and no decay of A and D; hidden as for every method. `preset` "official" has rate 5 and dropout 0 where
    they are not given. Two details of that code are wrong, and `preset` says whether they are kept ("official") or not
    ("fixed"); each can be set by itself:

    - `wipe_dt_bias` (official): an initialisation of every linear map, run last, also replaces those of Mamba's step
      sizes. dt then begins near .69, and a state forgets within a few rows; as Mamba means it, dt begins between
      .001 and .1.
    - `mask_padding` (fixed): the released code fills the reordered bag with zeros to a multiple of R. These come
      between real rows and step the state. Here there are no such rows at all.

    Where a batch has more than 20,000 rows, what a layer computed is not kept for the backward pass but computed again,
    so that 100,000 rows fit: one more forward pass, the same numbers.

    `weights` and `pooling` are optional parts, see `coverslip.nn.pooling.AttentionPool`; "ggem" is none of them, since
    rows after a layer norm have negative values.
    """

    order_matters = True

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        layers: int = 2,
        rate: int | None = None,
        states: int = 16,
        kernel: int = 4,
        expand: int = 2,
        attention: int = 128,
        gated: bool = False,
        dropout: float | None = None,
        preset: Literal["fixed", "official"] = "fixed",
        wipe_dt_bias: bool | None = None,
        mask_padding: bool | None = None,
        weights: Weights = "softmax",
        pooling: Literal["sum", "low_rank"] = "sum",
        rank: int = 64,
    ) -> None:
        super().__init__()
        official = preset == "official"
        rate = (5 if official else 10) if rate is None else rate
        dropout = (0.0 if official else 0.25) if dropout is None else dropout
        if min(layers, rate, states, kernel, expand) < 1:
            raise ValueError("layers, rate, states, kernel and expand are 1 or more")
        hidden = default_hidden(dim) if hidden is None else hidden
        wipe_dt_bias = official if wipe_dt_bias is None else wipe_dt_bias
        mask_padding = not official if mask_padding is None else mask_padding
        self.width = hidden
        self.projection = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout))
        self.mixers = nn.ModuleList(
            SRMamba(hidden, expand * hidden, states=states, kernel=kernel, rate=rate, mask_padding=mask_padding)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.scores = AttentionScores(hidden, attention, gated=gated)
        self.pool = AttentionPool(hidden, weights=weights, pooling=pooling, rank=rank)
        self.classifier = nn.Linear(self.pool.width, num_outputs)
        self._initialise(wipe_dt_bias=wipe_dt_bias)

    def _initialise(self, *, wipe_dt_bias: bool) -> None:
        """Xavier-normal weights and zero biases in every linear map, save Mamba's step sizes where they are kept."""
        for module in self.modules():
            if isinstance(module, StepSize) and not wipe_dt_bias:
                continue
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h = full(bags.x)  # (m, hidden); the sum over layers stays in full precision
        again = torch.is_grad_enabled() and len(h) > MOST_KEPT
        for mixer in self.mixers:
            h = h + (_recomputed(mixer, h, bags.segments) if again else mixer(h, bags.segments))
        h = full(self.norm(h))
        scores = self.scores(h)
        with torch.autocast(h.device.type, enabled=False):
            pooled = self.pool(scores, h, bags.segments)
            z = pooled.z.flatten(1)  # (b, hidden)
            evidence = self.pool.row_terms(pooled, h, self.classifier.weight.unsqueeze(1))  # (m, outputs)
        return BagOutput(self.classify(z), z, attention=pooled.attention, evidence=evidence)

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        # After that many roundings to half precision, the last and smallest product is not to add another.
        with torch.autocast(z.device.type, enabled=False):
            logits: Tensor = self.classifier(full(z))
        return logits


def _recomputed(mixer: nn.Module, h: Tensor, segments: Segments) -> Tensor:
    """What the mixer makes, keeping only h for the backward pass; a mixer draws no random numbers."""
    made: Tensor = checkpoint(mixer, h, segments, use_reentrant=False, preserve_rng_state=False)
    return made


class SRMamba(nn.Module):
    """Rows (m, width) after two selective scans, of the natural and of the strided order, and a gate."""

    def __init__(self, width: int, inner: int, *, states: int, kernel: int, rate: int, mask_padding: bool) -> None:
        super().__init__()
        self.rate, self.mask_padding = rate, mask_padding
        self.norm = nn.LayerNorm(width)
        self.project_in = nn.Linear(width, 2 * inner, bias=False)
        rank = math.ceil(width / 16)
        self.natural = Scan(inner, rank=rank, states=states, kernel=kernel)
        self.strided = Scan(inner, rank=rank, states=states, kernel=kernel)
        self.project_out = nn.Linear(inner, width, bias=False)

    def forward(self, h: Float[Tensor, "m width"], segments: Segments) -> Float[Tensor, "m width"]:
        u, gate = self.project_in(self.norm(h)).chunk(2, 1)  # (m, inner) each
        place, strided = strided_order(segments, self.rate, padded=not self.mask_padding)
        v = u.new_zeros(strided.num_rows, u.shape[1]).index_copy(0, place, u)
        s = self.natural(u, segments) + self.strided(v, strided)[place]
        return self.project_out(s * functional.silu(full(gate)))


class Scan(nn.Module):
    """Rows (m, inner) after a causal convolution, SiLU and a selective scan with its skip."""

    def __init__(self, inner: int, *, rank: int, states: int, kernel: int) -> None:
        super().__init__()
        self.sizes = [rank, states, states]
        # A depthwise convolution begins evenly within one over the root of its taps, as torch's own.
        self.filter = nn.Parameter(torch.empty(inner, kernel).uniform_(-(kernel**-0.5), kernel**-0.5))
        self.filter_bias = nn.Parameter(torch.empty(inner).uniform_(-(kernel**-0.5), kernel**-0.5))
        self.parameters_of_rows = nn.Linear(inner, sum(self.sizes), bias=False)
        self.step_size = StepSize(rank, inner)
        # One axis, so that weight decay leaves it alone: a decayed logarithm would draw every A towards -1.
        self.log_A = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner))
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, u: Float[Tensor, "m inner"], segments: Segments) -> Float[Tensor, "m inner"]:
        v = functional.silu(causal_conv(u, self.filter, self.filter_bias, segments))
        d, B, C = self.parameters_of_rows(v).split(self.sizes, 1)  # (m, rank), (m, states), (m, states)
        dt = functional.softplus(full(self.step_size(d)))  # (m, inner)
        A = -self.log_A.exp().unflatten(0, (u.shape[1], -1))  # (inner, states)
        return torch.addcmul(selective_scan(v, dt, A, B, C, segments), full(v), self.skip)


class StepSize(nn.Linear):
    """The linear map before the softplus of dt, begun so that dt lies between .001 and .1, evenly in its logarithm."""

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -(self.in_features**-0.5), self.in_features**-0.5)
        with torch.no_grad():
            dt = torch.exp(torch.empty_like(self.bias).uniform_(math.log(1e-3), math.log(1e-1)))
            self.bias.copy_(dt.expm1().log())  # softplus of it is dt


def strided_order(segments: Segments, rate: int, *, padded: bool) -> tuple[Int64[Tensor, m], Segments]:
    """Where each row comes to lie when every bag is read in the order 0, R, 2R, ..., 1, R + 1, ..., and the new bags.

    `padded` reads each bag as if it were filled up to a multiple of R, so that empty places remain: those of the last
    row of the table that a bag makes when it is written R to a row. More of them, after its last row, go to the last
    bag; their number is then known without waiting for the device.
    """
    lengths, rows = segments.lengths, len(segments.ids)
    p, n = position(segments), lengths[segments.ids]
    column, row = p % rate, p // rate
    if not padded:
        before = column * (n // rate) + torch.minimum(column, n % rate)
        return segments.offsets[segments.ids] + before + row, segments
    table_rows = (lengths + rate - 1) // rate
    ends = (table_rows * rate).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    place = starts[segments.ids] + column * table_rows[segments.ids] + row
    size = rows + len(segments) * (rate - 1)
    return place, Segments(torch.cat([starts, ends.new_full((1,), size)]), size)
