"""One warm parent forks children for the mutated files, with limits on time and memory, and judges what came back."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coverslip.base.geometry import Size
from fuzz.mutations import mutate
from fuzz.oracle import Fate, fates, joined, touched
from fuzz.seeds import MPP, Seed, seeds
from fuzz.targets import look, plans

HANG_S = 10.0
# A fork costs as much as a small file; so many share one.
FILES_A_CHILD = 10
# How much more than its parent a child may hold, and ask for: pages that it touched, and addresses.
HELD_BYTES = 1 << 30
ASKED_BYTES = 3 << 30


@dataclass(frozen=True)
class Finding:
    """Something that must not be: `kind` is crash, hang, memory, foreign, garbage or harmed."""

    kind: str
    text: str


@dataclass
class Outcome:
    """One mutated file: what was done to it, what it showed, what is wrong with that."""

    number: int
    seed: str
    done: str
    data: bytes = field(repr=False, default=b"")
    seconds: float = 0.0
    judged: bool = False  # True where the pixels of every piece could be judged
    refused: str | None = None
    lost: int = 0
    findings: list[Finding] = field(default_factory=list)


class Fuzzer:
    """The sound files with what they show, and a folder in memory for the mutated ones. A context manager."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
        self.seeds = {seed.name: seed for seed in seeds(self._folder)}
        self._right: dict[str, dict[str, Any]] = {}
        for seed in self.seeds.values():
            # In this very process, so that whatever is imported late is imported before the first fork.
            path = self._folder / f"sound{seed.suffix}"
            path.write_bytes(seed.data)
            shown = look(path, seed)
            sound = not shown["foreign"] and not shown["refused"] and "lost" not in shown["images"].values()
            assert sound, (seed.name, shown)
            self._right[seed.name] = shown
        gc.freeze()  # a collection in a child would copy every page of its parent

    def __enter__(self) -> Fuzzer:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, files: int, *, seed: int = 0, first: int = 0, only: str = "") -> Iterator[Outcome]:
        """`files` mutated files, the same for the same numbers; `only` keeps the sound files whose name holds it."""
        chosen = [s for name, s in self.seeds.items() if only in name]
        for start in range(first, first + files, FILES_A_CHILD):
            mutated = []
            for number in range(start, min(start + FILES_A_CHILD, first + files)):
                sound = chosen[number % len(chosen)]
                data, done = mutate(sound, np.random.default_rng([seed, number]))
                mutated.append(Outcome(number, sound.name, done, data))
            self.judge(mutated)
            yield from mutated

    def judge(self, mutated: list[Outcome]) -> None:
        """Adds to each mutated file what it shows, and what is wrong with that."""
        for outcome, (shown, seconds, failure) in zip(mutated, self._in_children(mutated)):
            outcome.seconds = seconds
            if failure is not None:
                outcome.findings.append(failure)
            if shown is None:
                continue
            seed = self.seeds[outcome.seed]
            outcome.refused = shown["refused"]
            outcome.lost = sum(v == "lost" for v in shown["images"].values())
            outcome.findings += [Finding("foreign", text) for text in shown["foreign"]]
            outcome.findings += [Finding("memory", text) for text in shown["memory"]]
            expected = fates(seed, outcome.data)
            if expected is not None:
                outcome.judged = True
                outcome.findings += self._pixels(seed, shown, expected)

    def _pixels(self, seed: Seed, shown: dict[str, Any], expected: list[Fate]) -> Iterator[Finding]:
        """Pixels of lost pieces that were shown, and pixels of sound pieces that were not."""
        right = self._right[seed.name]["images"]
        if shown["refused"]:
            return
        flagged = "lost" in shown["images"].values()
        if Fate.LOST in expected and flagged and shown["verdict"] != "fail" and seed.kind == "tiff":
            yield Finding("garbage", f"check says {shown['verdict']} of a slide with lost tiles")
        if (
            Fate.OTHER not in expected
            and Fate.LOST not in expected
            and shown["levels"] != self._right[seed.name]["levels"]
        ):
            yield Finding("harmed", f"levels {shown['levels']} of a sound picture")
        for name, tiles, options in plans(Size(*seed.levels[0]), "x"):
            for index in range(len(tiles)):
                pieces = touched(seed, tiles.box(index), tiles.spec.mpp / MPP)
                fate, got = joined([expected[p] for p in pieces]), shown["images"].get(f"{name} {index}")
                where = f"{name} {index}, pieces {pieces}, {options}"
                if fate is Fate.LOST and got not in {"lost", right[f"{name} {index}"]}:
                    yield Finding("garbage", f"pixels of a lost piece: {where}")
                elif fate is Fate.SAME and got == "lost":
                    yield Finding("harmed", f"a sound tile is flagged: {where}")
                elif fate is Fate.SAME and got != right[f"{name} {index}"]:
                    yield Finding("garbage", f"a sound tile has other pixels: {where}")

    def _in_children(self, mutated: list[Outcome]) -> Iterator[tuple[dict[str, Any] | None, float, Finding | None]]:
        """For each file what it shows, the seconds it took, and how its child failed.

        A child goes through the files one by one; where it fails, the next one goes on behind the file.
        """
        left = list(mutated)
        while left:
            child = _Child(lambda: (look(self._written(one), self.seeds[one.seed]) for one in left))
            failed = False
            while left and not failed:
                start = time.monotonic()
                shown, failure = child.answer(start + HANG_S)
                failed = failure is not None
                left.pop(0)
                yield shown, time.monotonic() - start, failure
            child.end()

    def _written(self, one: Outcome) -> Path:
        folder = self._folder / "one"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / f"file{self.seeds[one.seed].suffix}"
        path.write_bytes(one.data)
        return path


class _Child:
    """A forked child that works under limits and writes one answer a line."""

    def __init__(self, work: Callable[[], Iterable[dict[str, Any]]]) -> None:
        answers, out = os.pipe()
        self.number = os.fork()
        if self.number == 0:
            os.close(answers)
            held = _limit()
            with os.fdopen(out, "w") as pipe:
                for answer in work():
                    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
                    pipe.write(json.dumps([answer, more]) + "\n")
                    pipe.flush()
            os._exit(0)
        os.close(out)
        self._pipe, self._text = answers, b""

    def answer(self, until: float) -> tuple[dict[str, Any] | None, Finding | None]:
        """The next answer, and what is wrong with how it came; after that nothing more is to be expected."""
        while b"\n" not in self._text:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None, Finding("hang", f"no end after {HANG_S:g} s")
            part = os.read(self._pipe, 1 << 16)
            if not part:
                return None, Finding("crash", self.end())
            self._text += part
        line, _, self._text = self._text.partition(b"\n")
        shown, more = json.loads(line)
        return shown, Finding("memory", f"{more >> 20} MB held") if more > HELD_BYTES else None

    def end(self) -> str:
        """Ends the child, if it is there still; how it ended."""
        if self._pipe < 0:
            return ""
        os.close(self._pipe)
        self._pipe = -1
        _, status = os.waitpid(self.number, os.WNOHANG)
        if status == 0:
            os.kill(self.number, signal.SIGKILL)
            _, status = os.waitpid(self.number, 0)
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else f"status {status}"


def _limit() -> int:
    """Puts limits on this process and silences it; how many bytes it holds already."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    asked = _addresses() + ASKED_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (asked, asked))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = FILES_A_CHILD * int(HANG_S)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    return _held()


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
