from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coverslip.base.errors import FeatureError, TableError
from coverslip.mil import BagSource, LabelledBags, Target
from coverslip.mil.source import SLIDE_GAP_UM, BagBatches
from coverslip.store import Features
from coverslip.synthetic import PlantedBags

Make = Callable[[PlantedBags], list[Features]]


def test_bags_are_the_rows_of_their_slides(source: BagSource, planted: PlantedBags) -> None:
    bags = source.bags([3, 0])
    assert bags.slides == ("s003", "s000")
    assert bags.x.dtype == torch.float16
    assert np.array_equal(bags.x.numpy(), np.concatenate([planted.bag(3), planted.bag(0)]).astype(np.float16))


def test_positions_are_tile_centres_in_um(source: BagSource) -> None:
    xy_um = source.bags([0]).xy_um
    assert xy_um is not None
    assert xy_um[0].tolist() == [448 / 2 * 0.25] * 2


def test_a_patients_slides_pool_into_one_bag_side_by_side(planted: PlantedBags, features_of: Make) -> None:
    features = features_of(planted)[:3]
    patients = {"s000": "p", "s001": "q", "s002": "p"}
    source = BagSource(features, patients=patients, bag="patient")
    assert source.names == ("p", "q")
    assert source.slides == (("s000", "s002"), ("s001",))
    bags = source.bags([0])
    first, second = len(features[0]), len(features[2])
    assert bags.lengths.tolist() == [first + second]
    assert bags.xy_um is not None
    near = bags.xy_um[:first, 0].max()
    assert bags.xy_um[first:, 0].min() >= near + SLIDE_GAP_UM
    alone = BagSource([features[2]]).bags([0]).xy_um
    assert alone is not None
    shift = bags.xy_um[first:] - alone
    assert torch.allclose(shift, shift[:1].expand_as(shift))


def test_a_patient_with_two_targets_cannot_be_one_bag(planted: PlantedBags, features_of: Make) -> None:
    with pytest.raises(TableError, match="patient 'p' have different targets"):
        BagSource(
            features_of(planted)[:2],
            patients={"s000": "p", "s001": "p"},
            target=Target(torch.tensor([0, 1])),
            bag="patient",
        )


def test_fewer_rows_are_drawn_in_order_and_always_the_same(source: BagSource) -> None:
    whole = source.bags([1, 2])
    part = source.bags([1, 2], max_rows=4, draw=(7, "rows", 3))
    again = source.bags([2], max_rows=4, draw=(7, "rows", 3))
    assert part.lengths.tolist() == [4, 4]
    assert torch.equal(part.unpack()[1].x, again.x), "a draw does not depend on batch mates"
    assert not torch.equal(part.x, source.bags([1, 2], max_rows=4, draw=(7, "rows", 4)).x)
    for all_rows, some in zip(whole.unpack(), part.unpack()):
        places = [(all_rows.x == row).all(1).nonzero().item() for row in some.x]
        assert places == sorted(set(places))
        assert all_rows.xy_um is not None
        assert some.xy_um is not None
        assert torch.equal(all_rows.xy_um[places], some.xy_um)


def test_rows_that_do_not_fit_into_memory_are_read_each_time(planted: PlantedBags, features_of: Make) -> None:
    features = features_of(planted)
    kept, read = BagSource(features), BagSource(features, memory_gb=0.0)
    assert torch.equal(kept.bags([0, 5]).x, read.bags([0, 5]).x)
    assert torch.equal(kept.bags([5], max_rows=3).x, read.bags([5], max_rows=3).x)


def test_moments_are_those_of_all_rows(source: BagSource) -> None:
    rows = source.bags(range(len(source))).x.double()
    mean, sd = source.moments()
    assert torch.allclose(mean, rows.mean(0).float(), atol=1e-6)
    assert torch.allclose(sd, rows.std(0, correction=0).float(), atol=1e-6)


