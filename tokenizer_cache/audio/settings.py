"""What a recipe may say about the audio tokenizer; imports no torch."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from pipeline.settings import Settings
from tokenizer_cache.settings import MAX_CODES, FolderOrName, kind_of


class AudioSettings(Settings):
    """The audio tokenizer: its shape, and how it is trained on the corpus's sounds."""

    kind: Literal["trained"] = "trained"
    """Trained on the corpus, beside the kinds of published weights."""
    sampling_rate: int = Field(16_000, ge=4_000, le=48_000)
    """Hz that sounds are brought to."""
    stride: int = Field(320, ge=64, multiple_of=4)
    """Samples that one code stands for: 320 of 16,000 give 50 codes a second."""
    codebook_size: int = Field(512, ge=2, le=MAX_CODES)
    """Number of codes; tables and shards store them as uint16."""
    codebook_dim: int = Field(8, ge=2)
    """Dimensions of a code, L2-normalised (ViT-VQGAN, arXiv:2110.04627, section 3.2)."""
    commitment_weight: float = Field(1.0, ge=0)
    """Weight of the commitment loss (VQ-VAE, arXiv:1711.00937, equation 3)."""
    ema_decay: float = Field(0.95, gt=0, lt=1)
    """Decay of the codebook's moving averages (VQ-VAE, arXiv:1711.00937, appendix A.1)."""
    dead_code_share: float = Field(0.1, ge=0, lt=1)
    """A code that is used less than this share of the average is given a new place."""
    width: int = Field(128, ge=8)
    """Channels of the network."""
    depth: int = Field(2, ge=1)
    """Blocks of the encoder, and of the decoder."""
    crop_codes: int = Field(50, ge=1)
    """Codes of a sound that a training step sees: a second of it."""
    max_hours: float = Field(10.0, gt=0)
    """Hours of sound held in memory for training; of a larger corpus a random choice."""
    steps: int = Field(1000, ge=1)
    """Training steps."""
    batch_size: int = Field(8, ge=1)
    """Crops per step."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of the one-cycle schedule."""
    warmup_share: float = Field(0.4, ge=0, lt=1)
    """Share of the steps that train without the codebook."""
    seed: int = 0
    """Seed of the initial weights and of the crops."""

    @property
    def num_codebooks(self) -> int:
        """Codes of a frame."""
        return 1


class PublishedAudioSettings(Settings):
    """An audio tokenizer whose weights somebody has published."""

    kind: Literal["encodec", "mimi"]
    """Whose: EnCodec (arXiv:2210.13438) or Mimi (arXiv:2410.00037)."""
    weights: FolderOrName
    """A folder or a name on the Hugging Face hub (OWNER/NAME or OWNER/NAME@REVISION) in the format
    of transformers, as safetensors. They are copied into the corpus once."""
    num_codebooks: int | None = Field(None, ge=1)
    """How many codebooks of the model's residual quantizer are used, the coarsest first; null is
    what the model does by itself. EnCodec has one number for each of its bandwidths."""


class PublishedAudio(Settings):
    """A published audio tokenizer as it lies in a corpus."""

    kind: Literal["encodec", "mimi"]
    sampling_rate: int
    """Hz that sounds are brought to."""
    num_codebooks: int
    """Codes of a frame."""
    codebook_size: int
    """Number of codes of each codebook."""


_PUBLISHED = get_args(PublishedAudioSettings.model_fields["kind"].annotation)


def _member(value: Any) -> str | None:  # noqa: ANN401 - unchecked input
    kind = kind_of(value)
    published = "published-audio" if kind in _PUBLISHED else None
    return "trained-audio" if kind == "trained" else published


AudioTokenizerSettings = Annotated[
    Annotated[AudioSettings, Tag("trained-audio")]
    | Annotated[PublishedAudioSettings, Tag("published-audio")],
    Discriminator(
        _member,
        custom_error_type="audio_tokenizer_kind",
        custom_error_message="it is trained (on the corpus), or one with published weights: "
        + ", ".join(_PUBLISHED),
    ),
]
"""`kind` says whose the audio tokenizer is; without one it is trained on the corpus."""

AUDIO_TOKENIZER_KINDS: dict[str, type[Settings]] = {
    "trained-audio": AudioSettings,
    "published-audio": PublishedAudioSettings,
}
"""The members of the union, by the names that pydantic's errors have for them."""
