"""Nyström attention: the rows of a bag attend on each other through a few landmarks, in linear time and memory.

Bags are packed. What is done to single rows is done to all at once; attention takes short bags together, padded, and
long ones by themselves.

Xiong et al.: Nyströmformer, AAAI 2021, https://arxiv.org/abs/2102.03902. Written from the paper's formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.nn.attention import attend
from coverslip.nn.padded import Padded, batches
from coverslip.nn.segments import Segments, full, mean

# Rows that the convolution takes at a time: 32 and 128 are slower.
_BLOCK = 64


@dataclass(frozen=True)
class FirstRow:
    """What the first row of each bag gets, and from whom: W_o (sum of weights * values, heads side by side) and more.

    The rest of `out` is what the convolution brings, and a bias. `weights` may be a little below zero where landmarks
    stand in for rows; over all rows of a bag they sum to about 1.
    """

    out: Float[Tensor, "b d"]
    weights: Float[Tensor, "m heads"]
    values: Float[Tensor, "m heads e"]


class NystromAttention(nn.Module):
    """Packed rows (m, dim) to rows (m, dim), each a mixture of its bag's; `lengths` are the rows of each bag.

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

    No bag sees another, neither through the scale nor through padding: bags for which attention is exact share a masked
    batch where neighbours are of like length; the others go one by one, as landmarks depend on the number of rows.
    Scores, softmax and inverse are in float32 also where the rest is half precision.
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

    def forward(self, x: Float[Tensor, "m d"], lengths: Sequence[int]) -> Float[Tensor, "m d"]:
        heads = self._heads(x)
        mixed = []
        with torch.autocast(x.device.type, enabled=False):
            for bags, q, k, v in self._batches(heads, lengths):
                mix = self._mix(q, k, v, bags.taken()) + self._neighbours(v)  # (b, heads, n, e)
                mixed.append(bags.pick(mix.transpose(1, 2).flatten(2)))
        return self.dropout(self.out(torch.cat(mixed)))

    def first(self, x: Float[Tensor, "m d"], lengths: Sequence[int]) -> FirstRow:
        """What `forward` gives the first row of each bag, and the weight of every row in it; memory is that of A3."""
        heads = self._heads(x)
        mixed, weights = [], []
        with torch.autocast(x.device.type, enabled=False):
            for bags, q, k, v in self._batches(heads, lengths):
                of_rows = self._first_weights(q, k, bags.taken())  # (b, heads, 1, n)
                near = v if self.convolution is None else v[:, :, : 1 + self.convolution.kernel_size[0] // 2]
                mix = of_rows @ v + self._neighbours(near)[:, :, :1]  # (b, heads, 1, e)
                mixed.append(mix.flatten(1))
                weights.append(bags.pick(of_rows.squeeze(2).mT))
        return FirstRow(self.dropout(self.out(torch.cat(mixed))), torch.cat(weights), heads[:, 2])

    def _heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values (m, 3, heads, e) in full precision."""
        return full(self.qkv(x)).unflatten(1, (3, self.heads, self.width))

    def _batches(self, heads: Tensor, lengths: Sequence[int]) -> Iterator[tuple[Padded, Tensor, Tensor, Tensor]]:
        """Bags that go together, and their queries, scaled, keys and values as (b, heads, n, e)."""
        for rows, of_bags in batches(heads, lengths, most=0 if self.released else self.landmarks):
            bags = Padded.of(of_bags, heads.device)
            q, k, v = bags.lay(rows).permute(2, 0, 3, 1, 4).unbind(0)
            yield bags, q * self.width**-0.5, k, v

    def _exact(self, rows: int) -> bool:
        return rows <= self.landmarks and not self.released

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, taken: Tensor | None) -> Tensor:
        rows = q.shape[2]
        if self._exact(rows):
            return attend(q, k, v, taken)
        q, k, v = self._in_front(q), self._in_front(k), self._in_front(v)
        ql, kl = self._landmarks(q), self._landmarks(k)
        seen = self._inverse(ql, kl) @ attend(ql, k, v)  # (1, heads, m, e)
        return attend(q, kl, seen)[:, :, -rows:]

    def _first_weights(self, q: Tensor, k: Tensor, taken: Tensor | None) -> Tensor:
        rows = q.shape[2]
        own = q[:, :, :1]
        if self._exact(rows):
            scores = own @ k.mT  # (b, heads, 1, n)
            return (scores if taken is None else scores.masked_fill(~taken[:, None, None], -torch.inf)).softmax(-1)
        q, k = self._in_front(q), self._in_front(k)
        ql, kl = self._landmarks(q), self._landmarks(k)
        by_landmark = (own @ kl.mT).softmax(-1) @ self._inverse(ql, kl)  # (1, heads, 1, m)
        return (by_landmark @ (ql @ k.mT).softmax(-1))[..., -rows:]

    def _in_front(self, values: Tensor) -> Tensor:
        """The rows, in the released way after zeros that fill up the landmarks' runs."""
        return F.pad(values, (0, 0, -values.shape[2] % self.landmarks, 0)) if self.released else values

    def _landmarks(self, values: Tensor) -> Tensor:
        """The means (1, heads, m, e) of runs of rows."""
        rows = values.shape[2]
        ends = torch.arange(self.landmarks + 1, device=values.device) * rows // self.landmarks
        return mean(values.movedim(2, 0), Segments(ends, rows)).movedim(0, 2)

    def _inverse(self, ql: Tensor, kl: Tensor) -> Tensor:
        a2 = (ql @ kl.mT).softmax(-1)
        return pseudo_inverse(a2, iterations=self.iterations, shared_scale=self.released)

    def _neighbours(self, v: Tensor) -> Tensor:
        """What the convolution along the rows adds, (b, heads, n, e): one kernel a head."""
        return torch.zeros_like(v) if self.convolution is None else _convolved(v, self.convolution.weight[:, 0])


def _convolved(v: Tensor, kernel: Tensor) -> Tensor:
    """Rows (b, heads, n, e) under a kernel (heads, k) a head, zeros beyond the first and the last.

    A block of rows is the product of a band of kernels and the rows that it reaches, which takes a third of the time of
    `conv1d` on a CPU. `conv2d` would be as quick, but at some lengths (46 rows, 601) oneDNN 3.12 gets the gradient of a
    kernel as tall as 33 wrong.
    """
    rows, reach = v.shape[2], kernel.shape[1] // 2
    block = min(_BLOCK, rows)
    window = block + 2 * reach
    windows = F.pad(v, (0, 0, reach, reach + -rows % block)).unfold(2, window, block)  # (b, heads, blocks, e, window)
    # Row i of a block has the kernel at the places i to i + k of the window.
    band = F.pad(kernel, (block - 1, block - 1)).unfold(1, window, 1).flip(1)  # (heads, block, window)
    return torch.einsum("hij,bhcej->bhcie", band, windows).flatten(2, 3)[:, :, :rows]


def pseudo_inverse(
    a: Float[Tensor, "... m m"], *, iterations: int = 6, shared_scale: bool = False
) -> Float[Tensor, "... m m"]:
    """The Moore-Penrose inverse of softmax matrices, nearly: `iterations` steps of third order from a^T / scale.

    Razavi et al. 2014, as in the Nyströmformer: z <- z (13 - a z (15 - a z (7 - a z))) / 4. The scale is the product
    of the largest row sum and the largest column sum, of each matrix, or the largest of all with `shared_scale`.
    """
    rows, columns = a.abs().sum(-1).amax(-1), a.abs().sum(-2).amax(-1)  # (...)
    scale = rows.amax() * columns.amax() if shared_scale else (rows * columns)[..., None, None]
    z = a.mT / scale
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    return z
