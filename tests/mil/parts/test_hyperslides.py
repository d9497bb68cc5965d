from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from coverslip.base.errors import SettingsError
from coverslip.base.registry import TASKS
from coverslip.mil import Bags, LabelledBags, Target, build_task
from coverslip.mil.parts.hyperslides import KINDS, SURVIVAL, Members, hyperslide_loss, require_labels
from coverslip.mil.target import Mixture
from coverslip.mil.tasks.classification import Classification
from coverslip.mil.tasks.contract import Task

PACKS = [[0, 2, 3], [1], [4, 5]]
ROWS = torch.tensor([10.0, 5, 30, 20, 1, 3])
NAMES = ("a", "b", "c")


def bags_of(number: int) -> Bags:
    return Bags(torch.zeros(number, 1), torch.arange(number + 1), None, tuple(f"s{i}" for i in range(number)))


def members(target: Target, mixture: Mixture | None = None) -> Members:
    return Members.of(LabelledBags(bags_of(6), target, mixture), PACKS, ROWS)


def loss(task: Task, logits: Tensor, target: Target, *, labels: Any = "counts", mixture: Any = None) -> Tensor:
    return hyperslide_loss(task, logits, bags_of(3), members(target, mixture), labels=labels)


def logits_of(task: Task) -> Tensor:
    return torch.randn(3, task.num_outputs, generator=torch.Generator().manual_seed(0))


def test_counts_over_the_largest_meet_focal_binary_cross_entropy() -> None:
    task = Classification(NAMES)
    z = logits_of(task)
    found = loss(task, z, Target(torch.tensor([0, 1, 0, 2, 2, 1])))
    y = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])  # counts 2 0 1, 0 1 0, 0 1 1
    expected = []
    for row, wanted in zip(z, y):
        for value, share in zip(row, wanted):
            p = torch.sigmoid(value)
            entropy = -(share * p.log() + (1 - share) * (1 - p).log())
            expected.append(0.25 * (1 - torch.exp(-entropy)) ** 2 * entropy)
    assert torch.allclose(found, torch.stack(expected).mean())


def test_shares_meet_the_softmax_with_the_tasks_class_weights() -> None:
    task = Classification(NAMES)
    task.class_weights.copy_(torch.tensor([1.0, 2.0, 0.5]))
    z = logits_of(task)
    found = loss(task, z, Target(torch.tensor([0, 1, 0, 2, 2, 1])), labels="shares")
    shares = [[2 / 3, 0, 1 / 3], [0, 1, 0], [0, 1 / 2, 1 / 2]]
    above, below = torch.zeros(()), 0.0
    for row, share in zip(z, shares):
        for c in range(3):
            weight = share[c] * float(task.class_weights[c])
            above = above - weight * row.log_softmax(0)[c]
            below += weight
    assert torch.allclose(found, above / below)


def test_one_slide_a_pack_has_the_slides_own_target() -> None:
    target = Target(torch.tensor([0, 1, 0, 2, 2, 1]))
    task = Classification(NAMES)
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    alone = Members.of(LabelledBags(bags_of(6), target), [[i] for i in range(6)], ROWS)
    found = hyperslide_loss(task, z, bags_of(6), alone, labels="shares")
    assert torch.allclose(found, torch.nn.functional.cross_entropy(z, target.y))


@pytest.mark.parametrize("kind", SURVIVAL)
def test_survival_is_the_first_event_unless_a_follow_up_ends_before(kind: str) -> None:
    causes = {"classes": ("x", "y")} if kind == "competing_risks" else {}
    task = build_task(kind, {"grid": (1.0, 5.0, 10.0), **causes})
    # Pack 0: one of three is followed up to 2, the first event comes at 4. Pack 1: an event at 6. Pack 2: both at 3.
    target = Target(torch.tensor([4.0, 6.0, 2.0, 8.0, 3.0, 3.0]), None, torch.tensor([1, 1, 0, 1, 0, 1]))
    z = logits_of(task)
    free, weight_free = task.loss(z, Target(torch.tensor([2.0, 6.0, 3.0]), None, torch.tensor([0, 0, 0])))
    hit, weight_hit = task.loss(z, Target(torch.tensor([4.0, 6.0, 3.0]), None, torch.tensor([1, 1, 1])))
    share = torch.tensor([1 / 3, 0, 0])
    both = (share * weight_free * free + (1 - share) * weight_hit * hit).sum()
    expected = both / (share * weight_free + (1 - share) * weight_hit).sum()
    assert torch.allclose(loss(task, z, target), expected)


