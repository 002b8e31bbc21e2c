"""open_clip models on the CPU or a GPU: embeddings of pictures and texts, and how well they fit.

Two kinds of models, one interface: those that were trained on the corpus, one a fold, of which each
scores the pictures that it has not seen; and one that somebody has published, which scores all.

Legend: B pictures or texts, P pieces of a text, D width of the embedding, T context length,
H W height and width of the picture that a model sees, s image size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip import CLIP, CustomTextCLIP, SimpleTokenizer
from open_clip.model import get_input_dtype
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import text_global_pool
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from filters.settings import ClipSettings, OpenClipSettings
from pipeline import images
from pipeline.device import best_device, keeping_random_state

BATCH_SIZE = 64
"""Pictures or texts that a model gets at once. Ours: more is no faster on a CPU."""

_MEAN, _STD = 0.5, 0.5
"""Pictures go from [0, 1] to [-1, 1]: a model trained on the corpus needs no ImageNet."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。\uff01\uff1f])|\n+")
"""The full-width marks of Chinese and Japanese have no space after them."""

_Item = TypeVar("_Item")


def create_model(settings: ClipSettings) -> CLIP:
    """The small CLIP with random weights (Radford et al., arXiv 2103.00020, section 2.4).

    Its image tower is their ResNet, as convolutions learn from fewer pictures than a transformer.
    """
    return CLIP(
        embed_dim=settings.width,
        vision_cfg={
            "image_size": settings.image_size,
            "layers": (settings.vision_layers,) * 4,
            "width": settings.vision_width,
            "head_width": 32,
        },
        text_cfg={
            "context_length": settings.context_length,
            "vocab_size": 49_408,  # of open_clip's byte-level BPE
            "width": settings.width,
            "heads": settings.width // 32,
            "layers": settings.text_layers,
        },
    )


def fold_of(image_id: str, folds: int) -> int:
    """The fold of an image: the model of that number has not seen it."""
    return int(image_id[:8], 16) % folds


def weights_name(fold: int) -> str:
    """File name of a fold's weights in the model's folder."""
    return f"fold-{fold}.safetensors"


def tokenize(texts: Sequence[str], settings: ClipSettings) -> Tensor:
    """Token ids: (B, T) int64, cut to the context length."""
    ids: Tensor = _tokenizer(settings.context_length)(list(texts))
    return ids


def normalize(pixels: np.ndarray) -> Tensor:
    """From (B, s, s, 3) uint8 to (B, 3, s, s) float32 in [-1, 1]."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255  # (B, 3, s, s)
    return (images - _MEAN) / _STD


class ClipScorer:
    """One model, ready to embed.

    Attributes:
        prepare: from an RGB image of any size to what the model sees: (3, H, W) float32.
    """

    def __init__(
        self,
        model: CLIP | CustomTextCLIP,
        prepare: Callable[[Image.Image], Tensor],
        tokenizer: SimpleTokenizer | HFTokenizer,
        precision: str = "fp32",
    ) -> None:
        self.prepare = prepare
        self._device = best_device()
        self._model = model.eval().to(self._device)
        self._tokenizer = tokenizer
        self._dtype = get_input_dtype(precision)

    @torch.inference_mode()
    def embed_images(self, pictures: Sequence[Tensor]) -> np.ndarray:
        """Unit vectors: (B, D) float32 of prepared pictures, all in one batch."""
        batch = torch.stack(list(pictures)).to(self._device, self._dtype)
        return _unit(self._model.encode_image(batch))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Unit vectors of each text: (P, D) float32.

        A text within the model's context is one piece. A longer one is as many as it has sentences,
        and a sentence that is still too long is halved until it fits: no word is left out.
        """
        rows = {text: self.tokenize(text) for text in dict.fromkeys(texts)}
        tokens = torch.cat(list(rows.values()))  # (all P, T)
        vectors = np.concatenate(
            [
                _unit(_encode_text(self._model, batch.to(self._device)))
                for batch in tokens.split(BATCH_SIZE)
            ]
        )
        ends = np.cumsum([len(pieces) for pieces in rows.values()])
        found = dict(zip(rows, np.split(vectors, ends[:-1]), strict=True))
        return [found[text] for text in texts]

    def tokenize(self, text: str) -> Tensor:
        """Token ids of a text's pieces: (P, T) int64."""
        ids, fits = _tokenize_whole(self._tokenizer, text)
        if fits or len(text) < 2:
            return ids
        return torch.cat([self.tokenize(piece) for piece in _split(text)])


