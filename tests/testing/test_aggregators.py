"""The contract of MIL methods over every registered one, and that it can fail."""

from __future__ import annotations

import pytest
import torch

from coverslip.base.registry import AGGREGATORS, Entry
from coverslip.mil import Aggregator, BagOutput, Bags, Target
from coverslip.nn.segments import mean, softmax
from coverslip.testing import aggregators
from coverslip.testing.aggregators import check_aggregator


@pytest.mark.parametrize("name", AGGREGATORS.names())
def test_every_method_keeps_the_contract(name: str) -> None:
    check_aggregator(name)


@pytest.mark.parametrize("options", [{"gated": False}, {"heads": 3}, {"hidden": 8, "attention": 4, "dropout": 0.0}])
def test_every_kind_of_abmil_keeps_the_contract(options: dict[str, int | float | bool]) -> None:
    check_aggregator("abmil", **options)


class Broken(Aggregator):
    """Mean pooling with a fault to be found."""

    def __init__(self, dim: int, num_outputs: int, *, fault: str = "") -> None:
        super().__init__()
        self.linear = torch.nn.Linear(dim, num_outputs)
        self.spare = torch.nn.Linear(2, 2) if fault == "deaf" else None
        self.fault = fault

    def forward(self, bags: Bags, target: Target | None = None) -> BagOutput:
        x = torch.nn.functional.dropout(bags.x, 0.5) if self.fault == "dropout" else bags.x
        if self.fault == "mates":
            x = x - x.mean(0)
        if self.fault == "order":
            x = x * torch.arange(1, len(x) + 1).unsqueeze(1)
        evidence = self.linear(x)
        attention = softmax(evidence, bags.segments) * (2 if self.fault == "sums" else 1)
        return BagOutput(mean(evidence, bags.segments), mean(x, bags.segments), attention, evidence)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("dropout", "is dropout on"),
        ("mates", "depends on the other bags"),
        ("order", "depends on the other bags|order of rows"),
        ("sums", "does not sum to 1"),
        ("deaf", "no gradient reaches"),
    ],
)
def test_the_contract_finds_a_broken_method(monkeypatch: pytest.MonkeyPatch, fault: str, sentence: str) -> None:
    monkeypatch.setattr(aggregators, "_build", lambda name, k, options: _broken(k, fault))
    with pytest.raises(AssertionError, match=sentence):
        check_aggregator("mean")


def test_a_whole_method_of_a_plug_in_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("mine", "somewhere", "Broken", licence="MIT")
    monkeypatch.setitem(AGGREGATORS.entries, "mine", entry)
    monkeypatch.setattr(aggregators, "_build", lambda name, k, options: _broken(k, ""))
    check_aggregator("mine")


def _broken(num_outputs: int, fault: str) -> Aggregator:
    torch.manual_seed(0)
    return Broken(12, num_outputs, fault=fault).double().eval()
