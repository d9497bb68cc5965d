"""CLAM-MB: an attention branch a class, whose most and least attended tiles learn to tell that class.

Lu, Williamson, Chen, Chen, Barbieri, Mahmood: Data-efficient and weakly supervised computational pathology on
whole-slide images, Nature Biomedical Engineering 2021, https://arxiv.org/abs/2004.09666.
Written from the paper's formulas.
"""

from __future__ import annotations

from coverslip.mil.methods._clam import Clam

ENTRIES = {
    "clam_mb": {
        "build": "ClamMb",
        "summary": "CLAM with an attention branch for each class",
        "origin": "Lu et al. 2021, arXiv:2004.09666",
        "licence": "Apache-2.0",
        "needs": "a classification task",
    }
}


class ClamMb(Clam):
    """CLAM with an attention branch for each class; with one output it is `clam_sb`.

    The formula, the instance loss and the options are those of `coverslip.mil.methods._clam.Clam`.
    """

    @staticmethod
    def num_branches(num_outputs: int) -> int:
        return num_outputs
