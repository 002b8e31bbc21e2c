import pytest

from filters.duplicates.settings import DuplicateSettings
from filters.duplicates.step import find_duplicates
from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import part_path, write_table

PARTS = {
    "p1": [("c", "image-1", "a"), ("d", "image-2", "a"), ("t2", None, "same text")],
    "p2": [("a", "image-1", "b"), ("b", "image-1", "c"), ("t1", None, "same text")],
    "p3": [("t3", None, "another text"), ("e", "image-3", "same text")],
}
OF_BYTES = [("p1", "c", "a"), ("p2", "b", "a")]
OF_TEXTS = [("p1", "t2", "t1")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, sorted(OF_BYTES + OF_TEXTS)),
        ({"bytes": False}, OF_TEXTS),
        ({"texts": False}, OF_BYTES),
        ({"bytes": False, "texts": False}, []),
    ],
)
def test_the_smallest_id_of_equal_content_stays_whatever_the_part(tmp_path, settings, expected):
    row = dict.fromkeys(RECORDS.names, "x") | {"image": None, "width": None, "height": None}
    row |= {"more_captions": [], "repairs": [], "opt_outs": [], "position": None}
    for part, records in PARTS.items():
        rows = [
            row | {"record_id": record, "image_id": image, "caption": caption}
            for record, image, caption in records
        ]
        write_table(part_path(tmp_path, part), rows, RECORDS)
    inputs = FitInputs(tables={"records": sorted(tmp_path.iterdir())}, models={})
    found = find_duplicates(DuplicateSettings(**settings), inputs)
    assert found.order("ALL").fetchall() == expected
