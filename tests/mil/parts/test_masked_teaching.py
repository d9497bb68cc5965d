from __future__ import annotations

import math

import pytest
import torch

from coverslip.mil import BagOutput, LabelledBags, LearningSet, Target
from coverslip.mil.bags import StagedAggregator
from coverslip.mil.model import FeatureOrigin, ModelCard, SlideModel
from coverslip.mil.parts.masked_teaching import MaskedTeaching, MaskPolicy, Masks, Teaching, consistency
from coverslip.mil.supervised import Supervised
from coverslip.nn.segments import Segments, position
from coverslip.testing.aggregators import DIM, example_bags
from coverslip.train.optim import decay_groups

HOW = Teaching(consistency=0.1, temperature=0.1, momentum=0.9, settles=False, warmup=0.0, dropout=False)
TARGET = Target(torch.tensor([0, 1, 2, 0]))


class EveryOther(MaskPolicy):
    """The first, third, fifth row of each bag."""

    needs_teacher = False

    def draw(self, seen: BagOutput | None, segments: Segments, progress: float) -> Masks:
        return Masks(position(segments) % 2 == 0)


def teaching(how: Teaching = HOW, host: str = "abmil") -> MaskedTeaching:
    card = ModelCard(
        host, {"hidden": 8}, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b", "c"]}
    )
    torch.manual_seed(0)
    model = SlideModel(card)
    assert isinstance(model.aggregator, StagedAggregator)
    plain = model.aggregator.objective(model, model.task, LearningSet(4, 52, TARGET)) or Supervised(model, model.task)
    assert isinstance(plain, Supervised)
    return MaskedTeaching(plain, model.aggregator, EveryOther(), how)


def batch() -> LabelledBags:
    bags = example_bags()
    return LabelledBags(bags.with_x(bags.x.float()), TARGET)


def test_the_consistency_loss_is_that_of_a_loop_over_branches() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 8).double().requires_grad_(), torch.randn(3, 8).double().requires_grad_()
    found = consistency(student, teacher, 4, temperature=0.3)
    for b in range(3):
        for c in range(2):
            s, t = student[b, 4 * c : 4 * c + 4].tolist(), teacher[b, 4 * c : 4 * c + 4].tolist()
            aim = [math.exp(v / 0.3) / sum(math.exp(w / 0.3) for w in t) for v in t]
            log = [v - math.log(sum(math.exp(w) for w in s)) for v in s]
            assert float(found[b, c].detach()) == pytest.approx(-sum(p * q for p, q in zip(aim, log)), abs=1e-12)
    found.sum().backward()
    assert teacher.grad is None and student.grad is not None


def test_consistency_is_least_where_the_student_agrees_and_is_the_teachers_entropy_there() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(2, 6).double()
    agrees = (teacher / 0.2).requires_grad_()
    least = consistency(agrees, teacher, 6, temperature=0.2)
    assert torch.allclose(least[:, 0], torch.special.entr((teacher / 0.2).softmax(1)).sum(1), atol=1e-12)
    (gradient,) = torch.autograd.grad(least.sum(), agrees)
    assert gradient.abs().max() < 1e-12
    assert (consistency(agrees + torch.randn(2, 6), teacher, 6, temperature=0.2) > least).all()


def test_rows_left_out_get_no_gradient_and_every_kept_row_gets_one() -> None:
    objective = teaching().eval()
    data = batch()
    x = data.bags.x.clone().requires_grad_()
    objective(LabelledBags(data.bags.with_x(x), TARGET), 0.5).loss.backward()
    kept = EveryOther().draw(None, data.bags.segments, 0.5).kept
    assert x.grad is not None
    assert not x.grad[~kept].any()
    assert x.grad[kept].any(1).all()


def test_the_loss_is_the_hosts_on_what_is_left_plus_the_weighted_pull() -> None:
    objective = teaching().eval()
    data = batch()
    step = objective(data, 0.5)
    kept = EveryOther().draw(None, data.bags.segments, 0.5).kept
    left = LabelledBags(data.bags.take(kept), TARGET)
    assert torch.allclose(step.parts["task"], objective.plain(left, 0.5).loss)
    whole = objective.network(data.bags)
    pull = consistency(objective.network(left.bags).embedding, whole.embedding, 8, temperature=0.1).mean()
    assert torch.allclose(step.parts["consistency"], 0.1 * pull)
    assert torch.allclose(step.loss, step.parts["task"] + step.parts["consistency"])


def test_the_teacher_is_not_trained_and_moves_once_a_step() -> None:
    objective = teaching().train()
    names = {id(p): name for name, p in objective.named_parameters()}
    taken = [names[id(p)] for group in decay_groups(objective, lr=1.0, weight_decay=0.0) for p in group["params"]]
    assert taken and not [name for name in taken if name.startswith("teacher")]
    start = [p.clone() for p in objective.teacher.parameters()]
    with torch.no_grad():
        for p in objective.network.parameters():
            p.add_(1.0)
    for _ in range(3):
        # Gradients of several batches belong to one step.
        objective(batch(), 0.5).loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(start, objective.teacher.parameters()))
    objective.after_step(0.5)
    host = objective.network.get_submodule("aggregator")
    for own, first, now in zip(objective.teacher.parameters(), start, host.parameters()):
        assert torch.allclose(own, 0.9 * first + 0.1 * now, atol=1e-6)


def test_in_the_warm_up_the_host_learns_by_itself_and_the_teacher_is_its_copy() -> None:
    how = Teaching(consistency=0.1, temperature=0.1, momentum=0.9, settles=False, warmup=0.5, dropout=False)
    objective = teaching(how)
    assert set(objective(batch(), 0.49).parts) == {"task"}
    assert set(objective(batch(), 0.5).parts) == {"task", "consistency"}
    with torch.no_grad():
        for p in objective.network.parameters():
            p.add_(1.0)
    objective.after_step(0.49)
    host = objective.network.get_submodule("aggregator")
    assert all(torch.equal(a, b) for a, b in zip(objective.teacher.parameters(), host.parameters()))


@pytest.mark.parametrize("steps", [11, 201])
def test_without_a_momentum_the_teacher_forgets_over_a_tenth_of_training_however_many_steps(steps: int) -> None:
    how = Teaching(consistency=0.1, temperature=0.1, momentum=None, settles=False, warmup=0.0, dropout=False)
    objective = teaching(how)
    first = next(objective.teacher.parameters()).clone()
    with torch.no_grad():
        for p in objective.network.parameters():
            p.add_(1.0)
    for step in range(steps):
        objective.after_step(step / (steps - 1))
    behind = 1 - (next(objective.teacher.parameters()) - first)
    assert torch.allclose(behind, torch.full_like(behind, math.exp(-10)), atol=1e-5)


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0), (1.2, 1.0)])
def test_a_settling_momentum_reaches_one(progress: float, momentum: float) -> None:
    how = Teaching(consistency=0.1, temperature=0.1, momentum=0.9, settles=True, warmup=0.0, dropout=False)
    objective = teaching(how)
    first = next(objective.teacher.parameters()).clone()
    with torch.no_grad():
        for p in objective.network.parameters():
            p.add_(1.0)
    objective.after_step(progress)
    moved = next(objective.teacher.parameters()) - first
    assert torch.allclose(moved, torch.full_like(moved, 1 - momentum), atol=1e-6)


def test_a_host_keeps_its_own_terms_and_its_own_optimiser() -> None:
    assert {"task", "best_row", "consistency"} == set(teaching(host="dsmil")(batch(), 0.5).parts)
