"""Workers that crash, hang, print or never come up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from coverslip.base.errors import CoverslipError
from coverslip.preflight.workers import Worker, WorkerLost, worker_command

# A stand-in for native code: what it does is told by the request.
BEHAVIOUR = """
import os, signal, sys, time
from coverslip.preflight.workers import serve

count = 0

def handle(request):
    global count
    count += 1
    do = request["do"]
    if do == "hang":
        time.sleep(600)
    if do == "crash" or (do == "crash after others" and count > 1):
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "raise":
        raise ValueError("a mistake of ours")
    if do == "print":
        print("noise of a library")
        os.write(1, b"more noise\\n")
    return {"count": count, "pid": os.getpid()}

serve(handle)
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "behaviour.py"
    script.write_text(BEHAVIOUR)
    return [sys.executable, str(script)]


def test_one_process_answers_again_and_again(command: list[str]) -> None:
    with Worker(command) as worker:
        first, second = (worker.ask({"do": "answer"}, 30) for _ in range(2))
    assert (first["count"], second["count"]) == (1, 2)
    assert first["pid"] == second["pid"]


def test_a_hanging_process_is_stopped_in_time_and_replaced(command: list[str]) -> None:
    with Worker(command) as worker:
        pid = worker.ask({"do": "answer"}, 30)["pid"]
        start = time.monotonic()
        with pytest.raises(WorkerLost, match=r"no answer within 0\.5 s") as lost:
            worker.ask({"do": "hang"}, 0.5)
        assert lost.value.hung
        assert time.monotonic() - start < 5
        assert worker.ask({"do": "answer"}, 30)["pid"] != pid


def test_a_crash_names_its_signal_and_harms_no_later_request(command: list[str]) -> None:
    with Worker(command) as worker:
        with pytest.raises(WorkerLost, match="was killed by SIGSEGV") as lost:
            worker.ask({"do": "crash"}, 30)
        assert not lost.value.hung
        assert worker.ask({"do": "answer"}, 30)["count"] == 1


def test_a_crash_that_earlier_requests_may_have_caused_is_tried_again_in_a_fresh_process(command: list[str]) -> None:
    with Worker(command) as worker:
        worker.ask({"do": "answer"}, 30)
        assert worker.ask({"do": "crash after others"}, 30)["count"] == 1


def test_closing_ends_a_request_that_is_under_way(command: list[str]) -> None:
    worker = Worker(command)
    worker.ask({"do": "answer"}, 30)
    closing = threading.Timer(0.5, worker.close)
    closing.start()
    start = time.monotonic()
    with pytest.raises(WorkerLost):
        worker.ask({"do": "hang"}, 60)
    assert time.monotonic() - start < 10
    with pytest.raises(WorkerLost, match="was ended"):
        worker.ask({"do": "answer"}, 30)


def test_a_process_that_died_between_two_requests_is_replaced(command: list[str]) -> None:
    with Worker(command) as worker:
        pid = worker.ask({"do": "answer"}, 30)["pid"]
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert worker.ask({"do": "answer"}, 30)["pid"] != pid


def test_what_a_process_said_last_is_told(command: list[str]) -> None:
    with (
        Worker(command) as worker,
        pytest.raises(WorkerLost, match=r"ended with status 1 \(ValueError: a mistake of ours\)"),
    ):
        worker.ask({"do": "raise"}, 30)


def test_printing_does_not_spoil_answers(command: list[str]) -> None:
    with Worker(command) as worker:
        assert worker.ask({"do": "print"}, 30)["count"] == 1
        assert worker.ask({"do": "print"}, 30)["count"] == 2


def test_a_process_that_never_comes_up_is_an_error_of_the_installation() -> None:
    command = [sys.executable, "-c", "raise ImportError('no such library')"]
    with Worker(command) as worker, pytest.raises(CoverslipError, match=r"does not start.*no such library"):
        worker.ask({}, 30)


def test_the_current_folder_does_not_shadow_our_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    request = {"path": str(tmp_path / "absent.svs"), "id": "absent", "mpp": None, "fallback_mpp": None, "reader": None}
    with Worker(worker_command("coverslip.preflight.check")) as worker:
        assert worker.ask(request, 60)["verdict"] == "fail"
