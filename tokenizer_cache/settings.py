"""What a recipe may say about tokenizers and shards; imports no torch."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from pipeline.settings import ExistingFile, Settings, existing_place

MAX_CODES = 1 << 16
"""Tables and shards store codes as uint16, so no codebook is larger."""


def _folder_or_name(value: str, info: ValidationInfo) -> str:
    """A file or folder, relative to the recipe, as an absolute path; or a name on the hub."""
    place = existing_place(value, info)
    if Path(place).is_absolute() or re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", place):
        return place
    message = "there is no such file or folder, and it is no OWNER/NAME on the Hugging Face hub"
    raise ValueError(message)


FolderOrName = Annotated[str, AfterValidator(_folder_or_name)]
"""A file or folder, relative to the recipe, or a name on the Hugging Face hub."""


def _is_none(value: object) -> bool:
    """What is not there stays out of fingerprints: those of before the setting hold."""
    return value is None


VQ_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"image_size": 32, "stride": 4, "codebook_size": 256, "width": 48, "steps": 600},
    "128px": {
        "image_size": 128, "stride": 8, "codebook_size": 4096, "width": 192, "depth": 3,
        "batch_size": 64, "steps": 100_000, "learning_rate": 5e-4, "ema_decay": 0.99,
        "commitment_weight": 0.25, "warmup_share": 0.05, "max_images": 200_000,
    },
    "256px": {
        "image_size": 256, "stride": 8, "codebook_size": 8192, "width": 256, "depth": 4,
        "batch_size": 64, "steps": 200_000, "learning_rate": 3e-4, "ema_decay": 0.99,
        "commitment_weight": 0.25, "warmup_share": 0.05, "max_images": 200_000,
    },
}  # fmt: skip
"""Shapes and lengths of training by the size of the images."""


class PerceptualSettings(Settings):
    """Reconstructions are held to what a frozen VGG16 sees of their images, too."""

    network: ExistingFile
    """The state dict of torchvision's `vgg16`, as its `.pth` or as safetensors: nothing of it is
    packaged here. Loaded without running what a pickle may hold."""
    weight: float = Field(1.0, gt=0)
    """Weight of the distance beside L1 and MSE; VQGAN's."""


class AdversarialSettings(Settings):
    """Reconstructions are held to fool a discriminator that is trained beside them."""

    weight: float = Field(0.8, gt=0)
    """What the adaptive weight is multiplied by (VQGAN, arXiv:2012.09841, equation 6); of its
    authors' configurations."""
    start_share: float = Field(0.5, ge=0, lt=1)
    """Share of the steps that come before: first reconstructions must be good without it."""
    width: int = Field(64, ge=1)
    """Channels of the discriminator's first layer (PatchGAN, arXiv:1611.07004)."""
    layers: int = Field(3, ge=1)
    """Halvings of the image: with 3 a judgement is of 70 pixels a side, with 2 of 34."""


