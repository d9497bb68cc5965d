"""Which rows of packed bags a training step leaves out: random, the largest or smallest by a score, or set aside.

Everything is a comparison of ranks inside a bag, so nothing is copied to the host. Chance comes from torch's default
generators, which `fit` seeds for every step. Counts are those of Tang et al., https://arxiv.org/abs/2307.15254.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from coverslip.nn.segments import Segments, full, random_rank, rank, total

_PARTS = 1_000_000


def share(lengths: Int64[Tensor, b], ratio: float) -> Int64[Tensor, b]:
    """ceil(ratio * length) of each bag, for ratios from 0 to 1 in millionths: whole numbers, so exact on any device."""
    return -(-lengths * round(ratio * _PARTS) // _PARTS)


def random_rows(segments: Segments, ratio: float) -> Bool[Tensor, m]:
    """True for ceil(ratio * rows) rows of each bag, drawn evenly."""
    everyone = torch.ones(segments.num_rows, dtype=torch.bool, device=segments.offsets.device)
    return _drawn(everyone, share(segments.lengths, ratio), segments)


def largest_rows(
    scores: Float[Tensor, "m ..."], segments: Segments, ratio: float, *, pick: float = 1.0
) -> Bool[Tensor, m]:
    """True for rows among the largest of each bag; negate the scores for the smallest.

    The ceil(N ratio / pick) largest of N rows are looked at, and an evenly drawn share `pick` of them, rounded up, is
    marked: with pick 1 the very largest. Where ratio / pick is over 1, that is a share `ratio` of all rows. Several
    columns of scores (heads) are fused by `votes`.
    """
    if ratio > pick:
        pick = ratio
    pool = share(segments.lengths, ratio / pick)
    if scores.ndim > 1:
        scores = scores[:, 0] if scores.shape[1] == 1 else votes(scores, segments, pool)
    in_pool = rank(scores, segments) < pool[segments.ids]
    return in_pool if pick == 1 else _drawn(in_pool, share(pool, pick), segments)


def votes(scores: Float[Tensor, "m h"], segments: Segments, count: Int64[Tensor, b]) -> Int64[Tensor, m]:
    """A score whose largest rows are those that most heads have among their `count` largest of a bag.

    Of rows with as many votes the one with the larger mean over heads comes first; the released code leaves it open.
    """
    given = (rank(scores, segments) < count[segments.ids].unsqueeze(1)).sum(1)
    return given * segments.num_rows - rank(full(scores).mean(1), segments)


def spare_one(masked: Bool[Tensor, m], segments: Segments) -> Bool[Tensor, m]:
    """The mask with one row, drawn evenly, let off in each bag that would have no rows left."""
    nothing_left = total((~masked).to(torch.int64), segments) == 0
    return masked & ~_drawn(masked, nothing_left.to(torch.int64), segments)


def set_aside(kept: Bool[Tensor, m], segments: Segments, keep: float) -> tuple[Bool[Tensor, m], Bool[Tensor, m]]:
    """The kept rows in two: floor(L keep) of a bag's L, but at least one, drawn evenly, and the rest."""
    left = total(kept.to(torch.int64), segments)
    count = (left - share(left, 1 - keep)).clamp(min=1)
    stays = _drawn(kept, count, segments)
    return stays, kept & ~stays


def class_score(u: Float[Tensor, "m k"]) -> Float[Tensor, m]:
    """How much each row speaks for one class over the others: -sum_c expm1(u_c - max u), from 0 to K - 1.

    `u` is what a row adds to its bag's logits. The order is that of max_c softmax(u)_c (Tang et al. 2025,
    https://arxiv.org/abs/2509.11526), which is useless by itself: u goes with 1 / N, so the probabilities of the rows
    of a large bag differ in their last bits. With a single output the other side is 0: the order is that of |u|.
    """
    u = full(u)
    if u.shape[1] == 1:
        u = torch.cat([u, torch.zeros_like(u)], 1)
    return -torch.expm1(u - u.amax(1, keepdim=True)).sum(1)


def _drawn(among: Bool[Tensor, m], count: Int64[Tensor, b], segments: Segments) -> Bool[Tensor, m]:
    """True for `count` rows of each bag, drawn evenly from those where `among`; all of these where they are fewer."""
    # Those that may be drawn come before the others, in random order.
    order = random_rank(segments) + among * segments.num_rows
    return among & (rank(order, segments) < count[segments.ids])
