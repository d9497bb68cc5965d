"""The contract of MIL methods as a test: `check_aggregator(name)` fails with a sentence where a method breaks it.

from coverslip.testing.aggregators import check_aggregator

def test_my_method_keeps_the_contract():
    check_aggregator("my_method", hidden=16)
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from coverslip.base.registry import AGGREGATORS
from coverslip.base.study import FitSettings
from coverslip.mil import (
    Aggregator,
    BagOutput,
    Bags,
    FeatureOrigin,
    LabelledBags,
    SlideModel,
    Target,
    build_aggregator,
    pack,
)
from coverslip.mil.bags import LearningSet
from coverslip.mil.model import ModelCard
from coverslip.mil.supervised import Supervised
from coverslip.train import Objective, fit
from coverslip.train.modes import evaluating
from coverslip.train.sharpness import SharpnessAware

DIM = 12
LENGTHS = (1, 2, 9, 40)


def check_aggregator(name: str, **options: Any) -> None:
    """Nothing, where the method keeps its contract; an AssertionError that says what it breaks otherwise."""
    assert AGGREGATORS.entry(name).licence, f"{name}: its entry says no licence"
    for outputs in (1, 2, 3):
        method = _build(name, outputs, options)
        _check_output(method, outputs)
    method = _build(name, 3, options)
    _check_evaluation(method)
    _check_packing(method)
    _check_order(method)
    _check_equal_rows(method)
    _check_gradients(method)
    _check_half_precision(_build(name, 3, options))
    _check_learning(_model(name, options))
    _check_resume(name, options)
    _check_remembers_once(name, options)
    _check_half_precision_step(name, options)


def check_memory(name: str, *, rows: int = 2000, **options: Any) -> None:
    """Nothing, where twice the rows take at most 2.3 times the memory, in a training step and in prediction.

    What is counted is the bytes that torch has at once, the largest sum over the work: of a bag of `rows` rows and one
    of 2 `rows`, each beside eight of three rows. No time and no other process has a part in it. An (n, n) matrix of
    2,000 rows has 16 MB: options such as `hidden` should keep what does not grow with the rows below that.

    Raises:
        AssertionError: it takes more, said with both numbers.
    """
    for what, used in (("a training step", _training_bytes), ("prediction", _prediction_bytes)):
        small, large = (used(_model(name, options), n) for n in (rows, 2 * rows))
        assert large < _MOST_GROWTH * small, (
            f"{name}: {what} takes {small / 1e6:.1f} MB for {rows:,} rows and {large / 1e6:.1f} MB for {2 * rows:,}: "
            f"{large / small:.2f} times as much"
        )


def example_bags(lengths: tuple[int, ...] = LENGTHS, *, seed: int = 0) -> Bags:
    """Bags of standard normal rows in float64 with positions on a grid and keys from 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(lengths), DIM, generator=generator, dtype=torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    place = torch.arange(sum(lengths))
    xy_um = torch.stack([place % 7, place // 7], 1).float() * 112
    return Bags(x, offsets, xy_um, tuple(f"bag{i}" for i in range(len(lengths))), place)


# Twice, and a little for what is laid out in squares, runs and blocks.
_MOST_GROWTH = 2.3


def _training_bytes(model: SlideModel, rows: int) -> int:
    batch = _one_long(rows)
    objective = _objective(model, batch).train()
    torch.manual_seed(0)
    return _peak_bytes(lambda: objective(batch, 0.5).loss.backward())


def _prediction_bytes(model: SlideModel, rows: int) -> int:
    bags = _one_long(rows).bags
    with evaluating(model):
        return _peak_bytes(lambda: model(bags))


def _one_long(rows: int) -> LabelledBags:
    bags = example_bags((rows, *[3] * 8))
    return LabelledBags(bags.with_x(bags.x.float()), Target(torch.arange(9) % 3))


def _peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that torch's allocator had given out at once during the work, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def _build(name: str, outputs: int, options: dict[str, Any]) -> Aggregator:
    torch.manual_seed(0)
    return build_aggregator(name, DIM, outputs, options).double().eval()


def _check_output(method: Aggregator, outputs: int) -> None:
    bags = example_bags()
    output = method(bags)
    rows = len(bags.x)
    assert isinstance(output, BagOutput), f"forward gives {type(output).__name__}, not BagOutput"
    assert output.logits.shape == (len(bags), outputs), f"logits are {tuple(output.logits.shape)}"
    assert output.embedding.ndim == 2 and len(output.embedding) == len(bags), "embedding is (bags, width)"
    judged = method.classify(output.embedding)
    if judged is not None:
        _same(judged, output.logits, "classify of the embedding is not the logits")
    assert output.attention is not None or output.evidence is not None, "neither attention nor evidence"
    for what, values in _tensors(output).items():
        assert torch.isfinite(values).all(), f"{what} holds NaN or infinity"
    if output.evidence is not None:
        assert output.evidence.shape == (rows, outputs), f"evidence is {tuple(output.evidence.shape)}"
    if output.attention is not None:
        assert output.attention.ndim == 2 and len(output.attention) == rows, "attention is (rows, branches)"
        assert (output.attention >= 0).all(), "attention is negative"
        for bag, part in zip(bags.slides, output.attention.split(bags.lengths.tolist())):
            _same(part.sum(0), torch.ones_like(part.sum(0)), f"attention does not sum to 1 in {bag}")


def _check_evaluation(method: Aggregator) -> None:
    bags = example_bags()
    before = bags.x.clone()
    _equal(method(bags), method(bags), "two evaluations differ: is dropout on?")
    assert torch.equal(bags.x, before), "the rows were changed in place"
    assert not method(bags).losses, "losses without a target"


def _check_packing(method: Aggregator) -> None:
    bags = example_bags()
    together = method(bags)
    alone = [method(bag) for bag in bags.unpack()]
    for what, values in _tensors(together).items():
        apart = torch.cat([_tensors(output)[what] for output in alone])
        _same(values, apart, f"{what} depends on the other bags in a batch")
    _same(
        _gradients(method, together.logits.square().sum()),
        _gradients(method, torch.stack([output.logits.square().sum() for output in alone]).sum()),
        "the parameters' gradients depend on how bags are packed",
    )
    backwards = bags.unpack()[::-1]
    _same(method(pack(backwards)).logits.flip(0), together.logits, "logits depend on the order of bags")


def _check_order(method: Aggregator) -> None:
    (bag,) = example_bags((30,)).unpack()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert bag.xy_um is not None
    shuffled = Bags(bag.x[order], bag.offsets, bag.xy_um[order], bag.slides)
    logits, other = method(bag).logits, method(shuffled).logits
    if method.order_matters:
        assert not torch.allclose(logits, other), "order_matters, yet shuffled rows change nothing: a dead module?"
        return
    _same(logits, other, "logits depend on the order of rows; if they should, set order_matters")
    for what, values in _tensors(method(bag)).items():
        if what in {"attention", "evidence"}:
            _same(values[order], _tensors(method(shuffled))[what], f"{what} does not follow its rows")


def _check_equal_rows(method: Aggregator) -> None:
    (bag,) = example_bags((1,)).unpack()
    many = bag.x.expand(50, -1)
    output = method(Bags(many, torch.tensor([0, 50]), torch.zeros(50, 2), bag.slides))
    assert all(torch.isfinite(values).all() for values in _tensors(output).values()), "equal rows give NaN"
    # Where order is nothing, nothing tells equal rows apart. A convolution or a split of the rows does.
    if output.attention is not None and not method.order_matters:
        _same(output.attention, torch.full_like(output.attention, 1 / 50), "equal rows do not have equal attention")


def _check_learning(model: SlideModel) -> None:
    """Every parameter learns in the method's own training step, and a step takes bags of one row."""
    objective = _objective(model).train()
    torch.manual_seed(0)
    for progress in (0.0, 0.5, 1.0):
        _step(objective, progress)
        objective.after_step(progress)
    learnt = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert learnt, "nothing to learn"
    deaf = [name for name, p in learnt if p.grad is None]
    assert not deaf, f"no gradient reaches {deaf[:3]}"
    assert all(torch.isfinite(p.grad).all() for _, p in learnt if p.grad is not None), "a gradient is not finite"


def _check_resume(name: str, options: dict[str, Any]) -> None:
    """A run that is stopped and goes on ends with the very weights of one that was not."""
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"
        whole = _model(name, options)
        fit(_objective(whole), _Batches(), _SETTINGS)
        try:
            fit(_objective(_model(name, options)), _Batches(stop=(1, 1)), _SETTINGS, checkpoint_path=checkpoint)
        except KeyboardInterrupt:
            pass
        assert checkpoint.exists(), "the run was not stopped"
        resumed = _model(name, options)
        fit(_objective(resumed), _Batches(), _SETTINGS, checkpoint_path=checkpoint)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), f"a resumed run ends with other {key}"


def _check_remembers_once(name: str, options: dict[str, Any]) -> None:
    """Steps that run each batch twice leave the teachers, queues and prototypes that steps of one pass do."""
    settings = _SETTINGS.model_copy(update={"accumulate": 2})
    plain, twice = _objective(_model(name, options)), _objective(_model(name, options))
    fit(plain, _Batches(), settings)
    fit(SharpnessAware(twice, 1e-30), _Batches(), settings)  # a radius at which no weight moves: the passes are equal
    for key, value in plain.state_dict().items():
        assert torch.equal(value, twice.state_dict()[key]), f"a sharpness-aware step leaves another {key}"


def _check_half_precision_step(name: str, options: dict[str, Any]) -> None:
    result = fit(_objective(_model(name, options)), _Batches(), _SETTINGS.model_copy(update={"precision": "bf16"}))
    assert all(math.isfinite(row["loss"]) for row in result.history), "the loss in bfloat16 is not finite"


_SETTINGS = FitSettings(epochs=3, lr=1e-3, batch=4, device="cpu")
_LABELS = Target(torch.tensor([0, 1, 2, 0]))


class _Batches:
    """Two batches an epoch of the example bags; `stop` raises Ctrl-C before that batch of that epoch."""

    def __init__(self, stop: tuple[int, int] | None = None) -> None:
        self.stop = stop

    def __len__(self) -> int:
        return 2

    def batch(self, epoch: int, index: int) -> LabelledBags:
        if (epoch, index) == self.stop:
            signal.raise_signal(signal.SIGINT)
        bags = example_bags(seed=index)
        assert bags.keys is not None
        first = index * len(bags.x)
        return LabelledBags(replace(bags.with_x(bags.x.float()), keys=bags.keys + first), _LABELS)

    def describe(self, epoch: int, index: int) -> str:
        return f"batch {index}"

    def shard(self, rank: int, world: int) -> _Batches:
        raise NotImplementedError


def _model(name: str, options: dict[str, Any]) -> SlideModel:
    card = ModelCard(name, options, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b", "c"]})
    torch.manual_seed(0)
    return SlideModel(card)


def _objective(model: SlideModel, batch: LabelledBags | None = None) -> Objective:
    """The method's objective for the example batches, or for one batch."""
    if batch is None:
        learns = LearningSet(2 * len(LENGTHS), 2 * sum(LENGTHS), Target(_LABELS.y.repeat(2)))
    else:
        learns = LearningSet(len(batch.bags), len(batch.bags.x), batch.target)
    return model.aggregator.objective(model, model.task, learns) or Supervised(model, model.task)


def _step(objective: Objective, progress: float) -> None:
    output = objective(_Batches().batch(0, 0), progress)
    assert torch.isfinite(output.loss), f"the loss of a step is {float(output.loss)}"
    output.loss.backward()


def _check_gradients(method: Aggregator) -> None:
    bags = example_bags((1, 6))
    x = bags.x.clone().requires_grad_(True)
    # Steps of 1e-6 across a ReLU's corner or a change of the largest row are rare, and would be told as a failure.
    ok = torch.autograd.gradcheck(lambda rows: method(bags.with_x(rows)).logits, (x,), raise_exception=False)
    assert ok, "gradients of the logits are not those of finite differences"


def _check_half_precision(method: Aggregator) -> None:
    method.float()
    bags = example_bags()
    bags = bags.with_x(bags.x.float())
    exact = method(bags).logits
    with torch.autocast("cpu", torch.bfloat16):
        rough = method(bags).logits.float()
    scale = max(1.0, float(exact.detach().abs().max()))
    assert (rough - exact).detach().abs().max() < 1e-2 * scale, "logits in bfloat16 are more than 1 % off"


def _tensors(output: BagOutput) -> dict[str, Tensor]:
    named = {name: getattr(output, name) for name in ("logits", "embedding", "attention", "evidence")}
    return {name: values for name, values in named.items() if values is not None}


def _gradients(method: Aggregator, loss: Tensor) -> Tensor:
    parameters = [p for p in method.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found)])


def _equal(a: BagOutput, b: BagOutput, what: str) -> None:
    assert all(torch.equal(x, y) for x, y in zip(_tensors(a).values(), _tensors(b).values())), what


def _same(a: Tensor, b: Tensor, what: str) -> None:
    worst = float((a - b).detach().abs().max())
    assert worst <= 1e-9 * max(1.0, float(b.detach().abs().max())), f"{what}: they differ by {worst:.3g}"
