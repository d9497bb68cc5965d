"""Nyström attention: the rows of a bag attend on each other through a few landmarks, in linear time and memory.

Xiong et al.: Nyströmformer, AAAI 2021, https://arxiv.org/abs/2102.03902. Written from the paper's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.nn.attention import attend
from coverslip.nn.segments import Segments, full, mean


@dataclass(frozen=True)
class FirstRow:
    """What the first of n rows gets, and from whom: W_o (sum of weights * values, heads beside each other) and more.

    The rest of `out` is what the convolution brings, and a bias. `weights` may be a little below zero where landmarks
    stand in for rows; over all rows they sum to about 1.
    """

    out: Float[Tensor, d]
    weights: Float[Tensor, "n heads"]
    values: Float[Tensor, "n heads e"]


class NystromAttention(nn.Module):
    """Rows (n, dim) of one bag to rows (n, dim), each a mixture of all.

    Per head of width e, with queries q, keys k, values v (n, e), and q', k' (m, e) their means over m runs of
    neighbouring rows, the landmarks:

        A1 = softmax(q k'^T / sqrt e)                          (n, m)
        A2 = softmax(q' k'^T / sqrt e)                         (m, m)
        A3 = softmax(q' k^T / sqrt e)                          (m, n)
        out = W_o (A1 pinv(A2) (A3 v) + convolution of v along the rows), dropout

    No (n, n) matrix is made. The runs are of equal length, give or take a row. With no more rows than `landmarks`
    attention is exact: softmax(q k^T / sqrt e) v. A `kernel` of 0 leaves the convolution out.

    `released` is what the widely used code does: rows of zeros are put in front until the landmarks divide their
    number, attend and are attended to; few rows go through the approximate inverse, too; and the inverse starts from
    one scale for all heads.

    It takes a bag at a time: which rows are averaged depends on how many there are. No bag sees another, neither
    through the scale. Scores, softmax and inverse are in float32 also where the rest is half precision.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 8,
        landmarks: int = 256,
        iterations: int = 6,
        kernel: int = 33,
        dropout: float = 0.1,
        released: bool = False,
    ) -> None:
        super().__init__()
        if kernel and kernel % 2 == 0:
            raise ValueError("the convolution's kernel is odd, or 0 for none")
        if heads < 1 or landmarks < 1:
            raise ValueError("there is at least one head and one landmark")
        width = max(1, dim // heads)
        self.heads, self.width, self.landmarks = heads, width, landmarks
        self.iterations, self.released = iterations, released
        self.qkv = nn.Linear(dim, 3 * heads * width, bias=False)
        self.convolution: nn.Conv1d | None = None
        if kernel:
            self.convolution = nn.Conv1d(heads, heads, kernel, padding=kernel // 2, groups=heads, bias=False)
        self.out = nn.Linear(heads * width, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        q, k, v = self._heads(x)  # (heads, n, e)
        with torch.autocast(x.device.type, enabled=False):
            mixed = self._mix(q, k, v) + self._neighbours(v)
        return self.dropout(self.out(mixed.transpose(0, 1).flatten(1)))

    def first(self, x: Float[Tensor, "n d"]) -> FirstRow:
        """What `forward` gives the first row, and the weight of every row in it; memory is that of A3."""
        q, k, v = self._heads(x)
        with torch.autocast(x.device.type, enabled=False):
            weights = self._first_weights(q, k)  # (heads, n)
            near = v if self.convolution is None else v[:, : self.convolution.kernel_size[0]]
            mixed = torch.einsum("hn,hne->he", weights, v) + self._neighbours(near)[:, 0]
        out = self.dropout(self.out(mixed.flatten()))
        return FirstRow(out, weights.T, v.transpose(0, 1))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, scaled, keys and values as (heads, n, e) in full precision."""
        q, k, v = full(self.qkv(x)).unflatten(1, (3, self.heads, self.width)).permute(1, 2, 0, 3).unbind(0)
        return q * self.width**-0.5, k, v

    def _exact(self, rows: int) -> bool:
        return rows <= self.landmarks and not self.released

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = q.shape[1]
        if self._exact(rows):
            return attend(q, k, v)
        q, k, v = self._in_front(q), self._in_front(k), self._in_front(v)
        ql, kl = self._landmarks(q), self._landmarks(k)
        seen = self._inverse(ql, kl) @ attend(ql, k, v)  # (heads, m, e)
        return attend(q, kl, seen)[:, -rows:]

    def _first_weights(self, q: Tensor, k: Tensor) -> Tensor:
        rows = q.shape[1]
        if self._exact(rows):
            return (q[:, :1] @ k.mT).softmax(-1)[:, 0]
        own = q[:, :1]
        q, k = self._in_front(q), self._in_front(k)
        ql, kl = self._landmarks(q), self._landmarks(k)
        by_landmark = (own @ kl.mT).softmax(-1) @ self._inverse(ql, kl)  # (heads, 1, m)
        return (by_landmark @ (ql @ k.mT).softmax(-1))[:, 0, -rows:]

    def _in_front(self, values: Tensor) -> Tensor:
        """The rows, in the released way after zeros that fill up the landmarks' runs."""
        return F.pad(values, (0, 0, -values.shape[1] % self.landmarks, 0)) if self.released else values

    def _landmarks(self, values: Tensor) -> Tensor:
        """The means (heads, m, e) of runs of rows."""
        rows = values.shape[1]
        ends = torch.arange(self.landmarks + 1, device=values.device) * rows // self.landmarks
        return mean(values.transpose(0, 1), Segments(ends, rows)).transpose(0, 1)

    def _inverse(self, ql: Tensor, kl: Tensor) -> Tensor:
        a2 = (ql @ kl.mT).softmax(-1)
        return pseudo_inverse(a2, iterations=self.iterations, shared_scale=self.released)

    def _neighbours(self, v: Tensor) -> Tensor:
        """What the convolution along the rows adds, (heads, n, e): one kernel a head."""
        if self.convolution is None:
            return torch.zeros_like(v)
        return self.convolution(v.permute(2, 0, 1)).permute(1, 2, 0)


def pseudo_inverse(
    a: Float[Tensor, "h m m"], *, iterations: int = 6, shared_scale: bool = False
) -> Float[Tensor, "h m m"]:
    """The Moore-Penrose inverse of softmax matrices, nearly: `iterations` steps of third order from a^T / scale.

    Razavi et al. 2014, as in the Nyströmformer: z <- z (13 - a z (15 - a z (7 - a z))) / 4. The scale is the product
    of the largest row sum and the largest column sum, of each matrix, or the largest of all with `shared_scale`.
    """
    rows, columns = a.abs().sum(-1).amax(-1), a.abs().sum(-2).amax(-1)  # (h)
    scale = rows.amax() * columns.amax() if shared_scale else (rows * columns)[:, None, None]
    z = a.mT / scale
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    return z
