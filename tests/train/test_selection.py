from __future__ import annotations

import torch

from coverslip.train.selection import Selection


def losses(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_later_epoch_is_kept_unless_it_is_clearly_worse() -> None:
    rule = Selection()
    assert rule.keeps(0, losses(1.0, 1.0, 1.0, 1.0))
    assert rule.keeps(1, losses(0.5, 0.6, 0.4, 0.5))
    # One hard patient of four: .13 worse in the mean, but half a standard error of the difference is .14.
    assert rule.keeps(2, losses(0.4, 0.5, 0.2, 1.4))
    # Every patient is worse, evenly: that is no noise.
    assert not rule.keeps(3, losses(0.6, 0.7, 0.5, 0.6))
    assert (rule.best, rule.kept) == (1, 2)


def test_training_is_stale_after_as_many_worse_epochs() -> None:
    rule = Selection()
    rule.keeps(0, losses(0.5, 0.5))
    for epoch in (1, 2, 3):
        assert not rule.stale(epoch - 1, 3)
        rule.keeps(epoch, losses(0.9, 0.9))
    assert rule.stale(3, 3)


def test_one_patient_gives_no_error_so_the_lowest_loss_is_kept() -> None:
    rule = Selection()
    assert [rule.keeps(i, losses(value)) for i, value in enumerate([1.0, 0.5, 0.6, 0.4])] == [True, True, False, True]


def test_nothing_is_stale_before_the_first_epoch() -> None:
    assert not Selection().stale(-1, 1)
