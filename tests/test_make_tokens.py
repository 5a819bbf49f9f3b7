"""examples/make_tokens.py: texts become token files that train_gpt.py takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.gpt_runs import QUICK, WORDS, train

pytest.importorskip("tokenizers", reason="the package tokenizers (extra 'examples') is not installed")
pytestmark = pytest.mark.usefixtures("gpt_examples")


def make(*arguments):
    return train(*arguments, program="make_tokens")


def test_a_text_comes_back_and_can_be_trained_on(capsys):
    text = WORDS * 60 + "\u00e9\u4e16\U0001f600 and\n\n  spaces\tall the same"
    Path("text.txt").write_text(text, encoding="utf-8")
    assert make("--text", "text.txt", "--vocabulary", 300, "--out", "made") == 0
    said = capsys.readouterr().out
    parts = [np.fromfile(f"made/{name}.bin", "<u2") for name in ("train", "val")]
    assert f"train.bin ({len(parts[0]):,} tokens), val.bin ({len(parts[1]):,})" in said
    tokens = np.concatenate(parts)
    assert len(parts[1]) == len(tokens) // 10 and tokens.max() < 300
    from gpt.text import Pieces

    pieces = Pieces.from_file("made/tokenizer.json")
    assert pieces.decode(tokens.tolist()) == text + "<|endoftext|>"
    assert len(tokens) < 0.5 * len(text)  # a token is more than a character
    about = json.loads(Path("made/tokens.json").read_text())
    # At most as many tokens as were asked for: a short text has no more pairs to join.
    assert 290 < about["vocabulary"] == pieces.size <= 300 and about["train"] == len(parts[0])
    command = said.split("examples/train_gpt.py ")[1].split()
    assert train(*command, *QUICK, "--device", "cpu", "--steps", 2, "--out", "run") == 0
    assert f"{len(parts[0]):,} tokens of train ({pieces.size} kinds)" in capsys.readouterr().out


def test_texts_of_many_pieces_with_a_given_tokenizer(tokenizer, monkeypatch):
    import make_tokens
    from gpt.text import Pieces

    monkeypatch.setattr(make_tokens, "PIECE", 100)
    lines = [f"line {i}: {WORDS}\n" for i in range(40)]
    Path("a.txt").write_text("".join(lines))
    Path("b.txt").write_text("another text, without an end of line")
    assert make("--text", "a.txt", "b.txt", "--tokenizer", tokenizer, "--out", "made") == 0
    tokens = np.concatenate([np.fromfile(f"made/{name}.bin", "<u2") for name in ("train", "val")])
    pieces = Pieces.from_file(tokenizer)
    assert pieces.number("<|endoftext|>") is None  # so there is nothing between the texts
    assert pieces.decode(tokens.tolist()) == "".join(lines) + "another text, without an end of line"
    assert Path("made/tokenizer.json").read_text() == Path(tokenizer).read_text()
    assert sorted(p.name for p in Path("made").iterdir()) == ["tokenizer.json", "tokens.json", "train.bin", "val.bin"]


def test_the_same_text_gives_the_same_files():
    for folder in ("one", "two"):
        assert make("--text", "text.txt", "--vocabulary", 290, "--out", folder) == 0
    for name in ("train.bin", "val.bin", "tokenizer.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--text", "bad.txt"], "bad.txt is not text in UTF-8"),
        (["--text", "empty.txt", "--tokenizer", "tokenizer.json"], "there is no text in empty.txt"),
        (["--text", "text.txt", "--vocabulary", "256"], "--vocabulary must be above 256, the bytes, and at most 65536"),
        (["--text", "text.txt", "--vocabulary", "70000"], "at most 65536, not 70000"),
        (["--text", "text.txt", "--tokenizer", "nothing.json"], "nothing.json"),
        (["--text", "text.txt", "--tokenizer", "text.txt"], "the tokenizer cannot be read"),
        (["--text", "text.txt", "--tokenizer", "tokenizer.json", "--vocabulary", "300"], "--tokenizer brings its own"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, tokenizer, capsys):
    Path("bad.txt").write_bytes(b"fine \xff\xfe not fine")
    Path("empty.txt").write_text("")
    assert make(*arguments, "--out", "made") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("make_tokens: ")
    assert not list(Path("made").glob("*.bin")) if Path("made").exists() else True
