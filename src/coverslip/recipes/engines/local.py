"""The engine that is always there: threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from coverslip.base.errors import SettingsError
from coverslip.recipes.embed import embed_slides
from coverslip.recipes.engine import Engine, Item, Result
from coverslip.recipes.job import Job

ENTRIES = {
    "local": {
        "build": "Local",
        "summary": "threads of one process on this machine",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "",
    },
}


class Local(Engine):
    """This process: slides through `embed_slides`, folds one after another."""

    def __init__(self, address: str | None) -> None:
        if address is not None:
            raise SettingsError(
                f"--ray-address {address} is of no use to the engine 'local'.", fix="Add --engine ray, or leave it out."
            )

    def describe(self) -> dict[str, Any]:
        return {"name": "local"}

    def embed(self, job: Job, slides: list[str], *, shard: str = "1/1") -> dict[str, str]:
        return embed_slides(job, slides, shard=shard)

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, device: str = "cpu", devices: int = 1
    ) -> Iterator[tuple[int, Result]]:
        for place, item in enumerate(items):
            yield place, work(item)

    def close(self) -> None:
        """Nothing is held."""