def test_moments_do_not_cancel_far_from_zero() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 50, 1)).astype(np.float32) * 0.01 + 1000
    mean, sd = BagSource([Features(f"s{i}", x) for i, x in enumerate(rows)]).moments()
    assert float(sd[0]) == pytest.approx(rows.astype(np.float64).std(), rel=1e-3)
    assert float(mean[0]) == pytest.approx(1000, abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_no_numbers_are_refused_by_slide(planted: PlantedBags, features_of: Make, bad: float) -> None:
    features = features_of(planted)[:2]
    features[1].x[3, 2] = bad
    source = BagSource(features)
    with pytest.raises(FeatureError, match=r"^s001: 1 of .* rows hold NaN or infinity"):
        source.bags([0, 1])


def test_another_width_is_refused_by_slide(planted: PlantedBags, features_of: Make) -> None:
    odd = Features("odd", np.zeros((3, 5), np.float16))
    with pytest.raises(FeatureError, match=r"^odd: has features of width 5, s000 has 8"):
        BagSource([*features_of(planted)[:1], odd])


def test_another_encoder_is_refused_by_name(planted: PlantedBags, features_of: Make) -> None:
    a, b = features_of(planted)[:2]
    with pytest.raises(FeatureError, match="beta") as caught:
        BagSource([replace(a, encoder="alpha"), replace(b, encoder="beta")])
    assert "alpha" in str(caught.value)


def test_the_same_slide_twice_is_refused(planted: PlantedBags, features_of: Make) -> None:
    a = features_of(planted)[0]
    with pytest.raises(FeatureError, match="s000: is in the list twice"):
        BagSource([a, a])


def test_no_slides_are_refused() -> None:
    with pytest.raises(FeatureError, match="no feature files"):
        BagSource([])


def test_a_slide_without_features_is_named(source: BagSource) -> None:
    with pytest.raises(FeatureError, match=r"^ghost: has no features"):
        source.take(["s000", "ghost"])


def test_taken_slides_keep_target_and_patient(source: BagSource, planted: PlantedBags) -> None:
    part = source.take(["s007", "s002"])
    assert part.names == ("s002", "s007")
    assert part.patients == ("p02", "p07")
    assert part.target is not None
    assert part.target.y.tolist() == [int(planted.y[2]), int(planted.y[7])]


def test_chunks_hold_every_bag_once_within_their_rows(source: BagSource) -> None:
    runs = list(source.chunks(max_rows=40))
    assert [place for run in runs for place in run] == list(range(len(source)))
    assert all(len(run) == 1 or sum(source.lengths[i] for i in run) <= 40 for run in runs)


def test_an_epoch_holds_every_bag_once_in_batches_of_even_size(source: BagSource) -> None:
    batches = BagBatches(source, size=5, seed=0)
    names = [batches.batch(0, i).bags.slides for i in range(len(batches))]
    assert sorted(name for batch in names for name in batch) == list(source.names)
    assert {len(batch) for batch in names} <= {4, 5}


def test_a_batch_depends_on_epoch_and_place_alone(source: BagSource) -> None:
    batches, others = (BagBatches(source, size=5, seed=0, max_rows=6) for _ in range(2))
    for i in range(len(batches)):
        batches.batch(0, i)
    a, b = batches.batch(1, 2), others.batch(1, 2)
    assert a.bags.slides == b.bags.slides
    assert torch.equal(a.bags.x, b.bags.x)
    assert torch.equal(a.target.y, b.target.y)
    assert batches.describe(1, 2) == ", ".join(a.bags.slides)
    assert a.bags.slides != batches.batch(2, 2).bags.slides


def test_processes_share_an_epoch_and_take_as_many_steps(source: BagSource) -> None:
    batches = BagBatches(source, size=5, seed=0)
    shards = [batches.shard(rank, 2) for rank in range(2)]
    assert len(shards[0]) == len(shards[1]) == 3
    names = [shard.batch(0, i).bags.slides for i in range(3) for shard in shards]
    assert sorted(name for batch in names for name in batch) == list(source.names)


def test_a_mapped_file_is_not_read_whole_for_a_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(4000, dtype=np.float32).reshape(1000, 4))
    mapped = np.load(path, mmap_mode="r")
    source = BagSource([Features("a", mapped)], memory_gb=0.0)
    part = source.bags([0], max_rows=3)
    assert part.x.shape == (3, 4)
    assert part.x.is_contiguous()


def test_rows_keep_their_keys_whatever_is_drawn(source: BagSource) -> None:
    part = source.take(["s003", "s007"])
    whole = part.bags([0, 1])
    assert whole.keys is not None
    assert whole.keys.tolist() == list(range(sum(part.lengths)))
    drawn = part.bags([1, 0], max_rows=4)
    assert drawn.keys is not None
    assert torch.equal(drawn.x, whole.x[drawn.keys])
    assert torch.equal(drawn.take(drawn.keys % 2 == 0).keys, drawn.keys[drawn.keys % 2 == 0])


def imbalanced(planted: PlantedBags, features_of: Make, y: list[int]) -> BagSource:
    return BagSource(features_of(planted)[: len(y)], target=Target(torch.tensor(y)))


