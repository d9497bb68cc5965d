"""The encoders of a Ray cluster: one actor a GPU, or one a core where there are none; the dead are replaced.

On machines without GPUs every core has an encoder and a reader, half a core each for Ray: the operating system gives
the core to whichever has work, and no death of a machine can leave encoders without readers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coverslip.base.errors import CoverslipError, EncoderError, SettingsError
from coverslip.base.study import Study
from coverslip.encoders import EncoderInfo, describe
from coverslip.encoders.device import Precision
from coverslip.recipes.engines.ray_calls import ATTEMPTS, Calls, Ref, first_line
from coverslip.recipes.engines.ray_workers import Encoding

_LOOK_S = 3.0


@dataclass(eq=False)
class Encoder:
    """An actor, the machine it is on, whether it has said what it is, and how many calls it has to answer."""

    node: str
    actor: Any
    ready: bool = False
    calls: int = 0


class Fleet:
    """The encoders, and how many readers there are beside them."""

    def __init__(self, study: Study, calls: Calls) -> None:
        """Nothing is started yet.

        Raises:
            SettingsError: a device that Ray gives nobody, or no GPU where one is asked for.
        """
        self.gpu = _wants_gpu(study)
        if self.gpu:  # Ray shows each actor one card
            study = study.model_copy(update={"encoder": study.encoder.model_copy(update={"device": "cuda"})})
        self.study: Ref = ray.put(study)
        self.made_by: tuple[EncoderInfo, Precision] | None = None  # as the first encoder said
        self.readers = 1
        self.store_bytes = 0.0
        self._calls = calls
        self._encoders: list[Encoder] = []
        self._false_starts = 0
        self._looked = -_LOOK_S

    def __len__(self) -> int:
        return len(self._encoders)

    def look(self) -> None:
        """Sees which machines are there, every few seconds, and starts the encoders that lack."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        self._encoders = [encoder for encoder in self._encoders if encoder.node in nodes]
        for node, has in nodes.items():
            there = sum(encoder.node == node for encoder in self._encoders)
            for _ in range(int(has.get("GPU" if self.gpu else "CPU", 0)) - there):
                self._start(node)
        self.readers = max(1, sum(int(has.get("CPU", 0)) for has in nodes.values()))
        self.store_bytes = sum(has.get("object_store_memory", 0.0) for has in nodes.values())

    def free(self, calls: int) -> list[Encoder]:
        """Encoders that have at most so many calls to answer, the idle ones first."""
        found = [encoder for encoder in self._encoders if encoder.ready and encoder.calls <= calls]
        return sorted(found, key=lambda encoder: encoder.calls)

    def check(self, encoder: Encoder, error: Exception) -> None:
        """Counts no longer on an encoder that died of `error`; a look starts another."""
        if isinstance(error, RayActorError | ActorUnschedulableError) and encoder in self._encoders:
            self._encoders.remove(encoder)

    def task(self, function: Any, *, returns: int = 1) -> Any:
        """A task that reads. What dies is begun again by the caller and not by Ray: nothing is done twice unseen."""
        cpus = 1.0 if self.gpu else 0.5
        return ray.remote(function).options(
            num_cpus=cpus, max_retries=0, num_returns=returns, scheduling_strategy="SPREAD"
        )

    def end(self) -> None:
        """Ends every encoder and frees its device."""
        for encoder in self._encoders:
            ray.kill(encoder.actor)
        self._encoders = []

    def _start(self, node: str) -> None:
        options = {"num_cpus": 0.0, "num_gpus": 1} if self.gpu else {"num_cpus": 0.5}
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        start: Any = ray.remote(Encoding).options(**options, max_restarts=0, scheduling_strategy=there)
        actor = start.remote(self.study)
        encoder = Encoder(node, actor)
        self._encoders.append(encoder)
        self._calls.ask(actor.describe.remote(), partial(self._started, encoder), partial(self._not_started, encoder))

    def _started(self, encoder: Encoder, answer: tuple[EncoderInfo, Precision] | CoverslipError) -> None:
        if isinstance(answer, CoverslipError):
            raise answer
        self.made_by = self.made_by or answer
        if answer != self.made_by:
            raise EncoderError(
                f"Machines of the cluster would make different features: {_told(answer)}, and {_told(self.made_by)}.",
                fix="Set encoder.precision, and give every machine the same weights.",
            )
        encoder.ready = True
        self._false_starts = 0

    def _not_started(self, encoder: Encoder, error: Exception) -> None:
        self.check(encoder, error)
        self._false_starts += 1
        if self._false_starts >= ATTEMPTS and not any(encoder.ready for encoder in self._encoders):
            raise EncoderError(
                f"No encoder can be started on the cluster: {first_line(error)}.",
                fix="Ray's logs (/tmp/ray/session_latest/logs of the machines) say more; often memory is short.",
            )


def _wants_gpu(study: Study) -> bool:
    device = study.encoder.device
    if ":" in device:
        raise SettingsError(
            f"encoder.device = {device!r} names one card.", fix="On a cluster Ray gives the cards out: say 'cuda'."
        )
    there = any(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
    if device == "cuda" and not there:
        raise SettingsError("encoder.device = 'cuda': the cluster has no GPU.", fix="Use 'auto' or 'cpu'.")
    return there and device in ("auto", "cuda") and describe(study.encoder.name).device != "cpu"


def _told(made_by: tuple[EncoderInfo, Precision]) -> str:
    info, precision = made_by
    return f"{info.name} {info.sha256 or info.revision} in {precision}"
