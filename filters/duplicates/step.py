"""The copies in a corpus, from equal bytes to pictures that show the same, and which one stays.

The records are put in an order first: the preferred licence, more pixels, the better caption, and
at last the id, so that no two are equal and the order of the parts decides nothing. Then each kind
of copy is looked for among the records that are left, the strictest kind first, and a record leaves
for one before it. So every link is a distance that was measured, and long chains of pictures that
change a little each cannot form. Where a record that others have left for leaves for another one,
they are copies of that one by the last link's method and distance.

A copy of a picture in an evaluation set leaves before all, together with its exact copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from filters.duplicates.evaluation import EVALUATION, PICTURES_FILE
from filters.duplicates.links import EXACT, METHODS, Links
from filters.duplicates.neighbours import copies_among, copies_of
from filters.duplicates.settings import DuplicateSettings
from filters.perceptual import MIRRORED, perceptual_vectors
from pipeline.engine.schemas import ORIGINAL
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import connect, read_table

_ROWS_PER_BATCH = 10_000
_TEXT = "if(coalesce(image_id, sound_id) IS NULL, 'text:' || md5(caption), NULL)"
"""Only a text that has nothing beside it is what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Pictures that are near one another by one kind of vector.

    Attributes:
        method: the kind's name.
        column: of `pictures`.
        radius: the largest distance of a copy.
        mirrored: how many of a vector's columns a mirror turns: the last ones.
        vectors: from values of the column to unit vectors.
    """

    method: str
    column: str
    radius: float
    mirrored: int
    vectors: Callable[[pa.Array], np.ndarray]


def find_duplicates(settings: DuplicateSettings, inputs: FitInputs) -> DuckDBPyRelation:
    """The rows of `duplicates`, and the `part` of each."""
    connection = connect(inputs.tables)
    _put_in_order(connection, settings)
    links = _exact_links(connection)
    levels = [(level, *_read(connection, level)) for level in _levels(settings)]
    names = pa.array([], pa.string())
    if settings.against:
        pictures = read_table(inputs.models[EVALUATION] / PICTURES_FILE)
        names = pictures["item"].combine_chunks()
        _leave_for_equals(connection, pictures, links)
        for level, places, vectors in levels:
            _leave_for_evaluation(level, places, vectors, pictures, links)
    for level, places, vectors in levels:
        _leave_for_one_another(level, places, vectors, links)
    return _rows(connection, links, names)


def _put_in_order(connection: DuckDBPyConnection, settings: DuplicateSettings) -> None:
    """Make `ordered`: each record's place, and the first place of its exact copies."""
    preferred = settings.prefer_licences
    schema = pa.schema({"licence": pa.string(), "preference": pa.int64()})
    connection.register("licences", pa.table([preferred, range(len(preferred))], schema=schema))
    contents = [
        *(["'pixels:' || pixel_hash"] if settings.pixels else []),
        *(["'bytes:' || image_id", "'sound:' || sound_id"] if settings.bytes else []),
        *([_TEXT] if settings.texts else []),
        "'record:' || record_id",
    ]
    connection.execute(
        f"""
        CREATE TABLE ordered AS
        WITH captions AS (
            SELECT record_id, max(clip_score) AS clip_score
            FROM scores WHERE kind = '{ORIGINAL}' GROUP BY record_id
        ), described AS (
            SELECT records.part, record_id, records.image_id, clip_score,
                coalesce(preference, {len(preferred)}) AS preference,
                width::BIGINT * height AS num_pixels,
                coalesce({", ".join(contents)}) AS content
            FROM records LEFT JOIN (SELECT record_id, pixel_hash FROM pictures) USING (record_id)
            LEFT JOIN captions USING (record_id) LEFT JOIN licences USING (licence)
        ), placed AS (
            SELECT *, row_number() OVER (
                ORDER BY preference, num_pixels DESC, clip_score DESC NULLS LAST, record_id
            ) - 1 AS place FROM described
        )
        SELECT * EXCLUDE (content), split_part(content, ':', 1) AS kind,
            first_value(place) OVER same AS first, first_value(image_id) OVER same AS first_image
        FROM placed WINDOW same AS (PARTITION BY content ORDER BY place)
        """
    )


def _exact_links(connection: DuckDBPyConnection) -> Links:
    """Each record leaves for the first of those with equal content."""
    columns = connection.sql(
        """
        SELECT place, first, CASE WHEN kind = 'pixels' AND image_id = first_image THEN 'bytes'
            ELSE kind END AS method
        FROM ordered ORDER BY place
        """
    ).fetchnumpy()
    links = Links.none(len(columns["place"]))
    links.to[:] = columns["first"]
    for method in EXACT:
        links.note(np.flatnonzero(columns["method"] == method), method, 0, 0)
    return links


