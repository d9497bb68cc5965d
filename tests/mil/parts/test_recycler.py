from __future__ import annotations

import numpy as np
import torch

from coverslip.mil import Bags
from coverslip.mil.parts.recycler import Recycler, with_tokens
from coverslip.nn.segments import Segments

WIDTH = 6
LENGTHS = [3, 0, 1, 7]


def recycler(**options: float) -> Recycler:
    torch.manual_seed(0)
    return Recycler(WIDTH, tokens=2, heads=3, head_width=4, dropout=options.get("dropout", 0.0)).double()


def rows() -> torch.Tensor:
    return torch.randn(sum(LENGTHS), WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(part: Recycler, h: np.ndarray) -> np.ndarray:
    """The tokens of one bag, a head and a query at a time."""
    w = {name: value.detach().numpy() for name, value in part.state_dict().items()}

    def norm(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        return centred / np.sqrt(x.var(1, keepdims=True) + 1e-5) * w["norm.weight"] + w["norm.bias"]

    q, k, v = (norm(x) @ w[f"to_{name}.weight"].T for name, x in (("query", w["queries"]), ("key", h), ("value", h)))
    tokens = []
    for j in range(len(q)):
        heads = []
        for i in range(3):
            own = slice(4 * i, 4 * i + 4)
            s = k[:, own] @ q[j, own] / 2
            a = np.exp(s - s.max())
            heads.append((a / a.sum()) @ v[:, own])
        tokens.append(w["out.0.weight"] @ np.concatenate(heads) + w["out.0.bias"])
    return np.array(tokens)


def test_tokens_are_those_of_the_formula_and_of_each_bag_alone() -> None:
    part, h = recycler(), rows()
    tokens = part(h, Segments.of_lengths(LENGTHS))
    assert tokens.shape == (4, 2, WIDTH)
    for found, bag in zip(tokens.detach(), h.split(LENGTHS)):
        if len(bag):
            assert np.allclose(found, by_hand(part, bag.numpy()), rtol=0, atol=1e-12)


def test_no_rows_at_all_give_finite_tokens_and_gradients() -> None:
    part = recycler()
    part(torch.zeros(0, WIDTH, dtype=torch.float64), Segments.of_lengths([0, 0])).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in part.parameters() if p.grad is not None)
    before = part.queries.clone()
    part.follow(0.5)
    assert torch.equal(part.queries, before)


def test_queries_have_no_gradient_and_follow_the_mean_token_once_a_step() -> None:
    part, h = recycler().train(), rows()
    assert "queries" in dict(part.named_buffers())
    start = part.queries.clone()
    # Two batches before one optimiser step, with three bags that have rows each.
    tokens = [part(scale * h, Segments.of_lengths(LENGTHS)).detach() for scale in (1.0, 2.0)]
    part.follow(0.9)
    mean = torch.cat([t[[0, 2, 3]] for t in tokens]).mean(0)
    assert torch.allclose(part.queries, 0.9 * start + 0.1 * mean, rtol=0, atol=1e-12)
    after = part.queries.clone()
    part.follow(0.9)
    assert torch.equal(part.queries, after)


def test_after_n_steps_of_constant_tokens_the_queries_are_where_the_formula_says() -> None:
    part = recycler().train()
    start, aim = part.queries.clone(), torch.ones(2, WIDTH, dtype=torch.float64)
    for _ in range(30):
        part._seen.append((3 * aim, torch.tensor(3.0, dtype=torch.float64)))
        part.follow(0.8)
    assert torch.allclose(part.queries, 0.8**30 * start + (1 - 0.8**30) * aim, rtol=0, atol=1e-12)


def test_evaluation_remembers_nothing() -> None:
    part = recycler().eval()
    before = part.queries.clone()
    part(rows(), Segments.of_lengths(LENGTHS))
    part.follow(0.0)
    assert torch.equal(part.queries, before)


def test_tokens_stand_behind_the_rows_of_bags_that_have_some() -> None:
    x = torch.arange(6.0).unsqueeze(1)
    bags = Bags(x, torch.tensor([0, 1, 4, 6]), torch.zeros(6, 2), ("a", "b", "c"), torch.arange(6))
    tokens = torch.tensor([[[100.0], [101.0]], [[-1.0], [-1.0]], [[300.0], [301.0]]])
    joined = with_tokens(bags, tokens, torch.tensor([True, False, True]))
    assert [bag.flatten().tolist() for bag in joined.x.split(joined.lengths.tolist())] == [
        [0, 100, 101],
        [1, 2, 3],
        [4, 5, 300, 301],
    ]
    assert joined.xy_um is None and joined.keys is None
