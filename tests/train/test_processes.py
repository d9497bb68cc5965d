"""Two processes that train together (DDP, gloo) on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import json
import sys
import torch
from coverslip.base.study import FitSettings
from coverslip.mil import BagSource, Target, fit_bags
from coverslip.mil.tasks.classification import Classification
from coverslip.store import Features
from coverslip.synthetic import make_bags
from safetensors.torch import save_file
import os

def main():
    planted = make_bags(12, rows=(5, 9), dim=4)
    slides = [Features(f"s{i:02d}", planted.bag(i)) for i in range(12)]
    source = BagSource(slides, target=Target(torch.from_numpy(planted.y)))
    settings = FitSettings(device="cpu", devices=2, epochs=2, batch=2, lr=0.01, **json.loads(sys.argv[2]))
    model = fit_bags(source, source, Classification(("a", "b")), "abmil", settings)
    rank = os.environ.get("LOCAL_RANK", "0")
    save_file({k: v.clone() for k, v in model.state_dict().items()}, f"{sys.argv[1]}/{rank}.safetensors")

if __name__ == "__main__":
    main()
"""


MORE = {"sampling": "balanced", "augment": "psemix", "sam": 0.05, "average": "ema"}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, MORE], ids=["plain", "all of it"])
def test_two_processes_end_with_the_same_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, tmp_path, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
