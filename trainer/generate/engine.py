"""Continues prompts token by token, all of them at once, with cached keys and values.

Legend: B prompts, T tokens of the longest prompt, V vocabulary, R ids that are allowed, K likeliest
of them, N prompts in one state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.fingerprint import fingerprint
from tokenizer_cache.vocabulary import TokenRange, Vocabulary
from trainer.data.sequence import Written
from trainer.generate.grammar import ENDED, Grammar, State
from trainer.generate.settings import PickSettings, SampleSettings
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
        self._sides = vocabulary.range_of("side") if vocabulary.has("side") else None
        self._last = torch.from_numpy(tokens[:, -1]).to(device)  # (B,)
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
        mask = (self._documents != 0)[:, None, None]  # (B, 1, 1, S)
        self._place = self._next_places(tokens)
        self.logits = self._read(tokens[:, None], self._place[:, None], mask)
        self._last = tokens

    def _next_places(self, tokens: Tensor) -> Tensor:
        """(B,) places in the code grid of (B,) tokens that come next, as a `Writer` counts them."""
        if self._codes is None or self._codes.grid is None:
            return torch.zeros_like(tokens)
        begins = tokens == self._begin  # (B,)
        if self._sides is not None:  # then a picture's codes begin behind its second side
            begins = _within(tokens, self._sides) & _within(self._last, self._sides)
        return torch.where(_within(tokens, self._codes), self._place + 1, begins.long())

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A document that is to be continued.

    Attributes:
        prompt: what it has so far, at least one token.
        state: where in the document its next token is.
        without: the same without its condition, for classifier-free guidance; all starts of a
            batch have it or none has.
        known: by step, the tokens that are given and not drawn.
    """

    prompt: Written
    state: State
    without: Written | None = None
    known: Mapping[int, int] = field(default_factory=dict)


def tokens_as_they_come(
    model: Decoder,
    grammar: Grammar,
    starts: Sequence[Start],
    settings: SampleSettings,
    *,
    max_new_tokens: int,
    first: int = 0,
) -> Iterator[np.ndarray]:
    """Continue documents until all have ended, a token of each at a time.

    What one draws depends on its start, the seed and its number alone.

    Args:
        model: in evaluation mode.
        grammar: what may follow what.
        starts: the documents, B of them.
        settings: how tokens are drawn.
        max_new_tokens: of each document; nothing is computed behind the last one.
        first: number of the first document; it decides the random numbers with the seed.

    Yields:
        (B,) int64 ids; `<pad>` where a document has ended.
    """
    without = [start.without for start in starts if start.without is not None]
    continuation = Continuation(
        model,
        grammar.vocabulary,
        [*(start.prompt for start in starts), *without],
        max_new_tokens=max_new_tokens,
    )
    device = continuation.logits.device
    draws = torch.stack(
        [
            uniforms(settings.seed, first + number, num_steps=max_new_tokens)
            for number in range(len(starts))
        ]
    ).to(device)  # (B, steps)
    states = [start.state for start in starts]
    for step in range(max_new_tokens):
        logits = continuation.logits  # (B or 2B, V)
        if without:
            logits = guided(*logits.chunk(2), cfg_scale=settings.cfg_scale)  # (B, V)
        chosen = choose(logits, draws[:, step], states, grammar, settings)
        for number, start in enumerate(starts):
            if step in start.known:
                chosen[number] = start.known[step]
        tokens = chosen.cpu().numpy()  # (B,)
        yield tokens
        states = [grammar.after(*pair) for pair in zip(states, tokens.tolist(), strict=True)]
        if step + 1 == max_new_tokens or all(state == ENDED for state in states):
            return
        continuation.append(chosen.repeat(2 if without else 1))


def guided(conditional: Tensor, free: Tensor, *, cfg_scale: float) -> Tensor:
    """The logits with the condition, moved away from those without it.

    Source: Ho and Salimans, Classifier-Free Diffusion Guidance, arXiv 2207.12598, equation 6, with
    1 + w as the scale. Logits do as well as the log-probabilities, as a constant changes no draw.

    Args:
        conditional: (B, V) float.
        free: (B, V) float.
        cfg_scale: 1 gives `conditional` back, and 0 `free`.

    Returns:
        (B, V) float.
    """
    return free + cfg_scale * (conditional - free)


def choose(
    logits: Tensor,
    uniform: Tensor,
    states: Sequence[State],
    grammar: Grammar,
    settings: SampleSettings,
) -> Tensor:
    """The next token of each document: one that may follow, drawn as its modality is.

    Args:
        logits: (B, V) float.
        uniform: (B,) float64 in [0, 1).
        states: B of them.
        grammar: what may follow.
        settings: how each modality is drawn.

    Returns:
        (B,) int64 ids.
    """
    chosen = torch.empty_like(uniform, dtype=torch.int64)
    for kind in dict.fromkeys(grammar.kind(state) for state in states):
        rows = torch.tensor(
            [number for number, state in enumerate(states) if grammar.kind(state) == kind],
            device=logits.device,
        )  # (N,)
        ids = grammar.ids(kind, logits.device)  # (R,)
        how: PickSettings = getattr(settings, grammar.modality(kind))
        chosen[rows] = ids[pick(logits[rows[:, None], ids], uniform[rows], how)]
    return chosen


def uniforms(seed: int, number: int, *, num_steps: int) -> Tensor:
    """The randomness of one sample, so that it depends on nothing else in its batch.

    Returns:
        (num_steps,) float64 in [0, 1).
    """
    generator = torch.Generator().manual_seed(int(fingerprint(seed=seed, number=number)[:15], 16))
    return torch.rand(num_steps, generator=generator, dtype=torch.float64)


def pick(logits: Tensor, uniform: Tensor, settings: PickSettings) -> Tensor:
    """Draw one id of each row from its likeliest, by the inverse of their distribution.

    Args:
        logits: (B, R) float; at least one of each row is above -inf.
        uniform: (B,) float64 in [0, 1) from `uniforms`.
        settings: what is cut off.

    Returns:
        (B,) int64 indices into R.
    """
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    likeliest, ids = logits.topk(min(settings.top_k, logits.shape[-1]), dim=-1)  # (B, K) from top
    # Taken from the top, so that a temperature near 0 divides no large number.
    below = likeliest.double() - likeliest[:, :1].double()
    shares = (below / settings.temperature).softmax(dim=-1)  # (B, K)
    upto = shares.cumsum(dim=-1)
    before = torch.cat((torch.zeros_like(upto[:, :1]), upto[:, :-1]), dim=-1)
    is_kept = (before < settings.top_p) & (shares >= settings.min_p * shares[:, :1])
    is_kept &= likeliest > float("-inf")
    last = is_kept.sum(dim=-1, keepdim=True) - 1  # (B, 1): what is kept comes first
    total = upto.gather(1, last)  # (B, 1)
    rank = (upto <= uniform[:, None] * total).sum(dim=-1, keepdim=True)  # (B, 1)
    # Rounding may put the rank behind the last.
    return ids.gather(1, torch.minimum(rank, last))[:, 0]


def _within(tokens: Tensor, held: TokenRange) -> Tensor:
    return (tokens >= held.start) & (tokens < held.stop)
