"""Nyström attention beside exact attention and beside a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coverslip.nn.nystrom import NystromAttention, pseudo_inverse

DIM = 12


def build(**options: int | float | bool) -> NystromAttention:
    torch.manual_seed(0)
    return NystromAttention(DIM, **{"heads": 3, **options}).double().eval()


def rows(num: int, seed: int = 1) -> Tensor:
    return torch.randn(num, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def slowly(attention: NystromAttention, x: Tensor, *, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The output (n, dim) and the weights (heads, n, n) by loops over heads and rows, with numpy's own inverse."""
    num, e = len(x), attention.width
    landmarks = attention.landmarks
    q, k, v = (attention.qkv(x).detach().numpy()).reshape(num, 3, attention.heads, e).transpose(1, 2, 0, 3)
    runs = [[p for p in range(num) if j * num // landmarks <= p < (j + 1) * num // landmarks] for j in range(landmarks)]
    mixed, all_weights = [], []
    for head in range(attention.heads):
        if exact:
            weights = softmax(q[head] @ k[head].T / e**0.5)
        else:
            ql = np.stack([np.mean([q[head][p] for p in run], axis=0) for run in runs])
            kl = np.stack([np.mean([k[head][p] for p in run], axis=0) for run in runs])
            a1, a2, a3 = (softmax(a @ b.T / e**0.5) for a, b in ((q[head], kl), (ql, kl), (ql, k[head])))
            weights = a1 @ np.linalg.pinv(a2) @ a3
        out = weights @ v[head]
        if attention.convolution is not None:
            kernel = attention.convolution.weight[head, 0].detach().numpy()
            for p in range(num):
                for shift in range(-(len(kernel) // 2), len(kernel) // 2 + 1):
                    if 0 <= p + shift < num:
                        out[p] += kernel[shift + len(kernel) // 2] * v[head][p + shift]
        mixed.append(out)
        all_weights.append(weights)
    out = np.concatenate(mixed, axis=1) @ attention.out.weight.detach().numpy().T + attention.out.bias.detach().numpy()
    return out, np.stack(all_weights)


@pytest.mark.parametrize("num", [7, 10, 25])
def test_attention_through_landmarks_is_the_formula_of_the_paper(num: int) -> None:
    attention = build(landmarks=5, kernel=3, iterations=30)
    x = rows(num)
    expected, weights = slowly(attention, x)
    assert np.allclose(attention(x, [num]).detach(), expected, atol=1e-9)
    first = attention.first(x, [num])
    assert np.allclose(first.weights.detach(), weights[:, 0].T, atol=1e-9)


@pytest.mark.parametrize("num", [1, 4, 5])
@pytest.mark.parametrize("kernel", [0, 3])
def test_no_more_rows_than_landmarks_is_exact_attention(num: int, kernel: int) -> None:
    attention = build(landmarks=5, kernel=kernel)
    x = rows(num)
    expected, weights = slowly(attention, x, exact=True)
    assert np.allclose(attention(x, [num]).detach(), expected, atol=1e-12)
    assert np.allclose(attention.first(x, [num]).weights.detach(), weights[:, 0].T, atol=1e-12)


def test_a_landmark_a_row_is_exact_attention_in_the_released_way_too() -> None:
    attention = build(landmarks=20, released=True, iterations=12)
    x = rows(20)
    expected, _ = slowly(attention, x, exact=True)
    assert np.allclose(attention(x, [20]).detach(), expected, atol=1e-3)


def test_the_released_way_puts_zeros_in_front_that_attend() -> None:
    attention = build(landmarks=5, released=True)
    x = rows(13)
    padded = torch.cat([x.new_zeros(2, DIM), x])
    assert torch.allclose(attention(x, [13]), attention(padded, [15])[2:], atol=1e-12)
    assert not torch.allclose(attention(x, [13]), build(landmarks=5)(x, [13]), atol=1e-4)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("num", [1, 4, 5, 6, 23, 40])
def test_the_first_row_alone_is_the_first_of_all(num: int, released: bool) -> None:
    attention = build(landmarks=5, kernel=7, released=released)
    x = rows(num)
    first = attention.first(x, [num])
    assert torch.allclose(first.out[0], attention(x, [num])[0], atol=1e-12)
    rebuilt = attention.out((first.weights.unsqueeze(2) * first.values).sum(0).flatten())
    near = attention._neighbours(first.values.transpose(0, 1).unsqueeze(0))[0, :, 0]
    assert torch.allclose(rebuilt + attention.out.weight @ near.flatten(), first.out[0], atol=1e-12)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("marked", [1, 7, 21])
def test_the_row_that_the_first_looks_for_has_the_largest_weight(marked: int, released: bool) -> None:
    attention = build(landmarks=5, released=released)
    with torch.no_grad():
        # Queries and keys are the rows themselves.
        attention.qkv.weight.copy_(torch.eye(DIM).repeat(3, 1))
    x = 0.1 * rows(22)
    x[0] = torch.ones(DIM)
    x[marked] = 30 * torch.ones(DIM)
    weights = attention.first(x, [22]).weights.mean(1)
    assert int(weights.argmax()) == marked


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("lengths", [[3, 1, 20, 45, 50, 120, 4], [30, 30], [51, 50]])
def test_bags_beside_each_other_are_each_as_alone(lengths: list[int], released: bool) -> None:
    attention = build(landmarks=50, kernel=33, released=released)
    x = rows(sum(lengths)).requires_grad_()

    def told(x: Tensor, lengths: list[int]) -> list[Tensor]:
        first = attention.first(x, lengths)
        return [attention(x, lengths), first.out, first.weights, first.values]

    def gradients(values: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad([v.sin().sum() for v in values], [x, *attention.parameters()])

    together = told(x, lengths)
    alone = [torch.cat(parts) for parts in zip(*(told(bag, [len(bag)]) for bag in x.split(lengths)), strict=True)]
    for a, b in zip([*together, *gradients(together)], [*alone, *gradients(alone)], strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("num", [1, 16, 46, 64, 65, 150])
def test_the_convolution_is_that_of_torch_in_float32_too(num: int) -> None:
    attention = build(kernel=33).float()
    assert attention.convolution is not None
    weight = attention.convolution.weight
    v = rows(8 * num).reshape(2, 3, num, 16).float().requires_grad_()
    exact_weight, exact_v = (values.detach().double().requires_grad_() for values in (weight, v))
    apart = F.conv1d(exact_v.permute(0, 3, 1, 2).flatten(0, 1), exact_weight, padding=16, groups=3)
    expected = apart.unflatten(0, (2, 16)).permute(0, 2, 3, 1)
    found = attention._neighbours(v)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(found.sin().sum(), [weight, v]),
        torch.autograd.grad(expected.sin().sum(), [exact_weight, exact_v]),
        strict=True,
    ):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4)


def test_the_inverse_of_one_matrix_does_not_depend_on_the_others() -> None:
    a = torch.softmax(3 * torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), -1)
    together = pseudo_inverse(a)
    assert torch.equal(together[:1], pseudo_inverse(a[:1]))
    assert torch.allclose(pseudo_inverse(a, iterations=30) @ a, torch.eye(6, dtype=torch.float64), atol=1e-8)


def test_a_kernel_of_even_width_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        NystromAttention(DIM, kernel=4)
