from filters.duplicates import STEP
from pipeline.engine.schemas import RECORDS
from pipeline.engine.tables import connect, part_path, write_table


def test_the_smallest_id_of_equal_content_stays_whatever_the_part(tmp_path):
    row = dict.fromkeys(RECORDS.names, "x") | {"image": None, "width": None, "height": None}
    row |= {"more_captions": [], "repairs": [], "opt_outs": [], "position": None}
    parts = {
        "p1": [("c", "image-1", "a"), ("d", "image-2", "a"), ("t2", None, "same text")],
        "p2": [("a", "image-1", "b"), ("b", "image-1", "c"), ("t1", None, "same text")],
        "p3": [("t3", None, "another text"), ("e", "image-3", "same text")],
    }
    for part, records in parts.items():
        rows = [
            row | {"record_id": record, "image_id": image, "caption": caption}
            for record, image, caption in records
        ]
        write_table(part_path(tmp_path, part), rows, RECORDS)
    found = connect({"records": sorted(tmp_path.iterdir())}).sql(STEP.sql).order("ALL").fetchall()
    assert found == [("p1", "c", "a"), ("p1", "t2", "t1"), ("p2", "b", "a")]
