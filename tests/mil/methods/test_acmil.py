"""ACMIL: its masks, its loss terms against loops, and gated ABMIL as its simplest case."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coverslip.base.errors import SettingsError
from coverslip.mil import Bags, LabelledBags, LearningSet, Target, build_aggregator
from coverslip.mil.methods.acmil import Acmil, likeness, without_some_of_the_top
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task
from coverslip.mil.tasks.regression import Regression
from coverslip.nn.segments import Segments, rank, softmax, total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags

Y = torch.tensor([0, 2, 1, 2])


def build(outputs: int = 3, **options: Any) -> Acmil:
    torch.manual_seed(0)
    method = build_aggregator("acmil", DIM, outputs, {"hidden": 16, "dropout": 0.0, **options}).double()
    assert isinstance(method, Acmil)
    return method


class Network(nn.Module):
    """What an objective gets, without the standardiser."""

    def __init__(self, aggregator: nn.Module) -> None:
        super().__init__()
        self.aggregator = aggregator

    def forward(self, bags: Bags, target: Target | None = None) -> Any:
        return self.aggregator(bags, target)


def parts(method: Acmil, task: Task, target: Target) -> dict[str, Tensor]:
    bags = example_bags()
    objective = method.objective(Network(method), task, LearningSet(4, len(bags.x), target))
    assert objective is not None
    return {name: value.detach() for name, value in objective(LabelledBags(bags, target), 0.0).parts.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"branches": 1},
        {"branches": 2, "n_masked": 0, "weights": "sigmoid"},
        {"mask_drop": 1.0, "branch": 0},
        {"preset": "official"},
    ],
)
def test_every_kind_keeps_the_contract(options: dict[str, Any]) -> None:
    check_aggregator("acmil", hidden=16, **options)


def test_one_branch_without_masks_is_gated_abmil() -> None:
    torch.manual_seed(0)
    abmil = build_aggregator("abmil", DIM, 3, {"hidden": 16}).double()
    acmil = build(branches=1, n_masked=0)
    acmil.load_state_dict(abmil.state_dict())
    bags = example_bags()
    for mode in (True, False):
        abmil.train(mode)
        acmil.train(mode)
        for part in (abmil, acmil):  # dropout alone may differ
            part.projection[2].p = 0.0
        ours, plain = acmil(bags, Target(Y)), abmil(bags, Target(Y))
        assert torch.equal(ours.logits, plain.logits)
        assert torch.equal(ours.attention, plain.attention)
        assert torch.allclose(ours.evidence, plain.evidence, atol=1e-12)
        assert not ours.losses and not ours.branches


def test_logits_are_the_formula_and_evidence_adds_up_to_them() -> None:
    method, bags = build().eval(), example_bags()
    w, c = (p.detach().numpy() for p in method.classifier.parameters())
    expected = []
    for bag in bags.unpack():
        h = method.project(bag.x).detach().numpy()
        s = method.scores(method.project(bag.x)).detach().numpy()
        a = (np.exp(s) / np.exp(s).sum(0)).mean(1)
        expected.append(w @ (a @ h) + c)
    output = method(bags)
    np.testing.assert_allclose(output.logits.detach().numpy(), expected, rtol=0, atol=1e-12)
    added = total(output.evidence, bags.segments) + method.classifier.bias
    assert torch.allclose(added, output.logits, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.29, 0.6, 0.7, 1.0])
def test_masked_rows_are_so_many_of_the_top_of_each_bag_and_branch(share: float) -> None:
    lengths = (1, 2, 9, 10, 11, 300)
    segments = Segments.of_lengths(lengths)
    scores = torch.randn(sum(lengths), 5, generator=torch.Generator().manual_seed(0))
    masked = ~without_some_of_the_top(scores, segments, 10, share)
    assert not masked[rank(scores, segments) >= 10].any()
    percent = round(100 * share)
    expected = [min(min(10, n) * percent // 100, n - 1) for n in lengths]
    assert total(masked.long(), segments).tolist() == [[count] * 5 for count in expected]


def test_branches_and_steps_draw_by_themselves_and_evenly() -> None:
    torch.manual_seed(0)
    segments = Segments.of_lengths((50,))
    scores = torch.arange(50.0).unsqueeze(1).expand(-1, 2)
    draws = torch.stack([~without_some_of_the_top(scores, segments, 10, 0.6) for _ in range(400)])  # (400, 50, 2)
    assert (draws[:, :, 0] != draws[:, :, 1]).any(1).float().mean() > 0.9
    shares = draws[:, 40:].float().mean(0)
    # Four standard errors of a share of .6 in 400 draws.
    assert (shares - 0.6).abs().max() < 4 * (0.24 / 400) ** 0.5


def test_weights_of_what_is_left_sum_to_one_and_none_is_masked_in_evaluation() -> None:
    method, bags = build(), example_bags()
    trained, evaluated = method(bags).attention, method.eval()(bags).attention
    assert torch.allclose(total(trained, bags.segments), torch.ones(4, 5).double(), atol=1e-12)
    assert (trained == 0).any()
    assert (evaluated > 0).all()


def test_a_masked_row_learns_through_the_other_branches_alone() -> None:
    method, (bag,) = build(), example_bags((30,)).unpack()
    h = method.project(bag.x).detach().requires_grad_()
    output = method.aggregate(bag.with_x(h), Target(Y[:1]))
    hidden = output.attention == 0
    row = int(torch.nonzero(hidden.any(1) & ~hidden.all(1))[0])
    for branch in range(5):
        logits = output.branches[f"branch {branch + 1}"].square().sum()
        (gradient,) = torch.autograd.grad(logits, h, retain_graph=True)
        assert bool(gradient[row].any()) == (not hidden[row, branch])


def test_likeness_is_the_mean_cosine_of_all_pairs() -> None:
    bags = example_bags()
    a = softmax(torch.randn(len(bags.x), 4, dtype=torch.float64), bags.segments)
    pairs = [
        float(torch.cosine_similarity(part[:, k], part[:, j], dim=0))
        for part in a.split(bags.lengths.tolist())
        for k, j in itertools.combinations(range(4), 2)
    ]
    assert float(likeness(a, bags.segments)) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert float(likeness(a[:, :1].expand(-1, 3), bags.segments)) == pytest.approx(1)
    apart = torch.eye(4, dtype=torch.float64)
    assert float(likeness(apart, Segments.of_lengths((4,)))) == 0


@pytest.mark.parametrize("task", [Classification(("a", "b", "c")), Regression()])
def test_the_loss_is_that_of_the_slide_the_branches_and_their_likeness(task: Task) -> None:
    method = build(task.num_outputs, n_masked=0, branch=0.5, diversity=2.0)
    target = Target(Y if task.kind == "classification" else Y.float())
    found = parts(method, task, target)
    bags = example_bags()
    h = method.project(bags.x)
    a = softmax(method.scores(h), bags.segments)
    z = torch.stack([part.T @ rows for part, rows in zip(*(t.split(bags.lengths.tolist()) for t in (a, h)))])
    own = [task.loss(method.branches[k](z[:, k]), target)[0].mean().item() for k in range(5)]
    slide = task.loss(method.classifier(z.mean(1)), target)[0].mean().item()
    assert found["task"].item() == pytest.approx(slide, rel=1e-6)
    assert found["branches"].item() == pytest.approx(0.5 * np.mean(own), rel=1e-6)
    assert found["diversity"].item() == pytest.approx(2 * likeness(a, bags.segments).item(), rel=1e-6)


@pytest.mark.parametrize("options", [{"branches": 0}, {"n_masked": -1}, {"mask_drop": 1.2}])
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="branches is 1 or more"):
        build_aggregator("acmil", 8, 2, options)


def test_the_official_preset_masks_whole_bags_and_looks_at_their_rows_alike() -> None:
    bags = example_bags()  # of 1, 2, 9 and 40 rows
    for preset, whole in (("official", True), ("fixed", False)):
        attention = build(preset=preset, mask_drop=1.0)(bags).attention.split(bags.lengths.tolist())
        for rows in attention[1:3]:
            assert torch.allclose(rows, torch.full_like(rows, 1 / len(rows))) == whole
            assert bool((rows == 0).any()) == (not whole)
        assert (attention[3] == 0).sum(0).tolist() == [10] * 5


def test_official_and_fixed_masks_are_the_same_where_a_row_is_left() -> None:
    official = build(preset="official", mask_drop=0.6)
    fixed = build(mask_drop=0.6)
    fixed.load_state_dict({**official.state_dict(), "projection.0.bias": torch.zeros(16)})
    found = []
    for method in (official, fixed):
        torch.manual_seed(3)
        found.append(method(example_bags()))
    assert torch.allclose(found[0].logits, found[1].logits, rtol=0, atol=1e-12)
    assert torch.equal(found[0].attention == 0, found[1].attention == 0)


def test_the_official_preset_has_the_released_projection() -> None:
    for dim, width in ((384, 128), (512, 256), (768, 384), (1024, 512), (1536, 768)):
        method = build_aggregator("acmil", dim, 2, {"preset": "official"})
        assert isinstance(method, Acmil)
        linear, _, dropout = method.projection
        assert (linear.out_features, linear.bias, dropout.p) == (width, None, 0.0)


def test_the_official_mask_does_not_fit_into_float16() -> None:
    method, bags = build(preset="official").half(), example_bags()
    with pytest.raises(SettingsError, match=r'which float16 cannot hold. Set fit.precision = "bf16"'):
        method.aggregate(bags.with_x(torch.zeros(len(bags.x), 16, dtype=torch.float16)))
