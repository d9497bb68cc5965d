"""Time cut into bins: the edges, who was exposed how long in which, and the likelihood of hazards a bin.

A bag's hazard of cause c in bin k is h_kc, the chance that the event comes in that bin for who entered it free of any.
Somebody censored inside a bin was exposed to a part of it; hazards are taken as even inside a bin, so that the chance
to pass the part e of it is (1 - h)^e, and curves between edges follow the same rule. Bins end at quantiles of the
training patients' event times, so that each holds as many events.

Sources: discrete hazards, Tutz and Schmid 2016, https://doi.org/10.1007/978-3-319-28158-2; quantile bins and the
constant hazard inside a bin, Kvamme and Borgan 2021, https://doi.org/10.1007/s10985-021-09532-6.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Half an event and half a survivor a bin, so that a bin without either has a hazard that the network can move.
_PSEUDO = 0.5


def bin_edges(time: Float[Tensor, n], event: Int64[Tensor, n], bins: int) -> Float[Tensor, bins + 1]:
    """0, the quantiles of the event times, and the longest time; even steps where times are too few or too equal."""
    time = time.double()
    last = time.max()
    steps = torch.arange(1, bins, dtype=torch.float64, device=time.device) / bins
    for known in (time[event > 0], time):
        if len(known):
            edges = torch.cat([last.new_zeros(1), torch.quantile(known, steps), last[None]])
            if bool((edges.diff() > 0).all()):
                return edges.float()
    return torch.linspace(0, float(last), bins + 1, device=time.device)


def exposure(time: Float[Tensor, n], edges: Float[Tensor, e]) -> Float[Tensor, "n k"]:
    """The part of each bin that lies before each time, 0 to 1; the last bin goes on beyond its end."""
    part = (time[:, None] - edges[:-1]) / edges.diff()
    return torch.cat([part[:, :-1].clamp(0, 1), part[:, -1:].clamp(min=0)], 1).to(edges.dtype)


def bin_of(time: Float[Tensor, n], edges: Float[Tensor, e]) -> Int64[Tensor, n]:
    """The bin that each time lies in; a time on an edge belongs to the bin that ends there."""
    return torch.searchsorted(edges[1:-1].contiguous(), time.to(edges.dtype).contiguous())


def base_logits(
    time: Float[Tensor, n], event: Int64[Tensor, n], edges: Float[Tensor, e], causes: int
) -> Float[Tensor, "c k"]:
    """The logits of hazards without a network: events over exposure in each bin, by maximum likelihood."""
    k = bin_of(time, edges)
    spent = exposure(time, edges)
    # Who has the event in a bin did not pass it.
    passed = torch.where((event > 0)[:, None] & (torch.arange(spent.shape[1], device=k.device) == k[:, None]), 0, spent)
    events = torch.stack(
        [torch.bincount(k[event == c + 1], minlength=spent.shape[1]).to(spent.dtype) for c in range(causes)]
    )
    return ((events + _PSEUDO) / (passed.sum(0) + _PSEUDO)).log()


def log_hazards(logits: Float[Tensor, "b c k"]) -> tuple[Float[Tensor, "b c k"], Float[Tensor, "b k"]]:
    """log of each cause's hazard in each bin, and log of the chance to pass the bin: a softmax with a zero beside."""
    padded = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1).log_softmax(1)
    return padded[:, :-1], padded[:, -1]


def log_likelihood(
    logits: Float[Tensor, "b c k"], time: Float[Tensor, b], event: Int64[Tensor, b], edges: Float[Tensor, e]
) -> Float[Tensor, b]:
    """The log-likelihood of each bag: bins passed, and the event's cause in its bin where there was one."""
    log_h, log_pass = log_hazards(logits)
    k = bin_of(time, edges)
    spent = exposure(time, edges)
    happened = event > 0
    before = torch.arange(spent.shape[1], device=k.device) < k[:, None]
    passed = torch.where(happened[:, None], before.to(spent.dtype), spent)
    rows = torch.arange(len(k), device=k.device)
    hit = log_h[rows, (event - 1).clamp(min=0), k]
    return (passed * log_pass).sum(1) + torch.where(happened, hit, 0)


def incidence(
    logits: Float[Tensor, "b c k"], grid: Float[Tensor, g], edges: Float[Tensor, e]
) -> Float[Tensor, "b c g"]:
    """The cumulative incidence of each cause at each time of the grid; survival is 1 minus their sum."""
    _, log_pass = log_hazards(logits)
    spent = exposure(grid, edges).to(logits.dtype)  # (g, k)
    entered = torch.cat([torch.zeros_like(log_pass[:, :1]), log_pass.cumsum(1)[:, :-1]], 1)  # log S at a bin's start
    left = -torch.expm1(spent * log_pass[:, None])  # (b, g, k): who leaves in the part of the bin before t
    share = logits.softmax(1)  # of a cause among the events of a bin
    return torch.einsum("bk,bgk,bck->bcg", entered.exp(), left, share)