class ClipScorers:
    """The models of a corpus, and which of them a picture is for."""

    def __init__(self, scorers: Sequence[ClipScorer]) -> None:
        self._scorers = scorers
        self.prepare = scorers[0].prepare

    def fold(self, image_id: str) -> int:
        """The fold of an image: cosines and features of one fold are of one model."""
        return fold_of(image_id, len(self._scorers))

    def embed_images(self, image_ids: Sequence[str], pictures: Sequence[Tensor]) -> np.ndarray:
        """Unit vectors of prepared pictures: (B, D) float32. One batch: memory grows with it."""
        return np.stack(self._embed(image_ids, pictures, ClipScorer.embed_images))

    def embed_texts(self, image_ids: Sequence[str], texts: Sequence[str]) -> list[np.ndarray]:
        """Unit vectors of texts, each by the model for the picture beside it: (P, D) float32 each.

        See `ClipScorer.embed_texts`; a text is embedded once, however often it is there.
        """
        return self._embed(image_ids, texts, ClipScorer.embed_texts)

    def _embed(
        self,
        image_ids: Sequence[str],
        items: Sequence[_Item],
        embed: Callable[[ClipScorer, list[_Item]], Sequence[np.ndarray] | np.ndarray],
    ) -> list[np.ndarray]:
        """Each item by the model for its picture, in their order."""
        rows: dict[int, list[int]] = {}
        for row, image_id in enumerate(image_ids):
            rows.setdefault(self.fold(image_id), []).append(row)
        found: dict[int, np.ndarray] = {}
        for fold, own in rows.items():
            found |= zip(own, embed(self._scorers[fold], [items[row] for row in own]), strict=True)
        return [found[row] for row in range(len(found))]


def load_scorers(folder: Path, settings: ClipSettings | OpenClipSettings) -> ClipScorers:
    """The models in the folder of the corpus's model `clip`."""
    if isinstance(settings, OpenClipSettings):
        return ClipScorers([load_published(folder, settings.precision)])
    paths = [folder / weights_name(fold) for fold in range(settings.folds)]
    return ClipScorers([load_trained(path, settings) for path in paths])


@keeping_random_state()
def load_trained(weights: Path, settings: ClipSettings) -> ClipScorer:
    """A model that was trained on the corpus."""

    def prepare(image: Image.Image) -> Tensor:
        square = images.fit_square(image, settings.image_size)
        return normalize(np.stack([square]))[0]  # a copy: PyTorch takes no read-only array

    model = create_model(settings)
    model.load_state_dict(load_file(weights))
    return ClipScorer(model, prepare, _tokenizer(settings.context_length))


@keeping_random_state()
def load_published(folder: Path, precision: str) -> ClipScorer:
    """The model that `clip_adopt` has put there."""
    place = f"local-dir:{folder}"
    text = open_clip.get_model_config(place)["text_cfg"]
    if "hf_model_name" in text:  # its shape lies beside the weights, not on the hub
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    model = open_clip.create_model(place, precision=precision, text_cfg=text)
    prepare = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    return ClipScorer(model, prepare, open_clip.get_tokenizer(place), precision)


def mean_feature(pieces: np.ndarray) -> np.ndarray:
    """One unit vector of a text's pieces, from (P, D) to (D,): the direction of their mean."""
    mean: np.ndarray = pieces.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _unit(features: Tensor) -> np.ndarray:
    """From (B, D) of any precision to unit vectors in float32."""
    return F.normalize(features.float(), dim=-1).cpu().numpy()


def _encode_text(model: CLIP | CustomTextCLIP, tokens: Tensor) -> Tensor:
    """`model.encode_text`, from (B, T) int64 to (B, D), but without most of the padding.

    What stands behind the end of a text decides nothing where attention is causal, and captions
    are short: ten words are 12 of ViT-B/32's 77 tokens, whose text tower costs as much as its image
    tower. The lines are those of open_clip 3.3's `CLIP.encode_text`.
    """
    is_causal = isinstance(model, CLIP) and model.attn_mask is not None
    if not is_causal or model.text_pool_type != "argmax":
        return model.encode_text(tokens)
    length = int(tokens.argmax(dim=-1).max()) + 1  # the end token is the highest
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = text_global_pool(x, tokens, "argmax")
    projection = model.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def _tokenize_whole(tokenizer: SimpleTokenizer | HFTokenizer, text: str) -> tuple[Tensor, bool]:
    """Token ids of a text as open_clip cuts it, (1, T) int64, and whether they are all of it."""
    length = tokenizer.context_length
    if isinstance(tokenizer, SimpleTokenizer):
        longer = tokenizer(text, context_length=length + 1)
        return longer[:, :length], longer[0, length] != tokenizer.eot_token_id
    is_framed = tokenizer.tokenizer_mode != "clips"
    bare = tokenizer.tokenizer(tokenizer.clean_fn(text), add_special_tokens=is_framed).input_ids
    return tokenizer(text), len(bare) <= (length if is_framed else length - 3)


def _split(text: str) -> list[str]:
    """The sentences of a text; of a single one, its halves."""
    text = text.strip()
    sentences = [piece for piece in _SENTENCE_END.split(text) if piece.strip()]
    if len(sentences) > 1:
        return sentences
    middle = len(text) // 2
    spaces = [match.start() for match in re.finditer(r"\s", text)]
    cut = min(spaces, key=lambda place: abs(place - middle), default=middle)
    return [text[:cut], text[cut:]]


@cache
def _tokenizer(context_length: int) -> SimpleTokenizer:
    """open_clip's tokenizer, made once: it takes half a second."""
    return SimpleTokenizer(context_length=context_length)
