"""Signals that the owner of an image does not want it mined, read before it is decoded.

They are looked for in what the downloader recorded and in the bytes themselves, in whatever
container: nothing here trusts or needs a decoder. What a signal means for the corpus is the
recipe's line `ingest.opt_outs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from pipeline.c2pa import training_mining
from pipeline.errors import RejectError
from pipeline.svg import DrawingError, markup_of

ROBOTS_DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
"""As img2dataset's `disallowed_header_directives` has them by default."""

_AGENT = re.compile(r"\s*(?!unavailable_after|max-)[\w.-]+\s*:")

_PLUS = re.compile(
    rb"DataMining(?:\s*=\s*[\"']|\s*>|[^<>]{0,200}resource\s*=\s*[\"'])\s*"
    rb"(?:https?://ns\.useplus\.org/ldf/vocab/)?(DMI-[A-Z-]+)"
)
"""The IPTC Photo Metadata Standard 2023.1's Data Mining property, as an attribute, an element or a
resource of XMP, which lies uncompressed in JPEG, WebP, TIFF, AVIF and, as a rule, PNG."""


class OptOutError(RejectError):
    """An image that its owner does not want mined."""

    def __init__(self, signals: Sequence[str]) -> None:
        super().__init__("ingest-opted-out", ", ".join(signals))


def opt_outs(image: bytes | None, signals: Mapping[str, str]) -> list[str]:
    """Every signal against mining, as `KIND:VALUE`, sorted and each once.

    Args:
        image: the encoded image, or None.
        signals: what the downloader recorded, by the header's name.
    """
    found = {
        signal
        for name, value in signals.items()
        for signal in _header(name.lower().replace("_", "-"), value)
    }
    if image is not None:
        image = _unpacked(image)
        found |= {
            f"plus-data-mining:{value.decode()}"
            for value in _PLUS.findall(image)
            if b"PROHIBITED" in value
        }
        uses = training_mining(image)
        found |= {f"c2pa:{name}={use}" for name, use in uses.items() if use != "allowed"}
    return sorted(found)


def _unpacked(image: bytes) -> bytes:
    """The bytes in which signals can be seen: a drawing may be compressed, or in UTF-16."""
    try:
        text = markup_of(image)
    except DrawingError:  # ingest will reject it
        return image
    return image if text is None else text.encode("utf-8", "replace")


def _header(name: str, value: str) -> Iterator[str]:
    if name == "x-robots-tag":
        for line in value.lower().splitlines():
            agent, _, rest = line.partition(":")
            # `somebot: noai` is said to that robot alone; `*: noai` to all.
            said = rest if agent.strip() == "*" else line
            if not _AGENT.match(said):
                words = {word.strip() for word in said.split(",")}
                yield from (
                    f"x-robots-tag:{word}" for word in words.intersection(ROBOTS_DIRECTIVES)
                )
    # W3C TDM Reservation Protocol, section 5.2: 1 reserves the rights.
    if name == "tdm-reservation" and value.strip() == "1":
        yield "tdm-reservation:1"
