"""Reading one file of a source that may be missing, forbidden, endless or somewhere else.

What is the source's own fault becomes a `Problem`, which ends as a reject. What is the machine's
(a store that does not answer) is raised: a later try may succeed, and a reject would be for good.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.text_files import decode_text, undecodable

_MISSING = {
    errno.ENOENT: "there is no file {name}",
    errno.ENOTDIR: "there is no file {name}",
    errno.EISDIR: "{name} is a folder, not a file",
    errno.ENAMETOOLONG: "{name} is too long for a file's name",
    errno.EINVAL: "{name} cannot be a file's name",
}
_NUM_SHOWN = 200
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EIO}
_SPECIAL = {stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why something that a source lists cannot be given: a reject's reason code and detail."""

    reason: str
    detail: str


def problem_of(error: OSError | ValueError, path: Path) -> Problem:
    """The problem that an error on opening a file stands for.

    Raises:
        OSError: the same error, where it says nothing about the file.
    """
    name = plain(path.name)[:_NUM_SHOWN]
    if isinstance(error, ValueError):  # a NUL or a lone surrogate in the name
        error = OSError(errno.EINVAL, str(error))
    if error.errno == errno.ELOOP:
        return Problem(reason="ingest-symlink-loop", detail=f"{name} links to itself")
    if error.errno in _MISSING:
        detail = _MISSING[error.errno].format(name=name)
        if error.errno == errno.ENOENT and path.is_symlink():
            detail = f"{name} links to a file that is not there"
        return Problem(reason="ingest-image-missing", detail=detail)
    if error.errno in _FORBIDDEN:
        return Problem(reason="ingest-file-unreadable", detail=f"{name}: {error.strerror}")
    raise error


def read_file(path: Path, max_bytes: int) -> bytes | Problem:
    """The bytes of a file of at most `max_bytes`, or why there are none."""
    try:
        status = path.stat()
        if stat.S_IFMT(status.st_mode) in _SPECIAL:  # a pipe would be waited for without end
            detail = f"{plain(path.name)} is a pipe or a device, not a file"
            return Problem(reason="ingest-file-unreadable", detail=detail)
        if status.st_size > max_bytes:
            detail = f"{status.st_size} bytes, allowed are {max_bytes}"
            return Problem(reason="ingest-image-too-large", detail=detail)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        return problem_of(error, path)


def place_below(folder: Path, name: str) -> Path | Problem:
    """The path that `name` means inside `folder`; a name that leads out of it is a problem.

    A hostile table could otherwise take in any picture that this machine can read.
    """
    steps: list[str] = []
    way = PurePosixPath(name)
    if way.is_absolute():
        if not way.is_relative_to(folder.as_posix()):
            return Problem(reason="ingest-path-outside", detail=f"{plain(name)} is not below "
                           f"{plain(folder.as_posix())}")  # fmt: skip
        way = way.relative_to(folder.as_posix())
    for step in way.parts:
        if step != "..":
            steps.append(step)
        elif steps:
            steps.pop()
        else:
            return Problem(reason="ingest-path-outside", detail=f"{plain(name)} leads out of "
                           f"{plain(folder.as_posix())}")  # fmt: skip
    return folder.joinpath(*steps)


def as_text(value: str | bytes) -> str | bytes:
    """Text where it is plain UTF-8, else bytes for ingest to decode and to judge.

    Args:
        value: bytes, or a string that was decoded with `surrogateescape`.
    """
    if isinstance(value, str):
        return value if undecodable(value) is None else _as_bytes(value)
    decoded = decode_text(value)
    is_plain = not decoded.repairs and undecodable(decoded.text) is None
    return decoded.text if is_plain else value


def _as_bytes(text: str) -> str | bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # `\\ud800` spelled out in JSON: no bytes stand for it
        return text


def kind_of(value: object) -> str:
    """What a value of a row is, for messages."""
    return "null" if value is None else type(value).__name__


def plain(text: str) -> str:
    """The text with what UTF-8 cannot hold spelled out, fit for keys, tables and messages."""
    return text.encode("utf-8", "backslashreplace").decode()
