"""Turn texts into token files, which train_gpt.py maps into memory instead of reading them.

    python examples/make_tokens.py --text corpus.txt --vocabulary 16384 --out tokens       # with a tokenizer of its own
    python examples/make_tokens.py --text a.txt b.txt --tokenizer tokenizer.json --out tokens
    python examples/train_gpt.py --tokens tokens/train.bin tokens/val.bin --tokenizer tokens/tokenizer.json ...

Writes ``train.bin`` and ``val.bin`` (the last tenth), each token an unsigned 16-bit integer, little-endian, and
``tokenizer.json``. Texts are read some at a time, so they may be larger than memory. A tokenizer that is not given is
learned from the texts: byte-pair encoding (Sennrich et al., "Neural machine translation of rare words with subword
units", 2016) of their bytes, so that it can spell any other text, too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from common import write_json
from gpt.text import VALIDATION, Pieces, read_text

from gpugrad.files import atomic_path

END = "<|endoftext|>"  # stands after each text, where the tokenizer has it
PIECE = 1 << 20  # characters that are read and encoded at a time
_NAMED = ("python", "shakespeare")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn texts into token files.")
    parser.add_argument("--text", nargs="+", required=True, help="files in UTF-8; or shakespeare, python")
    parser.add_argument("--tokenizer", metavar="JSON", help="tokenizer.json; default: one is learned from the texts")
    parser.add_argument("--vocabulary", type=int, help="tokens of the tokenizer that is learned; default: 16384")
    parser.add_argument("--out", metavar="DIR", default="tokens", help="where the files go; default: tokens")
    return parser.parse_args(arguments)


def pieces(choice: str) -> Iterator[str]:
    """The text that ``choice`` names, in pieces of whole lines: no token reaches from one piece into the next."""
    if choice in _NAMED:
        yield read_text(choice)[1]
        return
    try:
        with open(choice, encoding="utf-8") as file:
            while part := file.read(PIECE):
                yield part + file.readline()
    except UnicodeDecodeError as error:
        raise ValueError(f"{choice} is not text in UTF-8: {error}") from error


def learned(texts: list[str], vocabulary: int) -> str:
    """The description of a byte-level tokenizer of so many tokens. Raises ValueError where these are too few."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError('a tokenizer needs the package tokenizers: pip install "gpugrad[examples]"') from error
    letters = pre_tokenizers.ByteLevel.alphabet()
    if not len(letters) < vocabulary <= 1 << 16:
        raise ValueError(f"--vocabulary must be above {len(letters)}, the bytes, and at most 65536, not {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=sorted(letters), show_progress=False
    )
    tokenizer.train_from_iterator((part for text in texts for part in pieces(text)), trainer)
    return tokenizer.to_str()


def encoded(texts: list[str], tokenizer: Pieces) -> Iterator[np.ndarray]:
    """The tokens of the texts, piece by piece."""
    end = tokenizer.number(END)
    for text in texts:
        for part in pieces(text):
            yield tokenizer.encode(part)
        if end is not None:
            yield np.array([end])


def write_tokens(texts: list[str], tokenizer: Pieces, folder: Path) -> tuple[int, int]:
    """Write ``train.bin`` and ``val.bin``; how many tokens each has. Raises ValueError where there are none."""
    whole = folder / f"all-{os.getpid()}.bin"
    try:
        with open(whole, "wb") as file:
            for tokens in encoded(texts, tokenizer):
                file.write(tokens.astype("<u2").tobytes())
        count = whole.stat().st_size // 2
        if not count:
            raise ValueError(f"there is no text in {' '.join(texts)}")
        kept = int(count * VALIDATION)
        with open(whole, "rb") as source:
            _copy(source, folder / "train.bin", 2 * (count - kept))
            _copy(source, folder / "val.bin", 2 * kept)
        return count - kept, kept
    finally:
        whole.unlink(missing_ok=True)


def _copy(source: BinaryIO, path: Path, size: int) -> None:
    """Write the next ``size`` bytes of ``source`` to a file, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        while size:
            part = source.read(min(size, PIECE))
            file.write(part)
            size -= len(part)


def make(options: argparse.Namespace) -> str:
    """Write the files; what to print."""
    if options.tokenizer and options.vocabulary:
        raise ValueError("--vocabulary is of a tokenizer that is learned; --tokenizer brings its own")
    if options.tokenizer:
        description = Path(options.tokenizer).read_text(encoding="utf-8")
    else:
        description = learned(options.text, options.vocabulary or 16384)
    tokenizer = Pieces(description)
    if tokenizer.size > 1 << 16:
        raise ValueError(f"{options.tokenizer} has {tokenizer.size} tokens, and 16 bits hold 65536")
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    train, validation = write_tokens(options.text, tokenizer, folder)
    with atomic_path(folder / "tokenizer.json") as temporary:
        temporary.write_text(description, encoding="utf-8")
    about: dict[str, Any] = {"vocabulary": tokenizer.size, "train": train, "validation": validation}
    write_json(folder / "tokens.json", about | {"texts": options.text})
    return (
        f"wrote {folder}/: train.bin ({train:,} tokens), val.bin ({validation:,}), tokenizer.json, tokens.json\n"
        f"train with: python examples/train_gpt.py --tokens {folder}/train.bin {folder}/val.bin "
        f"--tokenizer {folder}/tokenizer.json --vocabulary {tokenizer.size}"
    )


def main(arguments: list[str] | None = None) -> int:
    try:
        print(make(parse_arguments(arguments)))
    except (OSError, ImportError, ValueError) as error:
        print(f"make_tokens: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_tokens: interrupted; files that are there are whole", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
