import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import namedtuple

import psutil
import pytest

from pipeline.engine.conditional import read_version, swap
from pipeline.engine.lock import LOCK_FILE, LeaseTimes, holder_of, holding
from pipeline.errors import UserError

FAST = LeaseTimes(renew_every=0.05, give_up_after=5, expires_after=2, look_every=0.02)
ANOTHER = {
    "pid": 1, "host": "elsewhere", "machine": "m", "since": "then", "token": "t",
    "beat": 0, "is_free": False,
}  # fmt: skip


def test_a_local_corpus_is_held_once_and_is_free_afterwards(tmp_path):
    held = pytest.raises(UserError, match="being filled by process")
    with holding(tmp_path), held, holding(tmp_path):
        pass
    with holding(tmp_path):
        pass


def test_a_swap_succeeds_only_on_the_version_that_it_names(store):
    path = store.path("swap/object")
    first = swap(path, b"1", None)
    assert swap(path, b"2", None) is None
    second = swap(path, b"3", first)
    assert swap(path, b"4", first) is None
    assert read_version(path).content == b"3"
    assert read_version(path).version == second


def test_a_store_whose_locks_would_exclude_nobody_is_refused(store, fault):
    root = store.path("deaf")
    refused = pytest.raises(UserError, match=r"two runs could fill one corpus at once")
    with store.deaf(), refused, holding(root, FAST):
        pass
    with holding(root, FAST):  # the refusal has left no lease
        pass
    fault(
        "the object store ignores conditions on writes (If-None-Match)",
        "exit code 2: s3://BUCKET/CORPUS: this store replaces an object even if it is told not "
        "to, so that two runs could fill one corpus at once",
    )


@pytest.mark.parametrize(
    ("mount", "is_told"),
    [
        (("nfs4", "rw,vers=4.2,local_lock=none"), False),
        (("nfs", "rw,vers=3,nolock,local_lock=all"), True),
        (("fuse.sshfs", "rw"), True),
        (("lustre", "rw,localflock"), True),
        (("ext4", "rw,relatime"), False),
    ],
)
def test_a_folder_whose_locks_other_machines_may_not_see_is_told(
    tmp_path, monkeypatch, caplog, mount, is_told
):
    found = namedtuple("Mount", "mountpoint fstype opts")(str(tmp_path), *mount)
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [found])
    with holding(tmp_path / "corpus"):
        assert ("one machine at a time" in caplog.text) == is_told


def test_a_lease_that_is_renewed_keeps_others_out(store):
    root = store.path("renewed")
    held = pytest.raises(UserError, match="being filled by process")
    with holding(root, FAST), held as raised, holding(root, FAST):
        pass
    assert raised.value.exit_code == 2
    with holding(root, FAST):
        pass


def test_a_silent_lease_of_another_machine_is_taken_over(store):
    root = store.path("silent")
    (root / LOCK_FILE).write_bytes(json.dumps(ANOTHER).encode())
    with holding(root, FAST):
        assert f" on {socket.gethostname()} since " in (holder_of(root) or "")


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?"])
def test_a_name_that_is_a_pattern_is_refused_on_a_store(store, tmp_path, name):
    with pytest.raises(UserError, match="has no"), holding(store.path(name)):
        pass
    with holding(tmp_path / name):
        pass


def test_the_lease_of_a_process_that_was_killed_is_free_at_once(store):
    """Even before its parent has asked for its end, and one that dies while it is waited for."""
    root = store.path("killed")
    code = (
        "import sys, time\n"
        "from pipeline.engine.lock import LeaseTimes, holding\n"
        "from pipeline.engine.storage import to_path\n"
        "with holding(to_path(sys.argv[1]), LeaseTimes(renew_every=1000)):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(1000)\n"
    )
    never = LeaseTimes(expires_after=1000, look_every=0.02)
    for waits in (False, True):
        command = [sys.executable, "-c", code, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"held\n"
            death = threading.Timer(0.5 if waits else 0, holder.kill)
            death.start()
            if not waits:
                death.join()
            with holding(root, never):  # the process is still a zombie
                assert json.loads((root / LOCK_FILE).read_bytes())["pid"] == os.getpid()


def test_a_holder_whose_lease_was_taken_is_interrupted_and_says_so(store, request):
    # What a shell starts in the background ignores SIGINT, until it says otherwise as commands do.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    root = store.path("taken")
    with pytest.raises(UserError, match="another run has taken the lease"), holding(root, FAST):
        (root / LOCK_FILE).write_bytes(json.dumps(ANOTHER).encode())
        threading.Event().wait(30)
    assert json.loads((root / LOCK_FILE).read_bytes())["host"] == "elsewhere"