classes_of_24 = st.lists(st.integers(0, 2), min_size=2, max_size=24)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(y=classes_of_24, size=st.integers(1, 7), world=st.integers(1, 3), epoch=st.integers(0, 5))
def test_balanced_epochs_have_as_many_of_each_class_and_bags_take_turns(
    planted: PlantedBags, features_of: Make, y: list[int], size: int, world: int, epoch: int
) -> None:
    batches = BagBatches(imbalanced(planted, features_of, y), size=size, seed=1, sampling="balanced")
    shards = [batches.shard(rank, world) for rank in range(world)]
    drawn = [[shard._places(epoch, i) for shard in shards] for i in range(len(shards[0]))]
    places = [place for step in drawn for share in step for place in share]
    assert all(share for step in drawn for share in step), "a process without bags"
    counts = [sum(y[place] == c for place in places) for c in set(y)]
    # A step of which a process would have nothing gives it another's bag again.
    assert max(counts) - min(counts) <= (1 if world == 1 else len(drawn) * world)
    for c in set(y):
        if world == 1:
            often = [places.count(place) for place in range(len(y)) if y[place] == c]
            assert max(often) - min(often) <= 1, "bags of a class do not take turns"
    for step in drawn:
        mine = [y[place] for share in step for place in share]
        if world == 1 and len(drawn) > 1:
            each = [mine.count(c) for c in set(y)]
            assert max(each) - min(each) <= 2, "a batch has not its share of each class"


def test_over_many_epochs_each_bag_of_a_class_is_drawn_alike(planted: PlantedBags, features_of: Make) -> None:
    y = [0] * 20 + [1] * 4
    batches = BagBatches(imbalanced(planted, features_of, y), size=6, seed=3, sampling="balanced")
    epochs = 400
    often = np.zeros(24)
    for epoch in range(epochs):
        for i in range(len(batches)):
            np.add.at(often, batches._places(epoch, i), 1)
    assert often[:20].sum() == often[20:].sum() == epochs * 12
    assert (often[20:] == epochs * 3).all()
    # 12 of 20 without repeats: chi-square with 19 degrees, whose .999 quantile is 43.8.
    expected, variance = epochs * 12 / 20, epochs * 0.6 * 0.4 * 20 / 19
    assert ((often[:20] - expected) ** 2 / variance).sum() < 43.8


def test_balanced_batches_depend_on_epoch_and_place_alone(planted: PlantedBags, features_of: Make) -> None:
    source = imbalanced(planted, features_of, [0] * 20 + [1] * 4)
    batches, others = (BagBatches(source, size=6, seed=0, max_rows=5, sampling="balanced") for _ in range(2))
    for i in range(len(batches)):
        batches.batch(0, i)
    assert torch.equal(batches.batch(1, 2).bags.x, others.batch(1, 2).bags.x)
    assert batches.describe(1, 2) == ", ".join(others.batch(1, 2).bags.slides)


def test_a_bag_that_comes_again_in_an_epoch_shows_other_rows(planted: PlantedBags, features_of: Make) -> None:
    source = imbalanced(planted, features_of, [0] * 20 + [1] * 4)
    batches = BagBatches(source, size=6, seed=0, max_rows=3, sampling="balanced")
    shown: dict[str, list[torch.Tensor]] = {}
    for i in range(len(batches)):
        for bag in batches.batch(0, i).bags.unpack():
            shown.setdefault(bag.slides[0], []).append(bag.x)
    assert any(not torch.equal(rows[0], rows[1]) for rows in shown.values() if len(rows) > 1)


def test_steps_of_one_bag_do_not_go_class_by_class(planted: PlantedBags, features_of: Make) -> None:
    batches = BagBatches(imbalanced(planted, features_of, [0] * 20 + [1] * 4), size=1, seed=0, sampling="balanced")
    classes = [int(batches.batch(0, i).target.y) for i in range(len(batches))]
    assert sum(a != b for a, b in pairwise(classes)) > 5


def test_an_augment_gets_its_chance_from_epoch_and_place(source: BagSource) -> None:
    def noise(batch: LabelledBags, rng: np.random.Generator) -> LabelledBags:
        return replace(batch, bags=batch.bags.with_x(batch.bags.x + float(rng.random())))

    batches, others = (BagBatches(source, size=5, seed=0, augment=noise) for _ in range(2))
    for i in range(len(batches)):
        batches.batch(0, i)
    assert torch.equal(batches.batch(1, 2).bags.x, others.batch(1, 2).bags.x)
    plain = BagBatches(source, size=5, seed=0)
    shifts = {float((batches.batch(e, i).bags.x - plain.batch(e, i).bags.x).mean()) for e in (0, 1) for i in (0, 1)}
    assert len(shifts) == 4
    shards = [batches.shard(rank, 2) for rank in range(2)]
    assert all(shard.augment is noise for shard in shards)
