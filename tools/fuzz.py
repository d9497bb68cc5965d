"""Fuzzes everything that opens files of others, for as long as you like.

python tools/fuzz.py --files 5000 --seed 0          every finding is kept, with its file, in fuzz-findings/
python tools/fuzz.py --replay fuzz-findings/12.json  does the same file again
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz.harness import Fuzzer, Outcome


def main() -> int:
    options = _options()
    with Fuzzer() as fuzzer:
        if options.replay:
            return _replay(fuzzer, options.replay)
        counts: Counter[str] = Counter()
        start = time.monotonic()
        slowest = 0.0
        for done, outcome in enumerate(
            fuzzer.run(options.files, seed=options.seed, first=options.first, only=options.only), 1
        ):
            counts["judged to the pixel"] += outcome.judged
            counts["refused"] += outcome.refused is not None
            counts["with flagged tiles"] += outcome.lost > 0
            slowest = max(slowest, outcome.seconds)
            for finding in outcome.findings:
                counts[finding.kind] += 1
            if outcome.findings:
                _keep(options.findings, options.seed, outcome)
                first = outcome.findings[0]
                last = first.text.strip().splitlines()[-1]
                print(f"{outcome.number} {outcome.seed} [{outcome.done}] {first.kind}: {last}", flush=True)
            if done % 250 == 0:
                rate = done / (time.monotonic() - start)
                left = (options.files - done) / rate
                print(f"{done} of {options.files} files, {rate:.0f} a second, {left:.0f} s left", flush=True)
        seconds = time.monotonic() - start
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count)
        print(f"{options.files} files in {seconds:.0f} s ({options.files / seconds:.0f} a second), ", end="")
        print(f"the slowest took {slowest:.1f} s: {told}")
        bad = {"crash", "hang", "memory", "foreign", "garbage", "harmed"}
        return 1 if bad & set(counts) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=5000, help="how many mutated files")
    parser.add_argument("--seed", type=int, default=0, help="another number gives other files")
    parser.add_argument("--first", type=int, default=0, help="the number of the first file")
    parser.add_argument("--only", default="", help="only sound files whose name holds this")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where findings are kept")
    parser.add_argument("--replay", type=Path, help="a kept finding, to be done again")
    return parser.parse_args()


def _keep(folder: Path, seed: int, outcome: Outcome) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    kept = {
        "seed": seed,
        "number": outcome.number,
        "file": outcome.seed,
        "done": outcome.done,
        "findings": [[finding.kind, finding.text] for finding in outcome.findings],
        "data": base64.b64encode(outcome.data).decode(),
    }
    (folder / f"{outcome.number}.json").write_text(json.dumps(kept, indent=1))


def _replay(fuzzer: Fuzzer, path: Path) -> int:
    kept = json.loads(path.read_text())
    outcome = Outcome(kept["number"], kept["file"], kept["done"], base64.b64decode(kept["data"]))
    fuzzer.judge([outcome])
    print(f"{kept['file']}: {kept['done']}\n{outcome.seconds:.2f} s, refused: {outcome.refused}")
    for finding in outcome.findings:
        print(f"{finding.kind}: {finding.text}")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
