"""A Ray cluster of two nodes on this machine, a core each: real processes that can be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class TwoNodes:
    """The cluster; its second node can be killed and is there again for the next test."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._size = {"num_cpus": 1, "object_store_memory": 120 << 20}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args={**self._size, "include_dashboard": False})
        self._second: Any = None
        self.repair()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def repair(self) -> None:
        if self._second is None:
            self._second = self._cluster.add_node(**self._size)
        self._cluster.wait_for_nodes()

    def kill_node(self) -> None:
        """As if its plug were pulled: the node's daemon is killed, and with it go its workers."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None

    def kill_worker(self, name: str) -> bool:
        """Kills a worker process of this cluster by what Ray calls it; False where there is none."""
        daemons = {
            process.process.pid
            for node in self._cluster.list_all_nodes()
            for process in node.all_processes.get("raylet", [])
        }
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):  # it ended meanwhile
                continue
            if parent in daemons and title.startswith(f"ray::{name}"):
                os.kill(int(folder.name), signal.SIGKILL)
                return True
        return False

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def _two_nodes() -> Iterator[TwoNodes]:
    pytest.importorskip("ray", reason="the extra coverslip[ray] is not installed")
    if not Path("/proc/self/stat").is_file():
        pytest.skip("worker processes are found through /proc")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = TwoNodes()
    yield nodes
    nodes.close()


@pytest.fixture
def two_nodes(_two_nodes: TwoNodes) -> TwoNodes:
    _two_nodes.repair()
    return _two_nodes
