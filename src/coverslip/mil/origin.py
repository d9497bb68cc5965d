"""Where features are from, as far as it is known, and whether two sets of them may stand in one model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from coverslip.base.errors import FeatureError
from coverslip.store import Features


@dataclass(frozen=True)
class FeatureOrigin:
    """The encoder, tile size and scale that made features. Other tools' files tell a name at most, or nothing.

    `kind` is equal for features that may be mixed, and empty where the file does not keep an identity.
    """

    dim: int
    text: str
    kind: str = ""
    encoder: str = ""
    licence: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, features: Features) -> FeatureOrigin:
        """The origin of one slide's features."""
        identity = features.identity
        if identity is None:
            name = features.encoder or ""
            text = f"{name or 'an encoder that the file does not name'} ({features.dim} numbers a tile)"
            return cls(features.dim, text, encoder=name)
        about_slide = {"mpp", "span", "tiles", "slide_fingerprint", "fingerprint"}
        attributes = {key: value for key, value in identity.attributes().items() if key not in about_slide}
        return cls(
            features.dim, str(identity), identity.kind, identity.encoder.name, identity.encoder.licence, attributes
        )

    def require_same(self, expected: FeatureOrigin, *, slide: str, whose: str) -> None:
        """Nothing, where features of this origin may stand beside the expected ones; `whose` says who expects them.

        Raises:
            FeatureError: naming both.
        """
        if self.dim != expected.dim:
            raise FeatureError(
                f"has features of width {self.dim}, {whose} has {expected.dim}: {self.text} against {expected.text}.",
                slide=slide,
                fix="Embed every slide with the same encoder.",
                code="width",
            )
        if not self._fits(expected):
            raise FeatureError(
                f"has features of {self.text}, {whose} has those of {expected.text}.",
                slide=slide,
                fix="Embed every slide with the same encoder, tile size and scale.",
                code="other_encoder",
            )

    def _fits(self, expected: FeatureOrigin) -> bool:
        if self.kind and expected.kind:
            return self.kind == expected.kind
        # Files that keep no identity are compared by what they name; a known encoder never passes for an unnamed one.
        return self.encoder == expected.encoder

    def card(self) -> dict[str, Any]:
        """The origin as JSON."""
        return asdict(self)
