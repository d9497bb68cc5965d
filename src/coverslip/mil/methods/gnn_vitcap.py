"""GNN-ViTCap's aggregator: clusters of rows, a representative of each, and a graph over the representatives.

Raju et al.: GNN-ViTCap, GNN-enhanced multiple instance learning with vision transformers for whole slide image
classification and captioning, IJCNN 2025, https://arxiv.org/abs/2507.07006. No code is published; written from the
abstract.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from coverslip.mil.bags import BagOutput, Bags, StagedAggregator
from coverslip.mil.target import Target
from coverslip.nn.clustering import memberships, sharpening_loss
from coverslip.nn.graph import GraphKind, GraphLayer, nearest_neighbours
from coverslip.nn.layers import Projection, default_hidden
from coverslip.nn.segments import Segments, full, mean, softmax, total

ENTRIES = {
    "gnn_vitcap": {
        "build": "GnnVitCap",
        "summary": "representatives of clusters of rows in a graph of their likeness",
        "origin": "Raju et al. 2025, arXiv:2507.07006",
        "licence": "Apache-2.0",
        "needs": "",
    }
}


class GnnVitCap(StagedAggregator):
    """A row for each cluster of a bag, passed along a graph of the clusters' likeness, averaged and classified.

    For each row x of a bag:

        h = dropout(relu(P x))                                       hidden
        u = LayerNorm(E h), without scale and shift                  latent
        q_k = (1 + |u - centre_k|^2)^-1, divided by its sum over k   `clusters` centres, the same for every bag
        a row's cluster is the k of the largest q_k

    and for each cluster that has rows in this bag:

        s = (Q m)^T (K h) / sqrt(hidden)                             m the mean of the cluster's rows h
        a = softmax of s over the rows of the cluster
        r = sum of a h                                               its representative
        `layers` rounds of a graph network over the representatives, each joined to the `neighbours` most like it
        z = mean of r over the bag's clusters                        BagOutput.embedding (b, hidden)
        logits = W z + c

    Attention is a times the cluster's share of the mean, one over the number of the bag's clusters. Evidence is that
    times W r of the row's cluster, after the graph: over a bag it adds up to the logits minus c. It tells clusters
    apart by what they say, and rows of one cluster by how much they count.

    In training, `clustering` times KL(p || q) is added, the loss of deep embedded clustering (see
    `coverslip.nn.clustering`). p is made anew in each step, from each bag by itself, so that a batch is its bags one by
    one. Centres learn from this loss alone, for a row belongs to one cluster or does not.

    The abstract names the parts: deep embedded clustering, representatives by scalar dot attention, a graph by
    likeness; that the graph's nodes are averaged is second-hand. What it leaves open is chosen here and can be set:
    16 clusters with centres that all bags share and that begin at random on the sphere that u lies on; latent 16; 3
    neighbours by cosine, for with 5 of 16 the evidence of a cluster spreads over the whole graph; 2 rounds of
    GraphSAGE (`gnn` "sage"; "gcn" and "gat" are there); `clustering` .1. In the paper the rows are features of a
    vision transformer that learns with the rest, and the pooled vector may begin a caption; here rows are stored
    features, and the vector is classified.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        clusters: int = 16,
        latent: int = 16,
        neighbours: int = 3,
        layers: int = 2,
        gnn: GraphKind = "sage",
        clustering: float = 0.1,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if min(clusters, neighbours) < 1 or latent < 2 or layers < 0 or clustering < 0:
            raise ValueError("clusters and neighbours are 1 or more, latent 2 or more, layers and clustering 0 or more")
        hidden = default_hidden(dim) if hidden is None else hidden
        self.width = hidden
        self.num_neighbours, self.clustering = neighbours, clustering
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.embed = nn.Linear(hidden, latent)
        self.centres = nn.Parameter(functional.layer_norm(torch.randn(clusters, latent), (latent,)))
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.graph = nn.ModuleList(GraphLayer(hidden, gnn, dropout=dropout) for _ in range(layers))
        self.classifier = nn.Linear(hidden, num_outputs)

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.projection(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        u = full(self.embed(bags.x))
        q = memberships(functional.layer_norm(u, (u.shape[1],)), self.centres)  # (m, k)
        order, clusters = by_cluster(q.argmax(1), q.shape[1], bags.segments)
        present = (clusters.lengths > 0).unflatten(0, (len(bags), -1))  # (b, k)
        h = full(bags.x)[order]  # (m, hidden), the rows of a cluster behind each other
        a = softmax(self._scores(h, clusters), clusters)  # (m,)
        r = total(a.unsqueeze(1) * h, clusters).unflatten(0, present.shape)  # (b, k, hidden)
        edges = nearest_neighbours(r, present, self.num_neighbours)
        for layer in self.graph:
            r = layer(r, edges)
        share = present.to(a.dtype) / present.sum(1, keepdim=True)  # (b, k)
        z = (share.unsqueeze(2) * r).sum(1)  # (b, hidden)
        own = functional.linear(r, self.classifier.weight).flatten(0, 1)  # (b k, outputs)
        attention = _unsorted(a * share.flatten()[clusters.ids], order).unsqueeze(1)
        evidence = attention * _unsorted(own[clusters.ids], order)
        losses = {} if target is None else {"clustering": self.clustering * sharpening_loss(q, bags.segments).mean()}
        return BagOutput(self.classifier(z), z, attention=attention, evidence=evidence, losses=losses)

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        logits: Tensor = self.classifier(z)
        return logits

    def _scores(self, h: Float[Tensor, "m hidden"], clusters: Segments) -> Float[Tensor, m]:
        """The likeness of each row to the mean of its cluster. A key's own bias would be the same for all of them."""
        # (Q m)^T (K h) = (K^T Q m)^T h: one product a cluster, none a row.
        asked = full(self.query(mean(h, clusters)) @ self.key.weight)  # (b k, hidden)
        return (asked[clusters.ids] * h).sum(1) / math.sqrt(h.shape[1])


def by_cluster(cluster: Int64[Tensor, m], num_clusters: int, segments: Segments) -> tuple[Int64[Tensor, m], Segments]:
    """The order that brings the rows of each cluster of each bag together, and the clusters: bag 0's, bag 1's, ...

    Every bag has `num_clusters` of them; some may be without rows.
    """
    cell = segments.ids * num_clusters + cluster
    lengths = torch.zeros(len(segments) * num_clusters, dtype=torch.int64, device=cell.device)
    lengths.scatter_add_(0, cell, torch.ones_like(cell))
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return cell.argsort(stable=True), Segments(offsets, len(cell))


def _unsorted(values: Float[Tensor, "m ..."], order: Int64[Tensor, m]) -> Float[Tensor, "m ..."]:
    """Values of rows in that order, put back."""
    return torch.empty_like(values).index_copy(0, order, values)
