"""The contract of MIL methods over every registered one, and that it can fail."""

from __future__ import annotations

import pytest
import torch

from coverslip.base.registry import AGGREGATORS, Entry
from coverslip.mil import Aggregator, BagOutput, Bags, Target
from coverslip.nn.segments import mean, softmax
from coverslip.testing.aggregators import check_aggregator, check_memory


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_every_method_keeps_the_contract(name: str) -> None:
    check_aggregator(name)


@pytest.mark.parametrize("options", [{"gated": False}, {"heads": 3}, {"hidden": 8, "attention": 4, "dropout": 0.0}])
def test_every_kind_of_abmil_keeps_the_contract(options: dict[str, int | float | bool]) -> None:
    check_aggregator("abmil", **options)


# What does not grow with the rows is kept small, so that what does is seen.
NARROW = {
    "abmilx": {"heads": 2},
    "ins": {"queue": 64},
    "mambamil": {"layers": 1, "states": 4},
    "transmil": {"heads": 2, "landmarks": 16},
}


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_memory_grows_with_the_rows_and_not_with_their_square(name: str) -> None:
    check_memory(name, hidden=16, **NARROW.get(name, {}))


class Broken(Aggregator):
    """Mean pooling with a fault to be found."""

    counted: torch.Tensor

    def __init__(self, dim: int, num_outputs: int, *, fault: str = "") -> None:
        super().__init__()
        self.linear = torch.nn.Linear(dim, num_outputs)
        self.spare = torch.nn.Linear(2, 2) if fault == "deaf" else None
        self.fault = fault
        self.register_buffer("counted", torch.zeros(()), persistent=False)

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        x = torch.nn.functional.dropout(bags.x, 0.5) if self.fault == "dropout" else bags.x
        if self.fault == "mates":
            x = x - x.mean(0)
        if self.fault == "order":
            x = x * torch.arange(1, len(x) + 1).unsqueeze(1)
        evidence = self.linear(x)
        if self.fault == "forgets" and self.training:
            # What is learnt outside of the state is gone after a stop.
            self.counted += 1
            evidence = evidence * self.counted
        attention = softmax(evidence, bags.segments) * (2 if self.fault == "sums" else 1)
        if self.fault == "square":
            # Rows that look at all others, as a matrix.
            evidence = (x @ x.T / 100).softmax(1) @ evidence
        return BagOutput(mean(evidence, bags.segments), mean(x, bags.segments), attention, evidence)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("dropout", "is dropout on"),
        ("mates", "depends on the other bags"),
        ("order", "depends on the other bags|order of rows"),
        ("sums", "does not sum to 1"),
        ("deaf", "no gradient reaches"),
        ("forgets", "a resumed run ends with other"),
    ],
)
def test_the_contract_finds_a_broken_method(monkeypatch: pytest.MonkeyPatch, fault: str, sentence: str) -> None:
    plug_in(monkeypatch)
    with pytest.raises(AssertionError, match=sentence):
        check_aggregator("mine", fault=fault)


def test_the_memory_check_finds_a_matrix_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    check_memory("mine")
    with pytest.raises(AssertionError, match=r"a training step takes .* MB for 2,000 rows and .* for 4,000"):
        check_memory("mine", fault="square")


def test_a_whole_method_of_a_plug_in_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    check_aggregator("mine")


def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGGREGATORS.entries, "mine", Entry("mine", "somewhere", "Broken", licence="MIT"))
    load = AGGREGATORS.load
    monkeypatch.setattr(AGGREGATORS, "load", lambda name: Broken if name == "mine" else load(name))
