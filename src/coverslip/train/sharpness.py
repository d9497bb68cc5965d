"""Sharpness-aware minimisation: weights around which the loss is low, not only at which it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.func import functional_call

from coverslip.train.objective import Around, Objective, Remembered, StepOutput


class SharpnessAware(Around):
    """The loss of `inner` with its gradient from the worst place nearby.

    With w all weights that learn, together as one vector, and g the gradient of the loss L at w:

        e = rho g / |g|        the loss's value is L(w), its gradient is that of L at w + e

    Foret, Kleiner, Mobahi, Neyshabur 2021, https://arxiv.org/abs/2010.01412. A step costs two forward and two backward
    passes. Both draw the same dropout and masks, so the two gradients are of one function. With accumulated batches,
    and with several devices, each batch has its own e. What `inner` remembers of a batch (`Remembered`) is that of the
    second pass; what the first has left is taken back.
    """

    def __init__(self, inner: Objective, rho: float) -> None:
        super().__init__(inner)
        assert rho > 0
        self.rho = rho

    def forward(self, batch: Any, progress: float) -> StepOutput:
        learns = {name: p for name, p in self.inner.named_parameters() if p.requires_grad}
        device = next(iter(learns.values())).device
        memories = [(kept, len(kept)) for kept in Remembered.within(self.inner)]
        with _drawing_again(device):
            here: StepOutput = self.inner(batch, progress)
            gradients = torch.autograd.grad(here.loss, list(learns.values()), allow_unused=True)
        for kept, before in memories:
            del kept[before:]
        known = [g.detach().float() for g in gradients if g is not None]
        norm = torch.stack([g.square().sum() for g in known]).sum().sqrt()
        step = self.rho / norm.clamp(min=1e-12)
        nearby = {
            name: p if g is None else p + (step * g).to(p.dtype) for (name, p), g in zip(learns.items(), gradients)
        }
        worst: StepOutput = functional_call(self.inner, nearby, (batch, progress))
        return replace(worst, loss=worst.loss + (here.loss - worst.loss).detach(), parts=here.parts)


@contextmanager
def _drawing_again(device: torch.device) -> Iterator[None]:
    """Puts the random state back at its end, so that what is drawn inside is drawn once more behind it."""
    if device.type == "mps":  # fork_rng asks for the state of a numbered device, and there is one alone
        state = torch.mps.get_rng_state()
        with torch.random.fork_rng([]):
            yield
        torch.mps.set_rng_state(state)
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
