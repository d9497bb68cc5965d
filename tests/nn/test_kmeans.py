from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from coverslip.nn.kmeans import kmeans


def test_clusters_far_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.arange(200) % 4)
    x = torch.from_numpy(np.eye(4)[kind] * 20 + rng.standard_normal((200, 4))).float()
    found = kmeans(x, 4, rng).numpy()
    assert len({(a, b) for a, b in zip(kind, found)}) == 4


def test_fewer_different_rows_make_fewer_clusters_without_gaps() -> None:
    x = torch.tensor([[1.0], [1.0], [2.0], [2.0], [2.0]])
    found = kmeans(x, 8, np.random.default_rng(0))
    assert sorted(found.unique().tolist()) == [0, 1]
    assert kmeans(x[:1], 3, np.random.default_rng(0)).tolist() == [0]


def test_a_pass_never_makes_rows_lie_farther_from_their_means() -> None:
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((300, 5))).float()

    def spread(passes: int) -> float:
        found = kmeans(x, 6, np.random.default_rng(7), passes=passes)
        return sum(float((x[found == k] - x[found == k].mean(0)).square().sum()) for k in found.unique())

    costs = [spread(passes) for passes in range(8)]
    assert all(later <= earlier + 1e-3 for earlier, later in pairwise(costs))
    assert costs[-1] < costs[0]
