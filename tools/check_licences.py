"""Fails where a package that Coverslip needs at run time has a licence that is not permissive.

Walks the dependencies of the distribution `coverslip` as installed (without the `dev` extra), reads each package's own
licence metadata, and accepts permissive licences, the weak copyleft of libraries that are linked and not changed
(LGPL, MPL), and the vendor's terms of the CUDA runtime that torch brings. Run: python tools/check_licences.py
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

ACCEPTED = re.compile(
    r"\b(mit|mit-cmu|hpnd|bsd|apache|isc|psf|python|zlib|unlicense|cc0|0bsd|lgpl|lesser general public|mpl|mozilla|zpl|"
    r"public domain|boost|bsl|blueoak|nvidia|unicode)\b|psf-|bsd-|apache-|mit-|lgplv|mpl-",
    re.IGNORECASE,
)
# Strong copyleft and non-commercial terms, unless the same text offers a choice with an accepted one.
REFUSED = re.compile(
    r"(?<!l)(?<!lesser )\b(a?gpl|gnu general public|gnu affero)|non-?commercial|sspl|busl", re.IGNORECASE
)
# Packages whose metadata names no licence, with the one that their source distribution carries.
STATED_ELSEWHERE: dict[str, str] = {"cuda-toolkit": "NVIDIA (CUDA end user licence)"}


def licence(dist: Distribution) -> str:
    """The licence as the package's own metadata gives it: expression, field, then classifiers."""
    meta = dist.metadata
    classifiers = [c.split("::")[-1].strip() for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    field = (meta["License"] or "").strip().splitlines()
    parts = [meta["License-Expression"] or "", field[0][:80] if field else "", *classifiers]
    found = "; ".join(dict.fromkeys(p for p in parts if p and p.upper() != "UNKNOWN"))
    return found or STATED_ELSEWHERE.get(meta["Name"].lower(), "")


def runtime_dependencies(root: str) -> dict[str, Distribution]:
    """Every installed distribution that `root` needs, extras of dependencies included, its own `dev` extra not."""
    found: dict[str, Distribution] = {}
    queue: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        name, extras = item
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue  # needed on another platform only, or an extra that is not installed
        found[dist.metadata["Name"].lower()] = dist
        for text in dist.requires or []:
            need = Requirement(text)
            wanted = [{"extra": e} for e in extras] or [{"extra": ""}]
            if need.marker is None or any(need.marker.evaluate(env) for env in wanted):
                queue.append((need.name.lower(), frozenset(need.extras)))
    return found


def accepted(text: str) -> bool:
    """True for a licence text that names an accepted licence, alone or as one of a choice."""
    offers_a_choice = re.search(r"\bor\b", text, re.IGNORECASE) is not None
    return ACCEPTED.search(text) is not None and (offers_a_choice or REFUSED.search(text) is None)


def main() -> int:
    """Prints each package that is refused or unknown; the exit status is 1 where there is one."""
    packages = runtime_dependencies("coverslip")
    bad = []
    for name, dist in sorted(packages.items()):
        text = licence(dist)
        if not accepted(text):
            bad.append(f"{name} {dist.version}: {text or 'no licence in its metadata'}")
    print(f"{len(packages)} run-time packages, {len(bad)} with a licence that is refused or unknown")
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
