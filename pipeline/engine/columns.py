"""What the schemas of several tables share: how a column is declared, and the ids."""

import pyarrow as pa


def column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    """A column with its description; `nullable` where a row may have no value for it."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


RECORD_ID = column(
    "record_id", pa.string(), "Stable hash of the source's name and the record's key"
)
VARIANT_ID = column(
    "variant_id",
    pa.string(),
    "Stable hash of a text of the record; `original` is the source's own, "
    "`original-NAME` a further one",
)
