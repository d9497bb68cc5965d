"""TransMIL and RRT, whole, against slow numpy: a bag, a head, a row and a place at a time, in float64.

The two have the most moving parts of all methods (landmarks, squares, regions, padding), and a test of each part leaves
open how they are put together. Nothing here is shared with the package but the names of the weights.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coverslip.mil import Aggregator, build_aggregator
from coverslip.testing.aggregators import DIM, example_bags

Array = NDArray[np.float64]
Weights = dict[str, Array]

HEADS, HIDDEN, OUTPUTS = 2, 16, 3
# One row, two, a full square, one more than that, a number of rows that landmarks and regions do not divide.
LENGTHS = (1, 2, 4, 9, 10, 17, 43)


def build(name: str, options: dict[str, int | float | bool | str]) -> tuple[Aggregator, Weights]:
    torch.manual_seed(3)
    method = build_aggregator(name, DIM, OUTPUTS, {"hidden": HIDDEN, "heads": HEADS, **options}).double().eval()
    with torch.no_grad():
        # Norms begin as the identity, which would hide one that is left out.
        for key, value in method.named_parameters():
            if "norm" in key:
                value.add_(0.3 * torch.randn_like(value))
    return method, {key: value.numpy().copy() for key, value in method.state_dict().items()}


def linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1))


def norm(w: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def softmax(s: Array) -> Array:
    """Along the last axis."""
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_head(x: Array) -> list[tuple[Array, Array, Array]]:
    """Queries, keys and values of each head."""
    q, k, v = np.split(x, 3, axis=1)
    return [tuple(part[:, head] for part in (a.reshape(len(x), HEADS, -1) for a in (q, k, v))) for head in range(HEADS)]


# --- TransMIL


def unfinished_inverse(a: Array, scale: float, iterations: int) -> Array:
    z, one = a.T / scale, np.eye(len(a))
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return z


def nystrom(w: Weights, name: str, x: Array, landmarks: int, iterations: int, official: bool) -> tuple[Array, Array]:
    """The rows after attention, and the weights of all rows in the first one (heads, n)."""
    n, mixed, first = len(x), [], []
    heads = by_head(linear(w, f"{name}.qkv", x))
    exact = n <= landmarks and not official
    front = -n % landmarks if official else 0
    matrices = []
    for q, k, _ in heads:
        q, k = (np.concatenate([np.zeros((front, q.shape[1])), part]) for part in (q / np.sqrt(q.shape[1]), k))
        if exact:
            matrices.append((softmax(q @ k.T), None, None))
            continue
        ends = [m * (n + front) // landmarks for m in range(landmarks + 1)]
        ql, kl = (np.stack([part[i:j].mean(0) for i, j in itertools.pairwise(ends)]) for part in (q, k))
        matrices.append((softmax(q @ kl.T), softmax(ql @ kl.T), softmax(ql @ k.T)))
    scales = [0.0 if a2 is None else a2.sum(1).max() * a2.sum(0).max() for _, a2, _ in matrices]
    if official and not exact:
        rows = max(a2.sum(1).max() for _, a2, _ in matrices if a2 is not None)
        columns = max(a2.sum(0).max() for _, a2, _ in matrices if a2 is not None)
        scales = [rows * columns] * HEADS
    for head, ((_, _, v), (a1, a2, a3), scale) in enumerate(zip(heads, matrices, scales)):
        whole = a1 if a2 is None or a3 is None else a1 @ unfinished_inverse(a2, scale, iterations) @ a3
        whole = whole[front:, front:]
        kernel = w[f"{name}.convolution.weight"][head, 0]
        near = np.zeros_like(v)
        for i in range(n):
            for t, weight in enumerate(kernel):
                if 0 <= (j := i + t - len(kernel) // 2) < n:
                    near[i] += weight * v[j]
        mixed.append(whole @ v + near)
        first.append(whole[0])
    return linear(w, f"{name}.out", np.concatenate(mixed, 1)), np.stack(first)


def in_a_square(w: Weights, h: Array) -> Array:
    """The rows plus the three convolutions of the square that they fill line by line, a place at a time."""
    side = math.isqrt(len(h) - 1) + 1
    result = h.copy()
    for name in ("square.wide", "square.middle", "square.narrow"):
        kernel, bias = w[f"{name}.weight"][:, 0], w[f"{name}.bias"]
        reach = kernel.shape[1] // 2
        for place in range(len(h)):
            result[place] += bias
            for line in range(-reach, reach + 1):
                for column in range(-reach, reach + 1):
                    y, x = place // side + line, place % side + column
                    if 0 <= y < side and 0 <= x < side and y * side + x < len(h):
                        result[place] += kernel[:, line + reach, column + reach] * h[y * side + x]
    return result


def transmil(w: Weights, x: Array, landmarks: int, iterations: int, official: bool) -> tuple[Array, Array]:
    """Logits, and the token's weights of the rows (n, heads) before they are cut at 0 and scaled."""
    h = np.maximum(linear(w, "projection.0", x), 0)
    seen = list(range(len(h)))
    if official:
        side = math.isqrt(len(h) - 1) + 1
        seen += seen[: side**2 - len(h)]
    stream = np.concatenate([w["token"][None], h[seen]])
    stream = stream + nystrom(w, "attention_1", norm(w, "norm_1", stream), landmarks, iterations, official)[0]
    stream = np.concatenate([stream[:1], in_a_square(w, stream[1:])])
    gained, first = nystrom(w, "attention_2", norm(w, "norm_2", stream), landmarks, iterations, official)
    z = norm(w, "norm_out", stream[:1] + gained[:1])
    weights = np.zeros((len(h), HEADS))
    for place, row in enumerate(seen):
        weights[row] += first[:, 1 + place]
    return linear(w, "classifier", z)[0], weights


