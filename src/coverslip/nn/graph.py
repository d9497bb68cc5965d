"""Small dense graphs, many at once: nearest neighbours by likeness, and layers that pass along their edges."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from coverslip.nn.segments import full

GraphKind = Literal["sage", "gcn", "gat"]


def nearest_neighbours(nodes: Float[Tensor, "b n d"], present: Bool[Tensor, "b n"], k: int) -> Bool[Tensor, "b n n"]:
    """True at [b, i, j] where j is one of the `k` other nodes that are most like i by cosine; fewer in a small graph.

    Nodes that are not present have no neighbours and are nobody's. Of equal likeness the first nodes win.
    """
    nodes = functional.normalize(full(nodes.detach()), dim=2)
    with torch.autocast(nodes.device.type, enabled=False):
        likeness = nodes @ nodes.transpose(1, 2)  # (b, n, n)
    pairs = present.unsqueeze(1) & present.unsqueeze(2)
    pairs = pairs & ~torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)
    order = likeness.masked_fill(~pairs, -torch.inf).argsort(dim=2, descending=True, stable=True)
    nearest = torch.zeros_like(pairs).scatter_(2, order[:, :, :k], True)
    return nearest & pairs


class GraphLayer(nn.Module):
    """Nodes (b, n, d) after one round along their edges: dropout(relu(what follows)), added to the node.

    - sage: U x_i + V (mean of x_j over the neighbours of i), Hamilton et al. 2017, https://arxiv.org/abs/1706.02216
    - gcn: sum of V x_j / sqrt(d_i d_j) over i and its neighbours, edges both ways, d the number of them,
      Kipf and Welling 2017, https://arxiv.org/abs/1609.02907
    - gat: sum of w_ij V x_j over i and its neighbours, w the softmax of leaky_relu(s^T V x_i + t^T V x_j),
      Veličković et al. 2018, https://arxiv.org/abs/1710.10903, with one head
    """

    def __init__(self, width: int, kind: GraphKind, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.kind = kind
        self.neighbours = nn.Linear(width, width)
        self.own = nn.Linear(width, width, bias=False) if kind == "sage" else None
        self.scores = nn.Linear(width, 2, bias=False) if kind == "gat" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Float[Tensor, "b n d"], edges: Bool[Tensor, "b n n"]) -> Float[Tensor, "b n d"]:
        passed = self.neighbours(nodes)
        if self.own is not None:
            weights = edges.to(passed.dtype)
            mixed = self.own(nodes) + weights / weights.sum(2, keepdim=True).clamp(min=1) @ passed
        else:
            itself = torch.eye(edges.shape[1], dtype=torch.bool, device=edges.device)
            mixed = self._weights(passed, edges, itself) @ passed
        return nodes + self.dropout(functional.relu(mixed))

    def _weights(self, passed: Tensor, edges: Tensor, itself: Tensor) -> Float[Tensor, "b n n"]:
        """What each node takes from each other and from itself."""
        if self.scores is None:
            linked = (edges | edges.transpose(1, 2) | itself).to(passed.dtype)
            scale = linked.sum(2).rsqrt()
            return linked * scale.unsqueeze(1) * scale.unsqueeze(2)
        taker, giver = full(self.scores(passed)).split(1, 2)  # (b, n, 1) each
        scores = functional.leaky_relu(taker + giver.transpose(1, 2), 0.2)
        return scores.masked_fill(~(edges | itself), -torch.inf).softmax(2).to(passed.dtype)
