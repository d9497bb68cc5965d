"""Where a study's work is done: in this process, or on a cluster. `--engine` and `--ray-address` choose.

An engine is not part of a study: the same settings give the same files wherever they are made. To add one, add a file
to `recipes/engines/` with an `ENTRIES` table (see `coverslip.base.registry`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from coverslip.base.errors import MissingExtra
from coverslip.base.registry import ENGINES
from coverslip.recipes.job import LOG, Job

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"


class Engine(ABC):
    """Somewhere to work; a context manager. It is opened by the first work that needs it and closed by the block."""

    @abstractmethod
    def __init__(self, address: str | None) -> None:
        """`address` is that of a cluster.

        Raises:
            SettingsError: this engine has no use for the address.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What environment.json says of the engine: its name, and what it has. No addresses, no host names."""

    @abstractmethod
    def embed(self, job: Job, slides: list[str], *, shard: str = "1/1") -> dict[str, str]:
        """Makes the feature files of these slides, which are a shard; the slides that failed with the reasons.

        What is finished is used again, an unfinished slide is gone on with, and one that another process is writing is
        waited for.

        Raises:
            StoreError: the store cannot be written; what is finished stays.
        """

    @abstractmethod
    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, device: str = "cpu", devices: int = 1
    ) -> Iterator[tuple[int, Result]]:
        """`work` of each item with the item's place, as they finish: in order here, in any order on a cluster.

        `device` and `devices` are what `work` of one item computes on ("auto": a GPU where there is one).

        On a cluster `work` travels to another process. It may be begun again where a machine dies, so whatever it has
        finished it keeps in files, which every machine sees under the same path.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of what the engine holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_engine(name: str, address: str | None = None) -> Engine:
    """The engine of that name: "local", or "ray" on the cluster at `address` ("auto": the one this machine is part
    of; None: one that is started here and ended with the block).

    Raises:
        SettingsError: no such engine, or nothing of the kind at the address.
        MissingExtra: the engine's package is not installed.
    """
    entry = ENGINES.entry(name)
    try:
        build = ENGINES.load(name)
    except ModuleNotFoundError as error:
        if not entry.needs or (error.name or "").startswith("coverslip"):
            raise
        raise MissingExtra(
            f"The engine {name!r} needs the package {error.name!r}, which is not installed.",
            fix=f'Install it with: pip install "{entry.needs}"',
        ) from error
    engine: Engine = build(address)
    LOG.info(
        "engine: %s",
        ", ".join(f"{value}" if key == "name" else f"{key} {value}" for key, value in engine.describe().items()),
    )
    return engine
