"""Nyström attention beside exact attention and beside a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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
    assert np.allclose(attention(x).detach(), expected, atol=1e-9)
    first = attention.first(x)
    assert np.allclose(first.weights.detach(), weights[:, 0].T, atol=1e-9)


@pytest.mark.parametrize("num", [1, 4, 5])
@pytest.mark.parametrize("kernel", [0, 3])
def test_no_more_rows_than_landmarks_is_exact_attention(num: int, kernel: int) -> None:
    attention = build(landmarks=5, kernel=kernel)
    x = rows(num)
    expected, weights = slowly(attention, x, exact=True)
    assert np.allclose(attention(x).detach(), expected, atol=1e-12)
    assert np.allclose(attention.first(x).weights.detach(), weights[:, 0].T, atol=1e-12)


def test_a_landmark_a_row_is_exact_attention_in_the_released_way_too() -> None:
    attention = build(landmarks=20, released=True, iterations=12)
    x = rows(20)
    expected, _ = slowly(attention, x, exact=True)
    assert np.allclose(attention(x).detach(), expected, atol=1e-3)


def test_the_released_way_puts_zeros_in_front_that_attend() -> None:
    attention = build(landmarks=5, released=True)
    x = rows(13)
    padded = torch.cat([x.new_zeros(2, DIM), x])
    assert torch.allclose(attention(x), attention(padded)[2:], atol=1e-12)
    assert not torch.allclose(attention(x), build(landmarks=5)(x), atol=1e-4)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("num", [1, 4, 5, 6, 23, 40])
def test_the_first_row_alone_is_the_first_of_all(num: int, released: bool) -> None:
    attention = build(landmarks=5, kernel=7, released=released)
    x = rows(num)
    first = attention.first(x)
    assert torch.allclose(first.out, attention(x)[0], atol=1e-12)
    rebuilt = attention.out((first.weights.unsqueeze(2) * first.values).sum(0).flatten())
    assert torch.allclose(
        rebuilt + attention.out.weight @ attention._neighbours(first.values.transpose(0, 1))[:, 0].flatten(),
        first.out,
        atol=1e-12,
    )


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
    weights = attention.first(x).weights.mean(1)
    assert int(weights.argmax()) == marked


def test_the_inverse_of_one_matrix_does_not_depend_on_the_others() -> None:
    a = torch.softmax(3 * torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), -1)
    together = pseudo_inverse(a)
    assert torch.equal(together[:1], pseudo_inverse(a[:1]))
    assert torch.allclose(pseudo_inverse(a, iterations=30) @ a, torch.eye(6, dtype=torch.float64), atol=1e-8)


def test_a_kernel_of_even_width_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        NystromAttention(DIM, kernel=4)
