"""Training a slide-level model on one fold: bags in, a `SlideModel` out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.base.fingerprint import digest
from coverslip.base.progress import SILENT, Progress
from coverslip.base.random import stream_seed
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil.augment.contract import Augment
from coverslip.mil.bags import LearningSet
from coverslip.mil.build import build_augment
from coverslip.mil.model import ModelCard, SlideModel
from coverslip.mil.source import BagBatches, BagSource, LabelledBags
from coverslip.mil.supervised import Supervised
from coverslip.mil.target import Target
from coverslip.mil.tasks.contract import Task
from coverslip.nn.segments import Segments, mean
from coverslip.nn.threads import threads_for
from coverslip.train import Objective, fit
from coverslip.train.averaging import MovingAverage, Soup
from coverslip.train.fit import make_fabric
from coverslip.train.sharpness import SharpnessAware
from coverslip.train.sizing import sized

CHECKPOINT = "checkpoint.safetensors"

# Tuning bags that are smaller than this altogether stay on the device between epochs.
_RESIDENT_BYTES = 256 * 2**20


def fit_bags(
    train: BagSource,
    tune: BagSource | None,
    task: Task,
    aggregator: AggregatorSettings | str = "abmil",
    settings: FitSettings | None = None,
    *,
    column: str = "",
    folder: Path | None = None,
    progress: Progress = SILENT,
    name: str = "fit",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> SlideModel:
    """A model trained on the bags of `train`; the loss on `tune` says when to stop and which epoch's weights to keep.

    Standardisation, class weights and what is drawn or mixed come from `train` alone. The tuning loss is at patient
    level: a patient's bags are averaged first, so one with many slides counts once; `coverslip.train.selection` has the
    rule. With `folder` the model is saved there, and a run that was stopped goes on where it was.

    Raises:
        SettingsError: the task compares the bags of a step, and `settings.batch` holds too few; or the target has no
            classes, and balanced sampling or an augment needs them; or the augment does not go with the method.
        FeatureError: NaN or infinity in a slide, missing positions, or `tune` is of another encoder.
        CoverslipError: the loss is not a finite number.
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    given = settings or FitSettings()
    if isinstance(aggregator, str):
        aggregator = AggregatorSettings(name=aggregator)
    assert train.target is not None
    task.fit_target(train.target, list(train.patients))
    model = _build(train, task, aggregator, given.seed, column)
    sampling = _sampling(given, model, train.target)
    augment = _augment(given, model, train.target)
    settings = _with_enough_bags(sized(given, len(train)), given, model, augment, len(train))
    assert settings.batch is not None
    model.card.training["settings"] = settings.model_dump()
    for source in (train, tune):
        if source is not None:
            model.require_fit(source)
    if settings.standardise:
        moments = train.moments()
        model.standardise.set(*moments)
        if augment is not None:
            augment.learn(*moments)
    objective = _objective(model, train, sampling, augment, settings)
    batches = BagBatches(
        train,
        size=settings.batch,
        seed=settings.seed,
        max_rows=settings.max_rows,
        sampling=sampling,
        augment=augment,
    )
    fabric = make_fabric(settings)
    checkpoint = None if folder is None else Path(folder) / CHECKPOINT
    with threads_for(sum(train.lengths) * train.dim // len(batches)):
        result = fit(
            objective,
            batches,
            settings,
            evaluate=None if tune is None else PatientLosses(tune, task=model.task, device=fabric.device),
            checkpoint_path=checkpoint,
            key=_key(train, tune, model, settings),
            on_epoch=on_epoch,
            progress=progress,
            name=name,
            fabric=fabric,
        )
    trained = objective.network
    assert isinstance(trained, SlideModel)
    trained.card = replace(trained.card, training={**trained.card.training, **asdict(result)})
    trained.requires_grad_(False).eval()
    if trained.task.needs_training_logits:
        logits = torch.cat([trained.output(train.bags(run)).logits for run in train.chunks()])
        trained.task.finish(logits.to(trained.device), train.target.to(trained.device), list(train.patients))
    if folder is not None and fabric.is_global_zero:
        trained.save(Path(folder))
        assert checkpoint is not None
        checkpoint.unlink(missing_ok=True)
    return trained


def require_trainable(train: BagSource, task: Task, aggregator: AggregatorSettings, settings: FitSettings) -> None:
    """Nothing, where `fit_bags` could begin: the method, its host and options, the task, sampling and augment agree.

    Raises:
        SettingsError: they do not.
    """
    assert train.target is not None
    model = _build(train, task, aggregator, settings.seed, "")
    _objective(
        model, train, _sampling(settings, model, train.target), _augment(settings, model, train.target), settings
    )


class PatientLosses:
    """The task's loss for each patient, averaged over the patient's bags; the mean of all is the tuning loss."""

    def __init__(self, source: BagSource, *, task: Task, device: torch.device) -> None:
        assert source.target is not None
        self._source, self._task, self._device = source, task, device
        self._target = source.target.to(device)
        patients = {name: place for place, name in enumerate(dict.fromkeys(source.patients))}
        places = torch.tensor([patients[name] for name in source.patients])
        self._order = torch.argsort(places, stable=True).to(device)
        self._segments = Segments.of_lengths(torch.bincount(places).tolist(), device)
        width = sum(source.lengths) * source.dim * 4
        self._resident = [self._batch(run) for run in source.chunks()] if width <= _RESIDENT_BYTES else None

    def __call__(self, network: nn.Module) -> Float[Tensor, p]:
        """The losses of `network`, which is in eval mode already."""
        batches = self._resident or (self._batch(run) for run in self._source.chunks())
        logits = torch.cat([network(batch.bags).logits for batch in batches])
        loss, weight = self._task.loss(logits, self._target)
        weighted = mean((loss * weight)[self._order], self._segments)
        weights = mean(weight[self._order], self._segments)
        return weighted / weights.mean().clamp(min=1e-12)

    def _batch(self, run: list[int]) -> LabelledBags:
        assert self._source.target is not None
        return LabelledBags(self._source.bags(run), self._source.target.take(torch.tensor(run))).to(self._device)


def _objective(
    model: SlideModel, train: BagSource, sampling: str, augment: Augment | None, settings: FitSettings
) -> Objective:
    """The method's own training step or the plain one, inside whatever the settings put around it."""
    assert train.target is not None
    learns = LearningSet(len(train), sum(train.lengths), train.target)
    task = model.task.as_drawn(train.target, list(train.patients)) if sampling == "balanced" else model.task
    # What an objective draws for itself depends on the seed alone, as the network's weights do.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(settings.seed, "objective"))
        objective = model.aggregator.objective(model, task, learns) or Supervised(model, task)
    if augment is not None:
        objective = augment.around(objective, task)
    return _averaged(SharpnessAware(objective, settings.sam) if settings.sam else objective, settings)


def _with_enough_bags(
    sized: FitSettings, given: FitSettings, model: SlideModel, augment: Augment | None, num_bags: int
) -> FitSettings:
    """The settings with as many bags a step as task, method and augment compare; a batch that was asked for is not
    changed.

    Raises:
        SettingsError: the batch that was asked for is smaller.
    """
    needs = {model.task.kind: model.task.least_batch, model.card.method: model.aggregator.least_bags}
    if augment is not None:
        needs[given.augment] = augment.least_bags
    who = max(needs, key=needs.__getitem__)
    least = min(needs[who], num_bags)
    assert sized.batch is not None
    if sized.batch >= least:
        return sized
    if given.batch is not None:
        raise SettingsError(
            f"fit.batch = {given.batch}: {who} compares the bags of one step, and needs {least} or more.",
            fix=f"Set fit.batch = {least} or leave it out (fit.max_rows bounds the memory), or choose another: "
            "`coverslip list tasks`, `coverslip list aggregators`, `coverslip list augments`.",
        )
    return sized.model_copy(update={"batch": least})


def _sampling(settings: FitSettings, model: SlideModel, target: Target) -> Literal["uniform", "balanced"]:
    """How bags are drawn: as the settings say, or the method; a method's wish is no order where there are no classes.

    Raises:
        SettingsError: balanced sampling is asked for, and the target has no classes.
    """
    if settings.sampling == "auto":
        return model.aggregator.sampling if target.has_classes else "uniform"
    if settings.sampling == "balanced" and not target.has_classes:
        raise SettingsError(
            f'fit.sampling = "balanced" draws as many bags of each class; a {model.task.kind} target has no classes.',
            fix='Set fit.sampling = "uniform", or task.kind = "classification" or "ordinal".',
        )
    return settings.sampling


def _augment(settings: FitSettings, model: SlideModel, target: Target) -> Augment | None:
    """The augment that the settings name.

    Raises:
        SettingsError: no such augment or option, a value it does not take, or it needs classes that are not there.
    """
    augment = build_augment(settings.augment, settings.augment_options)
    if augment is not None and augment.needs_classes and not target.has_classes:
        raise SettingsError(
            f"fit.augment = {settings.augment!r} mixes bags of one class; a {model.task.kind} target has no classes.",
            fix='Set fit.augment = "psemix" or "none", or task.kind = "classification" or "ordinal".',
        )
    return augment


def _averaged(objective: Objective, settings: FitSettings) -> Objective:
    """The objective, around which weights are averaged where the settings say so."""
    if settings.average == "ema":
        return MovingAverage(objective, settings.average_decay)
    return Soup(objective, settings.average_from) if settings.average == "soup" else objective


def _build(train: BagSource, task: Task, aggregator: AggregatorSettings, seed: int, column: str) -> SlideModel:
    card = ModelCard(
        method=aggregator.name,
        options=dict(aggregator.options),
        origin=train.origin,
        task=task.kind,
        task_arguments=task.card(),
        bag=train.bag,
        column=column,
        training={
            "patients": len(set(train.patients)),
            "slides": sum(map(len, train.slides)),
            "rows": sum(train.lengths),
        },
    )
    # The weights depend on the seed alone, and the caller's random state is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "weights"))
        model = SlideModel(card)
    model.task.load_state_dict(task.state_dict())
    return model


def _key(train: BagSource, tune: BagSource | None, model: SlideModel, settings: FitSettings) -> str:
    """What a checkpoint has to agree on: the same data, method and settings."""
    sources = [[s.slides, s.lengths, s.patients, s.target.facts()] for s in (train, tune) if s and s.target]
    standardised = [model.standardise.mean.tolist(), model.standardise.sd.tolist()]
    return digest([sources, standardised, model.card.to_json(), settings.model_dump(), model.task.state_dict()])
