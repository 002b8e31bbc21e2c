"""The schemas of what the tokenizers make: codes, and the samples of the shards that hold them."""

import pyarrow as pa

from pipeline.engine.columns import RECORD_ID, column

TOKENS = pa.schema(
    [
        column("image_id", pa.string(), "SHA-256 of the image's bytes"),
        column(
            "tokenizer",
            pa.string(),
            "Fingerprint of the image tokenizer with its preprocessing, and of the stage's version",
        ),
        column("view", pa.int8(), "0 is the image as its tokenizer cuts it; from 1 on, its crops"),
        column(
            "box",
            pa.list_(pa.int32(), 4),
            "The square of the upright image that it is, in pixels: left, top, right, bottom",
        ),
        column("rows", pa.int16(), "Height of the code grid"),
        column("columns", pa.int16(), "Width of the code grid"),
        column("bits", pa.int8(), "Bits of a code: what the size of the codebook needs"),
        column("codes", pa.binary(), "The codes in raster order, packed, each highest bit first"),
        column(
            "squared_error",
            pa.float32(),
            "Mean squared error of the decoded image, a channel in [-1, 1]; for one image in 64",
            nullable=True,
        ),
    ]
)

AUDIO_TOKENS = pa.schema(
    [
        RECORD_ID,
        column("frames", pa.int32(), "Frames of codes, one after another in time"),
        column("codebooks", pa.int16(), "Codes of a frame"),
        column("bits", pa.int8(), "Bits of a code: what the size of a codebook needs"),
        column("codes", pa.binary(), "The codes frame by frame, packed, each highest bit first"),
    ]
)

SAMPLES = pa.schema(
    [
        column("key", pa.string(), "Key of the sample, unique over the whole set"),
        column("stream", pa.string(), "`text`, `image`, `mixed` or `audio`"),
        column("split", pa.string(), "`train` or `validation`"),
        column(
            "shard",
            pa.string(),
            "Name of the shard that holds it among those of its part; the manifest has its file",
        ),
        column("shard_sha256", pa.string(), "SHA-256 of that shard's bytes"),
        column("shard_size_bytes", pa.int64(), "Size of that shard"),
        column("index_sha256", pa.string(), "SHA-256 of the bytes of that shard's index"),
        column(
            "record_ids",
            pa.list_(pa.string()),
            "The records in the sample, in order; none in an LLM's text about a record's subject",
        ),
        column(
            "variant_ids",
            pa.list_(pa.string()),
            "`record_id/variant_id` of every text in the sample",
        ),
    ]
)
