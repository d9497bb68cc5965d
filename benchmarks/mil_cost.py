"""What MIL methods cost: packed bags against padded ones and a loop; seconds and memory of each method by rows.

    python benchmarks/mil_cost.py --only packed                        # needs torchmil (pip install torchmil)
    python benchmarks/mil_cost.py --only methods --rows 1000 10000     # each method in a process of its own
    python benchmarks/mil_cost.py --only methods --out FILE            # what FILE lacks

packed: gated ABMIL, 1,024 numbers a row, hidden 512, attention 128; 8 bags of log-uniform lengths from 50 to 4,000. A
training step (forward, backward, AdamW) of ours on packed bags, of torchmil's ABMIL on the same bags padded, of ours
one bag at a time, and of the bare matrix products, forward and backward. All ways take turns on the same bags; a figure
is the median of the rounds' ratios, in CPU time of all threads.

methods: a training step on one bag of 512 numbers a row, and an evaluation; the peak memory is the process's own over
what it was before the bag was made.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import machine, table
from torch import Tensor, nn

from coverslip.base.registry import AGGREGATORS
from coverslip.base.study import FitSettings
from coverslip.mil import Bags, FeatureOrigin, LabelledBags, LearningSet, SlideModel, Target
from coverslip.mil.model import ModelCard
from coverslip.mil.supervised import Supervised
from coverslip.train import Objective

DIM, HIDDEN, ATTENTION, BAGS = 1024, 512, 128, 8
SHORTEST, LONGEST = 50, 4000
METHOD_DIM = 512
# What takes longer is said to, and left.
LIMIT_S = 3600
Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["packed", "methods"], nargs="+", default=["packed", "methods"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--methods", nargs="+", default=AGGREGATORS.names())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "ROWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_method(given.one[0], int(given.one[1]))))
        return
    threads = torch.get_num_threads()
    known: dict[str, Any] = json.loads(given.out.read_text()) if given.out and given.out.is_file() else {}
    known |= {"machine": machine(), "seed": given.seed}
    known["threads"] = {**known.get("threads", {}), **dict.fromkeys(given.only, threads)}
    print(f"{known['machine']}, {threads} threads\n")

    def keep() -> None:
        if given.out is not None:
            given.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    if "packed" in given.only:
        known["packed"] = packed(given.rounds, given.seed)
        keep()
    if "methods" in given.only:
        methods(given.methods, given.rows, known.setdefault("methods", {}), keep)


# ---- packed, padded, one by one ----


def packed(rounds: int, seed: int) -> dict[str, Any]:
    """CPU seconds of a step in each way, and its ratio to ours, round by round on new bags."""
    ways: dict[str, Callable[[Bags, Tensor], Step]] = {
        "packed": packed_step(),
        "torchmil, padded": torchmil_step(),
        "one bag at a time": single_step(),
        "bare matrix products": bare_step(),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    generator = torch.Generator().manual_seed(seed)
    for number in range(rounds + 1):
        lengths = (SHORTEST * (LONGEST / SHORTEST) ** torch.rand(BAGS, generator=generator)).long().tolist()
        bags = random_bags(lengths, DIM, generator)
        labels = torch.randint(0, 2, (BAGS,), generator=generator)
        for name, way in ways.items():
            step = way(bags, labels)
            taken = cpu_of(step)
            if number:  # the first round warms up
                spent[name].append(taken)
    figures = {}
    for name, times in spent.items():
        ratios = sorted(a / b for a, b in zip(times, spent["packed"]))
        figures[name] = {"s": statistics.median(times), "ratio": statistics.median(ratios), "ratios": ratios}
    rows = [
        [name, f"{f['s']:.3f}", f"{f['ratio']:.2f}", f"{f['ratios'][0]:.2f} to {f['ratios'][-1]:.2f}"]
        for name, f in figures.items()
    ]
    print(table(["training step of 8 bags", "CPU s", "to packed", "least to most"], rows), "\n", flush=True)
    return figures


def packed_step() -> Callable[[Bags, Tensor], Step]:
    model, optimiser = own_model()

    def make(bags: Bags, labels: Tensor) -> Step:
        return lambda: own_step(model, optimiser, [(bags, labels)])

    return make


def single_step() -> Callable[[Bags, Tensor], Step]:
    model, optimiser = own_model()

    def make(bags: Bags, labels: Tensor) -> Step:
        parts = list(zip(bags.unpack(), labels.split(1)))
        return lambda: own_step(model, optimiser, parts)

    return make


def own_model() -> tuple[SlideModel, torch.optim.Optimizer]:
    model = model_of("abmil", DIM, {"hidden": HIDDEN, "attention": ATTENTION, "dropout": 0.0}).train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4)


def own_step(model: SlideModel, optimiser: torch.optim.Optimizer, parts: list[tuple[Bags, Tensor]]) -> None:
    for bags, labels in parts:
        nn.functional.cross_entropy(model(bags).logits, labels, reduction="sum").backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def torchmil_step() -> Callable[[Bags, Tensor], Step]:
    from torchmil.models import ABMIL  # not a dependency of the package

    torch.manual_seed(0)
    projection = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU())
    model = ABMIL(in_shape=(DIM,), att_dim=ATTENTION, gated=True, feat_ext=projection).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def make(bags: Bags, labels: Tensor) -> Step:
        parts = [bag.x for bag in bags.unpack()]

        def step() -> None:
            # Padding belongs to the step: every batch has lengths of its own.
            padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
            mask = torch.arange(padded.shape[1])[None] < bags.lengths[:, None]
            _, losses = model.compute_loss(labels, padded, mask)
            sum(losses.values()).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return step

    return make


def bare_step() -> Callable[[Bags, Tensor], Step]:
    """The three products of the projection and both halves of the attention, and the five of their gradients."""
    projection, v, u = torch.randn(DIM, HIDDEN), torch.randn(HIDDEN, ATTENTION), torch.randn(HIDDEN, ATTENTION)

    def make(bags: Bags, labels: Tensor) -> Step:
        x = bags.x

        def step() -> None:
            h = x @ projection
            s, t = h @ v, h @ u
            h.T @ s, h.T @ t
            back = s @ v.T + t @ u.T
            x.T @ back

        return step

    return make


# ---- each method by rows ----


def methods(names: list[str], sizes: list[int], found: dict[str, dict[str, Any]], keep: Callable[[], None]) -> None:
    """What `found` lacks, the small bags of all methods first; kept after each."""
    for size in sizes:
        for name in names:
            if str(size) in found.get(name, {}):
                continue
            command = [sys.executable, __file__, "--one", name, str(size)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
                failed = {"failed": f"ended with {done.returncode}"}
                told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else failed
            except subprocess.TimeoutExpired:
                told = {"failed": f"not finished in {LIMIT_S // 60} min"}
            found.setdefault(name, {})[str(size)] = told
            print(name, size, told, flush=True)
            keep()


def one_method(name: str, size: int) -> dict[str, float]:
    """CPU seconds of a training step and of an evaluation, the slower first step left out, and peak memory in MB."""
    model = model_of(name, METHOD_DIM, {})
    learns = LearningSet(8, 8 * size, Target(torch.arange(8) % 2))
    objective: Objective = model.aggregator.objective(model, model.task, learns) or Supervised(model, model.task)
    optimiser = objective.optimiser(FitSettings(lr=1e-4))
    # Methods that compare bags get as many as they need of the same rows altogether.
    bags = max(1, model.aggregator.least_bags)
    lengths = [size // bags] * bags
    generator = torch.Generator().manual_seed(0)
    before = peak_mb()
    batch = LabelledBags(random_bags(lengths, METHOD_DIM, generator), Target(torch.arange(bags) % 2))

    def step() -> None:
        objective.train()
        objective(batch, 0.5).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        objective.after_step(0.5)

    first = cpu_of(step)
    train = cpu_of(step) if first < 60 else first
    peak = peak_mb() - before
    model.eval()
    evaluation = cpu_of(lambda: model.output(batch.bags))
    parameters = sum(p.numel() for p in model.parameters())
    return {"train_s": train, "evaluate_s": evaluation, "peak_mb": peak, "bags": bags, "parameters": parameters}


def model_of(name: str, dim: int, options: dict[str, Any]) -> SlideModel:
    torch.manual_seed(0)
    card = ModelCard(name, options, FeatureOrigin(dim, "random rows"), "classification", {"classes": ["a", "b"]})
    return SlideModel(card)


def random_bags(lengths: list[int], dim: int, generator: torch.Generator) -> Bags:
    x = torch.randn(sum(lengths), dim, generator=generator)
    place = torch.arange(len(x))
    xy_um = torch.stack([place % 300, place // 300], 1).float() * 112
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Bags(x, offsets, xy_um, tuple(f"bag{i}" for i in range(len(lengths))), place)


def cpu_of(work: Step) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