class VQSettings(Settings):
    """The image tokenizer: its shape, and how it is trained on the corpus."""

    kind: Literal["trained"] = "trained"
    """Trained on the corpus, beside the kinds of published weights."""
    preset: Literal["tiny", "128px", "256px"] | None = None
    """Values for the settings below that the recipe does not name; `256px` is 32x32 codes of 8,192.
    Ours, and the two large ones are not measured: they are meant for a GPU."""
    image_size: int = Field(64, ge=16, multiple_of=8)
    """Side in pixels of the square that images are cut to."""
    stride: int = Field(8, ge=4, le=32)
    """Pixels per side that one code stands for: 64 px with stride 8 give an 8x8 grid."""
    codebook_size: int = Field(512, ge=2, le=MAX_CODES)
    """Number of codes; tables and shards store them as uint16."""
    quantizer: Literal["vq", "fsq", "lfq"] = "vq"
    """A learnt codebook; finite scalar quantization (arXiv:2309.15505), which rounds each dimension
    to one of a few levels; or lookup-free quantization (arXiv:2310.05737), which takes its sign.
    The last two need no start, no moving averages and no revival."""
    fsq_levels: tuple[Annotated[int, Field(ge=3)], ...] = ()
    """Levels of each dimension of `fsq`; their product is the size of the codebook."""
    gradient: Literal["rotation-trick", "straight-through"] = "rotation-trick"
    """How the encoder gets a gradient through `vq`: turned and scaled as the encoding was moved to
    its code (Fifty et al., arXiv:2410.06424, section 4.2), or unchanged."""
    codebook_dim: int = Field(8, ge=2)
    """Dimensions of a code, L2-normalised in `vq` (ViT-VQGAN, arXiv:2110.04627, section 3.2)."""
    commitment_weight: float = Field(1.0, ge=0)
    """Weight of the commitment loss (VQ-VAE, arXiv:1711.00937, equation 3).

    Ours: after 700 steps on OpenMoji 1 gives 17.6 dB and a perplexity of 331, and 0.25 17.3 dB and
    202: the encoder runs away from codes that have just been set.
    """
    ema_decay: float = Field(0.95, gt=0, lt=1)
    """Decay of the codebook's moving averages (VQ-VAE, arXiv:1711.00937, appendix A.1).

    Ours: after 700 steps on OpenMoji 0.95 gives 17.6 dB and a perplexity of 398, and the paper's
    0.99 17.3 dB and 202: in a short training the encoder moves faster.
    """
    dead_code_share: float = Field(0.1, ge=0, lt=1)
    """A code that is used less than this share of the average is given a new place."""
    absolute_error_weight: float = Field(1.0, ge=0, exclude_if=lambda weight: weight == 1)
    """Weight of the mean absolute error in the loss; the squared error has 1.

    Ours: drawings want both (1,000 steps on OpenMoji: SSIM 0.767, without it 0.743; 18.4 and 18.6
    dB). On plain coloured shapes most of the absolute error is of flat grounds, and edges stay
    blurred: of squares and crosses on coloured grounds 0.44 could be read after 2,600 steps, and
    without it 0.79.
    """
    perceptual: PerceptualSettings | None = Field(None, exclude_if=_is_none)
    """A distance of deep features in the loss; null leaves it out, as a CPU wants it."""
    adversarial: AdversarialSettings | None = Field(None, exclude_if=_is_none)
    """An adversarial term in the loss; null leaves it out, as a CPU wants it."""
    width: int = Field(96, ge=8, multiple_of=8)
    """Channels at the grid's resolution; half as many at each doubling of it."""
    depth: int = Field(2, ge=1)
    """Residual blocks at the grid's resolution on each side; higher resolutions have one."""
    max_images: int = Field(50_000, ge=1)
    """Images held in memory for training; of a larger corpus a random choice."""
    steps: int = Field(2600, ge=1)
    """Training steps. Ours: 19.9 dB on held-out OpenMoji drawings after about 90 s on 2 cores."""
    batch_size: int = Field(8, ge=1)
    """Images per step. Ours: on a CPU, many small steps get further in the same time."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of the one-cycle schedule."""
    warmup_share: float = Field(0.4, ge=0, lt=1)
    """Share of the steps that train without the codebook."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and their flips."""

    @model_validator(mode="after")
    def _grid_is_whole(self) -> Self:
        if self.stride & (self.stride - 1) or self.image_size % self.stride:
            message = f"{self.stride} must be a power of two that divides {self.image_size}"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _discriminator_fits(self) -> Self:
        if self.adversarial and self.image_size >> self.adversarial.layers < 3:
            message = (
                f"adversarial.layers {self.adversarial.layers} leave nothing of an image of "
                f"{self.image_size} pixels: each halves it, and 3 pixels must be left"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _quantizer_has_its_settings(self) -> Self:
        if (self.quantizer == "fsq") is not bool(self.fsq_levels):
            raise ValueError("fsq_levels belong to the quantizer fsq, which needs them")
        if math.prod(self.fsq_levels) > MAX_CODES:
            message = (
                f"the product of fsq_levels is {math.prod(self.fsq_levels)}, and a codebook has at "
                f"most {MAX_CODES} codes"
            )
            raise ValueError(message)
        if self.fsq_levels and math.prod(self.fsq_levels) != self.codebook_size:
            message = (
                f"the product of fsq_levels is {math.prod(self.fsq_levels)}, "
                f"and codebook_size {self.codebook_size}"
            )
            raise ValueError(message)
        if self.quantizer == "lfq" and self.codebook_size & (self.codebook_size - 1):
            message = f"lfq has a power of two of codes, and codebook_size is {self.codebook_size}"
            raise ValueError(message)
        if self.quantizer != "vq" and self.gradient != "rotation-trick":
            raise ValueError("gradient is a setting of the quantizer vq alone")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, value: Any) -> Any:  # noqa: ANN401 - unchecked input
        """What the section does not say itself is the preset's."""
        preset = value.get("preset") if isinstance(value, dict) else None
        return {**VQ_PRESETS[preset], **value} if preset in VQ_PRESETS else value


class PublishedVQSettings(Settings):
    """An image tokenizer whose weights somebody has published."""

    kind: Literal["janus", "llamagen", "chameleon", "emu3"]
    """Whose: each has its own network and its own way to prepare an image."""
    weights: FolderOrName
    """A folder or a name on the Hugging Face hub (OWNER/NAME or OWNER/NAME@REVISION) in the format
    of transformers, of the tokenizer or of the whole model; for `llamagen` its `.pt` file. They are
    copied into the corpus once: later changes at that place do not move a code."""
    image_size: int | None = Field(None, ge=16, multiple_of=8)
    """Side in pixels of the square that images are brought to; null is the model's own."""


