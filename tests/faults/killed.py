"""Runs in a process of its own: embeds a cohort again and again, kills it at random moments, and tells what is left.

    python killed.py STUDY MOMENTS SEED       one line of JSON a kill on standard output

Importing takes seconds and a run does not, so this process imports everything once and forks a child for each run.
Nothing is computed here before a fork, so that no thread of a library is lost in the child.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from coverslip.cli.main import run
from coverslip.recipes import embed  # noqa: F401 - imported here so that no child has to


def main(study: Path, moments: int, seed: int) -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    store, again = study.parent / "store", study.parent / "again"
    shutil.rmtree(store, ignore_errors=True)
    start = time.monotonic()
    assert _finish(_begin(study, store)) == 0, "an undisturbed run fails"
    whole_s = time.monotonic() - start
    right = contents(store)
    rng = random.Random(seed)
    kills = 0
    while kills < moments:
        shutil.rmtree(again, ignore_errors=True)
        shutil.rmtree(study.parent / "again-run", ignore_errors=True)
        child = _begin(study, again)
        moment = rng.uniform(0.02, whole_s)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            whole_s *= 0.9  # it had ended already: this one was faster
            continue
        kills += 1
        left = contents(again)
        code = _finish(_begin(study, again))
        ended = contents(again)
        said = {
            "moment": round(moment / whole_s, 2),
            "whole": sum(left.get(name) == data for name, data in right.items()),
            "begun": sum(name.endswith(".rows") for name in left),
            "half": [
                name for name in left if name.endswith(".h5") and not name.startswith(".") and left[name] != right[name]
            ],
            "code": code,
            "equal": ended == right,
            "names": sorted(ended),
            "parts": sorted(str(p) for p in (study.parent / "again-run").rglob("*.part")),
        }
        out.write(json.dumps(said) + "\n")


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())} if store.is_dir() else {}


def _begin(study: Path, store: Path) -> int:
    child = os.fork()
    if child == 0:
        code, quiet = 70, io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            try:
                output = f"output={store.name}-run"
                code = run(["embed", str(study), "--set", f"features.store={store.name}", "--set", output])
            finally:  # whatever happens, a child never goes on as its parent
                os._exit(code)
    return child


def _finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