def _levels(settings: DuplicateSettings) -> list[_Level]:
    levels = []
    if settings.perceptual is not None:
        levels.append(
            _Level(
                method="perceptual",
                column="perceptual_hash",
                radius=settings.perceptual,
                mirrored=MIRRORED,
                vectors=lambda hashes: perceptual_vectors(hashes.to_pylist()),
            )
        )
    if settings.semantic is not None:
        levels.append(
            _Level(
                method="semantic",
                column="image_feature",
                radius=settings.semantic,
                mirrored=0,
                vectors=_features,
            )
        )
    return levels


def _features(lists: pa.Array) -> np.ndarray:
    """(N, D) float16 of a list column: 1 GB for a million pictures."""
    return lists.flatten().to_numpy().astype(np.float16).reshape(len(lists), -1)


def _read(connection: DuckDBPyConnection, level: _Level) -> tuple[np.ndarray, np.ndarray]:
    """The places that have a vector, in their order, and the vectors."""
    rows = connection.sql(
        f"""
        SELECT place, {level.column} FROM ordered JOIN pictures USING (record_id)
        WHERE place = first AND {level.column} IS NOT NULL ORDER BY place
        """
    )
    places, vectors = [np.empty(0, np.int64)], [np.empty((0, 1), np.float32)]
    for batch in rows.to_arrow_reader(_ROWS_PER_BATCH):
        places.append(batch["place"].to_numpy())
        vectors.append(level.vectors(batch[level.column]))
    return np.concatenate(places), np.concatenate(vectors[1:] or vectors)


def _leave_for_equals(connection: DuckDBPyConnection, pictures: pa.Table, links: Links) -> None:
    """Records whose picture has the pixels of one of an evaluation set."""
    numbers = pa.array(range(len(pictures)), pa.int64())
    hashes = pictures.select(["pixel_hash"]).append_column("item", numbers)
    connection.register("evaluation", hashes)
    found = connection.sql(
        """
        SELECT first AS place, min(item) AS item
        FROM ordered JOIN pictures USING (record_id) JOIN evaluation USING (pixel_hash)
        GROUP BY first
        """
    ).fetchnumpy()
    links.item[found["place"]] = found["item"]
    links.note(found["place"], "evaluation", 0, 0)


def _leave_for_evaluation(
    level: _Level, places: np.ndarray, vectors: np.ndarray, pictures: pa.Table, links: Links
) -> None:
    """Records whose picture is near one of an evaluation set."""
    here = links.stays(places)
    known = pictures[level.column].combine_chunks()
    numbers = np.flatnonzero(known.is_valid())
    found = copies_of(level.vectors(known.drop_null()), vectors[here], level.radius, level.mirrored)
    copies = found.of >= 0
    leaving = places[here][copies]
    links.item[leaving] = numbers[found.of[copies]]
    links.note(leaving, "evaluation", found.distance[copies], level.radius)


def _leave_for_one_another(
    level: _Level, places: np.ndarray, vectors: np.ndarray, links: Links
) -> None:
    """Records whose picture is near that of one before them."""
    here = links.stays(places)
    found = copies_among(vectors[here], level.radius, level.mirrored)
    copies = found.of >= 0
    leaving = places[here][copies]
    links.to[leaving] = places[here][found.of[copies]]
    links.note(leaving, level.method, found.distance[copies], level.radius)


def _rows(connection: DuckDBPyConnection, links: Links, names: pa.Array) -> DuckDBPyRelation:
    """What the links say, by the records' ids."""
    gone = np.flatnonzero((links.to != np.arange(len(links.to))) | (links.item >= 0))
    last = links.last()[gone]
    items = pa.array(links.item[last], mask=links.item[last] < 0)
    found = pa.table(
        {
            "place": gone,
            "keeper": links.to[last],
            "item": names.take(items),
            "method": pa.array(METHODS).take(pa.array(links.method[last])),
            "distance": links.distance[last],
            "threshold": links.threshold[last],
        }
    )
    connection.register("found", found)
    return connection.sql(
        """
        SELECT own.part, own.record_id, coalesce(item, kept.record_id) AS duplicate_of, method,
            distance, threshold, CASE
                WHEN item IS NOT NULL THEN 'evaluation'
                WHEN own.preference != kept.preference THEN 'licence'
                WHEN own.num_pixels IS DISTINCT FROM kept.num_pixels THEN 'resolution'
                WHEN own.clip_score IS DISTINCT FROM kept.clip_score THEN 'clip-score'
                ELSE 'record-id' END AS rule
        FROM found JOIN ordered AS own USING (place)
        JOIN ordered AS kept ON kept.place = found.keeper
        """
    )
