"""SMOTE between bag embeddings: points between two bags of a class, judged by the classifier alone.

Chawla, Bowyer, Hall, Kegelmeyer: SMOTE: synthetic minority over-sampling technique, JAIR 2002,
https://arxiv.org/abs/1106.1813.
"""

from __future__ import annotations

from zlib import crc32

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.mil.bags import BagOutput, Bags
from coverslip.mil.model import SlideModel
from coverslip.mil.parts.memory import FeatureQueue
from coverslip.mil.source import LabelledBags
from coverslip.mil.tasks.contract import Task, weighted_mean
from coverslip.nn.segments import full
from coverslip.train import Objective, Remembered, StepOutput
from coverslip.train.modes import evaluating
from coverslip.train.objective import Around

# Bags of earlier steps among which neighbours are found. Weights move slowly against so few steps; a class of one bag
# in twenty has a dozen of them.
_QUEUE = 256


class EmbeddingSmote(Around):
    """`inner`'s loss, and `weight` times the task's loss of points that lie between bags of a class.

    For a bag with the embedding z in this step, and z_n drawn evenly from the `k` nearest other bags of its class in
    the step and the last 256 bags before it:

        z' = z + u (z_n - z),   u even in [0, 1],   logits = classify(z')

    The gradient reaches the method through z; z_n is a constant. Each class of the step gets as many points as its
    largest class has bags, a rare one several a bag, in turn. That is the paper's over-sampling by points that differ;
    how much a class counts stays what `fit.class_weights` and `fit.sampling` say: its points weigh together, among
    those of the step, what its bags weigh among the bags. A bag that knows no other of its class has none.

    Raises:
        SettingsError: the logits of the method are no function of its embeddings; or, in the first step, its objective
            does not give its outputs.
    """

    def __init__(self, inner: Objective, task: Task, *, k: int, weight: float) -> None:
        super().__init__(inner)
        self.task, self.k, self.weight = task, k, weight
        self.queue = FeatureQueue(_QUEUE, self._width(), 3)
        self._pushes: Remembered[tuple[Tensor, Tensor]] = Remembered()

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        step: StepOutput = self.inner(batch, progress)
        if not isinstance(step.outputs, BagOutput):
            raise self._refusal("its training step judges something else than whole bags")
        assert batch.mixture is None, "embeddings of bags of one class each"
        z = full(step.outputs.embedding)  # (b, e)
        own = self._own(batch)  # (b, 3)
        known = self.queue.known
        others = torch.cat([z.detach(), self.queue.vectors[known]])  # (n, e)
        near, count = neighbours(z.detach(), others, _pairs(own, torch.cat([own, self.queue.payloads[known]])), self.k)
        self._pushes.append((z.detach(), own))

        base, share = self._turns(batch.target.y, count)  # (s,), (s,)
        pick = (torch.rand(len(base), device=z.device) * count[base]).long().clamp(max=near.shape[1] - 1)
        u = torch.rand(len(base), 1, device=z.device)
        made = z[base] + u * (others[near[base, pick]] - z[base])  # (s, e)
        logits = self._model.aggregator.classify(made)
        assert logits is not None
        loss, class_weight = self.task.loss(logits, batch.target.take(base))
        term = self.weight * weighted_mean(loss, share * class_weight)
        return StepOutput(step.loss + term, {**step.parts, "smote": term}, step.outputs)

    def after_step(self, progress: float) -> None:
        for vectors, own in self._pushes:
            self.queue.push(vectors, own)
        self._pushes.clear()
        self.inner.after_step(progress)

    def _turns(self, y: Int64[Tensor, b], count: Int64[Tensor, b]) -> tuple[Int64[Tensor, s], Float[Tensor, s]]:
        """The bag from which each point sets out, and the part of its class's weight that it carries."""
        classes, most = y.tolist(), 0
        bags: dict[int, list[int]] = {}
        for place, (own, others) in enumerate(zip(classes, count.tolist())):
            most = max(most, classes.count(own))
            if others:
                bags.setdefault(own, []).append(place)
        base = [places[turn % len(places)] for places in bags.values() for turn in range(most)]
        share = [classes.count(own) / most for own in bags for _ in range(most)]
        return torch.tensor(base, dtype=torch.int64, device=y.device), torch.tensor(share, device=y.device)

    def _own(self, batch: LabelledBags) -> Float[Tensor, "b 3"]:
        """The class and the name of each bag as numbers that float32 holds exactly: a bag is no neighbour of itself."""
        names = [crc32(name.encode()) for name in batch.bags.slides]
        y = batch.target.y
        halves = torch.tensor([[name >> 16, name & 0xFFFF] for name in names], device=y.device)
        return torch.cat([y.unsqueeze(1), halves], 1).float()

    @property
    def _model(self) -> SlideModel:
        model = self.network
        assert isinstance(model, SlideModel)
        return model

    def _width(self) -> int:
        """The width of an embedding, found by asking."""
        model = self._model
        one = Bags(torch.zeros(1, model.card.origin.dim), torch.tensor([0, 1]), torch.zeros(1, 2), ("one",))
        with evaluating(model):
            embedding = model(one).embedding
            if model.aggregator.classify(embedding) is None:
                raise self._refusal("it has no logits of embeddings alone")
        return int(embedding.shape[1])

    def _refusal(self, why: str) -> SettingsError:
        return SettingsError(
            f'fit.augment_options.space = "embeddings": points between the embeddings of bags cannot be judged by '
            f"{self._model.card.method}, for {why}.",
            fix='Set fit.augment_options.space = "rows", or choose a method such as "abmil".',
        )


def neighbours(
    z: Float[Tensor, "b e"], others: Float[Tensor, "n e"], allowed: Bool[Tensor, "b n"], k: int
) -> tuple[Int64[Tensor, "b k"], Int64[Tensor, b]]:
    """The places of the `k` nearest allowed vectors, nearest first, and how many of them there are: the rest means
    nothing."""
    apart = torch.cdist(z, others).masked_fill(~allowed, torch.inf)
    near = apart.topk(min(k, len(others)), largest=False).indices
    return near, allowed.sum(1).clamp(max=k)


def _pairs(own: Float[Tensor, "b 3"], others: Float[Tensor, "n 3"]) -> Bool[Tensor, "b n"]:
    """True for two bags of one class that are not the same bag."""
    alike = own[:, None] == others
    return alike[..., 0] & ~alike[..., 1:].all(2)