def test_a_pack_without_events_ends_with_its_first_end_of_follow_up() -> None:
    task = build_task("survival", {"grid": (1.0, 5.0, 10.0)})
    z = logits_of(task)
    target = Target(torch.tensor([4.0, 6.0, 2.0, 8.0, 3.0, 5.0]), None, torch.zeros(6, dtype=torch.int64))
    expected, _ = task.loss(z, Target(torch.tensor([2.0, 6.0, 3.0]), None, torch.zeros(3, dtype=torch.int64)))
    assert torch.allclose(loss(task, z, target), expected.mean())


def test_a_value_is_the_mean_weighted_by_rows_over_the_known() -> None:
    task = build_task("regression", {})
    target = Target(torch.tensor([1.0, 2.0, torch.nan, 4.0, torch.nan, torch.nan]))
    z = logits_of(task)
    first = (10 * 1.0 + 20 * 4.0) / 30
    expected = ((z[0, 0] - first) ** 2 + (z[1, 0] - 2.0) ** 2) / 2  # of pack 2 nothing is known
    assert torch.allclose(loss(task, z, target), expected)


def test_a_level_is_shared_between_the_two_around_the_mean() -> None:
    task = build_task("ordinal", {"classes": ("0", "1", "2", "3"), "weights": "none"})
    target = Target(torch.tensor([0, 1, 3, 2, 3, 3]))
    z = logits_of(task)
    level = (10 * 0 + 30 * 3 + 20 * 2) / 60  # 2.17
    own, _ = task.loss(z, Target(torch.tensor([2, 1, 3])))
    above, _ = task.loss(z[:1], Target(torch.tensor([3])))
    first = (3 - level) * own[0] + (level - 2) * above[0]
    assert torch.allclose(loss(task, z, target), (first + own[1] + own[2]) / 3)


def test_a_label_is_there_where_any_slide_has_it_and_unknown_where_none_has_and_one_may() -> None:
    task = build_task("multilabel", {"classes": ("x", "y"), "weights": "none"})
    y = torch.tensor([[0, 0], [1, 0], [1, 0], [0, 0], [0, 0], [0, 1]])
    known = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [1, 0]]).bool()
    z = logits_of(task)
    wanted = Target(torch.tensor([[1, 0], [1, 0], [0, 0]]), torch.tensor([[1, 0], [1, 1], [1, 0]]).bool())
    expected, weight = task.loss(z, wanted)
    assert torch.allclose(loss(task, z, Target(y, known)), (expected * weight).sum() / weight.sum())


def test_mixed_slides_count_by_their_shares() -> None:
    task = Classification(NAMES, weights="none")
    z = logits_of(task)
    share = torch.tensor([0.25, 1, 1, 0.5, 1, 1])
    mixture = Mixture(Target(torch.tensor([1, 2, 2, 2, 0, 0])), share)
    found = loss(task, z, Target(torch.tensor([0, 1, 0, 1, 2, 1])), labels="shares", mixture=mixture)
    # Pack 0: .25 of a and .75 of b, one a, half b and half c.
    shares = torch.tensor([[1.25, 1.25, 0.5], [0, 1, 0], [0, 1, 1]])
    shares = shares / shares.sum(1, keepdim=True)
    assert torch.allclose(found, -(shares * z.log_softmax(1)).sum(1).mean())


def test_a_slide_that_is_mixed_in_with_no_share_does_not_end_the_follow_up() -> None:
    task = build_task("survival", {"grid": (1.0, 5.0, 10.0)})
    known = Target(torch.linspace(0.1, 9, 20), None, torch.ones(20, dtype=torch.int64))
    task.fit_target(known, [str(i) for i in range(20)])
    own = Target(torch.tensor([4.0, 6.0, 7.0, 8.0, 3.0, 3.0]), None, torch.tensor([1, 1, 1, 1, 0, 1]))
    other = Target(torch.full((6,), 0.5), None, torch.ones(6, dtype=torch.int64))
    z = logits_of(task)
    none = Mixture(other, torch.ones(6))
    assert torch.allclose(loss(task, z, own, mixture=none), loss(task, z, own))
    some = Mixture(other, torch.tensor([0.5, 1, 1, 1, 1, 1]))
    assert not torch.allclose(loss(task, z, own, mixture=some), loss(task, z, own))


def test_every_kind_of_task_has_a_label_and_another_is_refused() -> None:
    assert set(KINDS) == set(TASKS.entries)

    class Captions(Classification):
        kind = "captions"

    with pytest.raises(SettingsError, match=r"known for classification, .*, not for 'captions'.*alpha = 0"):
        require_labels(Captions(NAMES), method="packmil")
