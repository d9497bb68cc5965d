"""The two sequence operations of Mamba over packed bags: a causal convolution and a selective scan.

Both begin anew at the first row of every bag, so one call serves a whole batch. A selective scan has a state of S
numbers for each of E channels; written out, the states of M rows are M x S x E numbers, 1 GB for 16,000 rows of the
usual size. Here they are made block by block, forward and again backward, and only the state before each block is kept.

Source: Gu and Dao 2023, Mamba, https://arxiv.org/abs/2312.00752. On CUDA the kernel of the package `mamba_ssm` is used
where it can be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from coverslip.nn.segments import Segments, full, position
from coverslip.nn.threads import threads_for

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
except ImportError:
    selective_scan_fn = None

# Rows whose states are held at once. On a CPU a block stays in the cache: measured on 2,048 x 1024 x 16 and one core,
# 26 to 28 µs a row for 16 to 64 rows, 34 for 4 and 40 for 128. A GPU wants few and large steps: 64 chunks of 64 rows.
_BLOCK = {"cpu": 32, "cuda": 4096}

Solver = Callable[[Tensor, Tensor, Tensor, bool], None]


def causal_conv(
    x: Float[Tensor, "m e"], weight: Float[Tensor, "e k"], bias: Float[Tensor, e], segments: Segments
) -> Float[Tensor, "m e"]:
    """Each channel under its own filter of K taps: y_t = bias + sum over j of weight[j] x_(t - K + 1 + j).

    Rows before the first of a bag count as zeros.
    """
    gap = weight.shape[1] - 1
    # As many rows of zeros before each bag as the filter looks back: then one convolution keeps bags apart.
    place = torch.arange(len(x), device=x.device) + gap * (segments.ids + 1)
    apart = x.new_zeros(len(x) + gap * len(segments), x.shape[1]).index_copy(0, place, x)
    y = functional.conv1d(apart.t().unsqueeze(0), weight.unsqueeze(1), bias, groups=x.shape[1])[0].t()
    return y[place - gap]


def selective_scan(
    x: Float[Tensor, "m e"],
    dt: Float[Tensor, "m e"],
    A: Float[Tensor, "e s"],
    B: Float[Tensor, "m s"],
    C: Float[Tensor, "m s"],
    segments: Segments,
    *,
    block: int | None = None,
    two_level: bool | None = None,
) -> Float[Tensor, "m e"]:
    """What each row reads from a state that its bag's rows have written, one after the other, in at least float32.

        h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t          for each channel e a state of s numbers, 0 before a bag
        y_t = C_t h_t

    dt is positive and A negative. Mamba's skip D x and its gate are the caller's.

    `block` rows are held with all their states at a time; it changes memory and speed, not the result. `two_level`
    walks through a block in about 2 sqrt(block) large steps in place of `block` small ones: all chunks of it at once
    from a state of zero, then chunk by chunk what came in from before. Both default to what suits the device.
    """
    x, dt, A, B, C = (full(values) for values in (x, dt, A, B, C))
    if selective_scan_fn is not None and x.is_cuda and x.dtype == torch.float32:
        return scan_bag_by_bag(selective_scan_fn, x, dt, A, B, C, segments)
    if block is None:
        block = _BLOCK.get(x.device.type, _BLOCK["cuda"])
    if two_level is None:
        two_level = x.device.type != "cpu"
    first = position(segments) == 0
    y: Tensor = _Scan.apply(x, dt, A, B, C, first, block, _leap if two_level else _walk)
    return y


def scan_bag_by_bag(
    kernel: Callable[..., Tensor],
    x: Float[Tensor, "m e"],
    dt: Float[Tensor, "m e"],
    A: Float[Tensor, "e s"],
    B: Float[Tensor, "m s"],
    C: Float[Tensor, "m s"],
    segments: Segments,
) -> Float[Tensor, "m e"]:
    """The scan by a kernel that cannot begin anew inside a sequence, as `mamba_ssm`'s: a call for each bag.

    The kernel takes x, dt (1, e, n), A (e, s), B, C (1, s, n). Cutting the bags apart waits for the device once.
    """
    cut = segments.lengths.tolist()
    bags = zip(*(values.split(cut) for values in (x, dt, B, C)))
    outputs = [kernel(u, step, A, b, c) for u, step, b, c in (map(_as_sequence, bag) for bag in bags)]
    return torch.cat([y[0].t() for y in outputs])


def _as_sequence(rows: Float[Tensor, "n e"]) -> Float[Tensor, "1 e n"]:
    return rows.t().contiguous().unsqueeze(0)


class _Scan(torch.autograd.Function):
    """The scan, block by block. States lie as (rows, s, e), so that sums over s and over e both run along memory."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, first: Tensor, block: int, solve: Solver
    ) -> Tensor:
        A = A.t().contiguous()  # (s, e)
        y = torch.empty_like(x)
        parts = _parts(len(x), block)
        # One tensor: states kept one by one would lie between blocks given back, whose memory could not be used again.
        before = A.new_zeros(len(parts) + 1, *A.shape)
        with _at_work(x, A, block):
            for place, part in enumerate(parts):
                decay = _decay(dt[part], A, first[part])  # (t, s, e)
                states = B[part].unsqueeze(2) * (dt[part] * x[part]).unsqueeze(1)
                solve(decay, states, before[place], False)
                y[part] = torch.bmm(C[part].unsqueeze(1), states).squeeze(1)
                before[place + 1] = states[-1]
        ctx.save_for_backward(x, dt, A, B, C, first, before)
        ctx.block, ctx.solve = block, solve
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, first, every_before = ctx.saved_tensors  # A is (s, e)
        dx, ddt, dA, dB, dC = (torch.zeros_like(v) for v in (x, dt, A, B, C))
        # What later blocks say about the state that this block ends with.
        later = torch.zeros_like(A)
        with _at_work(x, A, ctx.block):
            for part, before in reversed(list(zip(_parts(len(x), ctx.block), every_before[:-1]))):
                decay = _decay(dt[part], A, first[part])
                inflow = dt[part] * x[part]
                states = torch.cat([before.unsqueeze(0), B[part].unsqueeze(2) * inflow.unsqueeze(1)])  # (1 + t, s, e)
                ctx.solve(decay, states[1:], before, False)
                # dh_t = C_t dy_t + exp(dt_(t+1) A) dh_(t+1)
                dh = C[part].unsqueeze(2) * dy[part].unsqueeze(1)
                dh[-1] += later
                ctx.solve(decay[1:], dh[:-1], dh[-1], True)
                dC[part] = torch.bmm(states[1:], dy[part].unsqueeze(2)).squeeze(2)
                dB[part] = torch.bmm(dh, inflow.unsqueeze(2)).squeeze(2)
                dinflow = torch.bmm(B[part].unsqueeze(1), dh).squeeze(1)
                dh *= decay
                later.copy_(dh[0])
                dh *= states[:-1]  # now the gradient of the exponent dt A
                dA += torch.mul(dh, dt[part].unsqueeze(1), out=decay).sum(0)
                ddt[part] = torch.mul(dh, A, out=decay).sum(1) + dinflow * x[part]
                dx[part] = dinflow * dt[part]
        return dx, ddt, dA.t(), dB, dC, None, None, None


