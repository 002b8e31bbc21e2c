"""Files that appear whole or not at all, in a local folder or on an object store.

Locally a commit writes to a temporary name beside its target, flushes it to the disk, renames or
links it and flushes the folder. On a store (`s3://`, `gs://`) it puts a local temporary file under
its final key, where a large one appears when all of it has been sent. A reader therefore sees the
old content or the new, never a part of either.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from pipeline.errors import UserError

TEMPORARY_SUFFIX = ".tmp"
_TEMPORARY_NAME = re.compile(
    rf"(?<![^/])\.([^/]+)\.[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)}(?![^/])"
)

_NUM_TRIES = 100
"""How often a folder that another process keeps replacing is replaced."""
_NUM_COPIES = 32  # files that a store copies at a time
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems without hard links say (FAT, some network and user-space ones)."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Which extra of the package brings the library of a store."""


def to_path(text: str | os.PathLike[str]) -> Path:
    """The path that a text names: local, or on a store where it starts with `scheme://`.

    A path on a store has the methods of `pathlib.Path` (universal_pathlib's `UPath`), and `str`
    gives its URL back. Directory listings are not cached: other processes write there, too.

    Raises:
        UserError: when this machine has no library for the store.
    """
    if not isinstance(text, str) or "://" not in text:
        return Path(text) if isinstance(text, str) else cast("Path", text)
    scheme = text.partition("://")[0]
    if scheme == "file":
        return Path(unquote(urlsplit(text).path))
    import fsspec
    from upath import UPath

    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError as error:
        message = f"{text}: there is no kind of store called {scheme!r}"
        raise UserError(message, "s3:// and gs:// are known, and local folders.") from error
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        hint = f"pip install 'anymix[{extra}]'" if extra else str(error)
        raise UserError(f"{text}: the library for {scheme}:// is not installed", hint) from error
    return cast("Path", UPath(text, use_listings_cache=False))


def is_local(path: Path) -> bool:
    """Whether a path is in this machine's file system."""
    return isinstance(path, Path)


def on_store(path: Path) -> tuple[Any, str]:
    """The fsspec filesystem of a path on a store, and the path as that filesystem knows it."""
    there: Any = path
    return there.fs, there.path


def temporary_beside(path: Path) -> Path:
    """A name that nobody else has, for what is to take the place of `path`.

    Drawn by chance: writers in two containers that share a folder can have the same process id.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def without_temporary_name(text: str) -> str:
    """A path whose temporary part, if it has one, is called what it is to become."""
    return _TEMPORARY_NAME.sub(r"\1", text)


@contextmanager
def committing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it becomes `path` when the block ends well."""
    with _temporary_for(path) as temporary:
        yield temporary
        if is_local(path):
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
        else:
            _put(temporary, path)


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """As `committing`, but what is there already stays: of several writers the first one wins.

    A node that Ray has given up may go on writing; whoever has read a file must find it as it was.
    """
    with _temporary_for(path) as temporary:
        yield temporary
        if is_local(path):
            flush(temporary)
            _link(temporary, path)
            flush(path.parent)
            return
        try:
            _put(temporary, path, mode="create")
        except Exception as error:
            if not _says_exists(error):
                raise


@contextmanager
def _temporary_for(path: Path) -> Iterator[Path]:
    if not is_local(path):
        with tempfile.TemporaryDirectory(prefix="anymix-") as folder:
            yield Path(folder) / path.name
        return
    _make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name if nobody has it; both are one file until the temporary name goes."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno in _NO_LINKS and not path.exists():
            temporary.replace(path)
        elif error.errno not in {errno.EEXIST, *_NO_LINKS}:
            raise


def _says_exists(error: Exception) -> bool:
    """Whether a store refused to create an object because there is one, in any of their words."""
    told = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
    code = str(told or getattr(error, "code", ""))
    return isinstance(error, FileExistsError) or code in {"PreconditionFailed", "412"}


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a power cut does not take them away again."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        with suppress(PermissionError):  # a folder that one may write to and not read
            flush(folder.parent)


@contextmanager
def committing_folder(folder: Path, *, last: str | None = None) -> Iterator[Path]:
    """Yield an empty local folder to fill; it takes the place of `folder` when the block ends well.

    Args:
        folder: where the files are to lie.
        last: name of the file that says that the others are there; a store gets it last. A folder
            that has it stays as it is: of several writers the first one wins.
    """
    if not is_local(folder):
        with tempfile.TemporaryDirectory(prefix="anymix-") as made:
            yield Path(made)
            _put_folder(Path(made), folder, last)
        return
    _make_folder(folder.parent)
    temporary = temporary_beside(folder)
    temporary.mkdir()
    try:
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            flush(path)
        if last is None or not (folder / last).exists():
            _take_place(temporary, folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, folder: Path) -> None:
    """Put a folder where another may be; whoever comes last of several processes stays."""
    for tries_left in reversed(range(_NUM_TRIES)):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            temporary.replace(folder)
            return
        except OSError as error:  # somebody else's has come between the two
            if error.errno != errno.ENOTEMPTY or not tries_left:
                raise


