"""Continues prompts token by token, all of them at once, with cached keys and values.

Legend: B prompts, T tokens of the longest prompt, V vocabulary, R ids that are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.fingerprint import fingerprint
from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.sequence import Written
from trainer.model.cache import LayerCache
from trainer.model.decoder import Decoder
from trainer.model.masks import document_mask


class Continuation:
    """Prompts that are being continued. They are padded on the left, so that all end together."""

    @torch.no_grad()
    def __init__(
        self,
        model: Decoder,
        vocabulary: Vocabulary,
        prompts: Sequence[Written],
        *,
        max_new_tokens: int,
    ) -> None:
        """Read the prompts.

        Args:
            model: in evaluation mode.
            vocabulary: the model's id space.
            prompts: at least one token each.
            max_new_tokens: how often `append` may be called.
        """
        self._model = model
        device = next(model.parameters()).device
        length = max(len(prompt.tokens) for prompt in prompts)
        tokens = np.full((len(prompts), length), vocabulary.special("<pad>"), np.int64)
        documents, places = np.zeros_like(tokens), np.zeros_like(tokens)
        for index, prompt in enumerate(prompts):
            begin = length - len(prompt.tokens)
            tokens[index, begin:] = prompt.tokens
            places[index, begin:] = prompt.places
            documents[index, begin:] = 1
        self._documents = torch.from_numpy(documents).to(device)  # (B, T)
        self._place = torch.from_numpy(places[:, -1]).to(device)  # (B,)
        self._codes = vocabulary.image if vocabulary.has("image") else None
        self._begin = vocabulary.special("<img>")
        self._caches = [
            LayerCache(
                batch=len(prompts),
                heads=model.heads,
                max_tokens=length + max_new_tokens,
                head_width=model.head_width,
                device=device,
            )
            for _ in model.blocks
        ]
        self.logits = self._read(
            torch.from_numpy(tokens).to(device),
            torch.from_numpy(places).to(device),
            document_mask(self._documents),
        )
        """(B, V) float logits of each prompt's next token."""

    @torch.no_grad()
    def append(self, tokens: Tensor) -> None:
        """Add one token to each prompt and read it; `logits` are then those of the next.

        Args:
            tokens: (B,) int64 ids.
        """
        self._documents = torch.cat((self._documents, torch.ones_like(tokens)[:, None]), dim=1)
        hidden = (self._documents == 0)[:, None, None]  # (B, 1, 1, S)
        mask = torch.zeros(hidden.shape, device=tokens.device)
        self._place = self._next_places(tokens)
        self.logits = self._read(
            tokens[:, None], self._place[:, None], mask.masked_fill_(hidden, float("-inf"))
        )

    def _next_places(self, tokens: Tensor) -> Tensor:
        """(B,) places in the code grid of (B,) tokens that come next, as a `Writer` counts them."""
        begins = (tokens == self._begin).long()  # (B,)
        if self._codes is None:
            return begins * 0
        is_code = (tokens >= self._codes.start) & (tokens < self._codes.stop)
        return torch.where(is_code, self._place + 1, begins)

    def _read(self, tokens: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        positions = (self._documents.cumsum(dim=1) - 1).clamp(min=0)  # (B, S)
        logits: Tensor = self._model(
            tokens,
            positions=positions[:, -tokens.shape[1] :],
            places=places,
            mask=mask,
            cache=self._caches,
        )  # (B, T, V)
        return logits[:, -1]


def uniforms(seed: int, number: int, *, num_steps: int) -> Tensor:
    """The randomness of one sample, so that it depends on nothing else in its batch.

    Returns:
        (num_steps,) float64 in [0, 1).
    """
    generator = torch.Generator().manual_seed(int(fingerprint(seed=seed, number=number)[:15], 16))
    return torch.rand(num_steps, generator=generator, dtype=torch.float64)


def pick(logits: Tensor, uniform: Tensor, *, temperature: float, top_k: int) -> Tensor:
    """Draw one id of each row from its `top_k` likeliest, by the inverse of their distribution.

    Args:
        logits: (B, R) float.
        uniform: (B,) float64 in [0, 1) from `uniforms`.
        temperature: 0 takes the likeliest.
        top_k: at least 1; more than R means all.

    Returns:
        (B,) int64 indices into R.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    likeliest, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)  # (B, K), from the top
    upto = (likeliest.double() / temperature).softmax(dim=-1).cumsum(dim=-1)  # (B, K)
    # Rounding may leave the last sum below 1, and ids without any probability come last.
    rank = (upto <= uniform[:, None] * upto[:, -1:]).sum(dim=-1, keepdim=True)  # (B, 1)
    last = (likeliest > float("-inf")).sum(dim=-1, keepdim=True) - 1  # (B, 1)
    return ids.gather(1, torch.minimum(rank, last))[:, 0]
