"""The score of every tile of a slide under one model, or under the models of all folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from coverslip.base.errors import FeatureError, SettingsError
from coverslip.base.registry import EXPLAINERS, suggest
from coverslip.explainers.contract import Explainer
from coverslip.explainers.scores import TileScores
from coverslip.mil import BagOutput, BagSource, SlideModel
from coverslip.store import Features

# "auto" takes the first of these that the model can give.
PREFERRED = ("evidence", "attention")


def explain(
    models: SlideModel | Sequence[SlideModel],
    features: Features,
    *,
    method: str = "auto",
    target: str | None = None,
) -> TileScores:
    """The score of each tile of a slide; with several models (folds) the mean of theirs.

    `method` is an explainer by name; "auto" takes evidence where the models have it, else attention. `target` is the
    class in question, or what else the task can explain: the one that is predicted where not given, but of two classes
    always the second, so that maps of a study can be compared. A slide is explained by itself, also where the models
    pool a patient's slides.

    Raises:
        FeatureError: features of another encoder, or without the positions a map needs.
        SettingsError: no such explainer or class, or the models cannot be explained so.
    """
    models = [models] if isinstance(models, SlideModel) else list(models)
    assert models, "at least one model"
    if features.coords is None or features.span is None:
        why = " ".join(features.notes) or "The file does not say where its tiles lie."
        raise FeatureError(f"no map can be drawn. {why}", slide=features.slide, code="no_positions")
    source = BagSource([features])
    for model in models:
        model.require_fit(source)
    bags = source.bags([0])
    outputs = [model.output(bags) for model in models]
    name, explainer = _explainer(method, models, outputs)
    column = _column(models, outputs, target)
    scores = [explainer.scores(m, bags, output, column) for m, output in zip(models, outputs)]
    return TileScores(
        slide=features.slide,
        xy=np.asarray(features.coords, np.int32),
        span=float(features.span),
        score=_mean(scores).numpy(),
        kind=explainer.kind,
        target=models[0].task.explained[column],
        about=_about(models[0], column),
        signed=explainer.signed,
        mpp=features.mpp,
        method=name,
        num_models=len(models),
    )


def _explainer(method: str, models: list[SlideModel], outputs: list[BagOutput]) -> tuple[str, Explainer]:
    for name in PREFERRED if method == "auto" else [method]:
        explainer: Explainer = EXPLAINERS.load(name)()
        if all(explainer.offers(output) for output in outputs):
            return name, explainer
    able = [name for name in EXPLAINERS.names() if all(EXPLAINERS.load(name)().offers(o) for o in outputs)]
    raise SettingsError(
        f"The method {models[0].card.method!r} has no {method}.", fix=f"It has {', '.join(able) or 'none of them'}."
    )


def _column(models: list[SlideModel], outputs: list[BagOutput], target: str | None) -> int:
    explained = list(models[0].task.explained)
    if any(list(model.task.explained) != explained for model in models):
        raise SettingsError("The models do not predict the same.", fix="Give the models of one run.")
    if target is not None:
        if target not in explained:
            raise SettingsError(f"There is nothing to explain by the name {target!r}.", fix=suggest(target, explained))
        return explained.index(target)
    if len(explained) == 2 and models[0].task.kind == "classification":
        return 1
    predictions = [m.task.predictions(output.logits.to(m.device)).cpu() for m, output in zip(models, outputs)]
    return int(_mean(predictions)[0, : len(explained)].argmax())


def _about(model: SlideModel, column: int) -> str:
    """What the scores are about in words; labels and causes have a column, or a name, of their own."""
    target, of = model.task.explained[column], model.card.column
    if not of or model.task.kind not in ("classification", "regression", "ordinal"):
        return target
    return f"{of} = {target}" if model.task.kind == "classification" else f"{target} of {of}"


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.detach().float() for value in values]).mean(0)
