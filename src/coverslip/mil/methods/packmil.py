"""PackMIL: training on random halves of slides, and on hyperslides made of what the halves leave.

Tang et al.: Revisiting data challenges of computational pathology: a pack-based multiple instance learning framework,
2025, https://arxiv.org/abs/2509.20923. Released code: https://github.com/FangHeng/PackMIL; nothing of it is copied.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.base.study import FitSettings
from coverslip.mil.bags import Aggregator, BagOutput, Bags, LearningSet
from coverslip.mil.build import build_aggregator
from coverslip.mil.parts.downsampling import AttentionDownsampling
from coverslip.mil.parts.hyperslides import Members, hyperslide_loss, require_labels
from coverslip.mil.parts.packing import Halves, first_fit_decreasing, next_fit, split_rows, without_boundaries
from coverslip.mil.source import LabelledBags
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.train import StepOutput
from coverslip.train.objective import Objective

ENTRIES = {
    "packmil": {
        "build": "PackMil",
        "summary": "a host trained on halves of slides and on packs of the other halves",
        "origin": "Tang et al. 2025, arXiv:2509.20923",
        "licence": "Apache-2.0",
        "needs": "several bags a step",
    }
}

# What a pack holds in the released configuration for whole slides (BRCA) with its downsampling.
_OFFICIAL_PACK = 2400
# With fewer slides a step there is little to pack.
_LEAST_BAGS = 8

_HOSTS = (
    "Hosts are abmil, abmilx, acmil, aem, clam_mb, clam_sb, dsmil, dtfd, gnn_vitcap, mambamil, max, mean, rrt, "
    "transmil, varmil, weakstil, and any method of yours that is trained on its own logits."
)


class PackMil(Aggregator):
    """A host method, trained on parts of slides; logits, attention and evidence are the host's on whole slides.

    Each step:

        main part         a random `keep` of each slide's rows
        residual part     the slide's other rows
        packs             residual parts put together, `pack_rows` rows at most; each pack is one hyperslide
        loss              task(host(main parts)) + alpha * hyperslide loss(host(packs without boundaries))

    A slide of fewer than `min_rows` rows is whole in both parts. A hyperslide is labelled with what is known of its
    slides, by the task (`mil.parts.hyperslides` has the rules): for classes `labels` = "counts" (number of slides of a
    class over the largest such number; focal binary cross-entropy) or "shares" (cross-entropy against the share of the
    slides); for survival the first event, or that and the first end of follow-up by their shares; for values and levels
    the mean weighted by rows; for labels any slide's. The paper has classes, grades and survival; the others are ours.
    A task of another kind is refused unless `alpha` is 0.

    `downsample` r > 1 puts attention-driven downsampling before the host (`mil.parts.downsampling`): in training r
    random rows become one, in evaluation every row passes by itself, so rows differ in make-up between the two, by
    design. Its options are r alone; parts of at most `min_rows` rows are not grouped. A host that uses positions cannot
    have it.

    No row is padded, so packs do not save time here as in the paper; with `downsample` or a small `keep` a step is
    cheaper. Which slides share a pack is decided on the host from their lengths, one copy of as many numbers a step.

    Any method can be the host whose loss is a function of its logits and of what it sees of the rows (abmil, clam,
    acmil, transmil); it then sees the main parts. One with a training step of its own is refused.

    Official values: keep .4 (PANDA) or .5, alpha .2 (classes) or .5 (survival), r 4 or 3, packs of 600 to 3200 rows,
    a least of 0, 128 or 256 rows after downsampling, 32 to 128 slides a step. Ours: keep .5, alpha .2, no downsampling,
    min_rows 128, 8 slides a step at least, and packs of up to twice the batch's longest residual part, so that there
    are packs of two or more slides whatever the slides' lengths.

    `preset` = "official" packs as the released code does: next-fit in the order of the batch instead of
    first-fit-decreasing; packs of 2400 rows, doubled where the longest slide's rows times (1 - keep) / r exceed that
    (the released rule, which reads the kept share as the dropped one); and parts cut to what a pack holds, where
    "fixed" drops no row and gives a longer part its own pack. Downsampling has its official form too. Not reproduced:
    for prostates the paper adds up the mean major and the mean minor Gleason pattern of a pack and reads an ISUP grade
    off the sum. A target here is one level a patient, such as the ISUP grade itself; the two patterns behind it are
    not known (grade 1 is 3 + 3, but 5 is 4 + 5, 5 + 4 or 5 + 5), so a pack gets the mean of its slides' levels. The
    asymmetric loss for grades is left out too: levels have the ordinal task's own.
    """

    def __init__(
        self,
        dim: int,
        num_outputs: int,
        *,
        host: str = "abmil",
        keep: float = 0.5,
        alpha: float = 0.2,
        labels: Literal["counts", "shares"] = "counts",
        pack_rows: int | None = None,
        min_rows: int = 128,
        downsample: int = 1,
        preset: Literal["fixed", "official"] = "fixed",
        **host_options: Any,
    ) -> None:
        super().__init__()
        if host == "packmil":
            raise SettingsError('aggregator.options.host = "packmil": PackMIL cannot be its own host.', fix=_HOSTS)
        if not 0 < keep <= 1 or alpha < 0 or downsample < 1 or (pack_rows is not None and pack_rows < 1):
            raise ValueError("keep is over 0 and at most 1, alpha 0 or more, downsample and pack_rows 1 or more")
        if keep == 1 and alpha > 0:
            raise ValueError("keep = 1 leaves no rows for packs; set alpha = 0 or a smaller keep")
        self.keep, self.alpha, self.labels = keep, alpha, labels
        self.pack_rows, self.min_rows, self.official = pack_rows, min_rows, preset == "official"
        self.host_name = host
        self.host = build_aggregator(host, dim, num_outputs, host_options)
        if downsample > 1 and self.host.uses_positions:
            raise ValueError(f"{host} uses positions, and downsampled rows have none")
        self.downsampling = AttentionDownsampling(dim, downsample, official=self.official) if downsample > 1 else None
        self.uses_positions, self.order_matters = self.host.uses_positions, self.host.order_matters
        self.sampling = self.host.sampling
        self.least_bags = max(self.host.least_bags, _LEAST_BAGS) if alpha else self.host.least_bags

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        output: BagOutput = self.host(bags if self.downsampling is None else self.downsampling(bags), target)
        return output

    def classify(self, z: Float[Tensor, "b e"]) -> Float[Tensor, "b k"] | None:
        return self.host.classify(z)

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        """The step on halves and hyperslides.

        Raises:
            SettingsError: the host has a training of its own, or hyperslides of the task have no label.
        """
        own = self.host.objective(network, task, learns) or Supervised(network, task)
        if not isinstance(own, Supervised) or type(own).forward is not Supervised.forward:
            raise SettingsError(
                f"aggregator.options.host = {self.host_name!r} trains in steps of its own, on whole slides.",
                fix=_HOSTS,
            )
        if self.alpha:
            require_labels(task, method="packmil")
        return PackMilObjective(own)

    def part(self, bags: Bags, lengths: tuple[int, ...]) -> tuple[Bags, tuple[int, ...]]:
        """A part of the bags as training sees it, and its numbers of rows: downsampled where the method does."""
        if self.downsampling is None:
            return bags, lengths
        grouped = self.downsampling.grouped(bags, lengths, min_rows=self.min_rows)
        return grouped, self.downsampling.grouped_lengths(lengths, self.min_rows)

    def packs(self, lengths: tuple[int, ...], longest: int) -> list[list[int]]:
        """Which residual parts share a pack; `longest` is the number of rows of the longest slide of the batch."""
        if self.official:
            return next_fit(lengths, self._official_pack(longest))
        return first_fit_decreasing(lengths, self.pack_rows or 2 * max(lengths))

    def split(self, bags: Bags, lengths: tuple[int, ...]) -> Halves:
        """The main and the residual part of each bag, drawn at random; `lengths` are the bags' own."""
        most = self._official_pack(max(lengths)) * self._ratio if self.official else None
        return split_rows(bags, lengths, self.keep, min_rows=self.min_rows, most=most)

    def _official_pack(self, longest: int) -> int:
        rows = self.pack_rows or _OFFICIAL_PACK
        return 2 * rows if int(longest * (1 - self.keep)) // self._ratio > rows else rows

    @property
    def _ratio(self) -> int:
        return 1 if self.downsampling is None else self.downsampling.ratio


