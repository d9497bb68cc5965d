"""Parameter groups, modes, Ctrl-C and checkpoints."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from coverslip.base.errors import StoreError
from coverslip.train import checkpoint
from coverslip.train.checkpoint import Counters
from coverslip.train.interrupt import deferred_interrupt
from coverslip.train.modes import evaluating
from coverslip.train.optim import decay_groups
from coverslip.train.selection import Selection


def test_biases_and_norms_do_not_decay_and_frozen_weights_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2).requires_grad_(False))
    decayed, plain = decay_groups(module, lr=0.1, weight_decay=0.5)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)


def test_modes_come_back_one_by_one_even_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).train()
    module[1].eval()
    with pytest.raises(RuntimeError, match="inside"), evaluating(module):
        assert not module[0].training
        raise RuntimeError("inside")
    assert [module.training, module[0].training, module[1].training] == [True, True, False]


def test_ctrl_c_waits_for_the_block_to_look() -> None:
    with deferred_interrupt() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_other_handlers_are_left_alone() -> None:
    answers = []

    def ask() -> None:
        with deferred_interrupt() as pressed:
            answers.append(pressed())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]

    def mine(number: int, frame: object) -> None:
        answers.append(True)

    before = signal.signal(signal.SIGINT, mine)
    try:
        with deferred_interrupt():
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def saved(path: Path) -> torch.optim.Optimizer:
    module = nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.25, betas=(0.5, 0.75))
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    counters = Counters(epoch=3, batch=1, step=9, losses=[1.0], history=[{"epoch": 1.0}])
    checkpoint.save(
        path,
        key="k",
        counters=counters,
        objective=module.state_dict(),
        kept=module.state_dict(),
        selection=Selection(best=1, kept=2, losses=torch.tensor([0.1, 0.2], dtype=torch.float64)),
        optimiser=optimiser.state_dict(),
    )
    return optimiser


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    optimiser = saved(tmp_path / "c.safetensors")
    found = checkpoint.load(tmp_path / "c.safetensors", key="k")
    assert found is not None
    assert (found.counters.epoch, found.counters.losses) == (3, [1.0])
    assert (found.selection.best, found.selection.kept) == (1, 2)
    assert found.selection.losses is not None
    assert found.selection.losses.tolist() == [0.1, 0.2]
    assert found.kept is not None
    assert set(found.objective) == set(found.kept) == {"weight", "bias"}
    before, after = optimiser.state_dict(), found.optimiser
    assert before["param_groups"] == after["param_groups"]
    for index, state in before["state"].items():
        assert all(torch.equal(value, after["state"][index][name]) for name, value in state.items())
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_no_checkpoint_and_one_of_another_run_are_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "none.safetensors", key="k") is None
    saved(tmp_path / "c.safetensors")
    assert checkpoint.load(tmp_path / "c.safetensors", key="other") is None


@pytest.mark.parametrize("keep", [0, 5, 100, -10])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.safetensors"
    saved(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="damaged"):
        checkpoint.load(path, key="k")
