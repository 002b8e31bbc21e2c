"""Which language a text is written in, for the scorers and the synthesis's critics."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier


def identify(text: str) -> tuple[str, float]:
    """The likeliest language of a text, ISO 639-1, and its probability."""
    name, certainty = _identifier().classify(text)
    return str(name), min(1.0, max(0.0, float(certainty)))


@cache
def _identifier() -> LanguageIdentifier:
    # Half a second, and numpy: not for those who only read the settings.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
