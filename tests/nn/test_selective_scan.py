"""The scan against a loop over rows, channels and states that anyone can read, in float64."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coverslip.nn import selective_scan as module
from coverslip.nn.segments import Segments
from coverslip.nn.selective_scan import causal_conv, scan_bag_by_bag, selective_scan

E, S = 3, 2
lengths_of_bags = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def inputs(num_rows: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x, dt, A, B, C."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    dt, A = torch.rand(num_rows, E, generator=generator, dtype=dtype), -normal(E, S).exp()
    return normal(num_rows, E), dt, A, normal(num_rows, S), normal(num_rows, S)


def loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, segments: Segments) -> Tensor:
    """The definition, a number at a time."""
    y = torch.zeros(x.shape, dtype=torch.float64)
    for start, end in zip(segments.offsets.tolist(), segments.offsets[1:].tolist()):
        for e in range(x.shape[1]):
            h = [0.0] * A.shape[1]
            for t in range(start, end):
                for s in range(A.shape[1]):
                    h[s] = math.exp(float(dt[t, e] * A[e, s])) * h[s] + float(dt[t, e] * B[t, s] * x[t, e])
                y[t, e] = sum(float(C[t, s]) * h[s] for s in range(A.shape[1]))
    return y


def kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """What the kernel of `mamba_ssm` takes and gives: one sequence, channels before rows."""
    segments = Segments.of_lengths([x.shape[2]])
    rows = (values[0].t() for values in (x, dt))
    return loop(*rows, A, B[0].t(), C[0].t(), segments).t()[None]


@settings(max_examples=40, deadline=None)
@given(lengths=lengths_of_bags, block=st.integers(1, 70), two_level=st.booleans(), seed=st.integers(0, 1000))
def test_the_scan_is_the_loop_whatever_the_block(lengths: list[int], block: int, two_level: bool, seed: int) -> None:
    segments = Segments.of_lengths(lengths)
    values = inputs(segments.num_rows, seed)
    y = selective_scan(*values, segments, block=block, two_level=two_level)
    assert torch.allclose(y, loop(*values, segments), rtol=0, atol=1e-12)


def test_single_precision_stays_near_the_loop() -> None:
    segments = Segments.of_lengths([1, 150, 30])
    values = inputs(segments.num_rows, dtype=torch.float32)
    exact = loop(*(v.double() for v in values), segments)
    for two_level in (False, True):
        y = selective_scan(*values, segments, block=64, two_level=two_level)
        assert y.dtype == torch.float32
        assert torch.allclose(y.double(), exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("two_level", [False, True])
@pytest.mark.parametrize("block", [1, 4, 9, 100])
def test_gradients_are_those_of_finite_differences(block: int, two_level: bool) -> None:
    segments = Segments.of_lengths([1, 7, 3])
    values = [v.requires_grad_() for v in inputs(11)]
    assert torch.autograd.gradcheck(lambda *v: selective_scan(*v, segments, block=block, two_level=two_level), values)


def gradients(values: tuple[Tensor, ...], segments: Segments, block: int, two_level: bool) -> list[Tensor]:
    leaves = [v.clone().requires_grad_() for v in values]
    y = selective_scan(*leaves, segments, block=block, two_level=two_level)
    return list(torch.autograd.grad(y.square().sum(), leaves))


def test_gradients_do_not_depend_on_the_block() -> None:
    segments = Segments.of_lengths([40, 1, 90, 69])
    values = inputs(200)
    expected = gradients(values, segments, 1, False)
    for block, two_level in [(7, False), (64, False), (64, True), (81, True), (1000, False), (1000, True)]:
        for found, right in zip(gradients(values, segments, block, two_level), expected):
            assert torch.allclose(found, right, rtol=1e-11, atol=1e-11)


def test_bags_in_a_batch_do_not_see_each_other() -> None:
    lengths = [5, 1, 70, 24]
    segments = Segments.of_lengths(lengths)
    x, dt, A, B, C = inputs(100)
    together = selective_scan(x, dt, A, B, C, segments)
    rows = zip(*(v.split(lengths) for v in (x, dt, B, C)))
    alone = [selective_scan(x_, dt_, A, B_, C_, Segments.of_lengths([len(x_)])) for x_, dt_, B_, C_ in rows]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-12)


def test_what_is_forgotten_at_once_leaves_each_row_by_itself() -> None:
    x, dt, A, B, C = inputs(20)
    y = selective_scan(x, dt, A * 1e6, B, C, Segments.of_lengths([20]))
    assert torch.allclose(y, dt * x * (B * C).sum(1, keepdim=True), rtol=0, atol=1e-12)


def test_a_kernel_for_one_sequence_is_called_for_each_bag() -> None:
    segments = Segments.of_lengths([1, 9, 4])
    values = inputs(14)
    assert torch.allclose(scan_bag_by_bag(kernel, *values, segments), loop(*values, segments), rtol=0, atol=1e-12)


def test_the_cuda_kernel_is_left_alone_on_a_cpu() -> None:
    segments = Segments.of_lengths([6])
    with patch.object(module, "selective_scan_fn") as kernel_of_cuda:
        selective_scan(*inputs(6, dtype=torch.float32), segments)
    kernel_of_cuda.assert_not_called()


def test_half_precision_is_scanned_in_single() -> None:
    segments = Segments.of_lengths([30])
    values = inputs(30, dtype=torch.float32)
    half = tuple(v.bfloat16() for v in values)
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(*half, segments)
    assert y.dtype == torch.float32
    assert torch.equal(y, selective_scan(*(v.float() for v in half), segments))


def looked_back(x: Tensor, weight: Tensor, bias: Tensor, lengths: list[int]) -> Tensor:
    bags, taps = [], weight.shape[1]
    for bag in x.split(lengths):
        y = bias.expand(len(bag), -1).clone()
        for t in range(len(bag)):
            for j in range(taps):
                if t - (taps - 1) + j >= 0:
                    y[t] += weight[:, j] * bag[t - (taps - 1) + j]
        bags.append(y)
    return torch.cat(bags)


@settings(max_examples=30, deadline=None)
@given(lengths=lengths_of_bags, taps=st.integers(1, 5), seed=st.integers(0, 1000))
def test_the_convolution_looks_back_inside_its_bag_alone(lengths: list[int], taps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    segments = Segments.of_lengths(lengths)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((sum(lengths), E), (E, taps), (E,))
    )
    expected = looked_back(x, weight, bias, lengths)
    assert torch.allclose(causal_conv(x, weight, bias, segments), expected, rtol=0, atol=1e-12)


def test_the_convolution_has_the_gradients_of_finite_differences() -> None:
    segments = Segments.of_lengths([1, 6, 2])
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((9, E), (E, 4), (E,))
    ]
    assert torch.autograd.gradcheck(lambda *v: causal_conv(*v, segments), values)
