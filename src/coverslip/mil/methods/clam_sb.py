"""CLAM-SB: one attention branch, whose most and least attended tiles learn to tell their class.

Lu, Williamson, Chen, Chen, Barbieri, Mahmood: Data-efficient and weakly supervised computational pathology on
whole-slide images, Nature Biomedical Engineering 2021, https://arxiv.org/abs/2004.09666.
Written from the paper's formulas.
"""

from __future__ import annotations

from coverslip.mil.methods._clam import Clam

ENTRIES = {
    "clam_sb": {
        "build": "ClamSb",
        "summary": "gated attention pooling with pseudo-labels for the most and least attended rows",
        "origin": "Lu et al. 2021, arXiv:2004.09666",
        "licence": "Apache-2.0",
        "needs": "a classification task",
    }
}


class ClamSb(Clam):
    """CLAM with a single attention branch for all classes.

    The formula, the instance loss and the options are those of `coverslip.mil.methods._clam.Clam`.
    """

    @staticmethod
    def num_branches(num_outputs: int) -> int:
        return 1