def with_listings(files: Sequence[Path]) -> Any:  # noqa: ANN401 - an fsspec filesystem
    """The filesystem of some files on a store, which knows their sizes from a listing made now.

    DuckDB asks a dozen times for each file of a view whether it is there, its size and its time; a
    listing answers that for a thousand files at once. What is listed must not change while it is
    read, which is true of committed files.
    """
    from upath import UPath

    store, _ = on_store(cast("Path", UPath(str(files[0]), use_listings_cache=True)))
    for folder in {file.parent for file in files}:
        store.ls(on_store(folder)[1], refresh=True)
    return store


def names_in(folder: Path) -> set[str]:
    """Names of what is in a folder, none where there is no folder; one request to a store."""
    if is_local(folder):
        with suppress(FileNotFoundError):
            return {entry.name for entry in os.scandir(folder)}
        return set()
    store, root = on_store(folder)
    try:
        found = store.ls(root, detail=False)
    except FileNotFoundError:
        return set()
    return {name.rstrip("/").rpartition("/")[2] for name in found} - {folder.name}


def files_by_folder(parent: Path, folders: Iterable[str]) -> dict[str, set[str]]:
    """Names of the files in some folders of a folder.

    A store answers a thousand names a request, so there it is one listing of them all: a table has
    as many folders as its parts have fingerprints.
    """
    if is_local(parent):
        return {name: names_in(parent / name) for name in folders}
    found: dict[str, set[str]] = {name: set() for name in folders}
    store, root = on_store(parent)
    for path in store.find(root):
        folder, _, name = path.removeprefix(root).lstrip("/").partition("/")
        if folder in found:
            found[folder].add(name)
    return found


def sizes_below(folder: Path) -> dict[str, int]:
    """The sizes of all files below a folder, by their path from there; one listing of a store."""
    if is_local(folder):
        found = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
    store, root = on_store(folder)
    listed = store.find(root, detail=True)
    return {name.removeprefix(root).lstrip("/"): info["size"] for name, info in listed.items()}


def commit_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as one commit."""
    with committing(path) as temporary:
        temporary.write_bytes(content)


def commit_text(path: Path, text: str) -> None:
    """Write `text` to `path` as one commit, in UTF-8."""
    commit_bytes(path, text.encode())


def commit_json(path: Path, value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Write `value` to `path` as indented JSON, as one commit."""
    commit_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can say
    """The value that a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file, none where it is missing.

    A line that a crash or a full disk cut short is left out, and with it what was appended to it.
    """
    if not path.exists():
        return []
    values = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        with suppress(ValueError):
            values.append(json.loads(line))
    return values


def move(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Give files new names, whatever had those before; what is not there was moved before.

    A store cannot rename: it copies, many files at a time.
    """
    if pairs and not is_local(pairs[0][0]):
        with ThreadPoolExecutor(_NUM_COPIES) as pool:
            list(pool.map(_move_on_store, *zip(*pairs, strict=True)))
        return
    for source, target in pairs:
        with suppress(FileNotFoundError):
            source.replace(target)
    for folder in {target.parent for _, target in pairs}:
        flush(folder)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that it holds; nothing where there is nothing."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif isinstance(path, Path):
        shutil.rmtree(path)
    else:
        path.rmdir(recursive=True)  # of a store


def flush(path: Path) -> None:
    """Force a file's or a folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(file: Path, path: Path, **how: str) -> None:
    store, target = on_store(path)
    store.put_file(str(file), target, **how)


def _move_on_store(source: Path, target: Path) -> None:
    store, key = on_store(source)
    with suppress(FileNotFoundError):
        store.cp_file(key, on_store(target)[1])
        store.rm_file(key)


def _put_folder(filled: Path, folder: Path, last: str | None) -> None:
    store, root = on_store(folder)
    names = {file.relative_to(filled).as_posix() for file in filled.rglob("*") if file.is_file()}
    there = {path.removeprefix(root).lstrip("/") for path in store.find(root)}
    if last in there:
        return
    for name in sorted(there - names):
        store.rm_file(f"{root}/{name}")
    for name in sorted(names, key=lambda name: (name == last, name)):
        _put(filled / name, folder / name)
