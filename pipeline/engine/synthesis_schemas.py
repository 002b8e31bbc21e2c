"""The schemas of what an LLM has written: its answers, and the texts that were taken from them."""

import pyarrow as pa

from pipeline.engine.columns import RECORD_ID, VARIANT_ID, column

_FORM = column(
    "form",
    pa.string(),
    "The form of that kind: `tags`, `sentence`, `dense`; `style`; `absent`, `contrast`; "
    "`question`, `description`, `dialogue`; `bridge`",
)
_NEXT_ID = column(
    "next_id",
    pa.string(),
    "For `interleave`: the record that the text leads to; null for other kinds",
    nullable=True,
)

_SAMPLING = (
    column("model", pa.string(), "Name and fingerprint of the LLM"),
    column("prompt", pa.string(), "Fingerprint of the prompt's template"),
    column("temperature", pa.float32(), "Sampling temperature; 0 is greedy"),
    column("top_p", pa.float32(), "Nucleus of the sampling"),
    column("max_tokens", pa.int32(), "Tokens that the answer could have at most"),
    column("seed", pa.int64(), "Sampling seed, drawn from record id, kind and attempt"),
)

VARIANTS = pa.schema(
    [
        RECORD_ID,
        VARIANT_ID,
        column("kind", pa.string(), "`caption`, `style`, `negative`, `text` or `interleave`"),
        _FORM,
        column("text", pa.string(), "What the LLM wrote"),
        column(
            "style",
            pa.string(),
            "The visual style that was asked for; null for other kinds",
            nullable=True,
        ),
        _NEXT_ID,
        column("attempt", pa.int32(), "Which try gave this text, from 1"),
        *_SAMPLING,
        column(
            "num_prompt_tokens",
            pa.int32(),
            "Tokens of the prompt that the text came from; null where its server does not say",
            nullable=True,
        ),
        column(
            "num_output_tokens",
            pa.int32(),
            "Tokens of the answer that the text came from; null where its server does not say",
            nullable=True,
        ),
    ]
)

ANSWERS = pa.schema(
    [
        RECORD_ID,
        column("kind", pa.string(), "The kind of text that was asked for"),
        column(
            "role",
            pa.string(),
            "`write`, or what judges the texts of that attempt: `clip`, or `judge` for the LLM",
        ),
        column("attempt", pa.int32(), "Which try this was, or is judged, from 1"),
        column("forms", pa.list_(pa.string()), "The forms of it that were asked for, or judged"),
        column("style", pa.string(), "The visual style that the record has drawn"),
        _NEXT_ID,
        column("text", pa.string(), "The answer as it came; null without one", nullable=True),
        column("error", pa.string(), "Why there is no answer; null with one", nullable=True),
        column(
            "finish_reason",
            pa.string(),
            "`length` when the answer had used up its tokens, else the server's word, mostly "
            "`stop`; null where nobody said",
            nullable=True,
        ),
        column("request", pa.string(), "Hash of the messages and of the sampling parameters"),
        *_SAMPLING,
        column("num_prompt_tokens", pa.int32(), "Tokens of the prompt", nullable=True),
        column("num_output_tokens", pa.int32(), "Tokens of the answer", nullable=True),
    ]
)