class PackMilObjective(Objective):
    """What the host learns from the main parts, and alpha times the loss of the hyperslides."""

    def __init__(self, own: Supervised) -> None:
        super().__init__()
        self._own = own

    @property
    def network(self) -> nn.Module:
        return self._own.network

    def forward(self, batch: LabelledBags, progress: float) -> StepOutput:
        method = self._method
        bags = batch.bags.with_x(self.network.standardise(batch.bags.x))  # type: ignore[operator]
        # The one copy to the host: packs are made there.
        lengths = tuple(bags.lengths.tolist())
        halves = method.split(bags, lengths)
        main, _ = method.part(halves.main, halves.main_lengths)
        output = method.host(main, batch.target)
        parts = {**self._own.terms(output, replace(batch, bags=main), progress), **output.losses}
        if method.alpha and halves.residual is not None:
            parts["hyperslides"] = method.alpha * self._hyperslides(halves, halves.residual, max(lengths), batch)
        return StepOutput(sum(parts.values()), parts, output)

    def after_step(self, progress: float) -> None:
        self._own.after_step(progress)

    def parameter_groups(self, settings: FitSettings) -> list[dict[str, Any]]:
        return self._own.parameter_groups(settings)

    def optimiser(self, settings: FitSettings) -> torch.optim.Optimizer:
        return self._own.optimiser(settings)

    @property
    def _method(self) -> PackMil:
        method = self.network.aggregator
        assert isinstance(method, PackMil)
        return method

    def _hyperslides(self, halves: Halves, residual: Bags, longest: int, batch: LabelledBags) -> Tensor:
        method = self._method
        parts, lengths = method.part(residual, halves.residual_lengths)
        packs = method.packs(lengths, longest)
        hyperslides = without_boundaries(parts, packs)
        rows = torch.zeros(len(batch.bags), device=parts.x.device)
        rows[list(halves.owners)] = torch.tensor(halves.residual_lengths, dtype=rows.dtype, device=rows.device)
        members = Members.of(batch, [[halves.owners[place] for place in pack] for pack in packs], rows)
        logits = method.host(hyperslides).logits
        return hyperslide_loss(self._own.task, logits, hyperslides, members, labels=method.labels)
