"""One run at a time on a corpus: who fills it holds it, and a dead holder's lock is free.

In a local folder this is `flock`, which ends with the process, however it ends. On a store it is a
lease: an object that its holder puts anew every few seconds, each time only if nobody else has
touched it. How long a lease has been silent is measured by who waits for it, on its own monotonic
clock, so that no jump of a clock and no difference between two machines' clocks matters.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from pipeline.engine.conditional import Versioned, read_version, swap
from pipeline.engine.storage import is_local
from pipeline.errors import FAILED, LeaseLostError, UserError

LOCK_FILE = ".lock"
_PATTERN = set("*?[")
_NO_VERSION = "0"
"""No object's version, neither an ETag of S3 nor a generation of GCS that is there."""
_PRIVATE_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
"""Mount options of NFS and Lustre with which `flock` holds on one machine only."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How a lease on a store is kept alive, in seconds.

    Attributes:
        renew_every: pause between two renewals.
        give_up_after: without a renewal for so long, the holder stops.
        expires_after: unchanged for so long, a lease is dead. More than `give_up_after`, so that a
            holder who cannot reach the store has stopped before another one starts.
        look_every: pause between two looks at another's lease.
    """

    renew_every: float = 10
    give_up_after: float = 24
    expires_after: float = 35
    look_every: float = 2


@contextmanager
def holding(
    root: Path, times: LeaseTimes | None = None, *, is_being: str = "filled"
) -> Iterator[None]:
    """Hold a corpus, or the local folder of a training, against a second run while the block runs.

    Args:
        root: the folder; made where it is missing.
        times: how a lease is kept alive; the defaults are right but for tests.
        is_being: what the holder does with it, as another one is told.

    Raises:
        UserError: when another run holds the corpus; on a store also when the lease is lost while
            the block runs, which is then interrupted, and when the name is a pattern.
    """
    if is_local(root):
        with _flock(root, is_being):
            yield
        return
    if _PATTERN.intersection(str(root)):
        # fsspec would take the whole path for a pattern, and find none of the corpus's files.
        raise UserError(f"{root}: the name of a corpus on a store has no *, ? or [", "Rename it.")
    lease = _Lease(root / LOCK_FILE, times or LeaseTimes())
    lease.acquire()
    try:
        yield
    except BaseException:
        if not lease.lost:
            raise
    finally:
        lease.release()
    if lease.lost:
        raise LeaseLostError(
            f"{root}: {lease.lost}, so this run has stopped",
            "What is committed stays. Look whether another run is under way.",
            exit_code=FAILED,
        )


def holder_of(root: Path) -> str | None:
    """Who holds a corpus at this moment, as its lock says; None when nobody does."""
    path = root / LOCK_FILE
    if not is_local(root):
        # Not opened as a file: s3fs refuses to read one that is renewed between its two requests.
        now = read_version(path)
        holder = json.loads(now.content) if now else {"is_free": True}
        return None if holder["is_free"] or _is_dead(holder) else _describe(holder)
    if not path.exists():
        return None
    with path.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip() or "another process"
    return None


@contextmanager
def _flock(root: Path, is_being: str) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise _is_held(root, holder, is_being) from None
        except OSError as error:
            message = f"{root}: its file system has no locks ({error.strerror})"
            raise UserError(message, "Mount it with locks, or use another folder.") from error
        if why := _is_private(root):
            logger.warning("%s", why)
        lock.truncate(0)
        lock.write(_describe(_this_process()))
        lock.flush()
        yield


def _is_private(root: Path) -> str:
    """Why other machines may not see a local lock, as far as the mount says; empty otherwise."""
    above = [root, *root.parents]
    mounts = {Path(each.mountpoint): each for each in psutil.disk_partitions(all=True)}
    mount = next((mounts[folder] for folder in above if folder in mounts), None)
    if mount is None:
        return ""
    is_private = mount.fstype.startswith("fuse") or _PRIVATE_LOCKS & set(mount.opts.split(","))
    told = f"{root} is on {mount.fstype}, whose locks other machines may not see"
    return f"{told}: fill it from one machine at a time" if is_private else ""


