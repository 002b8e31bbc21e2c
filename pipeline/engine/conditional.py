"""Writes to an object on a store that happen only if nobody else has written there meanwhile.

S3: `If-None-Match` and `If-Match` on a put. Google Cloud Storage: `ifGenerationMatch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.engine.storage import on_store
from pipeline.errors import UserError

_TIMEOUT_S = 10.0
"""A lease lives for 35 s and its holder gives up after 24: a put that hangs ends in between."""
_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412"}
"""S3's codes for "it is not as you think"; `NoSuchKey`: it was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """An object's bytes, and what names that version of it."""

    content: bytes
    version: str


def read_version(path: Path) -> Versioned | None:
    """An object as it is now; None where there is none.

    The version is asked for first: where another writer comes in between, the content is newer than
    the version says, and a swap against that version is refused.
    """
    store, key = on_store(path)
    try:
        info = store.info(key, refresh=True)
        return Versioned(content=store.cat_file(key), version=_version(path, info))
    except FileNotFoundError:
        return None


def swap(path: Path, content: bytes, version: str | None) -> str | None:
    """Put an object if it has not changed.

    Args:
        path: the object, on `s3://` or `gs://`.
        content: its new bytes; they must differ from all that were ever there.
        version: the version that must be there; None: there must be no object.

    Returns:
        The new version; None where the object was another. That can be one's own: a first try whose
        answer got lost has done it, and the second was refused.
    """
    put = {"s3": _put_s3, "gs": _put_gs}[_kind(path)]
    return put(path, content, version)


def _put_s3(path: Path, content: bytes, version: str | None) -> str | None:
    from fsspec.asyn import sync

    store, key = on_store(path)
    bucket, name, _ = store.split_path(key)
    condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
    request = {"Bucket": bucket, "Key": name, "Body": content, **condition}
    try:
        reply = sync(store.loop, store._call_s3, "put_object", timeout=_TIMEOUT_S, **request)
    except OSError as error:
        answer = getattr(error.__cause__, "response", {})
        if answer.get("Error", {}).get("Code") in _REFUSED:
            return None
        raise
    return str(reply["ETag"])


def _put_gs(path: Path, content: bytes, version: str | None) -> str | None:
    from fsspec.asyn import sync
    from gcsfs.retry import HttpError

    store, key = on_store(path)
    bucket, name, _ = store.split_path(key)
    try:
        reply = sync(
            store.loop,
            store._call,
            "POST",
            f"{store._location}/upload/storage/v1/b/{quote(bucket)}/o",
            uploadType="media",
            name=name,
            ifGenerationMatch=version or 0,
            headers={"Content-Type": "application/json"},
            data=content,
            json_out=True,
            timeout=_TIMEOUT_S,
        )
    except (HttpError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) or str(error.code) in _REFUSED:
            return None
        raise
    return str(reply["generation"])


def _version(path: Path, info: dict[str, Any]) -> str:
    return str(info["ETag"] if _kind(path) == "s3" else info["generation"])


def _kind(path: Path) -> str:
    protocols = on_store(path)[0].protocol
    for kind in ("s3", "gs"):
        if kind in protocols:
            return kind
    raise UserError(f"{path}: a corpus cannot lie on {protocols}", "s3:// and gs:// are known.")
