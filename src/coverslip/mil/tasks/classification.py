"""Classification: one of two or more classes, softmax over one logit a class."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from coverslip.base.errors import SettingsError
from coverslip.mil.target import Target
from coverslip.mil.tasks._classes import ClassWeights, check_beta, class_weights, drawn_weights
from coverslip.mil.tasks.contract import Task, of_patients

ENTRIES = {
    "classification": {
        "build": "Classification",
        "summary": "one of two or more classes; softmax and cross-entropy, focal or logit-adjusted",
        "origin": "coverslip",
        "licence": "Apache-2.0",
        "needs": "a column with one class a row",
    }
}

Loss = Literal["cross_entropy", "focal", "logit_adjusted"]


class Classification(Task):
    """K classes, K logits z. Target: `y` (B,) int64, the place of the class in `classes`.

    With class weights "balanced" a class of n_c among n patients weighs n / (K n_c), so that a rare class counts as
    much as a common one; "effective_number" with `beta` goes part of the way. Weights come from patients, not slides:
    a patient with many slides does not shift them. Three losses, with q = softmax(z):

    - "cross_entropy": -log q_y. Predictions are q: probabilities for classes that are as frequent as they are weighted,
      which is equally frequent under "balanced" and as in training under "none".
    - "focal": -(1 - q_y)^gamma log q_y (Lin et al. 2017, https://arxiv.org/abs/1708.02002, gamma 2). It dwells on what
      is still wrong; q itself is too unsure at its minimum. Predictions are what q stands for there, in proportion to
      q_k / ((1 - q_k)^gamma - gamma (1 - q_k)^(gamma - 1) q_k log q_k) (Charoenphakdee et al. 2021,
      https://arxiv.org/abs/2011.09172), so they mean the same as with cross-entropy. gamma 0 is cross-entropy.
    - "logit_adjusted": cross-entropy of z + tau log(share of the class) (Menon et al. 2021,
      https://arxiv.org/abs/2007.07314, tau 1). The shares stand in the loss, so class weights are 1. Predictions are q:
      with tau 1 probabilities for equally frequent classes, with tau 0 for those of training.

    Raises:
        SettingsError: fewer than two classes; gamma or tau below 0, beta outside [0, 1); weights "effective_number"
            together with "logit_adjusted", which both make up for rare classes.
    """

    kind: ClassVar[str] = "classification"
    class_weights: Tensor
    log_shares: Tensor

    def __init__(
        self,
        classes: tuple[str, ...],
        *,
        weights: ClassWeights = "balanced",
        loss: Loss = "cross_entropy",
        gamma: float = 2.0,
        tau: float = 1.0,
        beta: float = 0.99,
    ) -> None:
        super().__init__()
        if len(classes) < 2:
            raise SettingsError(
                f"Classification needs two or more classes, found {list(classes)}.", fix="Check the target's column."
            )
        for name, value in (("gamma", gamma), ("tau", tau)):
            if value < 0:
                raise SettingsError(f"task.options.{name} = {value}: accepted are 0 and more.")
        if loss == "logit_adjusted" and weights == "effective_number":
            raise SettingsError(
                'task.options.loss = "logit_adjusted" and fit.class_weights = "effective_number" both make up for rare '
                "classes.",
                fix='Choose one: leave out fit.class_weights, or set task.options.loss = "cross_entropy".',
            )
        self.classes = tuple(classes)
        self.num_outputs = len(classes)
        self.columns = tuple(f"p_{name}" for name in classes)
        self.explained = self.classes
        self.weights, self.form = weights, loss
        self.gamma, self.tau, self.beta = float(gamma), float(tau), check_beta(beta)
        self.register_buffer("class_weights", torch.ones(len(classes)))
        # Only what a loss needs is kept, so that models of the others have no part more than they used to.
        self.register_buffer("log_shares", torch.zeros(len(classes)), persistent=loss == "logit_adjusted")

    def loss(self, logits: Float[Tensor, "b k"], target: Target) -> tuple[Float[Tensor, b], Float[Tensor, b]]:
        logits = logits.float() + self.tau * self.log_shares
        loss = functional.cross_entropy(logits, target.y, reduction="none")
        if self.form == "focal":
            log_p, log_rest = _log_parts(logits)
            chosen = target.y[:, None]
            loss = -(self.gamma * log_rest.gather(1, chosen)).exp()[:, 0] * log_p.gather(1, chosen)[:, 0]
        return loss, self.class_weights[target.y]

    def predictions(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        logits = logits.float()
        return (_calibrated(logits, self.gamma) if self.form == "focal" else logits).softmax(-1)

    def score(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Each logit minus the mean of the others: a number added to all changes no probability."""
        others = (logits.sum(1, keepdim=True) - logits) / (self.num_outputs - 1)
        return logits - others

    def fit_target(self, target: Target, groups: list[str]) -> None:
        counts = self._counts(target, groups)
        if self.form == "logit_adjusted":
            # A class that nobody has is taken for as rare as one patient.
            self.log_shares.copy_((counts.clamp(min=1) / counts.sum().clamp(min=1)).log())
        else:
            self.class_weights.copy_(class_weights(counts, self.weights, self.beta))

    def as_drawn(self, target: Target, groups: list[str]) -> Task:
        drawn = copy.deepcopy(self)
        if self.form == "logit_adjusted":
            # Even classes do what tau = 1 does; what is left to do is tau - 1.
            drawn.tau = self.tau - 1.0
        else:
            drawn.class_weights.copy_(drawn_weights(self._counts(target, groups), self.weights, self.beta))
        return drawn

    def card(self) -> dict[str, Any]:
        card = {"classes": list(self.classes), "weights": self.weights, "loss": self.form}
        return {**card, "gamma": self.gamma, "tau": self.tau, "beta": self.beta}

    def _counts(self, target: Target, groups: list[str]) -> Int64[Tensor, k]:
        return torch.bincount(of_patients(target, groups).y, minlength=self.num_outputs)


def _log_parts(logits: Float[Tensor, "b k"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
    """log q and log(1 - q) of q = softmax(logits), the second from the other classes: exact where q is 1."""
    log_p = logits.log_softmax(-1)
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return log_p, log_p.unsqueeze(1).masked_fill(own, -torch.inf).logsumexp(2)


def _calibrated(logits: Float[Tensor, "b k"], gamma: float) -> Float[Tensor, "b k"]:
    """Logits of the probabilities that focal loss means: with u = 1 - q, log q - gamma log u - log(1 + gamma r), where
    r = -q log q / u goes from 0 at q = 0 to 1 at q = 1."""
    log_p, log_rest = _log_parts(logits)
    rest = log_rest.exp()
    # -log q / u is 1 + u/2 + ... near u = 0, where the quotient of the rounded two would be noise.
    ratio = torch.where(rest < 1e-3, 1 + rest / 2, -log_p / rest.clamp(min=1e-3))
    return log_p - gamma * log_rest - torch.log1p(gamma * log_p.exp() * ratio)
