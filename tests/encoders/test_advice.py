from __future__ import annotations

import pytest

from coverslip.encoders.advice import STAGES, Timing, advise, shares


def test_a_slow_encoder_is_named_with_its_share_and_what_would_not_help():
    timing = Timing(encoding=94, waiting=4, writing=2, opening=1, tiles=10, num_tiles=5000)
    said = advise(timing, threads=8, cores=16, device="cuda")
    assert said.sentence == (
        "Encoding limited the run (94% of the time): a faster device or a smaller encoder would help; "
        "more reading threads would not."
    )
    assert said.limited_by == "encoding" and said.tiles_per_s == 50
    assert "a GPU" in advise(timing, threads=2, cores=2, device="cpu").sentence


def test_no_gpu_is_advised_for_an_encoder_that_computes_on_the_cpu():
    said = advise(Timing(encoding=94, waiting=6), threads=2, cores=16, device="cpu", movable=False).sentence
    assert "GPU" not in said and "device" not in said and "--shard" in said


@pytest.mark.parametrize(
    ("timing", "limit", "words"),
    [
        (Timing(10, 90, 0, opening=0, tiles=50, storage=0.1), "decoding", "encoder.threads = 16"),
        (Timing(10, 90, 0, opening=0, tiles=50, storage=0.9), "reading", "local disk"),
        (Timing(10, 90, 0, opening=45, tiles=5, storage=0.9), "opening", "--shard"),
        (Timing(10, 0, 90, opening=45, tiles=5, storage=0.9), "writing", "features.store"),
    ],
)
def test_whoever_the_encoder_waits_for_is_named(timing, limit, words):
    said = advise(timing, threads=8, cores=16, device="cuda")
    assert said.limited_by == limit and words in said.sentence and "a faster device would not" in said.sentence


def test_where_all_cores_read_already_more_threads_are_not_advised():
    said = advise(Timing(10, 90, 0, tiles=50), threads=16, cores=16, device="cuda", exact=False).sentence
    assert "more processor cores would help" in said and "tiles.exact" not in said


def test_shares_are_of_the_whole_time():
    found = shares(Timing(3, 4, 2, opening=1, tiles=3, storage=0.25))
    assert list(found) == list(STAGES) and sum(found.values()) == pytest.approx(1)
    assert found["opening"] == pytest.approx(1 / 9) and found["reading"] == pytest.approx(0.75 / 9)
    assert sum(shares(Timing()).values()) == 0


def test_runs_add_up():
    total = Timing()
    for storage in (0.0, 1.0):
        total.add(Timing(1, 2, 3, opening=4, tiles=5, storage=storage, num_tiles=6))
    assert total == Timing(2, 4, 6, opening=8, tiles=10, storage=0.5, num_tiles=12)
