from __future__ import annotations

import torch

from coverslip.nn.layers import AttentionScores, Standardise


def test_standardised_rows_have_mean_zero_and_sd_one() -> None:
    x = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([5.0, 0.0, -1e5])
    layer = Standardise(3).double()
    layer.set(x.mean(0), x.std(0, correction=0))
    z = layer(x)
    assert z.mean(0).abs().max() < 1e-6
    assert (z.std(0, correction=0) - 1).abs().max() < 1e-6


def test_a_constant_dimension_is_centred_and_not_blown_up() -> None:
    layer = Standardise(2)
    layer.set(torch.tensor([7.0, 1000.0]), torch.tensor([0.0, 1e-5]))
    assert layer(torch.tensor([[7.0, 1000.001]])).abs().max() < 0.01


def test_half_precision_rows_are_standardised_in_float32() -> None:
    layer = Standardise(1)
    layer.set(torch.tensor([1000.0]), torch.tensor([0.001]))
    assert layer(torch.tensor([[1000.5]], dtype=torch.float16)).dtype == torch.float32


def test_gated_scores_are_the_formula() -> None:
    torch.manual_seed(0)
    layer = AttentionScores(4, 3, heads=2)
    h = torch.randn(5, 4)
    assert layer.u is not None
    v = torch.tanh(h @ layer.v.weight.T + layer.v.bias)
    u = torch.sigmoid(h @ layer.u.weight.T + layer.u.bias)
    assert torch.allclose(layer(h), (v * u) @ layer.w.weight.T + layer.w.bias, atol=1e-6)
