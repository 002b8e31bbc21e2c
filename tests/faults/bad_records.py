"""Every kind of bad text and tar: how it is made, and what becomes of it."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A kind of bad record.

    `reason` is the reject's code, None where it is repaired; then `repairs` names how.
    """

    name: str
    make: Callable[[], bytes | str]
    reason: str | None = None
    repairs: tuple[str, ...] = ()


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (32, 24)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


TEXTS = [
    Bad(name="empty", make=lambda: "", reason="ingest-caption-empty"),
    Bad(name="whitespace", make=lambda: " \n\t\u200b", reason="ingest-caption-empty"),
    Bad(name="1 MB caption", make=lambda: "word " * 200_000, reason="ingest-caption-too-long"),
    Bad(name="1 MB of bytes", make=lambda: b"word " * 200_000, reason="ingest-caption-too-long"),
    Bad(name="invalid UTF-8", make=lambda: b"a caf\xe9", reason="ingest-caption-not-utf-8"),
    Bad(name="NUL bytes", make=lambda: "a \x00cat", repairs=("nul-bytes",)),
    Bad(name="lone surrogates", make=lambda: "a cat\ud83d", repairs=("lone-surrogates",)),
    Bad(name="bidi controls", make=lambda: "a \u202ecat", repairs=("bidi-controls",)),
    Bad(name="HTML entities", make=lambda: "a cat &amp;amp; a dog", repairs=("html-entities",)),
    Bad(name="bidi control as an entity", make=lambda: "a &#8238;cat",
        repairs=("html-entities", "bidi-controls")),
    Bad(name="control characters", make=lambda: "a \x1bcat", repairs=("control-characters",)),
    Bad(name="hidden tags", make=lambda: "a cat\U000e0041", repairs=("invisible-characters",)),
    Bad(name="mojibake", make=lambda: "a cat donâ€™t", repairs=("mojibake",)),
    Bad(name="byte order mark", make=lambda: b"\xef\xbb\xbfa cat", repairs=("byte-order-mark",)),
    Bad(name="UTF-16", make=lambda: "a cat".encode("utf-16"), repairs=("utf-16",)),
]  # fmt: skip


def member(tar: tarfile.TarFile, name: str, content: bytes = b"", **header: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def tar_of(*members: tuple[str, bytes] | tuple[str, bytes, dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content, *header in members:
            member(tar, name, content, **(header[0] if header else {}))
    return stream.getvalue()


def pair(key: str) -> list[tuple[str, bytes]]:
    return [(f"{key}.png", encoded(noise())), (f"{key}.txt", b"a picture of noise")]


def _status(**columns: object) -> bytes:
    return json.dumps({"url": "https://example.org/a", **columns}).encode()


def _header(**header: object) -> bytes:
    """One header alone, as `tarfile` would never write it."""
    info = tarfile.TarInfo("a.png")
    for key, value in header.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def _long_name(size: int) -> bytes:
    return _header(type=tarfile.GNUTYPE_LONGNAME, size=size)


def _endless_sparse() -> bytes:
    holes = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member(tar, "a.png", b"9" * 512, pax_headers=holes)
    return stream.getvalue()


_LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
_HARD_LINK = {"type": tarfile.LNKTYPE, "linkname": "ok.png"}

TARS = [
    Bad(name="../ in a tar", make=lambda: tar_of(*pair("../a")), reason="ingest-path-outside"),
    Bad(name="absolute path in a tar", make=lambda: tar_of(*pair("/tmp/a")),  # noqa: S108
        reason="ingest-path-outside"),
    Bad(name="path that is not UTF-8 in a tar", make=lambda: tar_of(*pair("../\udcff")),
        reason="ingest-path-outside"),
    Bad(name="link in a tar", make=lambda: tar_of(("a.png", b"", _LINK), ("a.txt", b"a")),
        reason="ingest-tar-link"),
    Bad(name="hard link in a tar", make=lambda: tar_of(("a.png", b"", _HARD_LINK)),
        reason="ingest-tar-link"),
    Bad(name="device in a tar", make=lambda: tar_of(("a.png", b"", {"type": tarfile.CHRTYPE})),
        reason="ingest-tar-device"),
    Bad(name="duplicate keys", make=lambda: tar_of(*pair("ok"), *pair("b"), *pair("ok")),
        reason="ingest-duplicate-key"),
    Bad(name="files that are not adjacent", make=lambda: tar_of(
        pair("a")[0], *pair("b"), pair("a")[1]), reason="ingest-not-adjacent"),
    Bad(name="key with dots", make=lambda: tar_of(*pair("a.v1"), *pair("a.v2")),
        reason="ingest-dotted-key"),
    Bad(name="truncated tar", make=lambda: tar_of(*pair("a"), *pair("b"))[:-9_500],
        reason="ingest-tar-truncated"),
    Bad(name="damaged tar", make=lambda: tar_of(*pair("a"))[:-10_240] + b"x" * 10_240,
        reason="ingest-tar-damaged"),
    Bad(name="two tars joined by cat", make=lambda: tar_of(*pair("a")) + tar_of(*pair("b")),
        reason="ingest-tar-damaged"),
    Bad(name="empty file named .tar", make=lambda: b"", reason="ingest-tar-truncated"),
    Bad(name="empty .tar.gz", make=lambda: gzip.compress(b""), reason="ingest-tar-truncated"),
    Bad(name="HTML named .tar", make=lambda: b"<html>404</html>" * 100,
        reason="ingest-tar-damaged"),
    Bad(name="sparse file's header without an end", make=_endless_sparse,
        reason="ingest-tar-damaged"),
    Bad(name="long name of 2 GiB", make=lambda: _long_name(1 << 31), reason="ingest-tar-damaged"),
    Bad(name="negative size", make=lambda: _header(size=-4096), reason="ingest-tar-damaged"),
    Bad(name="a thousand long names in a row", make=lambda: _long_name(0) * 1500,
        reason="ingest-tar-damaged"),
    Bad(name="truncated .tar.gz", make=lambda: gzip.compress(tar_of(*pair("a")))[:1500],
        reason="ingest-tar-truncated"),
    Bad(name="damaged .tar.gz", make=lambda: gzip.compress(tar_of(*pair("a")))[:-8] + bytes(8),
        reason="ingest-tar-damaged"),
    Bad(name="zip named .tar", make=lambda: b"PK\x03\x04" + bytes(600),
        reason="ingest-tar-unsupported"),
    Bad(name=".tar.zst", make=lambda: b"\x28\xb5\x2f\xfd" + bytes(600),
        reason="ingest-tar-unsupported"),
    Bad(name="missing image", make=lambda: tar_of(("a.txt", b"a")), reason="ingest-no-image"),
    Bad(name="missing caption", make=lambda: tar_of(pair("a")[0]), reason="ingest-no-caption"),
    Bad(name="JSON that is none", make=lambda: tar_of(*pair("a"), ("a.json", b"{")),
        reason="ingest-metadata-malformed"),
    Bad(name="failed download", make=lambda: tar_of(
        *pair("a"), ("a.json", _status(status="failed_to_download", error_message="404"))),
        reason="ingest-download-failed"),
    Bad(name="opted out by X-Robots-Tag", make=lambda: tar_of(
        *pair("a"), ("a.json", _status(x_robots_tag="noai"))), reason="ingest-opted-out"),
]  # fmt: skip
