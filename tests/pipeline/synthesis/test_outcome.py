from pathlib import Path
from types import SimpleNamespace

from pipeline.engine.schemas import REJECTS, VARIANTS, reject
from pipeline.engine.tables import connect, write_table
from pipeline.synthesis.judge import STAGE
from pipeline.synthesis.outcome import kinds_without_texts


def refused(kind: str, reason: str, detail: str, num: int = 1) -> list[dict[str, object]]:
    row = reject(record_id="r", stage=STAGE, reason=reason, detail=detail)
    return [row | {"kind": kind, "form": kind, "attempt": 1}] * num


def sentences(folder: Path, rejects: list[dict[str, object]], taken: str) -> list[str]:
    write_table(folder / "rejects.parquet", rejects, REJECTS)
    variant = dict.fromkeys(VARIANTS.names, 0) | {
        field.name: "x" for field in VARIANTS if str(field.type) == "string"
    }
    write_table(folder / "variants.parquet", [variant | {"kind": taken}], VARIANTS)
    tables = {name: [folder / f"{name}.parquet"] for name in ("rejects", "variants")}
    return kinds_without_texts(SimpleNamespace(connect=lambda: connect(tables)))  # type: ignore[arg-type]


def test_kind_without_a_text_is_named_with_the_commonest_reason_and_an_example(
    tmp_path: Path,
) -> None:
    rejects = [
        *refused("style", "synthesis-wrong-style", "A photograph.", 3),
        *refused("style", "synthesis-empty", ""),
        *refused("caption", "synthesis-empty", "", 9),
    ]
    assert sentences(tmp_path, rejects, taken="caption") == [
        "of the kind style the corpus has no text: all 4 that the LLM was asked for were refused, "
        "3 of them because the text does not begin as its style asks (synthesis-wrong-style). For "
        "example: A photograph."
    ]


def test_kinds_with_texts_and_rejects_of_other_stages_are_not_named(tmp_path: Path) -> None:
    other = [row | {"stage": "select"} for row in refused("style", "too-small", "so")]
    assert (
        sentences(tmp_path, [*refused("caption", "synthesis-empty", ""), *other], "caption") == []
    )
