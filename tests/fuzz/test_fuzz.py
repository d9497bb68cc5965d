"""A small run of the fuzzer, and its oracle itself: that what it calls damage is damage, and what not is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import simplejpeg

from fuzz import jpeg
from fuzz.harness import Fuzzer, Outcome
from fuzz.mutations import mutate

FILES = 200


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Fuzzer]:
    if sys.platform != "linux":
        pytest.skip("limits on memory are kept on Linux only")
    with Fuzzer() as fuzzer:
        yield fuzzer


def test_no_mutated_file_crashes_hangs_blows_up_or_gives_pixels_that_were_not_there(fuzzer: Fuzzer) -> None:
    outcomes = list(fuzzer.run(FILES, seed=1))
    wrong = [f"{o.number} {o.seed} [{o.done}]: {o.findings}" for o in outcomes if o.findings]
    assert not wrong, "\n".join(wrong)
    # The run says something: files of every fate are among them.
    assert sum(o.judged for o in outcomes) > FILES / 5
    assert sum(o.refused is not None for o in outcomes) > FILES / 5
    assert sum(o.lost > 0 for o in outcomes) > FILES / 10


def test_a_sound_file_is_judged_sound(fuzzer: Fuzzer) -> None:
    outcomes = [Outcome(0, seed.name, "nothing", seed.data) for seed in fuzzer.seeds.values()]
    fuzzer.judge(outcomes)
    assert [o for o in outcomes if o.findings or o.refused or o.lost] == []


def test_a_reader_that_fills_in_grey_is_caught(fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As most decoders do: what is missing of a damaged stream is made up."""

    strict = simplejpeg.decode_jpeg

    def lenient(stream: bytes, **options: object) -> np.ndarray:
        return strict(stream, **{**options, "strict": False})  # type: ignore[arg-type]

    monkeypatch.setattr("coverslip.slide.readers._jpeg.simplejpeg.decode_jpeg", lenient)
    seed = fuzzer.seeds["jpeg 4:2:0, bigtiff"]
    piece = seed.pieces[7]
    half = (piece.start + piece.stop) // 2
    data = seed.data[:half] + bytes(piece.stop - half) + seed.data[piece.stop :]
    outcome = Outcome(0, seed.name, "half of a tile is zeros", data)
    fuzzer.judge([outcome])
    assert {finding.kind for finding in outcome.findings} == {"garbage"}


def test_the_same_numbers_give_the_same_files(fuzzer: Fuzzer) -> None:
    for seed in fuzzer.seeds.values():
        one, other = (mutate(seed, np.random.default_rng([3, 4])) for _ in range(2))
        assert one == other


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "Gray"])
def test_the_slow_decoder_agrees_with_the_fast_one(subsampling: str) -> None:
    """On sound streams, and on what is left of them when bits are flipped, bytes are lost and ends are cut."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(60, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noisy = np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)
    if subsampling == "Gray":
        stream = simplejpeg.encode_jpeg(noisy[..., :1].copy(), 80, "GRAY", "Gray")
    else:
        stream = simplejpeg.encode_jpeg(noisy, 80, "RGB", subsampling)
    assert jpeg.fault(stream, b"", (64, 64)) == ""
    assert jpeg.fault(stream, b"", (64, 32))
    seen = missed = 0
    for _ in range(300):
        changed = bytearray(stream)
        at = int(rng.integers(len(stream) // 2, len(stream)))
        way = int(rng.integers(3))
        if way == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            del changed[at : at + int(rng.integers(1, 40))]
        else:
            del changed[at:]
        if jpeg.fault(bytes(changed), b"", (64, 64)):
            seen += 1
            with pytest.raises(ValueError):
                simplejpeg.decode_jpeg(bytes(changed), colorspace="RGB", strict=True)
        else:
            missed += 1
    assert seen > 100 and missed > 10, (seen, missed)
