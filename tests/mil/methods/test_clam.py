"""CLAM: its logits and instance loss against loops over bags and rows, and what its branches reduce to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.mil import Bags, LabelledBags, LearningSet, Target, build_aggregator
from coverslip.mil.methods._clam import Clam, ClamOutput
from coverslip.mil.target import Mixture
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.regression import Regression
from coverslip.nn.segments import total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags

NAMES = ("clam_sb", "clam_mb")
CLASSES = ("a", "b", "c")
Y = torch.tensor([0, 2, 1, 2])
LENGTHS = (1, 5, 9, 40)


def build(name: str, outputs: int = 3, **options: Any) -> Clam:
    torch.manual_seed(0)
    method = build_aggregator(name, DIM, outputs, {"hidden": 16, "dropout": 0.0, **options}).double()
    assert isinstance(method, Clam)
    return method


class Network(nn.Module):
    """What an objective gets, without the standardiser."""

    def __init__(self, aggregator: nn.Module) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, bags: Bags, target: Target | None = None) -> Any:
        return self.aggregator(bags, target)


def parts(method: Clam, bags: Bags, y: Tensor = Y, mixture: Mixture | None = None) -> dict[str, Tensor]:
    objective = method.objective(Network(method), Classification(CLASSES), LearningSet(4, len(bags.x), Target(y)))
    assert objective is not None
    found = dict(objective(LabelledBags(bags, Target(y), mixture), 0.0).parts)
    return found


def slow_instance_loss(method: Clam, bag: Bags, y: int, *, k: int, margin: float, subtyping: bool) -> float | None:
    """One class and one row at a time, on sorted scores."""
    assert method.instances is not None
    h = method.project(bag.x)
    scores, u = method.scores(h).detach().numpy(), method.instances(h).detach().numpy()
    if k == 0:
        return None
    whole = 0.0
    for c in range(len(CLASSES)):
        order = np.argsort(-scores[:, c if scores.shape[1] > 1 else 0])
        losses = []
        if c == y:
            losses += [math.log1p(math.exp(margin - u[i, c])) for i in order[:k]]
            losses += [math.log1p(math.exp(margin + u[i, c])) for i in order[-k:]]
        elif subtyping:
            losses += [math.log1p(math.exp(margin + u[i, c])) for i in order[:k]]
        whole += float(np.mean(losses)) if losses else 0.0
    return whole / len(CLASSES) if subtyping else whole


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options", [{"subtyping": True, "instance_loss": "ce"}, {"bag_weight": 1}, {"pooling": "ggem"}]
)
def test_every_kind_keeps_the_contract(name: str, options: dict[str, Any]) -> None:
    check_aggregator(name, hidden=16, **options)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_formula(name: str) -> None:
    method, bags = build(name).eval(), example_bags(LENGTHS)
    w, b = (p.detach().numpy() for p in method.classifier.parameters())
    expected = []
    for bag in bags.unpack():
        h = method.project(bag.x).detach().numpy()
        s = method.scores(method.project(bag.x)).detach().numpy()
        a = np.exp(s) / np.exp(s).sum(0)
        z = a.T @ h
        expected.append([w[c] @ z[c if name == "clam_mb" else 0] + b[c] for c in range(3)])
    output = method(bags)
    np.testing.assert_allclose(output.logits.detach().numpy(), expected, rtol=0, atol=1e-12)
    assert output.attention.shape[1] == (3 if name == "clam_mb" else 1)


@pytest.mark.parametrize("pooling", ["sum", "low_rank"])
@pytest.mark.parametrize("name", NAMES)
def test_evidence_adds_up_to_the_logits_without_their_bias(name: str, pooling: str) -> None:
    method, bags = build(name, pooling=pooling).eval(), example_bags()
    output = method(bags)
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, atol=1e-12)


@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize(("loss", "margin"), [("svm", 1.0), ("ce", 0.0)])
@pytest.mark.parametrize("preset", ["fixed", "official"])
@pytest.mark.parametrize("name", NAMES)
def test_the_instance_loss_is_that_of_a_slow_loop(
    name: str, preset: str, loss: str, margin: float, subtyping: bool
) -> None:
    method = build(name, instance_loss=loss, subtyping=subtyping, preset=preset, k_sample=4)
    bags = example_bags(LENGTHS)
    each = [
        slow_instance_loss(
            method,
            bag,
            int(y),
            k=min(4, n // 2 if preset == "fixed" else n),
            margin=margin,
            subtyping=subtyping,
        )
        for bag, y, n in zip(bags.unpack(), Y, LENGTHS)
    ]
    known = [value for value in each if value is not None]
    assert len(known) == (3 if preset == "fixed" else 4)  # a single row cannot be both
    found = parts(method, bags)["instance"]
    assert found.item() == pytest.approx(0.3 * float(np.mean(known)), abs=1e-12)


@pytest.mark.parametrize("rows", [2, 3, 8, 15])
def test_no_row_is_positive_and_negative_at_once(rows: int) -> None:
    """Were a row both, its two terms would hold against each other; alone each pulls its own way."""
    method = build("clam_sb")
    (bag,) = example_bags((rows,)).unpack()
    output = method(bag, Target(Y[:1]))
    assert isinstance(output, ClamOutput) and output.instances is not None
    u = output.instances.detach().requires_grad_()
    fixed = ClamOutput(output.logits, output.embedding, instances=u, ranks=output.ranks)
    loss, weight = method.instance_loss(fixed, torch.tensor([1]), bag.segments)
    (gradient,) = torch.autograd.grad(loss.sum(), u)
    assert weight.tolist() == [1]
    assert (gradient[:, 1] < 0).sum() == (gradient[:, 1] > 0).sum() == min(8, rows // 2)
    assert output.ranks is not None
    assert (gradient[output.ranks[:, 0] == 0, 1] < 0).all(), "the most attended row is positive"


@pytest.mark.parametrize("name", NAMES)
def test_only_the_true_class_gets_positives(name: str) -> None:
    for subtyping in (False, True):
        method = build(name, subtyping=subtyping)
        assert method.instances is not None
        (bag,) = example_bags((30,)).unpack()
        parts(method, bag, torch.tensor([2]))["instance"].backward()
        gradient = method.instances.bias.grad
        assert gradient is not None
        if subtyping:
            assert (gradient[:2] > 0).all(), "other classes are only pushed down"
        else:
            assert not gradient[:2].any(), "other classes are not asked"


def test_a_mixed_bag_is_judged_by_both_of_its_classes() -> None:
    method, bags = build("clam_mb"), example_bags(LENGTHS)
    other, share = torch.tensor([1, 1, 0, 0]), torch.tensor([0.5, 1.0, 0.25, 0.0])
    own = [parts(method, bag, y[None])["instance"].item() for bag, y in zip(bags.unpack(), Y)]
    others = [parts(method, bag, y[None])["instance"].item() for bag, y in zip(bags.unpack(), other)]
    expected = np.mean([s * a + (1 - s) * b for s, a, b in zip(share, own, others)][1:])  # the first has one row
    found = parts(method, bags, Y, Mixture(Target(other), share))["instance"]
    assert found.item() == pytest.approx(float(expected), abs=1e-7)


def test_the_whole_weight_on_the_bag_is_gated_abmil() -> None:
    torch.manual_seed(0)
    abmil = build_aggregator("abmil", DIM, 3, {"hidden": 16, "attention": 256}).double().eval()
    clam = build("clam_sb", bag_weight=1).eval()
    clam.load_state_dict(abmil.state_dict())
    bags = example_bags()
    ours, plain = clam(bags), abmil(bags)
    assert torch.allclose(ours.logits, plain.logits, atol=1e-12)
    assert torch.allclose(ours.evidence, plain.evidence, atol=1e-12)
    assert clam.objective(Network(clam), Regression(), LearningSet(4, 52, Target(Y.double()))) is None


def test_one_output_has_one_branch_either_way() -> None:
    single, multiple = build("clam_sb", 1), build("clam_mb", 1)
    multiple.load_state_dict(single.state_dict())
    bags = example_bags()
    assert torch.equal(single.eval()(bags).logits, multiple.eval()(bags).logits)


def test_half_the_weight_of_the_bag_halves_its_loss() -> None:
    bags = example_bags(LENGTHS)
    half, most = parts(build("clam_sb", bag_weight=0.4), bags), parts(build("clam_sb", bag_weight=0.8), bags)
    assert torch.allclose(2 * half["task"], most["task"])
    assert torch.allclose(half["instance"], 3 * most["instance"])


def test_a_task_without_classes_is_refused_with_the_way_out() -> None:
    method = build("clam_sb")
    with pytest.raises(SettingsError, match=r"the task is regression.*bag_weight = 1"):
        method.objective(Network(method), Regression(), LearningSet(4, 52, Target(Y.double())))


def test_classes_are_drawn_alike() -> None:
    assert build("clam_sb").sampling == "balanced"


@pytest.mark.parametrize("options", [{"k_sample": 0}, {"bag_weight": 1.5}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="bag_weight lies between 0 and 1, and k_sample is 1 or more"):
        build_aggregator("clam_sb", 8, 2, options)
