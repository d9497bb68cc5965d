from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from coverslip.base.study import FitSettings
from coverslip.mil import Bags, BagSource, LabelledBags, LearningSet, Target, build_aggregator, build_task, fit_bags
from coverslip.mil.methods.dsmil import Dsmil
from coverslip.mil.supervised import task_loss
from coverslip.mil.tasks.classification import Classification
from coverslip.nn.segments import total
from coverslip.store import Features
from coverslip.synthetic import PlantedBags, make_bags
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags


def build(outputs: int = 3, **options: int | float | bool | str) -> Dsmil:
    torch.manual_seed(0)
    made = build_aggregator("dsmil", DIM, outputs, options).double().eval()
    assert isinstance(made, Dsmil)
    return made


def by_hand(method: Dsmil, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, attention and best row logits of one bag, a row and a class at a time."""
    w = {name: value.detach().numpy() for name, value in method.state_dict().items()}

    def query(h: np.ndarray) -> np.ndarray:
        inner = np.maximum(w["query.0.weight"] @ h + w["query.0.bias"], 0)
        return np.tanh(w["query.2.weight"] @ inner + w["query.2.bias"])

    hidden = [np.maximum(w["projection.0.weight"] @ row + w["projection.0.bias"], 0) for row in x]
    logits = np.array([w["rows.weight"] @ h + w["rows.bias"] for h in hidden])
    values = [np.maximum(w["values.0.weight"] @ h + w["values.0.bias"], 0) for h in hidden]
    attention, z = np.zeros_like(logits), []
    for k in range(logits.shape[1]):
        critical = query(hidden[int(logits[:, k].argmax())])
        s = np.array([query(h) @ critical for h in hidden]) / np.sqrt(len(critical))
        attention[:, k] = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
        z.append(sum(a * v for a, v in zip(attention[:, k], values)))
    return w["classifier.weight"] @ np.concatenate(z) + w["classifier.bias"], attention, logits.max(0)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_it_is_the_formula_of_the_paper_row_by_row(outputs: int) -> None:
    method, bags = build(outputs, hidden=16), example_bags()
    output = method(bags)
    attention = output.attention.split(bags.lengths.tolist())
    for place, bag in enumerate(bags.unpack()):
        logits, a, best = by_hand(method, bag.x.numpy())
        assert np.allclose(output.logits[place].detach(), logits, rtol=0, atol=1e-12)
        assert np.allclose(attention[place].detach(), a, rtol=0, atol=1e-12)
        assert np.allclose(output.branches["best_row"][place].detach(), best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"values": False}, {"projection": False}])
def test_evidence_adds_up_to_the_logits_without_their_bias(options: dict[str, bool]) -> None:
    method, bags = build(**options), example_bags()
    output = method(bags)
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"values": False}, {"projection": False, "dropout": 0.1}, {"preset": "official"}])
def test_every_kind_keeps_the_contract(options: dict[str, int | float | bool | str]) -> None:
    check_aggregator("dsmil", **options)


def test_equal_rows_share_attention_evenly() -> None:
    (bag,) = example_bags((1,)).unpack()
    same = Bags(bag.x.expand(6, -1), torch.tensor([0, 6]), None, ("same",))
    attention = build()(same).attention
    assert torch.allclose(attention, torch.full_like(attention, 1 / 6))


def test_the_best_row_alone_learns_from_its_half_of_the_loss() -> None:
    method, bags = build(2), example_bags()
    x = bags.x.clone().requires_grad_()
    output = method(bags.with_x(x))
    (gradient,) = torch.autograd.grad(output.branches["best_row"].sum(), x)
    best = [method.rows(method.project(bag.x)).argmax(0).unique().tolist() for bag in bags.unpack()]
    touched = [bag.any(1).nonzero().flatten().tolist() for bag in gradient.split(bags.lengths.tolist())]
    assert touched == best


def test_rows_like_the_critical_one_get_more_attention() -> None:
    method = build(2)
    (bag,) = example_bags((40,)).unpack()
    r = method.rows(method.project(bag.x))
    output = method(bag)
    for k in range(2):
        critical = int(r[:, k].argmax())
        near = bag.x.clone()
        near[(critical + 1) % 40] = bag.x[critical]
        closer = method(bag.with_x(near)).attention[:, k]
        # A copy of the critical row weighs as much as it does.
        assert torch.allclose(closer[(critical + 1) % 40], closer[critical])
        assert output.attention[critical, k] > 1 / 40


TASKS = {
    "classification": ({"classes": ("a", "b", "c")}, Target(torch.tensor([0, 1, 2, 0]))),
    "regression": ({}, Target(torch.tensor([0.1, 2.0, 1.0, 0.5]))),
    "survival_cox": (
        {"grid": (1.0, 2.0)},
        Target(torch.tensor([1.0, 2.0, 3.0, 4.0]), event=torch.tensor([1, 0, 1, 1])),
    ),
}


@pytest.mark.parametrize("kind", TASKS)
def test_training_is_half_the_bag_and_half_the_best_row_whatever_the_task(kind: str) -> None:
    arguments, target = TASKS[kind]
    task = build_task(kind, arguments)
    task.fit_target(target, ["a", "b", "c", "d"])
    method = build(task.num_outputs).float()
    bags = example_bags()
    batch = LabelledBags(bags.with_x(bags.x.float()), target)
    objective = method.objective(method, task, LearningSet(4, len(bags.x), target))
    step = objective(batch, 0.0)
    output = method(batch.bags)
    expected = (task_loss(task, output.logits, batch) + task_loss(task, output.branches["best_row"], batch)) / 2
    assert torch.allclose(step.loss, expected)
    step.loss.backward()
    reached: list[Tensor | None] = [p.grad for p in method.parameters()]
    assert all(gradient is not None for gradient in reached)


def test_planted_bags_are_learnt_and_their_witnesses_found(
    features_of: Callable[[PlantedBags], list[Features]],
) -> None:
    planted = make_bags(120, rows=(20, 60), dim=16, witness_rate=0.15, shift=4.0)
    source = BagSource(features_of(planted), target=Target(torch.from_numpy(planted.y)))
    slides = list(source.names)
    settings = FitSettings(device="cpu", epochs=20, lr=1e-3, seed=0)
    task = Classification(("no", "yes"))
    model = fit_bags(source.take(slides[:60]), source.take(slides[60:80]), task, "dsmil", settings)
    test = source.take(slides[80:])
    assert roc_auc_score(planted.y[80:], model.predict(test)["p_yes"]) > 0.95
    evidence = model.output(test.bags(range(len(test)))).evidence
    assert evidence is not None
    rows = np.repeat(planted.y[80:] == 1, test.lengths)
    score = (evidence[:, 1] - evidence[:, 0]).numpy()[rows]
    assert roc_auc_score(planted.witness[planted.offsets[80] :][rows], score) > 0.8


def test_the_official_preset_is_the_released_network_on_features_as_they_are() -> None:
    method, bags = build(preset="official"), example_bags()
    w = {name: value.detach().numpy() for name, value in method.state_dict().items()}
    assert not [name for name in w if name.startswith(("projection", "values"))]
    for name, value in w.items():
        if name.endswith("bias"):
            assert not value.any(), name
        else:
            wide = value if len(value) <= value.shape[1] else value.T
            np.testing.assert_allclose(wide @ wide.T, np.eye(len(wide)), atol=1e-6)

    def query(h: np.ndarray) -> np.ndarray:
        return np.tanh(w["query.2.weight"] @ np.maximum(w["query.0.weight"] @ h, 0))

    for place, bag in enumerate(bags.unpack()):
        x, z = bag.x.numpy(), []
        for k in range(3):
            critical = query(x[int((x @ w["rows.weight"][k]).argmax())])
            s = np.array([query(row) @ critical for row in x]) / np.sqrt(128)
            z.append(np.exp(s - s.max()) / np.exp(s - s.max()).sum() @ x)
        logits = w["classifier.weight"] @ np.concatenate(z)
        np.testing.assert_allclose(method(bags).logits[place].detach(), logits, rtol=0, atol=1e-10)
    trained = build(preset="official").train()
    assert torch.equal(trained(bags).logits, method(bags).logits)  # no dropout


def test_an_option_that_is_given_goes_before_the_preset() -> None:
    method = build(preset="official", values=True, projection=True, hidden=16, dropout=0.5)
    assert method.projection[0].out_features == 16
    assert method.projection[2].p == 0.5
    assert not isinstance(method.values, torch.nn.Identity)
