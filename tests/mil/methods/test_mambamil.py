"""What is true of MambaMIL alone: its scans, its two orders, its presets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.mil import Bags, build_aggregator
from coverslip.mil.methods import mambamil
from coverslip.mil.methods.mambamil import MambaMil, Scan, SRMamba, StepSize, strided_order
from coverslip.nn.segments import Segments, total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags

SMALL = {"hidden": 16, "layers": 2, "states": 3, "rate": 4}


def build(**options: Any) -> MambaMil:
    torch.manual_seed(0)
    method = build_aggregator("mambamil", DIM, 3, {**SMALL, **options}).double().eval()
    assert isinstance(method, MambaMil)
    return method


@pytest.mark.parametrize("options", [{"preset": "official"}, {"rate": 1, "layers": 1}, {"rate": 50, "gated": True}])
def test_every_kind_keeps_the_contract(options: dict[str, Any]) -> None:
    check_aggregator("mambamil", **{**SMALL, **options})


def numbers(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def layer_norm(h: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = h - h.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * weight + bias


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def slow_scan(u: np.ndarray, p: dict[str, np.ndarray], branch: str, states: int) -> np.ndarray:
    """One branch over one bag, row by row."""
    p = {name.removeprefix(f"{branch}."): value for name, value in p.items() if name.startswith(branch)}
    taps, rank = p["filter"].shape[1], p["step_size.weight"].shape[1]
    A = -np.exp(p["log_A"]).reshape(-1, states)
    h, y = np.zeros_like(A), np.zeros_like(u)
    for t in range(len(u)):
        seen = [(j, t - taps + 1 + j) for j in range(taps) if t - taps + 1 + j >= 0]
        v = silu(p["filter_bias"] + sum(p["filter"][:, j] * u[row] for j, row in seen))
        d, B, C = np.split(p["parameters_of_rows.weight"] @ v, [rank, rank + states])
        dt = np.log1p(np.exp(p["step_size.weight"] @ d + p["step_size.bias"]))
        h = np.exp(dt[:, None] * A) * h + (dt * v)[:, None] * B
        y[t] = h @ C + p["skip"] * v
    return y


def slow_srmamba(mixer: SRMamba, h: np.ndarray, *, padded: bool) -> np.ndarray:
    """SRMamba of one bag as its definition reads, the table of R columns written out."""
    p, rate, states = numbers(mixer), mixer.rate, mixer.natural.sizes[1]
    u, gate = np.split(layer_norm(h, p["norm.weight"], p["norm.bias"]) @ p["project_in.weight"].T, 2, axis=1)
    table = np.full(math.ceil(len(h) / rate) * rate, -1)
    table[: len(h)] = np.arange(len(h))
    order = table.reshape(-1, rate).T.flatten()
    if not padded:
        order = order[order >= 0]
    y = slow_scan(np.where((order >= 0)[:, None], u[order], 0), p, "strided", states)
    back = np.zeros_like(u)
    back[order[order >= 0]] = y[order >= 0]
    return (slow_scan(u, p, "natural", states) + back) * silu(gate) @ p["project_out.weight"].T


@pytest.mark.parametrize("preset", ["fixed", "official"])
@pytest.mark.parametrize("rows", [1, 3, 4, 11])
def test_the_mixer_is_its_definition(preset: str, rows: int) -> None:
    (mixer, _) = build(preset=preset).mixers
    assert isinstance(mixer, SRMamba)
    h = torch.randn(rows, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = mixer(h, Segments.of_lengths([rows]))
    assert np.allclose(found.detach().numpy(), slow_srmamba(mixer, h.numpy(), padded=preset == "official"), atol=1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_padding_steps_the_state_only_where_it_is_kept(padded: bool) -> None:
    """The two agree for as many rows as R divides, and differ behind the first empty place otherwise."""
    kept, left_out = build(mask_padding=False), build(mask_padding=True)
    (bag,) = example_bags((12 if padded else 13,)).unpack()
    assert torch.allclose(kept(bag).logits, left_out(bag).logits, atol=1e-12) is padded


def test_a_rate_of_one_is_two_scans_of_the_natural_order() -> None:
    (mixer, _) = build(rate=1).mixers
    assert isinstance(mixer, SRMamba)
    bags = example_bags()
    h = torch.randn(len(bags.x), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, gate = mixer.project_in(mixer.norm(h)).chunk(2, 1)
    both = mixer.natural(u, bags.segments) + mixer.strided(u, bags.segments)
    expected = mixer.project_out(both * torch.nn.functional.silu(gate))
    assert torch.allclose(mixer(h, bags.segments), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), rate=st.integers(1, 25), padded=st.booleans())
def test_the_strided_order_reads_each_bag_column_by_column(lengths: list[int], rate: int, padded: bool) -> None:
    segments = Segments.of_lengths(lengths)
    place, strided = strided_order(segments, rate, padded=padded)
    expected, starts = [], []
    for start, n in zip(segments.offsets.tolist(), lengths):
        starts.append(len(expected))
        height = -(-n // rate)
        for column in range(rate):
            rows = range(column, height * rate if padded else n, rate)
            expected += [start + row if row < n else -1 for row in rows]
    found = torch.full((strided.num_rows,), -1).scatter_(0, place, torch.arange(segments.num_rows)).tolist()
    assert found[: len(expected)] == expected
    assert set(found[len(expected) :]) <= {-1}
    assert strided.offsets.tolist() == [*starts, len(found)]


def test_without_memory_rows_do_not_see_each_other() -> None:
    """A state that forgets at once, and a filter of one tap, leave every row by itself: the order is the same to it."""
    method = build(kernel=1)
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, Scan):
                module.log_A.fill_(50.0)
    (bag,) = example_bags((9,)).unpack()
    turned = Bags(bag.x.flip(0), bag.offsets, None, bag.slides)
    assert torch.allclose(method(bag).logits, method(turned).logits, atol=1e-12)


def step_sizes(method: MambaMil) -> torch.Tensor:
    biases = [module.bias for module in method.modules() if isinstance(module, StepSize)]
    return torch.nn.functional.softplus(torch.cat(biases).detach())


def test_step_sizes_begin_as_the_preset_says() -> None:
    fixed, official = step_sizes(build(hidden=64)), step_sizes(build(hidden=64, preset="official"))
    assert fixed.min() >= 1e-3 * 0.999 and fixed.max() <= 1e-1 * 1.001
    assert fixed.min() < 2e-3 and fixed.max() > 5e-2, "not spread over the decades"
    assert torch.allclose(official, torch.full_like(official, math.log(2)))
    assert torch.equal(step_sizes(build(hidden=64, preset="official", wipe_dt_bias=False)), fixed)


def test_decay_does_not_touch_what_a_state_forgets_by() -> None:
    method = build()
    logs = [p for name, p in method.named_parameters() if name.endswith(("log_A", "skip"))]
    assert len(logs) == 8 and all(p.ndim == 1 for p in logs)


def test_evidence_adds_up_to_the_logits_without_their_bias() -> None:
    method, bags = build(), example_bags()
    output = method(bags)
    assert output.evidence is not None
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, atol=1e-12)


def test_a_row_is_seen_by_the_rows_behind_it_in_either_order() -> None:
    (mixer, _) = build().mixers
    h = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = h.clone()
    other[4] = h[4].flip(0)
    segments = Segments.of_lengths([8])
    moved = (mixer(h, segments) - mixer(other, segments)).abs().amax(1) > 1e-9
    # Read four to a row, row 4 comes right after row 0 and before 1, 2 and 3; in the natural order 5, 6, 7 are behind.
    assert moved.tolist() == [False, *[True] * 7]


def test_layers_that_are_computed_again_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, method = example_bags(), build(dropout=0.5).train()
    found = []
    for most_kept in (10**6, 0):
        monkeypatch.setattr(mambamil, "MOST_KEPT", most_kept)
        calls = count_scans(monkeypatch)
        torch.manual_seed(1)
        method.zero_grad()
        method(bags).logits.square().sum().backward()
        found.append(([p.grad.clone() for p in method.parameters() if p.grad is not None], len(calls)))
    (kept, once), (again, twice) = found
    assert twice == 2 * once > 0
    assert len(kept) == len(again) > 0
    assert all(torch.equal(a, b) for a, b in zip(kept, again))


def count_scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each scan that is computed."""
    calls: list[int] = []
    scan = mambamil.selective_scan

    def counted(v: torch.Tensor, *others: Any) -> torch.Tensor:
        calls.append(len(v))
        return scan(v, *others)

    monkeypatch.setattr(mambamil, "selective_scan", counted)
    return calls
