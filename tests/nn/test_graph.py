"""Dense graphs against loops over nodes."""

from __future__ import annotations

import math

import pytest
import torch

from coverslip.nn.graph import GraphKind, GraphLayer, nearest_neighbours

KINDS: tuple[GraphKind, ...] = ("sage", "gcn", "gat")


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes of three graphs: all present, three of six, one."""
    nodes = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[1] * 6, [1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)
    return nodes, present


@pytest.mark.parametrize("k", [1, 2, 5, 50])
def test_neighbours_are_the_most_alike_of_the_others(k: int) -> None:
    nodes, present = example()
    edges = nearest_neighbours(nodes, present, k)
    for b in range(3):
        there = present[b].nonzero()[:, 0].tolist()
        for i in range(6):
            others = [j for j in there if j != i] if i in there else []
            alike = {j: float(torch.cosine_similarity(nodes[b, i], nodes[b, j], dim=0)) for j in others}
            nearest = sorted(others, key=lambda j: -alike[j])[:k]
            assert edges[b, i].nonzero()[:, 0].tolist() == sorted(nearest)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_formula(kind: GraphKind) -> None:
    nodes, present = example()
    torch.manual_seed(0)
    layer = GraphLayer(4, kind).double()
    edges = nearest_neighbours(nodes, present, 2)
    found = layer(nodes, edges)
    passed = layer.neighbours(nodes)
    for b in range(3):
        joined = [{j for j in range(6) if edges[b, i, j] or (kind == "gcn" and edges[b, j, i])} for i in range(6)]
        for i in range(6):
            if kind == "sage":
                assert layer.own is not None
                near = [passed[b, j] for j in joined[i]]
                mixed = layer.own(nodes[b, i]) + (sum(near) / len(near) if near else 0)
            elif kind == "gcn":
                degree = [len(others) + 1 for others in joined]
                mixed = sum(passed[b, j] / math.sqrt(degree[i] * degree[j]) for j in joined[i] | {i})
            else:
                assert layer.scores is not None
                taker = layer.scores(passed[b, i])[0]
                near_ones = sorted(joined[i] | {i})
                scores = torch.stack([taker + layer.scores(passed[b, j])[1] for j in near_ones])
                weights = torch.where(scores > 0, scores, 0.2 * scores).softmax(0)
                mixed = sum(w * passed[b, j] for w, j in zip(weights, near_ones))
            assert torch.allclose(found[b, i], nodes[b, i] + mixed.clamp(min=0), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_does_not_see_what_is_not_present(kind: GraphKind) -> None:
    nodes, present = example()
    torch.manual_seed(0)
    layer = GraphLayer(4, kind).double()
    other = torch.where(present.unsqueeze(2), nodes, 100.0)
    one, two = (layer(x, nearest_neighbours(x, present, 3))[present] for x in (nodes, other))
    assert torch.equal(one, two)
