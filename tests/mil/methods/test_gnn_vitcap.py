"""What is true of GNN-ViTCap's aggregator alone: its clusters, its representatives, its map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from coverslip.base.errors import SettingsError
from coverslip.mil import Bags, Target, build_aggregator
from coverslip.mil.methods.gnn_vitcap import GnnVitCap, by_cluster
from coverslip.nn.segments import Segments, total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags


def build(**options: Any) -> GnnVitCap:
    torch.manual_seed(0)
    method = build_aggregator("gnn_vitcap", DIM, 3, {"hidden": 16, "clusters": 4, **options}).double().eval()
    assert isinstance(method, GnnVitCap)
    return method


@pytest.mark.parametrize(
    "options",
    [{"gnn": "gcn"}, {"gnn": "gat", "neighbours": 50}, {"layers": 0, "clusters": 1}, {"clusters": 60, "neighbours": 1}],
)
def test_every_kind_keeps_the_contract(options: dict[str, Any]) -> None:
    check_aggregator("gnn_vitcap", hidden=16, **options)


def slow(method: GnnVitCap, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and attention of one bag, cluster by cluster."""
    p = {name: value.detach().numpy() for name, value in method.named_parameters()}
    h = np.maximum(x @ p["projection.0.weight"].T + p["projection.0.bias"], 0)
    u = h @ p["embed.weight"].T + p["embed.bias"]
    u = (u - u.mean(1, keepdims=True)) / np.sqrt(u.var(1, keepdims=True) + 1e-5)
    cluster = np.array([np.argmin([((row - centre) ** 2).sum() for centre in p["centres"]]) for row in u])
    attention, r = np.zeros(len(x)), []
    for k in np.unique(cluster):
        rows = h[cluster == k]
        asked = p["query.weight"] @ rows.mean(0) + p["query.bias"]
        s = np.array([asked @ (p["key.weight"] @ row) for row in rows]) / math.sqrt(h.shape[1])
        a = np.exp(s) / np.exp(s).sum()
        r.append(a @ rows)
        attention[cluster == k] = a / len(np.unique(cluster))
    nodes = np.stack(r)
    unit = nodes / np.linalg.norm(nodes, axis=1, keepdims=True)
    likeness = unit @ unit.T
    near = [[j for j in np.argsort(-likeness[i]) if j != i][: method.num_neighbours] for i in range(len(nodes))]
    for layer in range(len(method.graph)):
        w = {name.removeprefix(f"graph.{layer}."): value for name, value in p.items() if name.startswith("graph")}
        passed = nodes @ w["neighbours.weight"].T + w["neighbours.bias"]
        mean = np.stack([passed[others].mean(0) if others else 0 * passed[0] for others in near])
        nodes = nodes + np.maximum(nodes @ w["own.weight"].T + mean, 0)
    return nodes.mean(0) @ p["classifier.weight"].T + p["classifier.bias"], attention


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_a_bag_goes_the_way_that_the_formulas_say(rows: int, neighbours: int) -> None:
    method = build(neighbours=neighbours)
    (bag,) = example_bags((rows,)).unpack()
    output = method(bag)
    logits, attention = slow(method, bag.x.numpy())
    assert output.attention is not None
    assert np.allclose(output.logits[0].detach().numpy(), logits, atol=1e-11)
    assert np.allclose(output.attention[:, 0].detach().numpy(), attention, atol=1e-11)


def test_evidence_adds_up_to_the_logits_without_their_bias() -> None:
    method, bags = build(), example_bags()
    output = method(bags)
    assert output.evidence is not None
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, atol=1e-12)


def test_rows_are_brought_together_by_bag_and_cluster() -> None:
    order, clusters = by_cluster(torch.tensor([2, 0, 2, 1, 1, 0]), 3, Segments.of_lengths([4, 2]))
    assert order.tolist() == [1, 3, 0, 2, 5, 4]
    assert clusters.lengths.tolist() == [1, 1, 2, 1, 1, 0]


def test_a_cluster_without_rows_changes_nothing() -> None:
    method, wider = build(), build(clusters=5)
    state = method.state_dict()
    # The fifth centre is farther from everything than the sphere that rows lie on is wide.
    state["centres"] = torch.cat([state["centres"], torch.full((1, state["centres"].shape[1]), 1e3)])
    wider.load_state_dict(state)
    bags = example_bags()
    assert torch.allclose(method(bags).logits, wider(bags).logits, atol=1e-12)


def test_centres_learn_from_the_clustering_alone_and_only_in_training() -> None:
    method, bags = build(clustering=0.5), example_bags()
    output = method(bags, Target(torch.tensor([0, 1, 2, 0])))
    assert set(output.losses) == {"clustering"}
    assert torch.autograd.grad(output.logits.sum(), method.centres, allow_unused=True) == (None,)
    (gradient,) = torch.autograd.grad(output.losses["clustering"], method.centres)
    assert gradient.abs().max() > 0
    twice = build(clustering=1.0)(bags, Target(torch.tensor([0, 1, 2, 0]))).losses["clustering"]
    assert torch.allclose(twice, 2 * output.losses["clustering"])
    assert not method(bags).losses


def test_rows_twice_change_nothing_and_halve_attention() -> None:
    method = build()
    (bag,) = example_bags((20,)).unpack()
    once, twice = method(bag), method(Bags(bag.x.repeat(2, 1), bag.offsets * 2, None, bag.slides))
    assert once.attention is not None and twice.attention is not None
    assert torch.allclose(once.logits, twice.logits, atol=1e-12)
    assert torch.allclose(once.attention, 2 * twice.attention[:20], atol=1e-12)


@pytest.mark.parametrize("options", [{"clusters": 0}, {"neighbours": 0}, {"latent": 1}, {"clustering": -1.0}])
def test_a_value_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="cannot be built with"):
        build(**options)
