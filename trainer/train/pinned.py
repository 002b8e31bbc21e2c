"""The generation of shards that a run is trained on, kept while the corpus moves on.

A nightly run may replace shards under the names that a training of days still reads. So a run links
the shards that it starts on into its own folder: hard links take no room, and a corpus writes new
files instead of changing old ones.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from pipeline.engine.corpus import MANIFEST_FILE
from pipeline.engine.storage import commit_json, committing_folder, is_local
from tokenizer_cache.manifest import VOCABULARY, Manifest, find_manifest, index_name, open_manifest

PINNED = "shards"
"""The folder of a run with its links."""
_CANNOT_BE_LINKED = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}
"""Linux forbids links to files that one may not write (`fs.protected_hardlinks`)."""


def pinned_manifest(run: Path) -> Manifest | None:
    """The shards that a run has pinned; None where it has none."""
    return find_manifest(run / PINNED)


def pin_shards(manifest: Manifest, run: Path) -> Manifest:
    """Link a corpus's shards into a run's folder.

    On a store, on another file system, and where the shards are somebody else's, nothing can be
    linked: the run then reads the corpus's own shards, and stops with an error when one of them has
    been replaced.

    Returns:
        The manifest of the links, or the one given where there are none.
    """
    release_shards(run)
    if not is_local(manifest.folder):
        return manifest
    try:
        with committing_folder(run / PINNED) as temporary:
            for shard in manifest.shards:
                for name in (shard.file, index_name(shard.file)):
                    os.link(manifest.folder / name, temporary / name)
            shutil.copy(manifest.folder / VOCABULARY, temporary / VOCABULARY)
            commit_json(temporary / MANIFEST_FILE, manifest.to_json())
    except OSError as error:
        if error.errno not in _CANNOT_BE_LINKED:
            raise
        return manifest
    return open_manifest(run / PINNED)


def release_shards(run: Path) -> None:
    """Remove a run's links."""
    shutil.rmtree(run / PINNED, ignore_errors=True)
