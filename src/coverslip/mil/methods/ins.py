"""INS: a classifier of single tiles, learnt from bags by prototypes and contrast.

Qu et al.: Rethinking multiple instance learning for whole slide image classification: a good instance classifier is all
you need, IEEE TCSVT 2024, https://arxiv.org/abs/2307.02249. Written from the formulas.
What the authors' code does was looked up in https://github.com/miccaiif/INS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.base.study import FitSettings
from coverslip.mil.bags import BagOutput, Bags, LearningSet, StagedAggregator
from coverslip.mil.parts.classes import class_shares
from coverslip.mil.parts.contrast import ContrastHead, key_contrast, supervised_contrast
from coverslip.mil.parts.memory import Confidence, FeatureQueue, Prototypes
from coverslip.mil.parts.teacher import Teacher
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import task_loss
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.layers import Projection, default_hidden
from coverslip.nn.segments import Segments, full, logsumexp, maximum, mean, rank, top, total
from coverslip.train import Objective, Remembered, StepOutput
from coverslip.train.optim import decay_groups
from coverslip.train.schedules import linear

ENTRIES = {
    "ins": {
        "build": "Ins",
        "summary": "a classifier of single tiles, by prototypes and contrast",
        "origin": "Qu et al. 2024, arXiv:2307.02249",
        "licence": "Apache-2.0",
        "needs": "a classification target",
    }
}


# The calibration is a convex problem of a few numbers, and has to keep up with what it calibrates.
_CALIBRATION_LR = 0.05


@dataclass(frozen=True)
class _Values:
    """What a preset sets where nothing is given."""

    pool: Literal["mean", "top"]
    warmup: float
    bag_weight: float
    contrast_weight: float
    queue: int
    momentum: float


_OURS = _Values("top", warmup=0.2, bag_weight=4.0, contrast_weight=0.1, queue=4096, momentum=0.99)
_OFFICIAL = _Values("mean", warmup=1 / 40, bag_weight=0.5, contrast_weight=0.5, queue=8192, momentum=0.999)


class Ins(StagedAggregator):
    """Each row gets a class of its own; a bag is what its rows are.

    For a row x, with an encoder f of `layers` layers and a linear classifier:

        h = f(x),   p = softmax(W h + c)                 p: BagOutput.evidence (m, k), the map
        s = mean of the top rows' p                      `pool` top, `top_rows`; or mean of all, max, lse
        logits = e^a log s + d                           a, d: the calibration

    Without the calibration (`calibrated` false) the softmax of the logits is s. The share of tumour in a slide is no
    probability that it has any, so one scale and one shift a class, learnt with the task's loss alone and not felt by
    the rest, make it one. For two classes the order of bags is that of s either way. Where few rows of a positive bag
    show it (3 %), the mean hardly moves. lse is (1/r) log mean exp(r p) with r = `sharpness`, between mean and max.

    Rows have no labels; they have candidates. A row of a bag of class c is of class c or of the `negative` one, and a
    row of a negative bag is negative. With two classes the first is the negative one. With more there is none unless
    `negative` names its place: rows then have one class more, the background, that no bag has (`negative` "none"; for
    two classes as well, such as two subtypes). Then s is taken over the classes of bags alone. A row of a bag mixed of
    two classes may be of either.

    A training step draws about `rows` rows, the same number for each class of bags and from each bag of a class, and
    sees each in a second view (noise, some dimensions dropped) through a momentum encoder. With the unit vectors q of
    the rows and k of their second views, by a head of two layers:

        y = argmax of p among the candidates             pseudo label
        mu_y <- the moving average of q                  prototypes, length 1
        b <- phi b + (1 - phi) onehot(argmax of q.mu among the candidates)
                                                         confidence of the row; even among the candidates at first
        loss = - mean of b log p  +  contrast_weight L_contrast  +  bag_weight L_bag

    L_contrast is that of MoCo (each q finds its k among the queue) for the first `warmup` of training, and then the
    supervised contrast of q to all q, k and the queue, where the same pseudo label makes a positive. Prototypes move
    from the start, confidences only after the warm-up. phi falls evenly from `confidence` to `confidence_end`. L_bag is
    the task's loss of the mean of a bag's row logits W h + c, over all its rows. Rows without keys (`Bags.keys`) have
    no confidence to keep: b is what the prototypes say at once.

    The authors' values: a ResNet-18 as encoder, head 512-128, queue 8192, momentum .999, prototypes .9, phi .95 to .8,
    temperature .07, 64 rows a step, SGD .01 for 40 epochs, the warm-up 1 of them (20 on features); contrast_weight .5
    (their scripts try 0 to 1), bag_weight .5, pool mean (max in the variant for features). Ours: queue 4096, momentum
    .99 and warmup .2, since studies train for hundreds of steps and not tens of thousands; contrast_weight .1,
    bag_weight 4 and pool top; and the study's AdamW. Views of features in place of images are ours.

    The last three were chosen on planted bags with 3 % witnesses and 48 bags to learn from, seeds 0 to 2: AUROC of bags
    .96 to 1.00, and .97 to 1.00 on seeds 4 to 6. With the mean, contrast_weight .5 and bag_weight 1 it was .43 to .73:
    in so few steps the contrast outweighs the rest, and all pseudo labels turn negative. `top_rows` is a number, not a
    share: where fewer rows show the class, the others water s down. On planted bags with three to six witnesses among
    40 to 80 rows AUROC was .90 with ten top rows and 1.00 with three.

    `preset` "official" has the authors' values where they are not given, and does what their code does where "fixed"
    (default) differs:

    - its bag loss in the warm-up takes the softmax of a bag's mean feature for the bag's logits: the first of the
      hidden numbers are the classes, and the row classifier has no part in it. Ours is the mean of the row logits, and
      stays on after the warm-up, as in the authors' variant for features: without it a few witnesses are outnumbered
      by rows that look like those of negative bags, all pseudo labels turn negative, and nothing is learnt.
    - its warm-up sees the rows of positive bags alone, in all losses and memories; ours all.
    - its bag prediction is s, without a calibration.

    In both, prototypes are moved by the mean of a class's rows with momentum m^n in place of row by row, and places
    of the queue that nothing was pushed to are left out, where the code begins with random vectors and random labels.
    """

    least_bags = 8
    sampling = "balanced"

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        hidden: int | None = None,
        layers: int = 2,
        dropout: float = 0.25,
        negative: int | Literal["auto", "none"] = "auto",
        pool: Literal["mean", "max", "top", "lse"] | None = None,
        top_rows: int = 10,
        sharpness: float = 8.0,
        calibrated: bool = True,
        rows: int = 256,
        warmup: float | None = None,
        bag_weight: float | None = None,
        contrast_weight: float | None = None,
        contrast: int = 128,
        temperature: float = 0.07,
        queue: int | None = None,
        momentum: float | None = None,
        prototype_momentum: float = 0.9,
        confidence: float = 0.95,
        confidence_end: float = 0.8,
        view_dropout: float = 0.1,
        view_noise: float = 0.1,
        preset: Literal["fixed", "official"] = "fixed",
    ) -> None:
        super().__init__()
        for name, count in (("layers", layers), ("rows", rows), ("top_rows", top_rows)):
            if count < 1:
                raise ValueError(f"{name} is 1 or more")
        if temperature <= 0 or sharpness <= 0:
            raise ValueError("temperature and sharpness are over 0")
        usual = _OFFICIAL if preset == "official" else _OURS
        self.num_outputs = num_outputs
        # One output is the log odds of the second of two classes.
        self.num_classes = max(2, num_outputs)
        self.negative = _negative(negative, self.num_classes)
        self.kinds = max(self.num_classes, self.negative + 1)  # classes of rows
        self.width = hidden = default_hidden(dim) if hidden is None else hidden
        deeper = [Projection(hidden, hidden, dropout=dropout) for _ in range(layers - 1)]
        self.encoder = nn.Sequential(Projection(dim, hidden, dropout=dropout), *deeper)
        self.classifier = nn.Linear(hidden, self.kinds)
        self.head = ContrastHead(hidden, contrast)
        self.calibration = Calibration(self.num_classes) if calibrated and preset == "fixed" else None
        self.pool = usual.pool if pool is None else pool
        self.top_rows, self.sharpness = top_rows, sharpness
        self.rows, self.preset = rows, preset
        self.warmup = usual.warmup if warmup is None else warmup
        self.bag_weight = usual.bag_weight if bag_weight is None else bag_weight
        self.contrast_weight = usual.contrast_weight if contrast_weight is None else contrast_weight
        self.contrast, self.temperature = contrast, temperature
        self.queue = usual.queue if queue is None else queue
        self.momentum = usual.momentum if momentum is None else momentum
        self.prototype_momentum = prototype_momentum
        self.confidence, self.confidence_end = confidence, confidence_end
        self.view_dropout, self.view_noise = view_dropout, view_noise

    def project(self, x: Tensor) -> Tensor:
        h: Tensor = self.encoder(x)
        return h

    def aggregate(self, bags: Bags, target: Target | None = None) -> BagOutput:
        h = bags.x  # (m, hidden)
        log_p = full(self.classifier(h)).log_softmax(1)  # (m, kinds)
        logits = self.log_shares(log_p, bags.segments)  # (b, classes)
        if self.calibration is not None:
            logits = self.calibration(logits)
        p = log_p[:, : self.num_classes].exp()
        if self.num_outputs == 1:
            logits, p = logits[:, 1:] - logits[:, :1], p[:, 1:]
        return BagOutput(logits, mean(h, bags.segments), evidence=p)

    def log_shares(self, log_p: Float[Tensor, "m kinds"], segments: Segments) -> Float[Tensor, "b classes"]:
        """log s: the share of each class of bags in each bag, pooled from its rows."""
        if self.pool == "mean":
            log_s = logsumexp(log_p, segments) - segments.lengths.to(log_p.dtype).log().unsqueeze(1)
            return log_s[:, : self.num_classes]
        # A bag is as negative as its least negative rows: 1 - pool(1 - p) is -pool(-p), since all pools move along.
        sign = torch.ones_like(log_p[:1])
        sign[:, self.negative] = -1
        p = sign * log_p.exp()
        if self.pool == "max":
            s = maximum(p, segments)
        elif self.pool == "top":
            s = total(p * top(p, segments, self.top_rows), segments)
            s = s / segments.lengths.clamp(max=self.top_rows).unsqueeze(1)
        else:
            among = segments.lengths.to(p.dtype).log().unsqueeze(1)
            s = (logsumexp(self.sharpness * p, segments) - among) / self.sharpness
        return (sign * s).clamp(min=torch.finfo(p.dtype).tiny).log()[:, : self.num_classes]

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        """Learning of single rows.

        Raises:
            SettingsError: the task is no classification.
        """
        if task.kind != "classification":
            raise SettingsError(
                f"aggregator.name = 'ins': the method gives each row one of the classes, and task.kind = {task.kind!r} "
                "has none to give.",
                fix='Set task.kind = "classification", or choose another method: `coverslip list aggregators`.',
            )
        return _Rows(network, task, self, learns)


class Calibration(nn.Module):
    """Log shares (b, k) to logits: one scale, over 0, and one shift a class."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.shift = nn.Parameter(torch.zeros(classes))

    def forward(self, log_s: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        return self.log_scale.exp() * log_s + self.shift


@dataclass(frozen=True)
class _Seen:
    """What a step leaves for its memories."""

    q: Float[Tensor, "n e"]
    k: Float[Tensor, "n e"]
    label: Float[Tensor, "n kinds"]
    keys: Int64[Tensor, n] | None
    start: Float[Tensor, "n kinds"]
    found: Float[Tensor, "n kinds"] | None  # None in the warm-up


class _Rows(Objective):
    """Pseudo labels, prototypes, confidences and contrast of drawn rows, and the loss of whole bags."""

    def __init__(self, network: nn.Module, task: Task, method: Ins, learns: LearningSet) -> None:
        super().__init__()
        self._network, self.task = network, task
        self.teacher = Teacher(self._views(method), dropout=True)
        self.queue = FeatureQueue(method.queue, method.contrast, method.kinds)
        self.prototypes = Prototypes(method.kinds, method.contrast, method.prototype_momentum)
        self.confidence = Confidence(learns.num_rows, method.kinds)
        self._seen: Remembered[_Seen] = Remembered()

    @property
    def network(self) -> nn.Module:
        return self._network

    @property
    def begins(self) -> float:
        return self._method.warmup

    @property
    def _method(self) -> Ins:
        method = self._network.aggregator
        assert isinstance(method, Ins)
        return method

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        method, warming = self._method, progress < self._method.warmup
        shares = class_shares(batch, method.kinds)  # (b, kinds)
        bags = batch.bags.with_x(self._network.get_submodule("standardise")(batch.bags.x))
        h = method.project(bags.x)  # (m, hidden)
        logits = full(method.classifier(h))  # (m, kinds)

        may_be = candidates(shares, method.negative)  # (b, kinds)
        keep = drawn(batch, method.rows)  # n of the m rows
        positive = may_be.sum(1) > 1
        if warming and method.preset == "official" and positive.any():
            keep = keep & positive[bags.seg]
        keys = None if bags.keys is None else bags.keys[keep]
        allowed = may_be[bags.seg[keep]]  # (n, kinds)
        q, k = method.head(h[keep]), self.teacher(self._other_view(bags.x[keep]))  # (n, contrast)
        label = best(logits[keep].detach(), allowed)
        start = allowed.float() / allowed.sum(1, keepdim=True)
        found = None if warming else best(self.prototypes.similarity(q.detach()), allowed)

        parts = {
            "rows": functional.cross_entropy(logits[keep], self._belief(keys, start, found, progress)),
            "contrast": method.contrast_weight * self._contrast(q, k, label, warming),
        }
        if warming or method.preset == "fixed":
            parts["bags"] = method.bag_weight * self._bag_loss(h, logits, shares, batch)
        if method.calibration is not None:
            log_s = method.log_shares(logits.detach().log_softmax(1), bags.segments)
            parts["calibration"] = task_loss(self.task, method.calibration(log_s), batch)
        self._seen.append(_Seen(q.detach(), k, label, keys, start, found))
        return StepOutput(torch.stack(list(parts.values())).sum(), parts)

    def after_step(self, progress: float) -> None:
        for seen in self._seen:
            self.prototypes.update(seen.q, seen.label.argmax(1))
            self.queue.push(seen.k, seen.label)
            if seen.keys is not None and seen.found is not None:
                self.confidence.update(seen.keys, seen.start, seen.found, self._phi(progress))
        self._seen.clear()
        self.teacher.move(self._views(self._method), self._method.momentum)

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        groups = super().parameter_groups(settings)
        calibration = self._method.calibration
        if calibration is None:
            return groups
        apart = set(calibration.parameters())
        for group in groups:
            group["params"] = [p for p in group["params"] if p not in apart]
        return [*groups, *decay_groups(calibration, lr=_CALIBRATION_LR, weight_decay=0.0)]

    @staticmethod
    def _views(method: Ins) -> nn.Module:
        """Rows to vectors of the contrast: what the teacher follows."""
        return nn.Sequential(method.encoder, method.head)

    def _phi(self, progress: float) -> float:
        return linear(self._method.confidence, self._method.confidence_end, progress)

    def _other_view(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return functional.dropout(x, self._method.view_dropout) + self._method.view_noise * torch.randn_like(x)

    def _belief(
        self,
        keys: Int64[Tensor, n] | None,
        start: Float[Tensor, "n kinds"],
        found: Float[Tensor, "n kinds"] | None,
        progress: float,
    ) -> Float[Tensor, "n kinds"]:
        """The target of each row: its confidence as it will be after this step."""
        if found is None:
            return start
        if keys is None:
            return found
        phi = self._phi(progress)
        return phi * self.confidence.of(keys, start) + (1 - phi) * found

    def _contrast(
        self, q: Float[Tensor, "n e"], k: Float[Tensor, "n e"], label: Float[Tensor, "n kinds"], warming: bool
    ) -> Float[Tensor, ""]:
        queue, temperature = self.queue, self._method.temperature
        if warming:
            return key_contrast(q, k, queue.vectors, temperature=temperature, known=queue.known)
        agreement = label @ torch.cat([label, label, queue.payloads]).T  # (n, n + n + queue)
        known = torch.cat([queue.known.new_ones(len(k)), queue.known])
        others = torch.cat([k, queue.vectors])
        return supervised_contrast(q, others, agreement, temperature=temperature, known=known).loss

    def _bag_loss(
        self,
        h: Float[Tensor, "m hidden"],
        logits: Float[Tensor, "m kinds"],
        shares: Float[Tensor, "b kinds"],
        batch: LabelledBags,
    ) -> Float[Tensor, ""]:
        classes = self._method.num_classes
        if self._method.preset == "fixed":
            return task_loss(self.task, mean(logits, batch.bags.segments)[:, :classes], batch)
        of_feature = mean(full(h), batch.bags.segments).softmax(1)  # (b, hidden)
        return -(shares[:, :classes] * of_feature.log_softmax(1)[:, :classes]).sum(1).mean()


def drawn(batch: LabelledBags, rows: int) -> Bool[Tensor, m]:
    """True for about `rows` random rows: as many of each class of bags, and as many of each bag of a class.

    A bag with fewer than its part gives all it has; each bag gives one at least.
    """
    bags, y = batch.bags, batch.target.y
    mates = (y[:, None] == y).sum(1)  # bags of the same class
    classes = (1 / mates).sum().round()
    part = (rows / (classes * mates)).ceil()  # (b,)
    return rank(torch.rand(len(bags.x), device=bags.x.device), bags.segments) < part[bags.seg]


def candidates(shares: Float[Tensor, "b kinds"], negative: int) -> Bool[Tensor, "b kinds"]:
    """What a row of each bag may be: a class of its bag, or negative."""
    allowed = shares > 0
    allowed[:, negative] = True
    return allowed


def best(scores: Float[Tensor, "n kinds"], allowed: Bool[Tensor, "n kinds"]) -> Float[Tensor, "n kinds"]:
    """One-hot: the highest score among those allowed."""
    # Below -inf there is nothing: a candidate without a prototype must still win over what is not allowed.
    finite = scores.clamp(min=torch.finfo(scores.dtype).min)
    return functional.one_hot(finite.masked_fill(~allowed, -torch.inf).argmax(1), scores.shape[1]).float()


def _negative(negative: int | str, classes: int) -> int:
    """The place of the negative class of rows; behind those of bags where none of them is it."""
    if isinstance(negative, str):
        return 0 if negative == "auto" and classes == 2 else classes
    if not 0 <= negative < classes:
        raise ValueError(f"negative is the place of a class, 0 to {classes - 1}")
    return negative
