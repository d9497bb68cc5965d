"""What is true of TransMIL beside the contract: where its attention points, what its evidence adds up to, its order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from coverslip.base.study import FitSettings
from coverslip.mil import Bags, SlideModel, build_aggregator
from coverslip.mil.bags import LearningSet
from coverslip.mil.methods.transmil import SquareConvolution, TransMil
from coverslip.mil.model import ModelCard
from coverslip.mil.origin import FeatureOrigin
from coverslip.mil.target import Target
from coverslip.nn.segments import total
from coverslip.testing.aggregators import DIM, check_aggregator, example_bags
from coverslip.train.optim import LookaheadRAdam

PRESETS = ("fixed", "official")


def build(**options: int | float | bool | str) -> TransMil:
    torch.manual_seed(0)
    method = build_aggregator("transmil", DIM, 3, {"hidden": 16, "heads": 2, "landmarks": 5, **options})
    assert isinstance(method, TransMil)
    return method.double().eval()


@pytest.mark.parametrize("options", [{}, {"preset": "official"}, {"shuffle": True, "landmarks": 64, "heads": 3}])
def test_every_kind_keeps_the_contract(options: dict[str, int | float | bool | str]) -> None:
    check_aggregator("transmil", **{"hidden": 16, "heads": 2, "landmarks": 5, **options})


@pytest.mark.parametrize("preset", PRESETS)
def test_evidence_and_what_the_token_brings_are_the_logits(preset: str) -> None:
    method = build(preset=preset)
    bags = example_bags()
    brought: list[torch.Tensor] = []
    gained: list[torch.Tensor] = []
    attention = method.attention_2
    real = attention.first

    def without_rows(x: torch.Tensor, lengths: list[int]) -> object:
        """The token's stream as it is, and what it gets if every other row weighs nothing."""
        first = real(x, lengths)
        for weights, values in zip(first.weights.split(lengths), first.values.split(lengths)):
            own = (weights[:1].unsqueeze(2) * values[:1]).flatten()
            near = attention._neighbours(values.transpose(0, 1).unsqueeze(0))[0, :, 0].flatten()
            brought.append(attention.out(own + near))
        gained.append(first.out)
        return first

    attention.first = without_rows
    streams = []
    hook = method.norm_out.register_forward_hook(lambda _, inputs, __: streams.append(inputs[0]))
    output = method(bags)
    hook.remove()
    (c,), (out,) = streams, gained
    rest = c - out + torch.stack(brought)
    norm = method.norm_out
    spread = (c.var(1, correction=0, keepdim=True) + norm.eps).sqrt()
    constant = (rest - rest.mean(1, keepdim=True)) / spread * norm.weight + norm.bias
    assert output.evidence is not None
    expected = total(output.evidence, bags.segments) + method.classifier(constant)
    assert torch.allclose(expected, output.logits, atol=1e-10)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("marked", [0, 3, 17])
def test_the_row_that_the_token_looks_for_has_the_largest_attention(preset: str, marked: int) -> None:
    # Six iterations leave the inverse of so flat a matrix unfinished, and the token looks as the rows do.
    method = build(preset=preset, iterations=30)
    (bag,) = example_bags((18,)).unpack()
    with torch.no_grad():
        for attention in (method.attention_1, method.attention_2):
            attention.qkv.weight.copy_(torch.eye(16).repeat(3, 1))
        method.attention_1.out.weight.zero_()
        for kernel in method.square.children():
            kernel.weight.zero_()
        token = torch.linspace(-1, 1, 16, dtype=torch.float64)
        h = 0.01 * method.project(bag.x) - token
        method.token.copy_(token)
        h[marked] = 50 * token
    output = method.aggregate(bag.with_x(h))
    assert output.attention is not None
    assert int(output.attention.mean(1).argmax()) == marked


