"""Files: whole or absent, inside their folder, and a full disk is an error that says so."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coverslip.base.errors import StoreError, TableError
from coverslip.base.files import atomic, confined, remove_abandoned, safe_name, storage_errors, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    left = [tmp_path / ".a.txt.x1.part", tmp_path / "deep" / ".b.txt.x2.part"]
    for path in left:
        path.write_text("half")
    (tmp_path / "a.part").write_text("not ours: it is not hidden")
    script = (
        "import sys; from pathlib import Path; from coverslip.base.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('whole'); print('writing', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "c.txt")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    remove_abandoned(tmp_path)
    assert not any(path.exists() for path in left)
    writer.communicate()
    assert writer.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part", "c.txt", "deep"]


def test_a_written_file_has_the_rights_of_a_plain_one(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    import numpy as np

    write_json(tmp_path / "a.json", {"a": float("nan"), "b": (1, np.float64("inf")), "c": np.int64(3)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1, None], "c": 3}


@pytest.mark.skipif(sys.platform == "win32", reason="file-size limits are POSIX")
def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path: Path) -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; from coverslip.base.files import write_bytes\n"
        f"try: write_bytes(Path({str(tmp_path / 'big')!r}), b'x' * 100_000)\n"
        "except Exception as e: print(type(e).__name__, getattr(e, 'code', ''))\n"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.stdout.split() == ["StoreError", "disk_full"], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_told() -> None:
    with pytest.raises(StoreError, match="cannot be written"), storage_errors(Path("/somewhere")):
        raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("path", ["../a.svs", "/etc/passwd", "a/../../b", "x/../.."])
def test_a_path_that_leaves_its_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(TableError, match="leaves"):
        confined(tmp_path, path, what="row 3")


def test_a_link_inside_the_root_is_followed_and_dots_behind_it_are_not(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "slides").symlink_to(elsewhere)
    assert confined(root, "slides/a.svs", what="row 3") == root / "slides" / "a.svs"
    # The system would climb from where the link leads; the text alone decides here.
    assert confined(root, "slides/../a.svs", what="row 3") == root / "a.svs"
    with pytest.raises(TableError, match="leaves"):
        confined(root, "slides/../../elsewhere/a.svs", what="row 3")


def test_a_path_inside_is_resolved(tmp_path: Path) -> None:
    assert confined(tmp_path, "a/./b.svs", what="row 3") == tmp_path / "a" / "b.svs"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\n"])
def test_a_name_that_cannot_be_a_file_is_refused(name: str) -> None:
    with pytest.raises(TableError):
        safe_name(name, what="row 3")


def test_a_name_in_any_script_is_kept() -> None:
    assert safe_name("Fall-Ä 7 (検体)", what="row 3") == "Fall-Ä 7 (検体)"


def test_a_file_where_a_folder_should_be_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no folder that can hold files"):
        write_text(tmp_path / "file" / "report.html", "x")