class PublishedVQ(Settings):
    """A published image tokenizer as it lies in a corpus."""

    kind: Literal["janus", "llamagen", "chameleon", "emu3"]
    image_size: int
    """Side in pixels of the square that it encodes."""
    stride: int
    """Pixels per side that one code stands for."""
    codebook_size: int
    """Number of codes."""
    cuts_square: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the square in a picture's middle is cut out before the model's own processor has it.
    Janus' would fill the picture up to a square, as it does for the encoder that understands
    pictures. Where this is not said, in a training of before, it is done as it was then."""


IMAGE_TOKENIZER_KINDS: dict[str, type[Settings]] = {
    "trained": VQSettings,
    "published": PublishedVQSettings,
}
"""The members of the union below, by the names that pydantic's errors have for them."""


def kind_of(section: Any) -> Any:  # noqa: ANN401 - unchecked input
    """What a tokenizer's section, or settings made of one, names as its `kind`.

    Of a value that is no section it is `trained`: that member says that it should be a section.
    """
    if isinstance(section, dict):
        return section.get("kind", "trained")
    return getattr(section, "kind", "trained")


_PUBLISHED = get_args(PublishedVQSettings.model_fields["kind"].annotation)


def _member(value: Any) -> str | None:  # noqa: ANN401 - unchecked input
    kind = kind_of(value)
    return "trained" if kind == "trained" else "published" if kind in _PUBLISHED else None


ImageTokenizerSettings = Annotated[
    Annotated[VQSettings, Tag("trained")] | Annotated[PublishedVQSettings, Tag("published")],
    Discriminator(
        _member,
        custom_error_type="image_tokenizer_kind",
        custom_error_message="it is trained (on the corpus), or one with published weights: "
        + ", ".join(_PUBLISHED),
    ),
]
"""`kind` says whose the image tokenizer is; without one it is trained on the corpus."""


class TokenizeSettings(Settings):
    """What of an image is turned into codes."""

    crops: int = Field(0, ge=0, le=15)
    """Further squares of each image, beside the one in its middle that the tokenizer cuts out: at
    places and of sizes (half to all of the shorter side) that follow from the image's hash. A
    loader takes one of the squares of a picture at a time."""


class TextSettings(Settings):
    """The text tokenizer: byte-level BPE trained on the corpus, or somebody's."""

    weights: FolderOrName | None = None
    """A folder with a `tokenizer.json`, or a name on the Hugging Face hub (OWNER/NAME or
    OWNER/NAME@REVISION): it is copied into the corpus once, and nothing is trained."""
    vocab_size: int = Field(2048, ge=256)
    """Entries, of which 256 are the bytes; BPE stops earlier where the corpus has too few pairs."""
    min_frequency: int = Field(2, ge=1)
    """How often a pair of tokens must occur to be merged."""

    @model_validator(mode="after")
    def _is_trained_or_given(self) -> Self:
        trained = TextSettings.model_fields
        for name in ("vocab_size", "min_frequency") if self.weights else ():
            if getattr(self, name) != trained[name].default:
                message = f"{name} is for a tokenizer that is trained, and weights name another one"
                raise ValueError(message)
        return self


class PictureSettings(Settings):
    """The pictures that shards carry beside the codes, for models with an encoder of their own."""

    format: Literal["webp", "jpeg"] = "webp"
    """How they are encoded, with loss."""
    size: int = Field(384, ge=8)
    """What a longer shorter side is scaled down to, in pixels; smaller pictures stay as they are.
    384 is what the encoder of Janus-Pro (SigLIP-L/16-384) takes."""
    quality: int = Field(90, ge=1, le=100)
    """The encoder's quality."""


class ShardSettings(Settings):
    """How samples are put into shards, and in which order their codes are read."""

    records_per_document: int = Field(2, ge=1, le=4)
    """Image-caption pairs in one document of the mixed stream."""
    code_order: Literal["raster", "coarse-first"] = "raster"
    """The order of an image's codes in a sequence: row by row, or a coarse grid before what a finer
    one adds. The shards hold grids either way."""
    pictures: PictureSettings | None = None
    """Pictures in the samples of the image stream; null leaves them out."""
    max_samples: int = Field(100_000, ge=1)
    """Samples in a shard at most (webdataset's `maxcount`); it never holds more than one part's."""
    max_mb: float = Field(1000, gt=0)
    """Size of a shard in MB at most (`maxsize`), unless a single sample is larger."""
