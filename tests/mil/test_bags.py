from __future__ import annotations

import pytest
import torch

from coverslip.base.errors import FeatureError
from coverslip.mil import Bags, Target, pack


def bag(name: str, rows: int, *, dim: int = 3, positions: bool = True) -> Bags:
    x = torch.arange(rows * dim, dtype=torch.float32).reshape(rows, dim)
    return Bags(x, torch.tensor([0, rows]), torch.zeros(rows, 2) if positions else None, (name,))


def test_packing_and_unpacking_give_the_same_bags_back() -> None:
    bags = [bag("a", 2), bag("b", 1), bag("c", 4)]
    packed = pack(bags)
    assert packed.slides == ("a", "b", "c")
    assert packed.offsets.tolist() == [0, 2, 3, 7]
    assert packed.seg.tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert packed.lengths.tolist() == [2, 1, 4]
    for before, after in zip(bags, packed.unpack()):
        assert torch.equal(before.x, after.x)
        assert after.offsets.tolist() == before.offsets.tolist()
        assert after.slides == before.slides


def test_positions_are_only_kept_where_all_bags_have_them() -> None:
    assert pack([bag("a", 2), bag("b", 1)]).xy_um is not None
    assert pack([bag("a", 2), bag("b", 1, positions=False)]).xy_um is None


def test_an_empty_bag_is_refused_by_name() -> None:
    with pytest.raises(FeatureError, match=r"^b: has no rows"):
        Bags(torch.zeros(3, 2), torch.tensor([0, 3, 3]), None, ("a", "b"))


def test_bags_of_other_widths_are_refused_by_name() -> None:
    with pytest.raises(FeatureError, match=r"b: has rows of width 4, but a has 3"):
        pack([bag("a", 2), bag("b", 1, dim=4)])


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 4], [0, 2, 1, 3]])
def test_offsets_that_do_not_fit_the_rows_are_our_mistake(offsets: list[int]) -> None:
    names = tuple("abc"[: len(offsets) - 1])
    with pytest.raises(AssertionError):
        Bags(torch.zeros(3, 2), torch.tensor(offsets), None, names)


def test_taking_rows_keeps_their_order_and_their_bag() -> None:
    packed = pack([bag("a", 3), bag("b", 2)])
    taken = packed.take(torch.tensor([True, False, True, False, True]))
    assert taken.lengths.tolist() == [2, 1]
    assert torch.equal(taken.x, packed.x[[0, 2, 4]])
    with pytest.raises(FeatureError, match=r"b: has no rows"):
        packed.take(torch.tensor([True, True, True, False, False]))


def test_a_target_is_taken_with_all_its_parts() -> None:
    target = Target(
        torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
        known=torch.tensor([[True, False], [True, True]]),
        event=torch.tensor([True, False]),
    )
    part = target.take(torch.tensor([1]))
    assert part.known is not None
    assert part.event is not None
    assert part.y.tolist() == [[1.0, 1.0]]
    assert part.known.tolist() == [[True, True]]
    assert part.event.tolist() == [False]
