"""Which columns of a table look like outcomes, by their names alone."""

from __future__ import annotations

import re
from itertools import pairwise

# End points and their events, as tables of clinical data (TCGA, cBioPortal, METABRIC) call them.
_OUTCOMES = frozenset(
    {
        "os", "pfs", "pfi", "dfs", "dfi", "dss", "rfs", "efs", "ttp", "mfs", "css", "bcr", "survival", "surv",
        "survived", "death", "dead", "deceased", "died", "alive", "vital", "relapse", "relapsed", "recurrence",
        "recurred", "recurrent", "progression", "progressed", "mortality", "followup", "event", "events", "censored",
        "censor", "censoring", "outcome", "label", "target", "response", "responder", "endpoint",
    }
)  # fmt: skip
_PAIRS = frozenset({("follow", "up"), ("last", "contact"), ("last", "visit"), ("days", "to"), ("time", "to")})


def looks_like_outcome(column: str) -> bool:
    """True where a word of the name is an end point: OS.time, pfi, vital_status, daysToDeath, time_to_relapse."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", column)]
    return bool(_OUTCOMES & set(words)) or any(pair in _PAIRS for pair in pairwise(words))
