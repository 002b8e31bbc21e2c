"""Codes that a corpus holds already, of the same image by the same tokenizer.

A part is done anew when anything of it changes: a caption in its file, a line of the recipe's
`ingest`. Its images are mostly the same then. Their codes lie in files of `tokens` that are no
longer live: those of the same part from an earlier recipe, or those of parts that have gone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.parts import read_parts
from pipeline.engine.stage import Row
from pipeline.engine.storage import files_by_folder, names_in
from pipeline.engine.tables import DamagedFile, read_table
from pipeline.engine.token_schemas import TOKENS

logger = logging.getLogger(__name__)


class EarlierCodes:
    """Rows of `tokens` by image, from the files that lay in a corpus when this was made."""

    def __init__(self, root: Path, tokenizer: str) -> None:
        """List the files, and open none.

        Args:
            root: the corpus's folder.
            tokenizer: whose codes are wanted, as the column `tokenizer` has it.
        """
        self._tokenizer = tokenizer
        self._of_part: dict[str, list[Path]] = defaultdict(list)
        self._gone: list[Path] = []
        live = {part.name for part in read_parts(root)}
        folder = root / "tables" / "tokens"
        for print_, names in sorted(files_by_folder(folder, names_in(folder)).items()):
            for name in sorted(names):
                path = folder / print_ / name
                if path.suffix != ".parquet":
                    continue
                if path.stem in live:
                    self._of_part[path.stem].append(path)
                else:
                    self._gone.append(path)

    def find(self, part: str, image_ids: Collection[str]) -> dict[str, list[Row]]:
        """The rows of those images of a part that have codes, by image."""
        found = self._read(self._of_part.get(part, ()), image_ids)
        missing = [image_id for image_id in image_ids if image_id not in found]
        if missing and self._gone:
            keys, files = self._keys_of_gone
            wanted = _keys(missing)
            places = np.searchsorted(keys, wanted)
            places = places[np.append(keys, 0)[places] == wanted]
            chosen = [self._gone[number] for number in np.unique(files[places]).tolist()]
            found |= self._read(chosen, missing)
        return found

    @cached_property
    def _keys_of_gone(self) -> tuple[np.ndarray, np.ndarray]:
        """In order, the keys of the images in the files of parts that have gone, and each's file.

        Keys and no ids: a worker then holds 12 bytes an image instead of 70.
        """
        columns = ["image_id", "tokenizer"]
        held = [
            _keys(self._rows(path, columns)["image_id"].unique().to_pylist()) for path in self._gone
        ]
        files = np.repeat(np.arange(len(held), dtype=np.int32), [len(each) for each in held])
        keys = np.concatenate(held)
        order = np.argsort(keys, kind="stable")
        return keys[order], files[order]

    def _read(self, paths: Iterable[Path], image_ids: Collection[str]) -> dict[str, list[Row]]:
        wanted = pa.array(image_ids, pa.string())
        found: dict[str, list[Row]] = {}
        for path in paths:
            rows = self._rows(path).filter(pc.field("image_id").isin(wanted)).to_pylist()
            # The rows of an image follow one another.
            found |= {name: list(own) for name, own in groupby(rows, itemgetter("image_id"))}
        return found

    def _rows(self, path: Path, columns: Collection[str] = TOKENS.names) -> pa.Table:
        """The rows of a file that are of the tokenizer; none where they cannot be read."""
        try:
            table = read_table(path, list(columns))
        except DamagedFile as error:
            logger.warning("its images are encoded again: %s", error.message)
            return TOKENS.empty_table()
        if "tokenizer" not in table.column_names:  # of an earlier version
            return TOKENS.empty_table()
        return table.filter(pc.field("tokenizer") == self._tokenizer)


def _keys(image_ids: list[str]) -> np.ndarray:
    """(n,) uint64 of the first 16 characters; of two equal ones only the first is found."""
    halves = np.array(image_ids, "S16").view(np.uint64).reshape(-1, 2)
    return halves[:, 0] * np.uint64(0x9E37_79B9_7F4A_7C15) ^ halves[:, 1]  # Fibonacci hashing