@contextmanager
def _at_work(x: Tensor, A: Tensor, block: int) -> Iterator[None]:
    """Full precision, and one thread where a block is too small to be shared."""
    with torch.autocast(x.device.type, enabled=False), threads_for(min(block, len(x)) * A.numel()):
        yield


def _parts(num_rows: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, num_rows)) for start in range(0, num_rows, block)]


def _decay(dt: Float[Tensor, "t e"], A: Float[Tensor, "s e"], first: Bool[Tensor, t]) -> Float[Tensor, "t s e"]:
    """exp(dt A), which is 0 where a bag begins: nothing is left of the state before it."""
    endless = dt.masked_fill(first.unsqueeze(1), torch.inf)
    return (endless.unsqueeze(1) * A).exp_()


def _walk(decay: Tensor, states: Tensor, state: Tensor, backwards: bool) -> None:
    """Turns what flows in (t, s, e) into states, in place: states_t += decay_t state_(t-1), row by row."""
    steps = list(zip(decay.unbind(0), states.unbind(0)))
    for keep, now in reversed(steps) if backwards else steps:
        state = now.addcmul_(keep, state)


def _leap(decay: Tensor, states: Tensor, state: Tensor, backwards: bool) -> None:
    """The same as `_walk` in about 2 sqrt(t) steps, each over many rows."""
    if backwards:
        turned = states.flip(0)
        _leap(decay.flip(0), turned, state, False)
        states.copy_(turned.flip(0))
        return
    size = isqrt(len(states))
    whole = size * (len(states) // size) if size else 0
    if whole:
        chunk_decay, chunks = (values[:whole].unflatten(0, (-1, size)) for values in (decay, states))
        # All chunks at once, as if nothing had come before them.
        for t in range(1, size):
            chunks[:, t].addcmul_(chunk_decay[:, t], chunks[:, t - 1])
        # Then what is left, in each row, of the state before its chunk.
        left = chunk_decay.cumprod(1)
        for chunk, kept in zip(chunks, left):
            chunk.addcmul_(kept, state)
            state = chunk[-1]
    _walk(decay[whole:], states[whole:], state, False)