def test_fixed_counts_no_row_twice_and_official_the_first_ones() -> None:
    """Three rows lie in a square of four: the released code fills the fourth place with the first row."""
    (bag,) = example_bags((3,)).unpack()
    for preset, ratio in (("fixed", 1.0), ("official", 2.0)):
        method = build(preset=preset, landmarks=4)
        with torch.no_grad():
            method.token.zero_()
            for kernel in method.square.children():
                kernel.weight.zero_()
            for attention in (method.attention_1, method.attention_2):
                attention.qkv.weight[:32].zero_()  # every score is 0
        weights = method(bag).attention
        assert weights is not None
        assert torch.allclose(weights[0], ratio * weights[1], atol=1e-6)
        assert torch.allclose(weights[1], weights[2], atol=1e-6)


def test_the_square_is_three_convolutions_and_zeros_beyond_the_rows() -> None:
    torch.manual_seed(0)
    square = SquareConvolution(4).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    laid = F.pad(x[1:], (0, 0, 0, 2)).T.reshape(1, 4, 3, 3)
    expected = laid + sum(conv(laid) for conv in square.children())
    found = square(x, [8])
    assert torch.equal(found[0], x[0])  # the token
    assert torch.allclose(found[1:], expected[0].flatten(1).T[:7], atol=1e-12)


def test_squares_beside_each_other_are_each_as_alone() -> None:
    torch.manual_seed(0)
    square = SquareConvolution(4).double()
    lengths = [2, 3, 6, 30, 17, 40, 26, 26, 1100, 1200, 3]
    x = torch.randn(sum(lengths), 4, dtype=torch.float64)
    alone = torch.cat([square(bag, [len(bag)]) for bag in x.split(lengths)])
    assert torch.allclose(square(x, lengths), alone, atol=1e-12)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_bags_of_any_length_side_by_side_are_each_as_alone_in_training(preset: str, shuffle: bool) -> None:
    method = build(preset=preset, shuffle=shuffle, dropout=0.0, attention_dropout=0.0, landmarks=20).train()
    bags = example_bags((40, 3, 19, 1, 25, 12, 20))
    torch.manual_seed(1)
    together = method(bags)
    torch.manual_seed(1)
    alone = [method(bag) for bag in bags.unpack()]
    for name in ("logits", "embedding", "attention", "evidence"):
        apart = torch.cat([getattr(output, name) for output in alone])
        assert torch.allclose(getattr(together, name), apart, atol=1e-10)


def test_shuffling_moves_rows_in_training_alone_and_brings_their_attention_back() -> None:
    method = build(shuffle=True, dropout=0.0, attention_dropout=0.0)
    (bag,) = example_bags((40,)).unpack()
    assert torch.equal(method(bag).logits, build(dropout=0.0)(bag).logits)
    method.train()
    torch.manual_seed(1)
    order = torch.randperm(40)
    torch.manual_seed(1)
    shuffled = method(bag)
    method.eval()
    moved = method(Bags(bag.x[order], bag.offsets, None, bag.slides))
    assert torch.allclose(shuffled.logits, moved.logits, atol=1e-12)
    assert shuffled.attention is not None
    assert moved.attention is not None
    assert torch.allclose(shuffled.attention[order], moved.attention, atol=1e-12)


def test_only_official_trains_with_lookahead() -> None:
    for preset, kind in (("fixed", torch.optim.AdamW), ("official", LookaheadRAdam)):
        options = {"preset": preset, "hidden": 16, "landmarks": 4}
        card = ModelCard(
            "transmil", options, FeatureOrigin(DIM, "an example"), "classification", {"classes": ["a", "b"]}
        )
        model = SlideModel(card)
        learns = LearningSet(2, 2, Target(torch.tensor([0, 1])))
        objective = model.aggregator.objective(model, model.task, learns)
        assert (objective is not None) == (preset == "official")
        if objective is not None:
            assert isinstance(objective.optimiser(FitSettings(lr=1e-3)), kind)
