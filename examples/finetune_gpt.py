"""Teach a trained GPT another text by LoRA: only small matrices beside the model's own are learned.

    python examples/train_gpt.py --out runs/python                                  # a model to begin with
    python examples/finetune_gpt.py --weights runs/python --text shakespeare

Writes a run folder as train_gpt.py does: ``adapters.safetensors`` holds what was learned, ``model.safetensors`` the
model with it added in, a model like any other: sample_gpt.py takes it as it is.
"""

from __future__ import annotations

import argparse
import sys
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
from gpt.files import load_model
from gpt.lora import TARGETS, adapt, adapters, merge
from gpt.model import GPT, Config
from gpt.text import Pieces, alphabet_from_json
from gpt.training import DEFAULTS, Trainer

import gpugrad as gg

# Where they differ from training anew: few steps, without decay, as the adapters begin at nothing.
_CHANGED = {"steps": 500, "lr": 2e-3, "warmup": 20, "weight_decay": 0.0, "eval_every": 100, "save_every": 100}
_LORA = {"rank": 8, "alpha": 16.0, "lora_dropout": 0.0, "targets": list(TARGETS)}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Teach a trained GPT another text by LoRA.")
    parser.add_argument("--weights", help="a safetensors file or the folder of a run: the model to begin with")
    group = parser.add_argument_group("text")
    group.add_argument("--text", help="a file, shakespeare, or python (default): the source of Python's library")
    group.add_argument("--tokens", nargs="+", metavar="FILE", help="16-bit tokens to train (and to evaluate) on")
    group.add_argument("--tokenizer", metavar="JSON", help="default: what came with the weights")
    group = parser.add_argument_group("adapters")
    group.add_argument("--rank", type=int, help=f"of the learned matrices; default: {_LORA['rank']}")
    group.add_argument("--alpha", type=float, help=f"they count by alpha / rank; default: {_LORA['alpha']:g}")
    group.add_argument("--lora-dropout", type=float, help="of what goes into them; default: 0")
    group.add_argument("--targets", nargs="+", help=f"linear maps of a block; default: {' '.join(TARGETS)}")
    training_arguments(parser, **_CHANGED)
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> Trainer:
    """Everything up to the first step."""
    device = gg.device(options.device)
    given = given_settings(options)
    if given.get("rank", 1) < 1:
        raise ValueError(f"--rank must be at least 1, not {given['rank']}")
    state = None
    if options.resume is not None:
        state, settings, folder = resumed(options, given, "lora")
        alphabet = alphabet_from_json(state["alphabet"]) if state["alphabet"] else None
        model = GPT(Config.from_dict(state["config"]))
    elif "weights" not in given:
        raise ValueError("--weights says which model to begin with; give a file or the folder of a run")
    else:
        settings = {**DEFAULTS, **_CHANGED, **_LORA, "checkpoint_activations": False, **given}
        folder = run_folder(options.out, f"lora-{str(device).replace(':', '')}")
        model, alphabet = load_model(settings["weights"])
        if "tokenizer" in given:
            alphabet = Pieces.from_file(given["tokenizer"])
    if alphabet is None and "text" in given:
        raise ValueError(f"{settings['weights']} brings no tokenizer for --text; give --tokenizer tokenizer.json")
    name, tokens, alphabet = read_tokens(settings, alphabet)
    check_vocabulary(tokens, model.config.vocabulary)
    gg.manual_seed(settings["seed"])
    model.checkpointing = settings["checkpoint_activations"]
    learned = adapt(model, settings["rank"], settings["alpha"], settings["lora_dropout"], tuple(settings["targets"]))
    model.to(device)
    trainer = Trainer(model, tokens, alphabet, settings, device, folder, shown(options), "lora")
    about = f"{count(learned):,} of {count(model.parameters()):,} parameters are learned"
    return begun(trainer, state, f"{about}, {len(tokens.train):,} tokens of {name}")


def finish(trainer: Trainer) -> str:
    begun = trainer.validation[0] if trainer.validation else None
    learned = {name: p.detach() for name, p in adapters(trainer.model).items()}
    lora: dict[str, Any] = {key: str(trainer.settings[key]) for key in _LORA}
    gg.save(learned, trainer.folder / "adapters.safetensors", metadata=lora)
    merge(trainer.model)
    results = trainer.finish()
    before = f" (after {begun[0]} steps: {begun[1]:.4f})" if begun else ""
    return (
        f"validation loss {results['validation_loss']:.4f}{before}, {results['training_seconds']:.1f} s of training\n"
        f"wrote {trainer.folder}/: adapters.safetensors, model.safetensors, loss.png, results.json"
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return run("finetune_gpt", lambda: prepare(options), finish)


if __name__ == "__main__":
    sys.exit(main())
