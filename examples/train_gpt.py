"""Train a GPT on text.

    python examples/train_gpt.py --text shakespeare          # tiny Shakespeare, a small model, minutes on a CPU
    python examples/train_gpt.py                             # the source of Python's own library
    python examples/train_gpt.py --size gpt2 --tokens train.bin val.bin --dtype bfloat16 --compile --device cuda

``make_tokens.py`` makes such files of a text.

Shows loss, gradient norm, learning rate and speed as it goes, evaluates, prints samples, and writes a run folder: the
weights as safetensors (for sample_gpt.py and finetune_gpt.py), the loss curve as PNG, settings and results as JSON, and
a checkpoint. Ctrl-C stops after the current step with everything saved; ``--resume`` goes on from there, or from where
a crash left it, and ends with the same bits as a run that was never interrupted.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from common import run_folder
from gpt.arguments import (
    begun,
    check_vocabulary,
    count,
    given_settings,
    read_tokens,
    resumed,
    run,
    shown,
    training_arguments,
)
from gpt.model import GPT, SIZES, Config
from gpt.text import Pieces, alphabet_from_json
from gpt.training import DEFAULTS, Trainer

import gpugrad as gg

_SHAPE = ("layers", "heads", "channels", "context", "kv_heads", "rope", "rmsnorm", "swiglu", "bias", "dropout")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a GPT on text.")
    group = parser.add_argument_group("text")
    group.add_argument("--text", help="a file, shakespeare, or python (default): the source of Python's library")
    group.add_argument("--tokens", nargs="+", metavar="FILE", help="16-bit tokens to train (and to evaluate) on")
    group.add_argument("--tokenizer", metavar="JSON", help="tokenizer.json for --text, or for samples with --tokens")
    group.add_argument("--vocabulary", type=int, help="number of tokens, with --tokens; default: 50257, as GPT-2's")
    group = parser.add_argument_group("model")
    group.add_argument("--size", choices=list(SIZES), help="default: tiny")
    for name in ("layers", "heads", "channels", "context", "kv-heads"):
        group.add_argument(f"--{name}", type=int, help="default: by --size")
    group.add_argument("--rope", action="store_const", const=True, help="rotary positions instead of learned ones")
    group.add_argument("--rmsnorm", action="store_const", const=True, help="RMSNorm instead of layer norm")
    group.add_argument("--swiglu", action="store_const", const=True, help="SwiGLU instead of GELU")
    group.add_argument("--no-bias", dest="bias", action="store_const", const=False, help="linear maps without biases")
    group.add_argument("--dropout", type=float, help="default: 0")
    training_arguments(parser)
    return parser.parse_args(arguments)


def new_settings(given: dict[str, Any]) -> dict[str, Any]:
    """All settings of a run that begins."""
    name = given.get("size", "tiny")
    size = SIZES[name]
    usual = {"size": name, "batch_size": size.batch, "lr": size.lr, "checkpoint_activations": False}
    return {**DEFAULTS, **usual, **given}


def prepare(options: argparse.Namespace) -> Trainer:
    """Everything up to the first step."""
    device = gg.device(options.device)
    given = given_settings(options)
    if "tokens" in given and "text" in given:
        raise ValueError("--tokens and --text are two things to train on; give one of them")
    state = None
    if options.resume is not None:
        state, settings, folder = resumed(options, given, "gpt")
        alphabet = alphabet_from_json(state["alphabet"]) if state["alphabet"] else None
    else:
        settings = new_settings(given)
        folder = run_folder(options.out, f"gpt-{settings['size']}-{str(device).replace(':', '')}")
        alphabet = Pieces.from_file(given["tokenizer"]) if "tokenizer" in given else None
    name, tokens, alphabet = read_tokens(settings, alphabet)
    if state is not None:
        config = Config.from_dict(state["config"])
    else:
        shape = {key: settings[key] for key in _SHAPE if key in settings}
        known = settings.get("vocabulary") or (alphabet.size if alphabet is not None else 50257)
        config = replace(SIZES[settings["size"]].config, vocabulary=known, **shape)
    check_vocabulary(tokens, config.vocabulary)
    gg.manual_seed(settings["seed"])
    model = GPT(config, settings["checkpoint_activations"]).to(device)
    trainer = Trainer(model, tokens, alphabet, settings, device, folder, shown(options))
    about = f"{len(tokens.train):,} tokens of {name} ({config.vocabulary:,} kinds)"
    return begun(trainer, state, f"GPT with {count(model.parameters()):,} parameters, {about}")


def finish(trainer: Trainer) -> str:
    results = trainer.finish()
    return (
        f"validation loss {results['validation_loss']:.4f} after {trainer.step} steps and "
        f"{results['training_seconds']:.1f} s of training\n"
        f"wrote {trainer.folder}/: model.safetensors, loss.png, results.json"
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return run("train_gpt", lambda: prepare(options), finish)


if __name__ == "__main__":
    sys.exit(main())
