"""Published audio tokenizers: transformers' own networks behind our `encode` and `decode`.

Nothing is computed here that transformers computes.

Legend: S samples, N frames, Q codebooks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import EncodecModel, MimiModel, PreTrainedConfig, PreTrainedModel

from pipeline.errors import UserError
from tokenizer_cache.audio.settings import PublishedAudio, PublishedAudioSettings
from tokenizer_cache.hub import hub_place
from tokenizer_cache.settings import MAX_CODES

_MODELS: dict[str, Any] = {"encodec": EncodecModel, "mimi": MimiModel}


class EncodecCodec(nn.Module):
    """EnCodec (Défossez et al., High Fidelity Neural Audio Compression, arXiv:2210.13438)."""

    def __init__(self, model: EncodecModel, num_codebooks: int) -> None:
        super().__init__()
        self.model: Any = model  # its outputs are typed as anything or nothing
        self._bandwidth = bandwidths(model)[num_codebooks]

    def encode(self, sound: Tensor) -> Tensor:
        """The codes of a sound (S,), as (N, Q) int64."""
        codes: Tensor = self.model.encode(sound[None, None], bandwidth=self._bandwidth).audio_codes
        return codes[0, 0].T  # (1, 1, Q, N) before

    def decode(self, codes: Tensor) -> Tensor:
        """The sound (S,) of codes (N, Q)."""
        sound: Tensor = self.model.decode(codes.T[None, None], [None]).audio_values  # (1, 1, S)
        return sound[0, 0]


class MimiCodec(nn.Module):
    """Mimi (Défossez et al., Moshi, arXiv:2410.00037, section 3.3)."""

    def __init__(self, model: MimiModel, num_codebooks: int) -> None:
        super().__init__()
        self.model: Any = model
        self._num_codebooks = num_codebooks

    def encode(self, sound: Tensor) -> Tensor:
        """The codes of a sound (S,), as (N, Q) int64."""
        given = self.model.encode(sound[None, None], num_quantizers=self._num_codebooks)
        codes: Tensor = given.audio_codes[0].T  # (1, Q, N) before
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """The sound (S,) of codes (N, Q)."""
        sound: Tensor = self.model.decode(codes.T[None]).audio_values  # (1, 1, S)
        return sound[0, 0]


def bandwidths(model: EncodecModel) -> dict[int, float]:
    """EnCodec's bandwidth in kbit/s by the number of codebooks that it uses, the most first."""
    count = model.quantizer.get_num_quantizers_for_bandwidth
    return {count(each): each for each in sorted(model.config.target_bandwidths, reverse=True)}


def read_published(settings: PublishedAudioSettings) -> tuple[PreTrainedModel, PublishedAudio]:
    """A published tokenizer from where it lies, and what it is.

    Raises:
        UserError: when it is not there, is another model's, or gives more than codes.
    """
    place, where = hub_place(settings.weights)
    try:
        model = _load(settings.kind, place, **where)
        num_codebooks = _num_codebooks(settings, model)
        _check(model.config)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{settings.weights} holds no audio tokenizer of the kind {settings.kind}: {error}",
            "audio_tokenizer.weights is a folder or a name on the Hugging Face hub with "
            "config.json and model.safetensors.",
        ) from error
    return model, PublishedAudio(
        kind=settings.kind,
        sampling_rate=model.config.sampling_rate,
        num_codebooks=num_codebooks,
        codebook_size=model.config.codebook_size,
    )


def load_codec(settings: PublishedAudio, folder: Path) -> EncodecCodec | MimiCodec:
    """The published tokenizer that lies in a corpus."""
    codec = EncodecCodec if settings.kind == "encodec" else MimiCodec
    return codec(_load(settings.kind, str(folder)), settings.num_codebooks)


def _load(kind: str, place: str, **where: Any) -> Any:  # noqa: ANN401 - either of two models
    """A model of transformers with all its weights, in float32."""
    found, _ = PreTrainedConfig.get_config_dict(place, **where)
    if found.get("model_type") != kind:
        message = f"its config.json is of {found.get('model_type')}"
        raise ValueError(message)
    model, report = _MODELS[kind].from_pretrained(
        place, **where, dtype="float32", use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        message = f"it has no {missing[0]}"
        raise ValueError(message)
    return model.eval()


def _num_codebooks(settings: PublishedAudioSettings, model: PreTrainedModel) -> int:
    """How many codebooks are used.

    Raises:
        ValueError: when the model cannot give so many.
    """
    if isinstance(model, EncodecModel):
        allowed = list(bandwidths(model))[::-1]
        own = allowed[0]  # of the smallest bandwidth, which its `encode` takes by itself
    else:
        own = model.config.num_quantizers
        allowed = list(range(model.config.num_semantic_quantizers + 1, own + 1))
    wanted = settings.num_codebooks or own
    if wanted not in allowed:
        message = f"it has {', '.join(map(str, allowed))} codebooks, and num_codebooks is {wanted}"
        raise ValueError(message)
    if wanted * model.config.codebook_size > MAX_CODES:
        message = (
            f"{wanted} codebooks of {model.config.codebook_size} codes are more than {MAX_CODES} "
            "together: audio_tokenizer.num_codebooks can be smaller"
        )
        raise ValueError(message)
    return wanted


def _check(config: PreTrainedConfig) -> None:
    """Raise a ValueError for a model whose codes alone are not the sound."""
    if config.audio_channels != 1:
        message = f"it codes {config.audio_channels} channels, and sounds are brought to one"
        raise ValueError(message)
    # As EnCodec's model for 48 kHz does: a loudness beside the codes of each second.
    if getattr(config, "normalize", False) or getattr(config, "chunk_length_s", None):
        message = "it gives a scale beside the codes of each chunk, and a corpus holds codes alone"
        raise ValueError(message)
