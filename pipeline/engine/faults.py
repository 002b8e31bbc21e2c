"""What a disk or a store that fails means to a person: one place that says it in words.

A store's library raises errors of its own, and Ray wraps what a worker raised; so an error is
searched along its causes for the one that tells.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.engine.storage import without_temporary_name
from pipeline.engine.tables import DamagedFile
from pipeline.errors import FAILED, WRONG, UserError

_GO_ON = "What is committed stays; run the same command again."
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PASSING = {
    *(errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOTCONN),
    errno.EREMOTEIO if hasattr(errno, "EREMOTEIO") else errno.EIO,  # s3fs: the store's own fault
}
_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_ROOT = str(Path(__file__).parents[2])
_OWN = ("pipeline", "filters", "tokenizer_cache", "trainer", "jobs")
_STORE_LIBRARIES = ("botocore", "aiobotocore", "s3fs", "gcsfs", "aiohttp", "google")


def as_user_error(error: BaseException, arguments: Sequence[str] = ()) -> UserError | None:
    """What a person can do about an error of the disk or the store; None for any other error.

    Args:
        error: what was raised.
        arguments: of the command; a store's errors rarely say where they happened.
    """
    store = next((word for word in arguments if "://" in word), "")
    for each in _causes(error):
        if isinstance(each, UserError):
            return each
        found = _of_store(each, store) or _of_disk(each) or _of_damage(each)
        if found is not None:
            return found
    return None


def may_pass(error: BaseException) -> bool:
    """Whether an error of the disk or the store may be over in a moment; a full disk is not."""
    for each in _causes(error):
        if isinstance(each, TimeoutError | ConnectionError):
            return True
        if isinstance(each, OSError) and each.errno is not None:
            return each.errno in _PASSING
        found = _of_store(each, "")
        if found is not None:
            return found.exit_code == FAILED
    return False


def brief(text: str) -> str:
    """A traceback in a line: what was raised, its message, and where in our code.

    Args:
        text: a traceback as Python or Ray writes it, or any other text, which comes back as it is.
    """
    before, frame, rest = text.rpartition('  File "')
    if not frame:
        return text
    behind = [line for line in rest.splitlines()[1:] if not line.startswith("    ")]
    said = " ".join(" ".join(behind).split()) or "an error without words"
    own = [
        f"{match['file']}:{match['line']}"
        for match in _FRAME.finditer(text)
        if match["file"].startswith(tuple(f"{_ROOT}/{name}/" for name in _OWN))
    ]
    opening = before.partition("Traceback (most recent")[0]
    opening = "" if "ray::" in opening else opening  # where it ran, in Ray's words
    return f"{opening}{said}" + (f" ({own[-1]})" if own else "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from; Ray keeps a worker's error in `cause`."""
    seen: list[BaseException] = []
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            ahead += [getattr(each, "cause", None), each.__cause__]
    # Ray's own errors of the type of their cause come first and say less than it.
    return iter(sorted(seen, key=lambda each: type(each).__module__.startswith("ray.")))


def _of_store(error: BaseException, store: str) -> UserError | None:
    cause = error.__cause__
    is_remote = any(
        type(each).__module__.partition(".")[0] in _STORE_LIBRARIES for each in (error, cause)
    )
    if not is_remote and not (isinstance(error, TimeoutError) and store):
        return None
    where = store or "the store"
    said = " ".join((str(error) or type(error).__name__).split())
    code = getattr(cause, "response", {}).get("Error", {}).get("Code", "")
    if code in ("NoSuchBucket", "404") or "bucket does not exist" in said:
        bucket = "/".join(where.split("/")[:3])
        return UserError(f"{bucket}: there is no such bucket", "Make it, or correct the URL.")
    if isinstance(error, PermissionError) or "redentials" in said:
        hint = "Check the credentials, and that they may list, read and write there."
        return UserError(f"{where}: access was refused: {said}", hint)
    told = f"{code}: {said}" if code and code not in said else said
    return UserError(f"{where}: the store failed: {told}", _GO_ON, exit_code=FAILED)


def _of_disk(error: BaseException) -> UserError | None:
    if os.strerror(errno.ENOSPC) in str(error) and not isinstance(error, OSError):
        # safetensors and DuckDB raise types of their own.
        return UserError(f"the disk is full: {error}", f"Make room. {_GO_ON}", exit_code=FAILED)
    if not isinstance(error, OSError) or error.errno is None:
        return None
    # People know the file that is to be written, and not where it is until it is whole.
    where = without_temporary_name(str(error.filename or "a file"))
    if error.errno in _FULL:
        message = f"{where} cannot be written: the disk is full ({error.strerror})"
        return UserError(message, f"Make room. {_GO_ON}", exit_code=FAILED)
    if error.errno == errno.EROFS:
        return UserError(f"{where} cannot be written: its file system is read-only")
    if isinstance(error, PermissionError):
        return UserError(f"{where}: permission denied", "Check whose folder it is.")
    hint = _GO_ON if error.errno in (errno.EIO, errno.ESTALE) else ""
    exit_code = FAILED if hint else WRONG
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        hint = "A file stands where a folder is wanted; name another place."
    return UserError(f"{where}: {error.strerror or error}", hint, exit_code=exit_code)


def _of_damage(error: BaseException) -> UserError | None:
    """DuckDB's and Arrow's words for a Parquet file that is not as it was written."""
    if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
        return None
    file = re.search(r"['\"]([^'\"]+\.parquet)['\"]", str(error))
    if file:
        return DamagedFile(file[1], str(error).splitlines()[0])
    if re.search(r"TProtocol|ZSTD|[Dd]ecompress|[Cc]orrupt|magic bytes", str(error)):
        return DamagedFile("a table of the corpus", str(error).splitlines()[0])
    return None
