"""A trained slide-level model: standardised rows, an aggregator, a task, and the facts that belong to them."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from coverslip._version import __version__
from coverslip.base.errors import StoreError
from coverslip.base.files import write_bytes, write_json
from coverslip.base.fingerprint import file_digest
from coverslip.mil.bags import BagOutput, Bags
from coverslip.mil.build import build_aggregator, build_task
from coverslip.mil.origin import FeatureOrigin
from coverslip.mil.source import BagKind, BagSource
from coverslip.mil.target import Target
from coverslip.nn.layers import Standardise
from coverslip.store import Features
from coverslip.train.modes import evaluating

FORMAT = "coverslip.model/1"
WEIGHTS = "weights.safetensors"
CARD = "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What has to be known to build the model again and to know what it may be used on."""

    method: str
    options: dict[str, Any]
    origin: FeatureOrigin
    task: str
    task_arguments: dict[str, Any]
    bag: BagKind = "slide"
    column: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained: settings, seed, patients, slides, epochs, losses. For people; nothing is built from it."""

    def to_json(self) -> dict[str, Any]:
        """The card as JSON."""
        versions = {"coverslip": __version__, "torch": torch.__version__, "python": platform.python_version()}
        return {"format": FORMAT, **asdict(self), "versions": versions}

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> ModelCard:
        """The card that `to_json` wrote."""
        names = ("method", "options", "task", "task_arguments", "bag", "column", "training")
        return cls(origin=FeatureOrigin(**card["origin"]), **{name: card[name] for name in names})


class SlideModel(nn.Module):
    """Bags of raw features to predictions. `forward` gives the method's `BagOutput`; `predict` gives a table."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        self.task = build_task(card.task, card.task_arguments)
        self.standardise = Standardise(card.origin.dim)
        self.aggregator = build_aggregator(card.method, card.origin.dim, self.task.num_outputs, card.options)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.standardise.mean.device

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        output: BagOutput = self.aggregator(bags.with_x(self.standardise(bags.x)), target)
        return output

    def output(self, bags: Bags) -> BagOutput:
        """What the method says of these bags, in eval mode and without a graph, on the CPU."""
        with evaluating(self):
            found = self(bags.to(self.device))
        return BagOutput(
            found.logits.float().cpu(),
            found.embedding.float().cpu(),
            None if found.attention is None else found.attention.float().cpu(),
            None if found.evidence is None else found.evidence.float().cpu(),
        )

    def predict(
        self, source: BagSource | Features | Sequence[Features], *, times: Sequence[float] = ()
    ) -> pd.DataFrame:
        """One row a slide: slide, patient and the task's columns. All slides of a pooled bag get their bag's values.
        Curves are stated at `times`; without any, at those that the model learnt with.

        Raises:
            FeatureError: features of another encoder, tile size or scale, both named; or positions are missing.
        """
        if not isinstance(source, BagSource):
            features = [source] if isinstance(source, Features) else list(source)
            source = BagSource(features, bag="slide")
        self.require_fit(source)
        task = self.task.at(times) if len(times) else self.task
        logits = (self.output(source.bags(run)).logits.to(self.device) for run in source.chunks())
        values = np.concatenate([task.predictions(some).cpu().numpy() for some in logits])
        return pd.DataFrame(
            [
                {"slide": slide, "patient": patient, **dict(zip(task.columns, map(float, row)))}
                for slides, patient, row in zip(source.slides, source.patients, values)
                for slide in slides
            ]
        )

    def require_fit(self, source: BagSource) -> None:
        """Nothing, where this model may be used on these features.

        Raises:
            FeatureError: they are of another encoder, tile size or scale; or positions are missing.
        """
        source.origin.require_same(self.card.origin, slide=source.slides[0][0], whose="the model")
        if self.aggregator.uses_positions:
            source.require_positions(self.card.method)

    def save(self, folder: Path) -> None:
        """Writes weights.safetensors and model.json; the second names the digest of the first.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        folder = Path(folder)
        state = {name: value.detach().cpu().clone().contiguous() for name, value in self.state_dict().items()}
        # As bytes: where the disk is full, our own write says so, and the library's would not.
        write_bytes(folder / WEIGHTS, serialise(state, metadata={"format": FORMAT}))
        digest = file_digest(folder / WEIGHTS, whole=True)
        write_json(folder / CARD, {**self.card.to_json(), "weights": digest})

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> SlideModel:
        """The model that `save` wrote, in eval mode.

        Raises:
            StoreError: a file is missing, damaged, of an unknown format, or the two do not belong together.
        """
        folder = Path(folder)
        card = _read_card(folder)
        try:
            state = load_file(folder / WEIGHTS)
        except (OSError, safetensors.SafetensorError) as error:
            raise StoreError(f"{folder / WEIGHTS} cannot be read: {error}.", fix="Train again.") from error
        if file_digest(folder / WEIGHTS, whole=True) != card["weights"]:
            raise StoreError(
                f"{folder}: the weights are not those that {CARD} describes.",
                fix="Copy both files of a model together, or train again.",
                code="digest",
            )
        model = cls(ModelCard.from_json(card))
        _load_strict(model, state, folder)
        return model.to(device).eval()


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} holds no model: {CARD} is missing.", fix="Give the folder of one fold.") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / CARD} cannot be read: {error}.", fix="Train again.") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise StoreError(f"{folder / CARD} has format {found!r}; {FORMAT!r} is accepted.", fix="Update coverslip.")
    fields = {"method", "options", "origin", "task", "task_arguments", "bag", "column", "training", "weights"}
    if missing := sorted(fields - set(card)):
        raise StoreError(f"{folder / CARD} lacks {', '.join(missing)}.", fix="Train again.")
    return card


def _load_strict(model: SlideModel, state: Mapping[str, Tensor], folder: Path) -> None:
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(state)) or sorted(k for k in own if own[k].shape != state[k].shape)
    if wrong:
        raise StoreError(
            f"{folder}: the weights do not fit the method {model.card.method!r}: {', '.join(wrong[:3])}.",
            fix="The model was made by another version of the method; train again.",
        )
    model.load_state_dict(state)
