"""AEM: its entropy and gradient in closed form, the host it leaves as it is, and the hosts it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS, Entry
from coverslip.base.study import AggregatorSettings, FitSettings
from coverslip.mil import Aggregator, Bags, BagSource, LabelledBags, LearningSet, Target, build_aggregator, fit_bags
from coverslip.mil.methods.abmil import Abmil
from coverslip.mil.methods.aem import Aem, attention_entropy
from coverslip.mil.supervised import Supervised
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task
from coverslip.nn.segments import Segments, softmax
from coverslip.store import Features
from coverslip.synthetic import PlantedBags
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags
from coverslip.train import Objective

Y = torch.tensor([0, 2, 1, 2])


def build(**options: Any) -> Aem:
    torch.manual_seed(0)
    method = build_aggregator("aem", DIM, 3, options).double()
    assert isinstance(method, Aem)
    return method


class Network(nn.Module):
    """What an objective gets, without the standardiser."""

    def __init__(self, aggregator: nn.Module) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, bags: Bags, target: Target | None = None) -> Any:
        return self.aggregator(bags, target)


@pytest.mark.parametrize(
    "options", [{"host": "acmil", "normalise": True}, {"host": "clam_mb", "anneal": True}, {"entropy_weight": 0}]
)
def test_every_kind_keeps_the_contract(options: dict[str, Any]) -> None:
    check_aggregator("aem", **options)


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_every_method_is_a_host_or_is_refused_with_the_way_out(name: str) -> None:
    """A host takes its step with the entropy in it; none loses it without a word."""
    bags, refused = example_bags(), ""
    try:
        method = build(host=name)
        task = Classification(("a", "b", "c"))
        objective = method.objective(Network(method), task, LearningSet(4, len(bags.x), Target(Y)))
    except SettingsError as error:
        refused = str(error)
    if refused:
        assert "Hosts are abmil" in refused
        return
    objective = objective or Supervised(Network(method), task)
    assert "entropy" in objective(LabelledBags(bags, Target(Y)), 0.0).parts


@pytest.mark.parametrize("host", ["abmil", "acmil"])
def test_without_weight_training_is_the_hosts_bit_for_bit(host: str, source: BagSource, quick: FitSettings) -> None:
    plain = fit_bags(source, None, Classification(("no", "yes")), host, quick).state_dict()
    aem = AggregatorSettings(name="aem", options={"host": host, "entropy_weight": 0})
    around = fit_bags(source, None, Classification(("no", "yes")), aem, quick).state_dict()
    assert {name.replace("aggregator.host.", "aggregator.") for name in around} == set(plain)
    for name, value in around.items():
        assert torch.equal(value, plain[name.replace("aggregator.host.", "aggregator.")]), name


def test_outputs_are_the_hosts() -> None:
    method, bags = build(host="varmil").eval(), example_bags()
    ours, plain = method(bags), method.host(bags)
    assert torch.equal(ours.logits, plain.logits)
    assert torch.equal(ours.attention, plain.attention)
    assert torch.equal(ours.evidence, plain.evidence)


@pytest.mark.parametrize("lengths", [(1, 2, 9, 40), (300,)])
def test_entropy_is_that_of_its_definition(lengths: tuple[int, ...]) -> None:
    segments = Segments.of_lengths(lengths)
    a = softmax(3 * torch.randn(sum(lengths), 2, dtype=torch.float64), segments)
    expected = [[-sum(p * math.log(p) for p in part[:, k]) for k in range(2)] for part in a.split(list(lengths))]
    np.testing.assert_allclose(attention_entropy(a, segments).numpy(), expected, rtol=0, atol=1e-12)
    even = torch.cat([torch.full((n, 1), 1 / n, dtype=torch.float64) for n in lengths])
    np.testing.assert_allclose(attention_entropy(even, segments)[:, 0].numpy(), np.log(lengths), atol=1e-12)
    shares = attention_entropy(even, segments, normalise=True)[:, 0]
    np.testing.assert_allclose(shares.numpy(), [float(n > 1) for n in lengths], atol=1e-12)


def test_one_row_that_has_all_attention_has_no_entropy_and_a_finite_gradient() -> None:
    scores = torch.tensor([[300.0], [0.0], [-5.0]], requires_grad=True)
    segments = Segments.of_lengths((3,))
    keep = torch.tensor([[True], [True], [False]])
    spread = attention_entropy(softmax(scores, segments, keep), segments)
    spread.sum().backward()
    assert spread.item() == pytest.approx(0, abs=1e-30)
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_the_gradient_is_the_closed_form() -> None:
    segments = Segments.of_lengths((5, 12))
    scores = torch.randn(17, 1, dtype=torch.float64, requires_grad=True)
    a = softmax(scores, segments)
    spread = attention_entropy(a, segments)
    (-spread.sum()).backward()
    expected = a * (a.log() + spread[segments.ids])
    assert scores.grad is not None
    assert torch.allclose(scores.grad, expected.detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("host", ["abmil", "acmil", "clam_mb"])
def test_the_term_is_the_weighted_mean_over_bags_and_branches(host: str) -> None:
    method, bags = build(host=host, entropy_weight=0.5), example_bags()
    output = method(bags, Target(Y))
    each = [
        -float(torch.special.xlogy(part[:, k], part[:, k]).sum())
        for part in output.attention.detach().split(bags.lengths.tolist())
        for k in range(part.shape[1])
    ]
    assert output.losses["entropy"].item() == pytest.approx(-0.5 * np.mean(each), abs=1e-12)
    assert {"diversity"} <= set(output.losses) if host == "acmil" else True


def test_annealing_takes_the_term_away_along_half_a_cosine() -> None:
    method, bags = build(dropout=0.0, anneal=True), example_bags()
    task = Classification(("a", "b", "c"))
    objective = method.objective(Network(method), task, LearningSet(4, len(bags.x), Target(Y)))
    assert objective is not None
    whole = method(bags, Target(Y)).losses["entropy"].item()
    for progress, share in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        step = objective(LabelledBags(bags, Target(Y)), progress)
        assert step.parts["entropy"].item() == pytest.approx(share * whole, abs=1e-12)
        assert step.loss.item() == pytest.approx(sum(part.item() for part in step.parts.values()), abs=1e-6)


def test_more_weight_spreads_attention(
    planted: PlantedBags, features_of: Callable[[PlantedBags], list[Features]], quick: FitSettings
) -> None:
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    spreads = []
    for weight in (0.0, 1.0):
        aem = AggregatorSettings(name="aem", options={"entropy_weight": weight, "normalise": True})
        settings = quick.model_copy(update={"epochs": 15})
        model = fit_bags(source, None, Classification(("no", "yes")), aem, settings)
        bags = source.bags(range(len(source)))
        attention = model.output(bags).attention
        assert attention is not None
        spreads.append(float(attention_entropy(attention, bags.segments, normalise=True).mean()))
    assert spreads[1] > spreads[0] + 0.01, spreads


class OwnStep(Supervised):
    """A step that never comes by the network as a whole."""

    def forward(self, batch: LabelledBags, progress: float) -> Any:
        raise NotImplementedError


class OwnWay(Abmil):
    uses_positions, order_matters, least_bags, sampling = True, True, 3, "balanced"

    def objective(self, network: nn.Module, task: Task, learns: LearningSet) -> Objective:
        return OwnStep(network, task)


@pytest.fixture
def own_way(monkeypatch: pytest.MonkeyPatch) -> type[Aggregator]:
    monkeypatch.setitem(AGGREGATORS.entries, "own_way", Entry("own_way", "somewhere", "OwnWay", licence="MIT"))
    load = AGGREGATORS.load
    monkeypatch.setattr(AGGREGATORS, "load", lambda name: OwnWay if name == "own_way" else load(name))
    return OwnWay


def test_a_host_with_a_step_of_its_own_is_refused(own_way: type[Aggregator]) -> None:
    method = build(host="own_way")
    with pytest.raises(SettingsError, match=r"'own_way' has a training step of its own.*Hosts are"):
        method.objective(Network(method), Classification(("a", "b")), LearningSet(4, 52, Target(Y)))


def test_what_the_host_needs_is_asked_for(own_way: type[Aggregator]) -> None:
    method = build(host="own_way")
    assert (method.uses_positions, method.order_matters, method.least_bags) == (True, True, 3)
    assert method.sampling == "balanced"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "max"}, "host = 'max' has no attention to regularise. Hosts are"),
        ({"host": "aem"}, "AEM cannot be its own host"),
        ({"host": "abml"}, "Did you mean 'abmil'"),
        ({"hedas": 2}, "aem has no option 'hedas'. Did you mean 'heads'"),
        ({"host": "varmil", "heads": 2}, "no option 'heads'"),
        ({"entropy_weight": -1.0}, "entropy_weight is 0 or more"),
    ],
)
def test_a_wrong_host_or_option_is_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_aggregator("aem", 8, 2, options)


def test_options_of_the_host_are_options_of_aem() -> None:
    host = build(host="abmil", heads=2, hidden=16).host
    assert isinstance(host, Abmil) and host.classifier.in_features == 32