@pytest.mark.parametrize("preset", ["fixed", "official"])
@pytest.mark.parametrize("landmarks", [4, 7, 64])
def test_transmil_is_its_definition_from_rows_to_logits(preset: str, landmarks: int) -> None:
    method, w = build("transmil", {"landmarks": landmarks, "iterations": 5, "preset": preset})
    bags = example_bags(LENGTHS)
    output = method(bags)
    assert output.attention is not None
    attention = output.attention.detach().split(list(LENGTHS))
    for place, bag in enumerate(bags.unpack()):
        logits, weights = transmil(w, bag.x.numpy(), landmarks, 5, preset == "official")
        np.testing.assert_allclose(output.logits[place].detach(), logits, rtol=0, atol=1e-9)
        positive = np.maximum(weights, 0) + 1e-12
        np.testing.assert_allclose(attention[place], positive / positive.sum(0), rtol=0, atol=1e-7)


# --- RRT


def cut(n: int, across: int, official: bool) -> list[list[int | None]]:
    """The rows of each region, place by place, None where a place has none; only the released way has empty regions."""
    side = -(-math.ceil(math.sqrt(n)) // across)
    line = across * side
    regions: list[list[int | None]] = []
    for top in range(across):
        for left in range(across):
            places = [(top * side + y) * line + left * side + x for y in range(side) for x in range(side)]
            regions.append([row if row < n else None for row in places])
    return regions if official else [region for region in regions if any(row is not None for row in region)]


def among(w: Weights, name: str, x: Array, there: list[bool]) -> Array:
    """Multi-head attention of the places of one group; a place that is not there is seen by none."""
    mixed = []
    for head, (q, k, v) in enumerate(by_head(linear(w, f"{name}.qkv", x))):
        s = q @ k.T / np.sqrt(q.shape[1])
        s[[not t for t in there]] = 0  # no scores at all
        if f"{name}.positions.weight" in w:
            kernel, plain = w[f"{name}.positions.weight"][head, 0, :, 0], s.copy()
            for i in range(len(s)):
                for t, weight in enumerate(kernel):
                    if 0 <= (j := i + t - len(kernel) // 2) < len(s):
                        s[i] += weight * plain[j]
        s[:, [not t for t in there]] = -np.inf
        mixed.append(softmax(s) @ v)
    return linear(w, f"{name}.out", np.concatenate(mixed, 1))


def rrt(w: Weights, x: Array, across: int, official: bool, shortcut: bool) -> tuple[Array, Array]:
    """Logits and attention (n,) of one bag."""
    h = np.maximum(linear(w, "projection.0", x), 0)
    regions = cut(len(h), across, official)
    there = [[official or row is not None for row in region] for region in regions]

    def places(rows: Array, region: list[int | None]) -> Array:
        return np.stack([np.zeros(HIDDEN) if row is None else rows[row] for row in region])

    def back(values: list[Array]) -> Array:
        found = np.full_like(h, np.nan)
        for own, region in zip(values, regions):
            for value, row in zip(own, region):
                if row is not None:
                    found[row] = value
        return found

    inside = norm(w, "norm_inside", h)
    x1 = h + back([among(w, "inside", places(inside, region), own) for region, own in zip(regions, there)])

    u = norm(w, "norm_across", x1)
    tokens, shares = [], []
    for region, own in zip(regions, there):
        rows = places(u, region)[own]
        scores = rows @ w["across.phi.weight"].T  # (places, k)
        tokens.append(softmax(scores.T) @ rows)
        low, high = scores.min(0), scores.max(0)
        flat = high - low <= 1e-8
        m = (scores - low) / (high - low + 1e-8)
        shares.append(softmax(scores) * (m if official else np.where(flat, 1.0, m)))
    num_tokens = len(w["across.phi.weight"])
    changed = [
        among(w, "across.attention", np.stack([t[k] for t in tokens]), [True] * len(tokens)) for k in range(num_tokens)
    ]
    gains = []
    for number, own in enumerate(there):
        gain = np.zeros((len(own), HIDDEN))
        gain[own] = sum(shares[number][:, [k]] * changed[k][number] for k in range(num_tokens))
        gains.append(gain)
    x2 = x1 + back(gains)
    new = norm(w, "norm_out", x2 + h if shortcut else x2)

    if official:
        s = np.maximum(linear(w, "scores.0", new), 0) @ w["scores.2.weight"][0]
    else:
        gate = 1 / (1 + np.exp(-linear(w, "scores.u", new)))
        s = (np.tanh(linear(w, "scores.v", new)) * gate) @ w["scores.w.weight"][0] + w["scores.w.bias"][0]
    a = softmax(s)
    return linear(w, "classifier", (a @ new)[None])[0], a


@pytest.mark.parametrize("positions", [0, 5])
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize(("preset", "regions"), [("fixed", 3), ("official", 3), ("fixed", 1)])
def test_rrt_is_its_definition_from_rows_to_logits(preset: str, regions: int, shortcut: bool, positions: int) -> None:
    # One row a region at least, nine at most: a bag of 43 rows has more regions than were asked for.
    options = {"regions": regions, "least_rows": 1, "most_rows": 9, "positions": positions, "shortcut": shortcut}
    method, w = build("rrt", {**options, "tokens": 2, "preset": preset})
    bags = example_bags(LENGTHS)
    output = method(bags)
    assert output.attention is not None
    attention = output.attention.detach().split(list(LENGTHS))
    for place, bag in enumerate(bags.unpack()):
        side = math.ceil(math.sqrt(LENGTHS[place]))
        across = regions if preset == "official" else max(min(regions, side), math.ceil(side / 3))
        logits, a = rrt(w, bag.x.numpy(), across, preset == "official", shortcut)
        np.testing.assert_allclose(output.logits[place].detach(), logits, rtol=0, atol=1e-9)
        np.testing.assert_allclose(attention[place][:, 0], a, rtol=0, atol=1e-9)