class _Lease:
    """The lease object of a corpus on a store."""

    def __init__(self, path: Path, times: LeaseTimes) -> None:
        self._path = path
        self._times = times
        # The token makes each lease's bytes, and with them its version, unlike any other's.
        self._holder = _this_process() | {"token": secrets.token_hex(8)}
        self._beat = 0
        self._version = ""
        self._is_main = threading.current_thread() is threading.main_thread()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.lost = ""
        """Why the lease is not ours any more; empty while it is."""

    def acquire(self) -> None:
        """Take the lease, once it is free or its holder has proved to be dead.

        Raises:
            UserError: when its holder lives.
        """
        while not self._take():
            pass
        self._probe()
        self._thread.start()

    def _probe(self) -> None:
        """See that the store refuses what it should: a lease on another one excludes nobody.

        Raises:
            UserError: when it does not.
        """
        for version in (None, _NO_VERSION):
            if swap(self._path, self._content(), version) is not None:
                self._path.unlink()
                message = (
                    f"{self._path.parent}: this store replaces an object even if it is told not to "
                    "(If-None-Match, If-Match), so that two runs could fill one corpus at once"
                )
                hint = "Use a store with conditional writes (S3, GCS, a new MinIO), or a folder."
                raise UserError(message, hint)

    def release(self) -> None:
        """Say that the lease is free, if it is still ours."""
        self._stopped.set()
        self._thread.join()
        if not self.lost:
            try:
                swap(self._path, self._content(is_free=True), self._version)
            except Exception as error:  # noqa: BLE001 - whatever a store's library raises; it will expire
                logger.warning("%s was not released: %s", self._path, error)

    def _take(self) -> bool:
        """Try once to take the lease; False where another was faster."""
        found = read_version(self._path)
        if found is not None:
            holder = json.loads(found.content)
            if not holder["is_free"] and not _is_dead(holder):
                self._wait_for_death(found, holder)
        return self._put(found.version if found else None)

    def _put(self, version: str | None) -> bool:
        """Put the lease in the place of a version; False where another was faster."""
        given = swap(self._path, self._content(), version)
        if given is None:
            # Refused, but perhaps because of a try of our own that took longer than we waited.
            now = read_version(self._path)
            if now is not None and json.loads(now.content)["token"] == self._holder["token"]:
                given = now.version
        self._version = given or self._version
        return given is not None

    def _wait_for_death(self, found: Versioned, holder: Mapping[str, Any]) -> None:
        """Return when the lease has not changed for long enough.

        Raises:
            UserError: when it is renewed: its holder lives.
        """
        corpus, wait_s = self._path.parent, self._times.expires_after
        logger.warning(
            "%s is held by %s; waiting up to %g s for a sign of life",
            corpus,
            _describe(holder),
            wait_s,
        )
        since = time.monotonic()
        while time.monotonic() - since < wait_s:
            time.sleep(self._times.look_every)
            now = read_version(self._path)
            if now is None or json.loads(now.content)["is_free"] or _is_dead(holder):
                return
            if now.version != found.version:
                raise _is_held(corpus, _describe(json.loads(now.content)), "filled")

    def _keep(self) -> None:
        """Renew the lease until it is released or lost."""
        renewed, pause = time.monotonic(), self._times.renew_every
        while not self._stopped.wait(pause):
            self._beat += 1
            asked = time.monotonic()
            try:
                is_ours = self._put(self._version)
            except Exception as error:  # noqa: BLE001 - whatever a store's library raises
                if time.monotonic() - renewed > self._times.give_up_after:
                    self._lose(f"the lease could not be renewed ({error})")
                    return
                pause = self._times.renew_every / 5
                continue
            if not is_ours:
                self._lose("another run has taken the lease")
                return
            renewed, pause = asked, self._times.renew_every

    def _lose(self, why: str) -> None:
        self.lost = why
        if self._is_main:  # a real signal, so that a wait ends, too
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _content(self, *, is_free: bool = False) -> bytes:
        return json.dumps(self._holder | {"beat": self._beat, "is_free": is_free}).encode()


def _this_process() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "since": now}


def _machine() -> str:
    """Names the machine, its start and the process namespace; empty where they are not known.

    Only inside the same can it be seen whether a process still runs: containers may share a name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_dead(holder: Mapping[str, Any]) -> bool:
    """Whether the holder is known to run no more; False where that cannot be seen from here."""
    if not holder["machine"] == _machine() != "":
        return False
    try:
        # One that was killed keeps its number until its parent asks for its end.
        status: str = psutil.Process(holder["pid"]).status()
    except psutil.NoSuchProcess:
        return True
    return status == psutil.STATUS_ZOMBIE


def _describe(holder: Mapping[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"


def _is_held(root: Path, holder: str, is_being: str) -> UserError:
    return UserError(f"{root} is being {is_being} by {holder}", "Wait for it, or stop it first.")
