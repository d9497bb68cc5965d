"""Ray, the cluster engine: one that exists already, or one started on this machine and ended with the work.

Tasks read and decode (CPU), actors encode (one a GPU, or one a core), folds are tasks. The process that was started by
the user keeps the books and writes the feature files; storage that every machine sees under one path holds the rest.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coverslip._version import __version__
from coverslip.base.errors import CoverslipError, SettingsError
from coverslip.recipes.engine import Engine, Item, Result
from coverslip.recipes.engines import ray_workers
from coverslip.recipes.engines.ray_embed import Embedding
from coverslip.recipes.job import Job

ENTRIES = {
    "ray": {
        "build": "Ray",
        "summary": "a Ray cluster: tasks read, actors encode, folds side by side",
        "origin": "https://www.ray.io",
        "licence": "Apache-2.0",
        "needs": "coverslip[ray]",
    },
}

_PROBE_S = 5.0
# Begun this often, work that ends its process each time is told as failed.
_RETRIES = 4
# The first bytes of an HTTP/2 client with empty settings, which a Ray head answers at once, and the type of the answer.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS_FRAME = 4


class Ray(Engine):
    """A Ray cluster. Where the calling program has connected to one already, that one is used and stays."""

    def __init__(self, address: str | None) -> None:
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(address)

    def describe(self) -> dict[str, Any]:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(int(node["Resources"].get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
        return {"name": "ray", "version": ray.__version__, "nodes": len(nodes), "cpus": cpus, "gpus": gpus}

    def embed(self, job: Job, slides: list[str], *, shard: str = "1/1") -> dict[str, str]:
        require_shared(job.run.folder)
        return Embedding(job, slides, shard=shard).run()

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, device: str = "cpu", devices: int = 1
    ) -> Iterator[tuple[int, Result]]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = devices if device != "cpu" and any(node.get("GPU", 0) for node in nodes) else 0
        if ":" in device:
            raise SettingsError(f"device = {device!r} names one card.", fix="On a cluster Ray chooses: say 'cuda'.")
        threads = torch.get_num_threads()
        most = max(int(node.get("CPU", 0)) for node in nodes)
        begin: Any = ray.remote(ray_workers.work_on).options(
            num_cpus=min(threads, most), num_gpus=gpus, max_retries=_RETRIES, scheduling_strategy="SPREAD"
        )
        kept = ray.put(work)
        places = {begin.remote(kept, item, threads): place for place, item in enumerate(items)}
        with ExitStack() as on_failure:
            on_failure.callback(_cancel, places)
            while places:
                (ready,), _ = ray.wait(list(places))
                answer = _answer(ready)
                yield places.pop(ready), answer
            on_failure.pop_all()

    def close(self) -> None:
        if self._ours:
            ray.shutdown()


def require_shared(folder: Path) -> None:
    """Nothing, where every machine of the cluster has this Coverslip and sees `folder`.

    Raises:
        SettingsError: naming the machine that does not.
    """
    look: Any = ray.remote(num_cpus=0)(ray_workers.look_around)
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)).remote(folder)
        for node in ray.nodes()
        if node["Alive"]
    ]
    for place in (_answer(ref) for ref in asked):
        if place.coverslip != __version__:
            raise SettingsError(
                f"The machine {place.host} of the cluster has Coverslip {place.coverslip}; here it is {__version__}.",
                fix="Install the same version everywhere.",
            )
        if not place.sees:
            raise SettingsError(
                f"The machine {place.host} of the cluster does not see {folder}.",
                fix="Slides, feature files and runs lie on storage that every machine sees under the same path.",
            )


def _connect(address: str | None) -> None:
    # A toolkit for patients' slides sends no statistics home, and one's terminal is not for the cluster's log.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address not in (None, "auto"):
        _require_head(address)
    try:
        ray.init(
            address="local" if address is None else address,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="coverslip",
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = "No Ray cluster could be started here" if address is None else f"There is no Ray cluster at {address}"
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise SettingsError(f"{what}: {reason}.", fix=_FIX) from error


_FIX = (
    "Give the address that `ray status` or `ray start` tells (HOST:6379), and start on a machine of the cluster; "
    "or leave --ray-address out: then a cluster is started on this machine."
)


def _require_head(address: str) -> None:
    """Nothing, where something answers at the address as a Ray head does. Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"--ray-address {address!r} is not HOST:PORT or auto.", fix=_FIX)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S) as connection:
            connection.sendall(_HELLO)
            head = connection.recv(9)
    except OSError as error:
        raise SettingsError(f"There is no Ray cluster at {address}: {error.strerror or error}.", fix=_FIX) from error
    if len(head) < 4 or head[3] != _SETTINGS_FRAME:
        raise SettingsError(f"What answers at {address} is no Ray cluster.", fix=_FIX)


def _answer(ref: Any) -> Any:
    """What a task gave.

    Raises:
        CoverslipError: it is one, or the task's process died each time.
    """
    try:
        found = ray.get(ref)
    except RayTaskError:
        raise  # a bug, with the traceback of the other process
    except RayError as error:
        raise CoverslipError(
            f"Work on the cluster ended its process {_RETRIES + 1} times: {str(error).splitlines()[0]}",
            fix="Run again; it goes on from there. If memory is short, use machines with more.",
        ) from error
    if isinstance(found, CoverslipError):
        raise found
    return found


def _cancel(refs: dict[Any, int]) -> None:
    for ref in refs:
        ray.cancel(ref, force=True)
