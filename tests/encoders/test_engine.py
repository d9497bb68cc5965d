"""The engine: whatever the order, company or interruption, a row is that of its tile; one bad slide harms none."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from coverslip.base.errors import EncoderError, FeatureError, SlideError, StoreError
from coverslip.base.geometry import Tiles, TileSpec
from coverslip.encoders import EncoderInfo, encoder, engine
from coverslip.encoders.advice import advise
from coverslip.encoders.encoder import Encoder
from coverslip.encoders.engine import Engine, Outcome, SlideWork
from coverslip.encoders.runner import Runner
from coverslip.encoders.tuning import ReadingThreads
from coverslip.slide import TileBatch

CPU = torch.device("cpu")
INFO = EncoderInfo(
    *("colour", 3, None, (0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    *("none", "mean", "test", "1", None, "Apache-2.0", False),
)


class Colour(Encoder):
    """The mean colour of a tile. `delay` makes it slow; the tile colour `poison` makes a row NaN."""

    def __init__(self, *, delay=0.0, poison=None):
        super().__init__()
        self.info, self.delay, self.poison = INFO, delay, poison
        self.shapes = []
        self.eval()

    def prepare(self, images):
        self.shapes.append(tuple(images.shape))
        return images.permute(0, 3, 1, 2).float()

    def forward(self, x):
        time.sleep(self.delay)
        rows = x.mean(dim=(2, 3))
        if self.poison is not None:
            rows[rows[:, 2] == self.poison] = float("nan")
        return rows


class FakeSlide:
    """`n` tiles of 8 px whose colour is (number of the tile, n, `mark`); they come in any order, some are damaged."""

    def __init__(self, name, n, *, mark=0, damaged=(), delay=0.0, seed=0):
        self.id, self.n, self.mark, self.damaged, self.delay, self.seed = name, n, mark, set(damaged), delay, seed
        self.closed, self.asked = 0, []

    def plan(self):
        xy = np.stack([np.arange(self.n), np.zeros(self.n)], axis=1).astype(np.int32)
        return Tiles(self.id, TileSpec(8, 0.5), 0.5, 8.0, xy, np.ones(self.n, np.float32))

    def tiles(self, tiles, *, batch, threads, exact):
        self.asked.append((threads, exact))
        order = np.random.default_rng(self.seed).permutation(len(tiles))
        for start in range(0, len(tiles), batch):
            time.sleep(self.delay)
            index = order[start : start + batch]
            numbers = tiles.xy[index, 0]
            images = np.zeros((len(index), 8, 8, 3), np.uint8)
            images[:] = np.stack([numbers, numbers * 0 + self.n, numbers * 0 + self.mark], axis=1)[:, None, None]
            ok = np.array([int(n) not in self.damaged for n in numbers])
            images[~ok] = 0
            yield TileBatch(images, index, ok, tuple("corrupt JPEG" for _ in range(int((~ok).sum()))))

    def close(self):
        self.closed += 1


class Rows:
    """A sink that keeps everything, and can be slow or full."""

    def __init__(self, n, *, delay=0.0, error=None, done=()):
        self.rows = np.full((n, 3), np.nan)
        self.done, self.delay, self.error = set(done), delay, error
        self.left_out, self.finished, self.released, self.puts = {}, False, 0, 0

    def missing(self):
        return np.array([i for i in range(len(self.rows)) if i not in self.done], dtype=np.int64)

    def put(self, index, rows):
        time.sleep(self.delay)
        if self.error is not None:
            raise self.error
        if not np.isfinite(rows).all():
            raise FeatureError("NaN")
        assert not self.done & set(index.tolist()), "a row came twice"
        self.done |= set(index.tolist())
        self.rows[index] = rows
        self.puts += 1

    def skip(self, index, reason):
        self.left_out[index] = reason

    def skipped(self):
        return self.left_out

    def close(self):
        self.finished = True

    def release(self):
        self.released += 1


class Heard:
    def __init__(self):
        self.outcomes, self.tiles, self.planned_tiles = {}, 0, 0

    def planned(self, n):
        self.planned_tiles += n

    def advanced(self, n):
        self.tiles += n

    def finished(self, outcome):
        assert outcome.slide not in self.outcomes
        self.outcomes[outcome.slide] = outcome


def run(slides, *, model=None, batch=4, threads=2, prepare=None, sinks=None, **options):
    sinks = {slide.id: Rows(slide.n) for slide in slides} if sinks is None else sinks
    by_name = {slide.id: slide for slide in slides}
    heard = Heard()
    runner = Runner(model or Colour(), device=CPU, precision="fp32", batch=batch)

    def default(name):
        return SlideWork(by_name[name], by_name[name].plan(), sinks[name], note="as planned")

    engine = Engine(prepare or default, lambda _: runner, heard, threads=ReadingThreads(threads), **options)
    heard.engine = engine
    try:
        engine.run(list(by_name))
    finally:
        names = [t.name for t in threading.enumerate()]
        assert not [name for name in names if name.startswith("coverslip-")], names
    return heard, sinks


def expected(slide):
    return np.stack([np.arange(slide.n), np.full(slide.n, slide.n), np.full(slide.n, slide.mark)], axis=1)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 7, 200])
def test_slides_of_any_size_become_the_rows_of_their_tiles(batch, threads):
    slides = [FakeSlide(f"s{i}", n, mark=i, seed=i) for i, n in enumerate([1, 130, 3, 64, 65, 2, 100])]
    heard, sinks = run(slides, batch=batch, threads=threads)
    for slide in slides:
        np.testing.assert_array_equal(sinks[slide.id].rows, expected(slide))
        assert sinks[slide.id].finished and slide.closed == 1
        assert heard.outcomes[slide.id].status == "done"
    assert heard.tiles == heard.planned_tiles == sum(slide.n for slide in slides)


def test_small_slides_share_batches_and_every_batch_has_one_shape():
    model = Colour()
    slides = [FakeSlide(f"s{i:02}", 3) for i in range(20)]
    run(slides, model=model, batch=16)
    assert set(model.shapes) == {(16, 8, 8, 3)}
    assert len(model.shapes) == 4  # 60 tiles


def test_only_missing_rows_are_read():
    slide = FakeSlide("a", 50)
    sink = Rows(50, done=range(10, 40))
    heard, _ = run([slide], sinks={"a": sink})
    assert heard.tiles == 20 and sink.finished
    np.testing.assert_array_equal(sink.rows[:10], expected(slide)[:10])


def test_a_slide_without_missing_rows_is_finished_and_no_encoder_is_made():
    heard = Heard()
    sink = Rows(5, done=range(5))
    slide = FakeSlide("a", 5)

    def never(size_px):
        raise AssertionError("an encoder was made")

    Engine(lambda _: SlideWork(slide, slide.plan(), sink), never, heard, threads=ReadingThreads(2)).run(["a"])
    assert sink.finished and slide.closed == 1 and heard.outcomes["a"].status == "done"


def test_one_bad_slide_spoils_nothing_of_the_others_in_its_batch():
    good = [FakeSlide(f"good{i}", 30, mark=1) for i in range(4)]
    bad = FakeSlide("bad", 30, mark=9)
    slides = [*good[:2], bad, *good[2:]]
    heard, sinks = run(slides, model=Colour(poison=9), batch=16)
    assert heard.outcomes["bad"].status == "failed" and not sinks["bad"].finished and sinks["bad"].released
    for slide in good:
        np.testing.assert_array_equal(sinks[slide.id].rows, expected(slide))
        assert heard.outcomes[slide.id].status == "done"


def test_what_cannot_be_opened_fails_alone_and_what_is_locked_is_told():
    slides = [FakeSlide(name, 9) for name in ("a", "torn", "held", "there", "z")]
    sinks = {s.id: Rows(s.n) for s in slides}

    def prepare(name):
        if name == "torn":
            raise SlideError("cut short", slide=name)
        if name == "held":
            raise StoreError("another process", slide=name, code="locked")
        if name == "there":
            return Outcome(name, "reused", "9 tiles")
        slide = next(s for s in slides if s.id == name)
        return SlideWork(slide, slide.plan(), sinks[name])

    heard, _ = run(slides, prepare=prepare, sinks=sinks)
    assert {name: o.status for name, o in heard.outcomes.items()} == {
        "a": "done", "torn": "failed", "held": "locked", "there": "reused", "z": "done",
    }  # fmt: skip
    assert "cut short" in str(heard.outcomes["torn"].error)


def test_a_damaged_tile_fails_its_slide_or_is_left_out():
    def slides():
        return [FakeSlide("a", 20), FakeSlide("b", 20, damaged={3, 7}), FakeSlide("c", 20)]

    heard, sinks = run(slides())
    assert [heard.outcomes[name].status for name in "abc"] == ["done", "failed", "done"]
    assert "cannot be read: corrupt JPEG" in str(heard.outcomes["b"].error)
    heard, sinks = run(slides(), on_bad="skip")
    assert [heard.outcomes[name].status for name in "abc"] == ["done"] * 3
    assert sinks["b"].left_out == {3: "corrupt JPEG", 7: "corrupt JPEG"} and heard.outcomes["b"].skipped == 2
    assert np.isnan(sinks["b"].rows[[3, 7]]).all() and heard.tiles == 60


def test_a_full_disk_ends_the_run_and_lets_go_of_every_slide():
    slides = [FakeSlide(f"s{i}", 40) for i in range(8)]
    sinks = {s.id: Rows(s.n) for s in slides}
    sinks["s2"].error = StoreError("No space left", code="disk_full")
    with pytest.raises(StoreError, match="No space left"):
        run(slides, sinks=sinks)
    for slide in slides:
        assert sinks[slide.id].finished or sinks[slide.id].released or slide.closed == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, EncoderError])
def test_what_is_encoded_is_kept_when_the_run_is_ended(kind):
    class Ending(Colour):
        def forward(self, x):
            if len(self.shapes) > 6:
                raise kind("enough")
            return super().forward(x)

    slides = [FakeSlide(f"s{i}", 40) for i in range(3)]
    sinks = {s.id: Rows(s.n) for s in slides}
    with pytest.raises(kind):
        run(slides, model=Ending(), batch=4, sinks=sinks)
    assert sum(len(sink.done) for sink in sinks.values()) == 24, "six batches were encoded"
    heard, _ = run([FakeSlide(f"s{i}", 40) for i in range(3)], sinks=sinks)
    assert heard.tiles == 96
    for slide in slides:
        np.testing.assert_array_equal(sinks[slide.id].rows, expected(slide))


def test_an_unexpected_mistake_ends_the_run_and_hangs_nothing():
    def prepare(name):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([FakeSlide("a", 5), FakeSlide("b", 5)], prepare=prepare)


def test_few_slides_and_batches_are_held_at_a_time():
    open_now, most = 0, 0
    lock = threading.Lock()

    class Counted(FakeSlide):
        def close(self):
            nonlocal open_now
            super().close()
            with lock:
                open_now -= 1

    def prepare(name):
        nonlocal open_now, most
        with lock:
            open_now += 1
            most = max(most, open_now)
        slide = Counted(name, 30)
        return SlideWork(slide, slide.plan(), Rows(30))

    heard, _ = run([FakeSlide(f"s{i}", 30) for i in range(60)], prepare=prepare, model=Colour(delay=0.001))
    assert len(heard.outcomes) == 60 and most <= 6


def test_rows_that_wait_for_the_disk_are_written_together():
    sink = Rows(400, delay=0.02)
    run([FakeSlide("a", 400)], sinks={"a": sink}, batch=4)
    assert sink.finished and sink.puts < 60, "a hundred batches"


def test_a_fast_encoders_rows_are_written_together_and_a_slow_ones_at_once(monkeypatch):
    slow = Rows(12)
    run([FakeSlide("a", 12)], sinks={"a": slow}, batch=4, model=Colour(delay=0.3))
    assert slow.finished and slow.puts == 3
    monkeypatch.setattr(engine, "_WRITE_S", 1000.0)
    fast = [Rows(400), Rows(10)]
    run([FakeSlide("a", 400, seed=1), FakeSlide("b", 10)], sinks={"a": fast[0], "b": fast[1]}, batch=4)
    assert all(sink.finished for sink in fast) and sum(sink.puts for sink in fast) < 10


def test_rows_that_wait_are_written_before_their_slide_fails(monkeypatch):
    monkeypatch.setattr(engine, "_WRITE_S", 1000.0)

    model, sink = Colour(), Rows(200)

    class Torn(FakeSlide):
        def tiles(self, tiles, **how):
            yield from list(super().tiles(tiles, **how))[:1]
            while len(model.shapes) < 16:
                time.sleep(0.01)
            raise SlideError("cut short", slide=self.id)

    heard, _ = run([Torn("a", 200)], model=model, sinks={"a": sink}, batch=4)
    assert heard.outcomes["a"].status == "failed" and len(sink.done) > 40


def test_reading_at_a_half_is_asked_for_only_where_it_is_set():
    for exact in (True, False):
        slide = FakeSlide("a", 5)
        run([slide], exact=exact)
        assert [e for _, e in slide.asked] == [exact]


def test_threads_are_shared_between_the_slides_that_are_read():
    slides = [FakeSlide(f"s{i}", 200, delay=0.005) for i in range(4)]
    run(slides, threads=6)
    assert {threads for threads, _ in slides[0].asked} == {3}


@pytest.mark.parametrize(
    ("stage", "limit"), [("encoding", "encoding"), ("reading", "decoding"), ("writing", "writing")]
)
def test_the_slow_stage_is_the_one_that_is_named(stage, limit):
    slides = [FakeSlide(f"s{i}", 256, delay=0.05 if stage == "reading" else 0) for i in range(3)]
    sinks = {s.id: Rows(s.n, delay=0.1 if stage == "writing" else 0) for s in slides}
    heard, _ = run(slides, sinks=sinks, model=Colour(delay=0.01 if stage == "encoding" else 0), batch=8)
    timing = heard.engine.timing
    timing.storage = 0.0  # a fake slide only sleeps, which is not told from waiting for the storage
    assert advise(timing, threads=2, cores=2, device="cpu").limited_by == limit, timing


@pytest.mark.parametrize("name", ["texture", "timm:test_vit"])
def test_a_row_has_the_same_bits_in_whatever_company_it_travels(name):
    model = encoder(name, None if name == "texture" else "random")
    images = np.random.default_rng(0).integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
    runner = Runner(model, device=CPU, precision="fp32", batch=16)
    alone = np.concatenate([runner.rows(image[None]) for image in images[:20]])
    together = np.concatenate([runner.rows(images[start : start + 16]) for start in (0, 16)])[:20]
    order = np.random.default_rng(1).permutation(16)
    shuffled = runner.rows(images[order])[np.argsort(order)]
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(shuffled, together[:16])
