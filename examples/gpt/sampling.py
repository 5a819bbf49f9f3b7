"""Writing text with a model, a token at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import gpugrad as gg
from gpt.model import GPT, new_cache
from gpt.text import Alphabet

_HELD = 4  # tokens that are decoded again with each new one


def chances(
    logits: gg.Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> gg.Tensor:
    """Probabilities of the next token, ``[vocabulary]``, of its logits.

    ``top_k``: only the k most likely. ``top_p``: only the fewest that together have that probability, after
    ``temperature`` and ``top_k`` (Holtzman et al., "The curious case of neural text degeneration", 2020)."""
    scaled = logits.float() / temperature
    if top_k is not None and top_k < scaled.numel():
        least = scaled.topk(top_k).values[-1]
        scaled = gg.where(scaled < least, -gg.inf, scaled)
    odds = scaled.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = odds.sort(descending=True)
        kept = ordered.cumsum(0) - ordered < top_p  # those before it are not enough yet
        odds = gg.zeros_like(odds).scatter(0, order, ordered * kept)
    return odds / odds.sum()


def generate(
    model: GPT,
    prompt: list[int],
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    cached: bool = True,
    known: int | None = None,
) -> Iterator[int]:
    """``count`` tokens after those of ``prompt`` (at least one), as they are drawn. Temperature 0 takes the likeliest.

    Where the context is full, its older half is forgotten. ``cached``: keys and values of earlier tokens are kept, not
    computed again. ``known``: tokens from that number on, which stand for nothing, are never drawn."""
    if not prompt:
        raise ValueError("a prompt needs at least one token")
    device = model.tokens.weight.device
    context = model.config.context
    window = list(prompt[-context:])
    cache = new_cache(model.config, 1, device) if cached else None
    new = window  # what the cache has not seen
    training = model.training
    model.eval()
    try:
        for _ in range(count):
            with gg.no_grad():
                index = gg.tensor([new if cached else window], device=device)
                logits = model(index, cache)[0, -1, :known]
                if temperature == 0:
                    token = int(logits.argmax())
                else:
                    token = int(gg.multinomial(chances(logits, temperature, top_k, top_p), 1))
            yield token
            window.append(token)
            new = [token]
            if len(window) > context:
                window = window[-max(1, context // 2) :]
                new = window
                for kept in cache or ():
                    kept.reset()
    finally:
        model.train(training)


def pieces_of_text(alphabet: Alphabet, tokens: Iterable[int], before: Iterable[int] = ()) -> Iterator[str]:
    """The text of ``tokens``, which follow those of ``before``, piece by piece as it becomes certain: a character may
    take several tokens, and in some tokenizers a token's text depends on what is before it."""
    held = list(before)[-_HELD:]
    shown = alphabet.decode(held)
    for token in tokens:
        held.append(token)
        text = alphabet.decode(held)
        if not text.endswith("\ufffd"):  # else it ends within a character
            yield text[len(shown) :]
            held = held[-_HELD:]
            shown = alphabet.decode(held)
    yield alphabet.decode(held)[len(shown) :]
