"""Text as numbers: what to train on, the alphabets that number it, and the batches that are cut from it."""

from __future__ import annotations

import json
import re
import sysconfig
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpugrad.datasets import tiny_shakespeare

_NOT_READ = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "__pycache__"}
VALIDATION = 0.1  # of a text, its end, is kept for evaluation


# -- alphabets -------------------------------------------------------------------


class Alphabet(Protocol):
    """What turns text into tokens and back. ``size``: how many tokens there are; ``as_json`` goes with the weights."""

    size: int

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, tokens: list[int]) -> str: ...

    def as_json(self) -> str: ...


class Characters:
    """A token for each character, in the order of Unicode."""

    def __init__(self, characters: str) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.size = len(self.characters)
        if not self.size:
            raise ValueError("there is no text to take characters from")
        if self.size > 1 << 16:
            raise ValueError(f"the text has {self.size} kinds of characters, more than 65,536; use a tokenizer")
        self._codes = np.frombuffer(self.characters.encode("utf-32-le"), np.uint32)

    def encode(self, text: str) -> np.ndarray:
        """uint16 ``[n]``. Raises ValueError naming characters that have no token."""
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        tokens = np.minimum(np.searchsorted(self._codes, codes), self.size - 1)
        wrong = self._codes[tokens] != codes
        if wrong.any():
            missing = "".join(map(chr, np.unique(codes[wrong])[:8]))
            raise ValueError(
                f"{wrong.sum()} characters of the text are not among the {self.size} known, as {missing!r}"
            )
        return tokens.astype(np.uint16)

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.characters[t] for t in tokens)

    def as_json(self) -> str:
        return json.dumps({"characters": self.characters})


class Pieces:
    """The tokens of a ``tokenizer.json``, as the package ``tokenizers`` reads it."""

    def __init__(self, description: str) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise ImportError('a tokenizer needs the package tokenizers: pip install "gpugrad[examples]"') from error
        self._description = description
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(description)
        except Exception as error:  # the package raises this class itself
            raise ValueError(f"the tokenizer cannot be read: {error}") from error
        self.size = self._tokenizer.get_vocab_size()

    @classmethod
    def from_file(cls, path: str | Path) -> Pieces:
        return cls(Path(path).read_text(encoding="utf-8"))

    def encode(self, text: str) -> np.ndarray:
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        return np.array(tokens, dtype=np.uint16 if self.size <= 1 << 16 else np.uint32)

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False)

    def number(self, token: str) -> int | None:
        """The token that is written so, if there is one."""
        return self._tokenizer.token_to_id(token)

    def as_json(self) -> str:
        return json.dumps({"tokenizer": self._description})


def alphabet_from_json(text: str) -> Alphabet:
    """What ``as_json`` of an alphabet gave."""
    value = json.loads(text)
    return Characters(value["characters"]) if "characters" in value else Pieces(value["tokenizer"])


# -- texts -----------------------------------------------------------------------


def standard_library(most: int = 8_000_000) -> str:
    """The source of the Python that runs this, without its tests: text that every machine has.

    Files in the order of their names until ``most`` characters are full; what is not ASCII becomes "?"."""
    root = Path(sysconfig.get_paths()["stdlib"])
    parts: list[str] = []
    count = 0
    for path in sorted(root.rglob("*.py")):
        if _NOT_READ.isdisjoint(path.relative_to(root).parts) and not path.parts[-2].startswith("config-"):
            parts.append(path.read_bytes().decode("ascii", "replace").replace("\ufffd", "?").replace("\r", ""))
            count += len(parts[-1])
            if count >= most:
                break
    text = "\n\n".join(parts)[:most]
    return re.sub(r"[^\n -~]", "", text)


def read_text(choice: str | None) -> tuple[str, str]:
    """Name and text of what ``--text`` means: None (Python's library), ``shakespeare``, or a file in UTF-8."""
    if choice is None or choice == "python":
        return "python", standard_library()
    if choice == "shakespeare":
        return "shakespeare", tiny_shakespeare()
    path = Path(choice)
    try:
        return path.stem, path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error


def token_file(path: str | Path) -> np.ndarray:
    """A file of tokens, each an unsigned 16-bit integer, little-endian: mapped into memory, not read."""
    path = Path(path)
    size = path.stat().st_size
    if size % 2 or not size:
        raise ValueError(f"{path} has {size} bytes and so holds no tokens of two bytes each")
    return np.memmap(path, dtype="<u2", mode="r")


# -- batches ---------------------------------------------------------------------


class Tokens:
    """Tokens to train on and tokens to evaluate on, each ``[n]`` of unsigned integers, in memory or in a file."""

    def __init__(self, train: np.ndarray, validation: np.ndarray) -> None:
        self.train, self.validation = train, validation

    @classmethod
    def split(cls, tokens: np.ndarray) -> Tokens:
        """The last tenth is for evaluation."""
        cut = len(tokens) - int(len(tokens) * VALIDATION)
        return cls(tokens[:cut], tokens[cut:])

    def check(self, context: int) -> None:
        """Raise ValueError where there is less than a window of ``context``."""
        for name, part in (("training", self.train), ("evaluation", self.validation)):
            if len(part) < context + 1:
                raise ValueError(
                    f"for {name} there are {len(part)} tokens, and a context of {context} takes {context + 1}; "
                    "give more text or a smaller --context"
                )

    def batch(self, seed: int, step: int, shape: tuple[int, ...], context: int) -> tuple[np.ndarray, np.ndarray]:
        """Windows at random places, ``[*shape, context]`` int64, and what follows each of their tokens.

        A function of ``seed`` and ``step`` alone, so a run that goes on needs no memory of those before."""
        starts = np.random.default_rng((seed, step)).integers(0, len(self.train) - context, shape)
        return _windows(self.train, starts, context)

    def evaluation(self, batch: int, context: int, most: int | None = None) -> Any:
        """Batches of windows that lie side by side in the evaluation text: all, or ``most`` batches spread evenly."""
        count = (len(self.validation) - 1) // context
        starts = np.arange(count) * context
        if most is not None and most * batch < count:
            starts = starts[np.linspace(0, count - 1, most * batch).round().astype(np.int64)]
        for i in range(0, len(starts), batch):
            yield _windows(self.validation, starts[i : i + batch], context)


def _windows(tokens: np.ndarray, starts: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    whole = tokens[starts[..., None] + np.arange(context + 1)].astype(np.int64)
    return np.ascontiguousarray(whole[..., :-1]), np.ascontiguousarray(whole[..., 1:])
