from __future__ import annotations

import pytest
import torch
from torch import nn

from coverslip.mil.parts.teacher import Teacher
from coverslip.train.optim import decay_groups


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def moved(student: nn.Module) -> None:
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)


@pytest.mark.parametrize("momentum", [0.9, torch.tensor(0.9, dtype=torch.float64)])
def test_after_n_steps_beside_a_constant_student_it_is_where_the_formula_says(momentum: float | torch.Tensor) -> None:
    student = network()
    teacher = Teacher(student)
    start = [p.clone() for p in student.parameters()]
    moved(student)
    for _ in range(50):
        teacher.move(student, momentum)
    for own, first, now in zip(teacher.parameters(), start, student.parameters()):
        assert torch.allclose(own, 0.9**50 * first + (1 - 0.9**50) * now, rtol=0, atol=1e-12)


def test_momentum_zero_copies_and_one_stays() -> None:
    student = network()
    teacher = Teacher(student)
    before = [p.clone() for p in teacher.parameters()]
    moved(student)
    teacher.move(student, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before))
    teacher.move(student, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters()))


def test_buffers_follow_and_counters_are_copied() -> None:
    student = network()
    teacher = Teacher(student)
    student.train()
    student(torch.randn(8, 3, dtype=torch.float64))
    teacher.move(student, 0.5)
    norm, own = student[2], teacher.network[2]
    assert torch.allclose(own.running_mean, 0.5 * norm.running_mean, atol=1e-12)
    assert int(own.num_batches_tracked) == 1


def test_it_shares_no_memory_and_no_optimiser_takes_it() -> None:
    student = network()
    student(torch.randn(8, 3, dtype=torch.float64)).sum().backward()
    teacher = Teacher(student)
    memory = {t.data_ptr() for t in [*student.parameters(), *student.buffers()]}
    assert not memory & {t.data_ptr() for t in [*teacher.parameters(), *teacher.buffers()]}
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    both = nn.ModuleList([student, teacher])
    taken = [p for group in decay_groups(both, lr=1.0, weight_decay=0.0) for p in group["params"]]
    assert {id(p) for p in taken} == {id(p) for p in student.parameters()}


def test_it_leaves_no_graph_and_its_word_may_be_part_of_a_loss() -> None:
    student = network().eval()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    said = Teacher(student)(x)
    assert not said.requires_grad
    (student(x) * said).sum().backward()


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_on_in_training_where_it_is_asked_for(dropout: bool) -> None:
    student = nn.Dropout(0.5).train()
    whole = nn.ModuleList([student, teacher := Teacher(student, dropout=dropout)])
    whole.train()
    before = torch.random.get_rng_state()
    assert teacher(torch.ones(100)).eq(0).any() == dropout
    assert torch.equal(before, torch.random.get_rng_state()) == (not dropout)
    whole.eval()
    assert torch.equal(teacher(torch.ones(100)), torch.ones(100))
