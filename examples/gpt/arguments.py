"""What the command lines of train_gpt.py and finetune_gpt.py share: options, their text, and how they end."""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import device_name, find_checkpoint, load_checkpoint, write_json

import gpugrad as gg
from gpt.step import DTYPES
from gpt.text import Alphabet, Characters, Tokens, read_text, token_file
from gpt.training import DEFAULTS, Trainer

# What may be said anew when a run goes on: none of it changes the weights, steps apart.
_FREE = {"steps", "report_every", "eval_every", "eval_batches", "sample_every", "sample_length", "save_every"}
_AT_LEAST_ONE = ("steps", "batch_size", "accumulate", "report_every", "eval_every", "eval_batches", "save_every")


def training_arguments(parser: argparse.ArgumentParser, **changed: Any) -> None:
    """Options of the training loop. ``changed``: defaults that differ from the usual ones, for the help."""
    usual = DEFAULTS | changed
    group = parser.add_argument_group("training")

    def option(name: str, kind: Any, text: str, key: str | None = None) -> None:
        group.add_argument(f"--{name}", type=kind, help=f"{text}; default: {usual[key or name.replace('-', '_')]}")

    option("steps", int, "steps of the optimizer")
    group.add_argument("--batch-size", type=int, help="windows of text in a batch; default: by --size")
    option("accumulate", int, "batches whose gradients make up a step")
    group.add_argument("--lr", type=float, help=f"highest learning rate; default: {changed.get('lr', 'by --size')}")
    option("min-lr", float, "the learning rate at the end, as a part of the highest")
    option("warmup", int, "steps in which the learning rate rises")
    option("beta2", float, "AdamW's second decay rate")
    option("weight-decay", float, "of matrices")
    option("clip", float, "largest norm of a gradient")
    group.add_argument("--dtype", choices=list(DTYPES), help="what products compute in; default: float32")
    group.add_argument("--compile", action="store_const", const=True, help="compile the whole step")
    group.add_argument(
        "--checkpoint-activations", action="store_const", const=True, help="compute blocks again for the gradients"
    )
    option("seed", int, "of weights, data and dropout")
    option("report-every", int, "steps between looks at the loss")
    option("eval-every", int, "steps between evaluations")
    option("eval-batches", int, "batches in an evaluation; the last one takes all of the text")
    option("sample-every", int, "steps between samples of text; 0: none")
    option("sample-length", int, "tokens in a sample")
    option("save-every", int, "steps between checkpoints")
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="auto, cpu, opencl[:i] or cuda[:i]")
    group.add_argument("--out", metavar="DIR", help="run folder, default runs/<name>-<time>")
    group.add_argument("--resume", nargs="?", const="", metavar="PATH", help="a run folder or checkpoint; the newest")
    group.add_argument("--tensorboard", action="store_true", help="write event files for TensorBoard")
    group.add_argument("--no-mfu", action="store_true", help="do not measure the device's matrix products")


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, without what only concerns this run. Raises ValueError for numbers out of range."""
    left_out = {"device", "out", "resume", "tensorboard", "no_mfu"}
    given = {key: value for key, value in vars(options).items() if value is not None and key not in left_out}
    for key in _AT_LEAST_ONE:
        if given.get(key, 1) < 1:
            raise ValueError(f"--{key.replace('_', '-')} must be at least 1, not {given[key]}")
    return given


def resumed(
    options: argparse.Namespace, given: dict[str, Any], kind: str
) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The checkpoint that ``--resume`` means, its settings with what may be said anew, and the run's folder. Raises
    ValueError for what may not, and for a checkpoint that is not of this ``kind``."""
    path = find_checkpoint(options.resume, kind)
    state = load_checkpoint(path, kind)
    changed = [key for key in given if key not in _FREE and given[key] != state["settings"].get(key)]
    if changed:
        names = ", ".join("--" + key.replace("_", "-") for key in changed)
        raise ValueError(f"--resume keeps the run's settings; leave out {names}")
    return state, state["settings"] | given, Path(options.out) if options.out else path.parent


def read_tokens(settings: dict[str, Any], alphabet: Alphabet | None) -> tuple[str, Tokens, Alphabet | None]:
    """Name, tokens and alphabet of what ``settings`` say to train on; without an ``alphabet`` the characters of the
    text are one. Raises ValueError where a run that goes on would meet another text."""
    if settings.get("tokens"):
        files = settings["tokens"]
        if len(files) > 2:
            raise ValueError(f"--tokens takes one file, or one to train and one to evaluate on, not {len(files)}")
        parts = [token_file(path) for path in files]
        tokens = Tokens(*parts) if len(parts) == 2 else Tokens.split(parts[0])
        name = Path(files[0]).stem
        _check_fingerprint(settings, name, str([len(part) for part in parts]))
    else:
        name, text = read_text(settings.get("text"))
        _check_fingerprint(settings, name, hashlib.sha256(text.encode()).hexdigest())
        alphabet = Characters(text) if alphabet is None else alphabet
        tokens = Tokens.split(alphabet.encode(text))
    return name, tokens, alphabet


def _check_fingerprint(settings: dict[str, Any], name: str, fingerprint: str) -> None:
    if settings.setdefault("fingerprint", fingerprint) != fingerprint:
        raise ValueError(f"--resume: {name} is not the text that the run began with")


def count(parameters: Any) -> int:
    """Elements of all ``parameters``."""
    return sum(p.numel() for p in parameters)


def shown(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says about what is shown, which does not change the result."""
    return {"mfu": not options.no_mfu, "tensorboard": options.tensorboard}


def begun(trainer: Trainer, state: dict[str, Any] | None, about: str) -> Trainer:
    """``trainer`` at its first step, or (with the ``state`` of a checkpoint) where that was written; its settings are
    in its folder, and what it is ``about`` to do is printed."""
    if state is not None:
        trainer.restore(state)
    trainer.folder.mkdir(parents=True, exist_ok=True)
    device, config = trainer.device, trainer.model.config
    write_json(trainer.folder / "settings.json", trainer.settings | {"model": config.as_dict(), "device": str(device)})
    print(f"{about}, on {device_name(device)}", flush=True)
    return trainer


def run(program: str, prepare: Callable[[], Trainer], finish: Callable[[Trainer], str]) -> int:
    """``prepare()`` a trainer, train, ``finish`` and print what that returns; the exit status. Errors that a user can
    mend are one sentence."""
    try:
        trainer = prepare()
        if not trainer.run():
            print(
                f"stopped after {trainer.step} steps; go on with: python examples/{program}.py "
                f"--device {trainer.device} --resume {shlex.quote(str(trainer.folder))}"
            )
            return 130
        print(finish(trainer))
    except (gg.GpugradError, OSError, ImportError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the last checkpoint, if any, is as it was", file=sys.stderr)
        return 130
    return 0


def check_vocabulary(tokens: Tokens, vocabulary: int) -> None:
    """Raise ValueError where a token, among the first million, has no place in the embedding."""
    for part in (tokens.train, tokens.validation):
        highest = int(np.max(part[: 1 << 20], initial=0))
        if highest >= vocabulary:
            raise ValueError(f"a token is {highest}, and the vocabulary has {vocabulary}; give a larger --vocabulary")
