"""Bags from feature files: which slides make a bag, whose they are, what is known of them. Rows wait in the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coverslip.base.errors import FeatureError, TableError
from coverslip.base.random import stream
from coverslip.mil.bags import Bags
from coverslip.mil.origin import FeatureOrigin
from coverslip.mil.rows import Moments, Rows
from coverslip.mil.target import Mixture, Target
from coverslip.store import Features

BagKind = Literal["slide", "patient"]

# Slides of one patient lie side by side, this far apart, so that none of their tiles come near each other.
SLIDE_GAP_UM = 10_000.0


@dataclass(frozen=True)
class LabelledBags:
    """Bags and what is known of them: one batch. `mixture` is there where bags were mixed of two each."""

    bags: Bags
    target: Target
    mixture: Mixture | None = None

    def to(self, device: torch.device | str) -> LabelledBags:
        """The same batch on a device."""
        mixture = None if self.mixture is None else self.mixture.to(device)
        return LabelledBags(self.bags.to(device), self.target.to(device), mixture)


Augmenting = Callable[[LabelledBags, np.random.Generator], LabelledBags]


@dataclass(frozen=True)
class _Bag:
    name: str
    patient: str
    places: tuple[int, ...]  # of its slides in the source


class BagSource:
    """The bags of some slides: a bag a slide, or with bag="patient" one that pools all slides of a patient.

    Rows stay where they are (mapped from the file) until a bag is asked for; a source whose rows fit into `memory_gb`
    keeps what it has read, and so do all sources taken from it. A pooled bag's slides are laid side by side along x, so
    positions inside a slide keep their distances and slides never touch.

    Raises:
        FeatureError: a slide without rows, of another width or encoder than the first, or twice.
        TableError: a patient's slides differ in target where the bag is the patient.
    """

    def __init__(
        self,
        features: Iterable[Features],
        *,
        patients: Mapping[str, str] | None = None,
        target: Target | None = None,
        bag: BagKind = "slide",
        memory_gb: float = 4.0,
    ) -> None:
        slides = tuple(features)
        if not slides:
            raise FeatureError("There are no feature files to learn from.", fix="Run `coverslip embed` first.")
        assert target is None or len(target) == len(slides)
        self._slides = slides
        self._patients = {f.slide: (patients or {}).get(f.slide, f.slide) for f in slides}
        self._slide_target = target
        self.bag = bag
        self.origin = _common_origin(slides)
        self._rows = Rows(int(memory_gb * 2**30))
        self._arrange()

    def _arrange(self) -> None:
        """Groups slides into bags, in the order of their first slide."""
        groups: dict[str, list[int]] = {}
        for place, features in enumerate(self._slides):
            name = features.slide if self.bag == "slide" else self._patients[features.slide]
            groups.setdefault(name, []).append(place)
        lengths = [len(features) for features in self._slides]
        self._first_keys = [0, *accumulate(lengths)]
        self._bags = tuple(
            _Bag(name, self._patients[self._slides[places[0]].slide], tuple(places)) for name, places in groups.items()
        )
        self.target = self._bag_target()

    def _bag_target(self) -> Target | None:
        if self._slide_target is None:
            return None
        facts = self._slide_target.facts()
        for bag in self._bags:
            if len({facts[place] for place in bag.places}) > 1:
                raise TableError(
                    f"The slides of patient {bag.patient!r} have different targets.",
                    fix='Give the patient one target, or set task.bag = "slide".',
                )
        return self._slide_target.take(torch.tensor([bag.places[0] for bag in self._bags]))

    def take(self, slides: Iterable[str]) -> BagSource:
        """The source of some of these slides, in this source's order; shares what was read.

        Raises:
            FeatureError: a slide that is not here.
        """
        wanted = set(slides)
        missing = sorted(wanted - {f.slide for f in self._slides})
        if missing:
            raise FeatureError("has no features.", slide=missing[0], fix="Run `coverslip embed` first.", code="missing")
        places = [i for i, f in enumerate(self._slides) if f.slide in wanted]
        if not places:
            raise FeatureError("There are no slides to learn from.", fix="Check the split and the table.")
        part = object.__new__(BagSource)
        part._slides = tuple(self._slides[i] for i in places)
        part._patients = {f.slide: self._patients[f.slide] for f in part._slides}
        part._slide_target = None if self._slide_target is None else self._slide_target.take(torch.tensor(places))
        part.bag, part.origin, part._rows = self.bag, self.origin, self._rows
        part._arrange()
        return part

    def with_target(self, target: Target) -> BagSource:
        """The same bags with other targets, one a slide in this source's order; shares what was read."""
        assert len(target) == len(self._slides)
        other = object.__new__(BagSource)
        other._slides, other._patients, other._slide_target = self._slides, self._patients, target
        other.bag, other.origin, other._rows = self.bag, self.origin, self._rows
        other._arrange()
        return other

    def __len__(self) -> int:
        return len(self._bags)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self._slides[0].dim

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each bag: its slide, or its patient."""
        return tuple(bag.name for bag in self._bags)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each bag."""
        return tuple(bag.patient for bag in self._bags)

    @property
    def slides(self) -> tuple[tuple[str, ...], ...]:
        """The slides of each bag."""
        return tuple(tuple(self._slides[i].slide for i in bag.places) for bag in self._bags)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each bag."""
        return tuple(sum(len(self._slides[i]) for i in bag.places) for bag in self._bags)

    def require_positions(self, method: str) -> None:
        """Nothing, where every slide has positions.

        Raises:
            FeatureError: naming the first slide without, and why.
        """
        for features in self._slides:
            if features.centres_um is None:
                why = " ".join(features.notes) or "The features have no positions."
                raise FeatureError(
                    f"the method {method!r} uses positions. {why}",
                    slide=features.slide,
                    fix="Embed the slides again, or choose a method that needs no positions.",
                    code="no_positions",
                )

    def bags(self, index: Sequence[int], *, max_rows: int | None = None, draw: tuple[str | int, ...] = (0,)) -> Bags:
        """These bags, packed, on the CPU, as they lie on disk (float16 stays float16).

        With `max_rows` a longer bag gives that many of its rows, in their order; which ones depends on `draw` (a seed,
        then names) and the bag alone.
        """
        rows: list[Tensor] = []
        positions: list[Tensor | None] = []
        keys: list[Tensor] = []
        lengths: list[int] = []
        for place in index:
            x, xy_um, own_keys = self._bag(self._bags[place], max_rows, draw)
            rows += x
            positions += xy_um
            keys += own_keys
            lengths.append(sum(map(len, x)))
        known = [p for p in positions if p is not None]
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(torch.tensor(lengths), 0, out=offsets[1:])
        return Bags(
            torch.cat(rows) if len(rows) > 1 else rows[0],
            offsets,
            torch.cat(known) if len(known) == len(positions) else None,
            tuple(self._bags[place].name for place in index),
            torch.cat(keys),
        )

    def _bag(
        self, bag: _Bag, max_rows: int | None, draw: tuple[str | int, ...]
    ) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
        slides = [self._slides[i] for i in bag.places]
        keep = _kept_rows([len(f) for f in slides], max_rows, draw, bag.name)
        rows, positions, keys, edge = [], [], [], 0.0
        for place, features, kept in zip(bag.places, slides, keep):
            if kept is not None and len(kept) == 0:
                continue
            rows.append(self._rows.of(features, kept))
            xy_um = self._rows.positions(features, kept)
            if xy_um is not None and len(slides) > 1:
                xy_um = xy_um + torch.tensor([edge, 0.0])
            positions.append(xy_um)
            keys.append(self._first_keys[place] + (torch.arange(len(features)) if kept is None else kept))
            edge += (self._rows.right_edge(features) or 0.0) + SLIDE_GAP_UM
        return rows, positions, keys

    def chunks(self, max_rows: int = 65_536) -> Iterator[list[int]]:
        """All bags in order, in runs of at most about `max_rows` rows: what fits into one forward pass."""
        run: list[int] = []
        rows = 0
        for place, length in enumerate(self.lengths):
            if run and rows + length > max_rows:
                yield run
                run, rows = [], 0
            run.append(place)
            rows += length
        yield run

    def moments(self) -> tuple[Float[Tensor, d], Float[Tensor, d]]:
        """Mean and standard deviation of each dimension over all rows of all bags, in float32.

        Raises:
            FeatureError: a slide with NaN or infinity.
        """
        whole = Moments.none(self.dim)
        for features in self._slides:
            whole = whole.with_other(self._rows.moments(features))
        return whole.mean.float(), whole.sd.float()


class BagBatches:
    """The training batches of a source. Implements `train.Batches`.

    With "uniform" sampling an epoch has each bag once, in a new order. With "balanced" it has as many bags, as many of
    each class as of any other: of a common class some, of a rare one all, and several times. The bags of a class take
    turns, so that within an epoch no two of them differ by more than one in how often they come; and each batch has its
    share of every class. `augment` mixes the bags of a batch; what it draws depends on seed, epoch and index alone.
    """

    def __init__(
        self,
        source: BagSource,
        *,
        size: int,
        seed: int,
        max_rows: int | None = None,
        sampling: Literal["uniform", "balanced"] = "uniform",
        augment: Augmenting | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert source.target is not None, "training needs targets"
        assert sampling == "uniform" or source.target.has_classes
        self.source, self.size, self.seed, self.max_rows = source, size, seed, max_rows
        self.sampling, self.augment = sampling, augment
        self.rank, self.world = rank, world
        self._order: tuple[int, list[list[int]]] = (-1, [])

    def __len__(self) -> int:
        return -(-len(self.source) // (self.size * self.world))

    def shard(self, rank: int, world: int) -> BagBatches:
        """The batches of one of several processes that train together."""
        return BagBatches(
            self.source,
            size=self.size,
            seed=self.seed,
            max_rows=self.max_rows,
            sampling=self.sampling,
            augment=self.augment,
            rank=rank,
            world=world,
        )

    def batch(self, epoch: int, index: int) -> LabelledBags:
        """One batch, a function of epoch and index alone."""
        places = self._places(epoch, index)
        # A bag that comes again within an epoch shows other rows.
        again = () if self.sampling == "uniform" else (index,)
        bags = self.source.bags(places, max_rows=self.max_rows, draw=(self.seed, "rows", epoch, *again))
        assert self.source.target is not None
        batch = LabelledBags(bags, self.source.target.take(torch.tensor(places)))
        if self.augment is None:
            return batch
        return self.augment(batch, stream(self.seed, "augment", epoch, index, self.rank))

    def describe(self, epoch: int, index: int) -> str:
        """The names of the bags in a batch."""
        return ", ".join(self.source.names[place] for place in self._places(epoch, index))

    def _places(self, epoch: int, index: int) -> list[int]:
        if self._order[0] != epoch:
            rng = stream(self.seed, "order", epoch)
            self._order = (epoch, self._even(rng) if self.sampling == "uniform" else self._by_class(rng))
        places = self._order[1][index]
        return places[self.rank :: self.world] or places[:1]

    def _even(self, rng: np.random.Generator) -> list[list[int]]:
        order = rng.permutation(len(self.source)).tolist()
        # Every process does as many steps: the last ones take bags from the start again.
        need = len(self) * self.world if self.world > 1 else 0
        order += order[: max(0, need - len(order))]
        return [order[i :: len(self)] for i in range(len(self))]

    def _by_class(self, rng: np.random.Generator) -> list[list[int]]:
        assert self.source.target is not None
        y = self.source.target.y.numpy()
        classes = rng.permutation(np.unique(y))
        need = max(len(self.source), len(self) * self.world)
        order: list[int] = []
        for place, name in enumerate(classes):
            # The first classes of this epoch take what does not divide.
            count = need // len(classes) + (place < need % len(classes))
            own = np.flatnonzero(y == name)
            turns = [rng.permutation(own) for _ in range(-(-count // len(own)))]
            order += np.concatenate(turns)[:count].tolist() if turns else []
        # Classes lie behind each other, so even strides give each batch its share of every class.
        batches = [order[i :: len(self)] for i in range(len(self))]
        return [batches[i] for i in rng.permutation(len(batches))]


def _kept_rows(lengths: list[int], max_rows: int | None, draw: tuple[str | int, ...], bag: str) -> list[Tensor | None]:
    """The rows of each slide that stay, rising; None for all."""
    total = sum(lengths)
    if max_rows is None or total <= max_rows:
        return [None] * len(lengths)
    seed, *names = draw
    kept = np.sort(stream(int(seed), *names, bag).choice(total, max_rows, replace=False))
    ends = np.cumsum(lengths)
    parts = np.split(kept, np.searchsorted(kept, ends[:-1]))
    return [torch.from_numpy(part - (end - length)) for part, end, length in zip(parts, ends, lengths)]


def _common_origin(slides: tuple[Features, ...]) -> FeatureOrigin:
    first = FeatureOrigin.of(slides[0])
    seen: set[str] = set()
    for features in slides:
        if features.slide in seen:
            raise FeatureError("is in the list twice.", slide=features.slide, code="duplicate")
        seen.add(features.slide)
        if len(features) == 0:
            raise FeatureError("has no rows of features.", slide=features.slide, fix="Embed it again.", code="empty")
        FeatureOrigin.of(features).require_same(first, slide=features.slide, whose=slides[0].slide)
    return first
