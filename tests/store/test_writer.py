"""Feature files survive kills, full disks, second processes and odd rows; what is finished is never lost or wrong."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coverslip.base.errors import FeatureError, StoreError
from coverslip.base.geometry import TileSpec
from coverslip.store import FeatureStore, FeatureWriter, read_features, sidecar, writer


def test_what_is_written_is_read_back_with_its_identity(plan, written) -> None:
    features = read_features(written("a", plan))
    assert features.slide == "a"
    assert features.layout == "coverslip"
    assert features.identity == plan.identity
    assert (features.mpp, features.span) == (0.25, 448.0)
    np.testing.assert_array_equal(features.x, plan.rows.astype(np.float16))
    np.testing.assert_array_equal(features.coords, plan.coords)
    np.testing.assert_allclose(features.centres_um, (plan.coords + 224) * 0.25)
    assert isinstance(features.x, np.memmap)
    assert features.notes == ()


def test_a_finished_store_holds_only_feature_files(tmp_path, written) -> None:
    written("a")
    written("b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_plain_h5py_opens_the_file_and_its_rows_are_contiguous(plan, written) -> None:
    with h5py.File(written("a", plan)) as file:
        assert file["features"].chunks is None
        assert file["features"].dtype == np.float16
        assert file["coords"].dtype == np.int32
        assert file["coords"].attrs["patch_size_level0"] == 448
        np.testing.assert_array_equal(file["features"][3:7], plan.rows[3:7].astype(np.float16))
        wanted = {"format", "slide", "mpp", "span", "tile_px", "tile_mpp", "encoder", "fingerprint"}
        assert wanted <= set(file.attrs)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), n=st.integers(1, 40))
def test_any_order_of_batches_and_skips_gives_the_rows_in_order(data, n, tmp_path_factory, plans) -> None:
    plan = plans(n, 3)
    folder = tmp_path_factory.mktemp("store")
    order = data.draw(st.permutations(range(n)))
    skipped = data.draw(st.sets(st.sampled_from(range(n)), max_size=n - 1))
    batch = data.draw(st.integers(1, 9))
    with FeatureWriter(folder, "a", plan.identity, plan.coords) as out:
        for index in skipped:
            out.skip(index, f"tile {index} is damaged")
        kept = [i for i in order if i not in skipped]
        for start in range(0, len(kept), batch):
            index = np.array(kept[start : start + batch])
            out.put(index, plan.rows[index])
    features = read_features(folder / "a.h5")
    rows = [i for i in range(n) if i not in skipped]  # a loop one can read
    np.testing.assert_array_equal(features.x, plan.rows[rows].astype(np.float16))
    np.testing.assert_array_equal(features.coords, plan.coords[rows])
    assert {(s.index, s.reason) for s in features.skipped} == {(i, f"tile {i} is damaged") for i in skipped}


def test_an_interrupted_slide_goes_on_where_it_was(tmp_path, plan) -> None:
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        out.put(np.array([4, 2, 9]), plan.rows[[4, 2, 9]])
        out.skip(7, "damaged")
        raise KeyboardInterrupt
    assert not (tmp_path / "a.h5").exists()
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        missing = out.missing()
        assert set(range(50)) - set(missing.tolist()) == {2, 4, 7, 9}
        out.put(missing, plan.rows[missing])
    features = read_features(tmp_path / "a.h5")
    np.testing.assert_array_equal(features.x, np.delete(plan.rows, 7, axis=0).astype(np.float16))
    assert features.skipped[0].reason == "damaged"


def test_rows_of_another_identity_are_not_continued(tmp_path, plans) -> None:
    first, second = plans(encoder="texture"), plans(encoder="uni2")
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", first.identity, first.coords) as out:
        out.put(np.arange(10), first.rows[:10])
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", second.identity, second.coords) as out:
        assert len(out.missing()) == 50
        raise KeyboardInterrupt


def test_a_cut_off_sidecar_starts_anew(tmp_path, plan) -> None:
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        out.put(np.arange(10), plan.rows[:10])
        raise KeyboardInterrupt
    for size in (0, 10, 4096, 5000):
        os.truncate(tmp_path / ".a.rows", size)
        with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
            assert len(out.missing()) == 50
            out.put(np.arange(10), plan.rows[:10])
            raise KeyboardInterrupt


def _embed_slowly(folder: Path, plan, seed: int, ready) -> None:
    with FeatureWriter(folder, "a", plan.identity, plan.coords) as out:
        order = np.random.default_rng(seed).permutation(out.missing())
        ready.set()
        for start in range(0, len(order), 8):
            index = order[start : start + 8]
            out.put(index, plan.rows[index])
            time.sleep(0.002)


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_any_moment_loses_only_the_batch_in_flight(tmp_path, plans, seed) -> None:
    plan = plans(400, 32)
    context = multiprocessing.get_context("fork")
    wait = random.Random(seed)
    done = 0
    for attempt in range(4):
        ready = context.Event()
        process = context.Process(target=_embed_slowly, args=(tmp_path, plan, attempt, ready))
        process.start()
        assert ready.wait(timeout=60)
        time.sleep(wait.uniform(0, 0.06))
        process.kill()
        process.join()
        if (tmp_path / "a.h5").exists():
            break
        with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
            missing = out.missing()
            assert 400 - len(missing) >= done, "finished rows were lost"
            done = 400 - len(missing)
            finished = np.setdiff1d(np.arange(400), missing)
            rows = out._sidecar.rows()
            np.testing.assert_array_equal(rows[finished], plan.rows[finished].astype(np.float16))
            raise KeyboardInterrupt
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        out.put(out.missing(), plan.rows[out.missing()])
    np.testing.assert_array_equal(read_features(tmp_path / "a.h5").x, plan.rows.astype(np.float16))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def _die_while_the_file_is_written(folder: Path, plan) -> None:
    out = FeatureWriter(folder, "a", plan.identity, plan.coords)
    out.put(np.arange(50), plan.rows)

    def blocks(done):
        yield out._sidecar.rows()[done[:20]]
        os.kill(os.getpid(), signal.SIGKILL)

    out._blocks = blocks
    out.close()


def test_a_kill_while_the_file_is_written_loses_nothing(tmp_path, plan) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_while_the_file_is_written, args=(tmp_path, plan))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "a.h5").exists()
    assert FeatureStore(tmp_path).names() == []
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        assert len(out.missing()) == 0
    np.testing.assert_array_equal(read_features(tmp_path / "a.h5").x, plan.rows.astype(np.float16))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_slide_that_another_run_finished_meanwhile_is_left_alone(tmp_path, plan, written) -> None:
    path = written("a", plan)
    before = path.stat().st_mtime_ns
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        assert out.finished
        assert len(out.missing()) == 0
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_what_a_killed_run_left_of_the_file_is_cleared_away(tmp_path, plan, written) -> None:
    (tmp_path / ".a[1].h5.x7.part").write_bytes(b"half")
    (tmp_path / ".b.h5.x7.part").write_bytes(b"half of another slide")
    written("a[1]", plan)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.h5.x7.part", "a[1].h5"]


def test_a_second_writer_of_the_same_slide_is_told_that_it_is_locked(tmp_path, plan) -> None:
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        with pytest.raises(StoreError, match="another process") as caught:
            FeatureWriter(tmp_path, "a", plan.identity, plan.coords)
        assert caught.value.code == "locked"
        with FeatureWriter(tmp_path, "b", plan.identity, plan.coords) as other:
            other.put(np.arange(50), plan.rows)
        out.put(np.arange(50), plan.rows)


def _embed_all(folder: Path, plan, slides: list[str], results: multiprocessing.Queue) -> None:
    store = FeatureStore(folder)
    for slide in slides:
        if store.has(slide, plan.identity.fingerprint):
            results.put((slide, "reused"))
            continue
        try:
            with FeatureWriter(folder, slide, plan.identity, plan.coords) as out:
                for index in np.array_split(out.missing(), 10):
                    out.put(index, plan.rows[index])
                    time.sleep(0.001)
            results.put((slide, "done"))
        except StoreError as error:
            results.put((slide, error.code))


def test_two_processes_on_one_store_write_every_slide_once(tmp_path, plans) -> None:
    slides = [f"s{i}" for i in range(8)]
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    processes = [context.Process(target=_embed_all, args=(tmp_path, plans(200, 16), slides, results)) for _ in range(2)]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in range(16)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert {status for _, status in outcomes} <= {"done", "reused", "locked"}
    for slide in slides:
        # A process that finds the slide locked leaves it; one that comes between check and lock writes it again.
        assert [status for name, status in outcomes if name == slide].count("done") >= 1
        np.testing.assert_array_equal(read_features(tmp_path / f"{slide}.h5").x, plans(200, 16).rows.astype(np.float16))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{slide}.h5" for slide in slides]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused_before_it_is_kept(tmp_path, plan, value) -> None:
    rows = plan.rows.copy()
    rows[3, 2] = value
    with (
        pytest.raises(FeatureError, match="1 of 50 tiles"),
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out,
    ):
        out.put(np.arange(50), rows)
    assert not (tmp_path / "a.h5").exists()


def test_a_number_beyond_float16_is_an_error_and_not_infinity(tmp_path, plan) -> None:
    rows = plan.rows.copy()
    rows[3, 2] = 70_000
    with (
        pytest.raises(FeatureError, match=r"70000.*65,504"),
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out,
    ):
        out.put(np.arange(50), rows)


def test_rows_of_another_width_are_refused(tmp_path, plan) -> None:
    with (
        pytest.raises(FeatureError, match=r"\(50, 5\).*\(50, 8\) is expected"),
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out,
    ):
        out.put(np.arange(50), plan.rows[:, :5])


def test_closing_with_tiles_left_writes_nothing_and_keeps_the_rest(tmp_path, plan) -> None:
    with (
        pytest.raises(StoreError, match="2 of 50 tiles"),
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out,
    ):
        out.put(np.arange(48), plan.rows[:48])
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        assert out.missing().tolist() == [48, 49]
        out.put(out.missing(), plan.rows[48:])


def test_a_slide_of_skipped_tiles_alone_is_an_error_with_the_reason(tmp_path, plan) -> None:
    with (
        pytest.raises(FeatureError, match=r"none of the 50 tiles.*JPEG"),
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out,
    ):
        for index in range(50):
            out.skip(index, "JPEG data end early")
    assert list(tmp_path.iterdir()) == []


def test_a_slide_without_tiles_is_refused(tmp_path, plan) -> None:
    with pytest.raises(FeatureError, match="no tiles"):
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords[:0])


def test_a_full_disk_in_the_middle_leaves_the_slide_resumable(tmp_path, plan, monkeypatch) -> None:
    real, calls = os.pwrite, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(sidecar.os, "pwrite", full)
    with pytest.raises(StoreError) as caught, FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        for index in np.array_split(np.arange(50), 10):
            out.put(index, plan.rows[index])
    assert caught.value.code == "disk_full"
    monkeypatch.undo()
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        missing = out.missing()
        assert 0 < len(missing) < 50
        out.put(missing, plan.rows[missing])
    np.testing.assert_array_equal(read_features(tmp_path / "a.h5").x, plan.rows.astype(np.float16))


def _write_with_limit(folder: Path, plan, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    out = FeatureWriter(folder, "a", plan.identity, plan.coords)
    out.put(np.arange(2000), plan.rows)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        out.close()
    except StoreError as error:
        os._exit(3 if error.code == "disk_full" else 4)
    os._exit(0)


@pytest.mark.parametrize("limit", [0, 512, 3000, 20_000, 150_000, 272_000])
def test_a_full_disk_while_the_file_is_written_leaves_no_half_file(tmp_path, plans, limit) -> None:
    plan = plans(2000, 64)
    process = multiprocessing.get_context("fork").Process(target=_write_with_limit, args=(tmp_path, plan, limit))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert [p.name for p in tmp_path.iterdir()] == [".a.rows"]
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        assert len(out.missing()) == 0
    np.testing.assert_array_equal(read_features(tmp_path / "a.h5").x, plan.rows.astype(np.float16))


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small disk of its own kind at `folder`; skips where the system does not let the tests make one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this system does not let the tests mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_really_full_disk_is_one_clear_error(tmp_path, plans) -> None:
    plan = plans(2000, 64)
    with mounted(tmp_path / "small", "size=64k") as folder:
        with (
            pytest.raises(StoreError, match="No space left") as caught,
            FeatureWriter(folder, "a", plan.identity, plan.coords) as out,
        ):
            for index in np.array_split(np.arange(2000), 100):
                out.put(index, plan.rows[index])
        assert caught.value.code == "disk_full"
        with pytest.raises(KeyboardInterrupt), FeatureWriter(folder, "a", plan.identity, plan.coords) as out:
            assert 0 < len(out.missing()) < 2000
            raise KeyboardInterrupt


def test_a_read_only_disk_is_one_clear_error(tmp_path, plan) -> None:
    with mounted(tmp_path / "fixed", "ro") as folder, pytest.raises(StoreError, match="cannot be written") as caught:
        FeatureWriter(folder, "a", plan.identity, plan.coords)
    assert caught.value.code == "read_only"


def test_a_folder_without_the_right_to_write_is_one_clear_error(tmp_path, plan) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("the tests run as a user who may write everywhere")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        FeatureWriter(folder, "a", plan.identity, plan.coords)
    assert caught.value.code == "read_only"


def test_a_refused_write_says_which_folder(tmp_path, plan, monkeypatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(sidecar.os, "open", refuse)
    with pytest.raises(StoreError, match=r"\.a\.rows cannot be written"):
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords)


def test_without_flock_the_error_says_what_to_do(tmp_path, plan, monkeypatch) -> None:
    monkeypatch.setattr(sidecar, "fcntl", None)
    with pytest.raises(StoreError, match=r"flock.*WSL"):
        FeatureWriter(tmp_path, "a", plan.identity, plan.coords)


def test_a_slide_name_that_leaves_the_store_is_refused(tmp_path, plan) -> None:
    with pytest.raises(Exception, match="cannot be the name of a file"):
        FeatureWriter(tmp_path, "../a", plan.identity, plan.coords)


def test_names_that_are_not_ascii_are_kept(tmp_path, written) -> None:
    path: Path = written("Präparat 7 胃")
    assert read_features(path).slide == "Präparat 7 胃"


def test_the_licence_changes_no_fingerprint_and_the_revision_does(plan) -> None:
    identity = plan.identity
    other_words = replace(identity, encoder=replace(identity.encoder, licence="other words"))
    other_weights = replace(identity, encoder=replace(identity.encoder, revision="2"))
    assert other_words.fingerprint == identity.fingerprint
    assert other_weights.fingerprint != identity.fingerprint
    assert other_weights.kind != identity.kind


def test_whole_and_narrow_numbers_give_one_fingerprint(tmp_path, plan) -> None:
    loose = replace(plan.identity, mpp=np.float32(0.25), span=448, spec=TileSpec(224, 1))
    strict = replace(plan.identity, spec=TileSpec(224, 1.0))
    assert loose.fingerprint == strict.fingerprint
    assert loose.kind == strict.kind
    with FeatureWriter(tmp_path, "a", loose, plan.coords) as out:
        out.put(np.arange(50), plan.rows)
    assert read_features(tmp_path / "a.h5").identity == strict


def test_blocks_larger_than_one_are_joined(tmp_path, plans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_BLOCK_ROWS", 7)
    plan = plans(50, 8)
    with FeatureWriter(tmp_path, "a", plan.identity, plan.coords) as out:
        out.put(np.arange(50), plan.rows)
    np.testing.assert_array_equal(read_features(tmp_path / "a.h5").x, plan.rows.astype(np.float16))
