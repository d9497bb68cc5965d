"""What limited a run, in one plain sentence, from what each stage waited for.

The encoder is what one pays for, so the time is told from its side: every second it either encodes, or waits for tiles,
or waits until rows are written. What it waits for tiles is divided as the reading side spent its own time: on opening
slides and finding tissue, on waiting for the storage, or on decoding. So the shares add up to one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

STAGES = ("opening", "reading", "decoding", "encoding", "writing")


@dataclass
class Timing:
    """Seconds that an engine measured. The first three are of the encoder; the others, of all readers together, only
    divide `waiting`."""

    encoding: float = 0.0
    waiting: float = 0.0  # for tiles
    writing: float = 0.0  # waiting until rows are kept
    opening: float = 0.0  # readers waited for a slide that is opened and planned
    tiles: float = 0.0  # readers waited for their threads to give tiles
    storage: float = 0.0  # share, 0..1, of `tiles` in which those threads waited for the storage
    num_tiles: int = 0

    @property
    def seconds(self) -> float:
        return self.encoding + self.waiting + self.writing

    def add(self, other: Timing) -> None:
        """Adds another run's seconds."""
        both = self.tiles + other.tiles
        if both > 0:
            self.storage = (self.storage * self.tiles + other.storage * other.tiles) / both
        for name in ("encoding", "waiting", "writing", "opening", "tiles", "num_tiles"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Advice:
    """What limited a run: the stage, every stage's share of the time, and the sentence."""

    limited_by: str
    shares: dict[str, float]
    tiles_per_s: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in embedding.json."""
        return asdict(self)


def shares(timing: Timing) -> dict[str, float]:
    """The share of each stage in the encoder's time, 0..1, summing to one."""
    upstream = timing.opening + timing.tiles
    opening = timing.opening / upstream if upstream > 0 else 0.0
    parts = {
        "opening": timing.waiting * opening,
        "reading": timing.waiting * (1 - opening) * timing.storage,
        "decoding": timing.waiting * (1 - opening) * (1 - timing.storage),
        "encoding": timing.encoding,
        "writing": timing.writing,
    }
    whole = sum(parts.values())
    return {name: parts[name] / whole if whole > 0 else 0.0 for name in STAGES}


def advise(
    timing: Timing, *, threads: int, cores: int, device: str, movable: bool = True, exact: bool = True
) -> Advice:
    """What limited the run and what to change. `movable` False: the encoder computes on a CPU wherever it is."""
    found = shares(timing)
    worst = max(STAGES, key=lambda name: found[name])
    others = [f"{name} {found[name]:.0%}" for name in STAGES if name != worst and found[name] >= 0.05]
    rest = f"; {', '.join(others)}" if others else ""
    sentence = (
        f"{_NAMES[worst]} limited the run ({found[worst]:.0%} of the time{rest}): "
        f"{_way_out(worst, threads, cores, device, movable, exact)}."
    )
    rate = timing.num_tiles / timing.seconds if timing.seconds > 0 else 0.0
    return Advice(worst, {name: round(share, 4) for name, share in found.items()}, round(rate, 2), sentence)


_NAMES = {
    "opening": "Opening slides and finding tissue",
    "reading": "Waiting for the storage",
    "decoding": "Decoding",
    "encoding": "Encoding",
    "writing": "Writing",
}


def _way_out(worst: str, threads: int, cores: int, device: str, movable: bool, exact: bool) -> str:
    if worst == "encoding" and not movable:
        return (
            "several runs side by side (--shard), or --engine ray, use more cores; more reading threads would not help"
        )
    if worst == "encoding":
        faster = "a GPU" if device == "cpu" else "a faster device"
        return f"{faster} or a smaller encoder would help; more reading threads would not"
    if worst == "decoding":
        idle = f"encoder.threads = {cores} (the machine has {cores} cores, {threads} threads read)"
        more = idle if threads < cores else "more processor cores"
        scaled = ", or tiles.exact = false where a slide is finer than the tiles" if exact else ""
        return f"{more}{scaled} would help; a faster device would not"
    if worst == "reading":
        return (
            f"slides on a faster or a local disk, or more than {threads} reading threads (encoder.threads), "
            "would help; a faster device would not"
        )
    if worst == "opening":
        return "several runs side by side (--shard), or a coarser tissue.mpp, would help; a faster device would not"
    return "feature files on a faster or a local disk (features.store) would help; a faster device would not"
