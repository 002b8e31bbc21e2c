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
from trainer.data.batch import places_of
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
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
    ) -> None:
        """Read the prompts.

        Args:
            model: in evaluation mode.
            vocabulary: the model's id space.
            prompts: ids, at least one each.
            max_new_tokens: how often `append` may be called.
        """
        self._model = model
        self._vocabulary = vocabulary
        device = next(model.parameters()).device
        length = max(map(len, prompts))
        tokens = np.full((len(prompts), length), vocabulary.special("<pad>"), np.int64)
        documents = np.zeros_like(tokens)
        for index, prompt in enumerate(prompts):
            tokens[index, length - len(prompt) :] = prompt
            documents[index, length - len(prompt) :] = 1
        self._tokens = torch.from_numpy(tokens).to(device)  # (B, T)
        self._documents = torch.from_numpy(documents).to(device)  # (B, T)
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
        self.logits = self._read(length, document_mask(self._documents))
        """(B, V) float logits of each prompt's next token."""

    @torch.no_grad()
    def append(self, tokens: Tensor) -> None:
        """Add one token to each prompt and read it; `logits` are then those of the next.

        Args:
            tokens: (B,) int64 ids.
        """
        self._tokens = torch.cat((self._tokens, tokens[:, None]), dim=1)
        self._documents = torch.cat((self._documents, torch.ones_like(tokens)[:, None]), dim=1)
        hidden = (self._documents == 0)[:, None, None]  # (B, 1, 1, S)
        mask = torch.zeros(hidden.shape, device=tokens.device)
        self.logits = self._read(1, mask.masked_fill_(hidden, float("-inf")))

    def _read(self, num_new: int, mask: Tensor) -> Tensor:
        positions = (self._documents.cumsum(dim=1) - 1).clamp(min=0)  # (B, S)
        logits: Tensor = self._model(
            self._tokens[:, -num_new:],
            positions=positions[:, -num_new:],
            places=places_of(self._tokens, self._vocabulary)[:, -num_new:],
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
