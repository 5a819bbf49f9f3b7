"""Let a GPT write.

    python examples/sample_gpt.py --weights runs/gpt-tiny-cpu-.../ --prompt "ROMEO:"
    python examples/sample_gpt.py --weights gpt2/model.safetensors --prompt "The moon" --top-p 0.9 --length 100

The weights are those of train_gpt.py and finetune_gpt.py, or of Hugging Face's GPT-2 with config.json and
tokenizer.json beside them. Text appears as it is drawn.
"""

from __future__ import annotations

import argparse
import sys
import time

from gpt.files import load_model
from gpt.sampling import generate, pieces_of_text
from gpt.text import Pieces

import gpugrad as gg


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Let a GPT write.")
    parser.add_argument("--weights", required=True, help="a safetensors file, or the folder of a run")
    parser.add_argument("--tokenizer", metavar="JSON", help="default: what is in the weights' file or beside it")
    parser.add_argument("--device", default="auto", help="auto, cpu, opencl[:i] or cuda[:i]")
    parser.add_argument("--prompt", default="\n", help="text to go on from; - reads it from the standard input")
    parser.add_argument("--length", type=int, default=500, help="tokens to write; default: 500")
    parser.add_argument("--samples", type=int, default=1, help="texts to write; default: 1")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token; default: 0.8")
    parser.add_argument("--top-k", type=int, default=200, help="only among the k likeliest; 0: all; default: 200")
    parser.add_argument("--top-p", type=float, help="only among the fewest that have this probability together")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--no-cache", action="store_true", help="compute the whole context for every token")
    return parser.parse_args(arguments)


def write(options: argparse.Namespace) -> None:
    """Load, and write the samples to the standard output. Raises ValueError for options that make no sense."""
    for name, wrong in (
        ("length", options.length < 1),
        ("samples", options.samples < 1),
        ("temperature", options.temperature < 0),
        ("top-k", options.top_k < 0),
        ("top-p", options.top_p is not None and not 0 < options.top_p <= 1),
    ):
        if wrong:
            raise ValueError(f"--{name} is out of range")
    model, alphabet = load_model(options.weights, gg.device(options.device))
    if options.tokenizer is not None:
        alphabet = Pieces.from_file(options.tokenizer)
    if alphabet is None:
        raise ValueError(f"{options.weights} brings no tokenizer; give --tokenizer tokenizer.json")
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    start = alphabet.encode(prompt).tolist()
    if not start:
        raise ValueError("--prompt is empty; give at least one character")
    gg.manual_seed(options.seed)
    began = time.perf_counter()
    for number in range(options.samples):
        if number:
            print("\n" + "-" * 40)
        print(prompt.lstrip("\n"), end="", flush=True)
        drawn = generate(
            model, start, options.length, options.temperature, options.top_k or None, options.top_p,
            cached=not options.no_cache, known=alphabet.size,
        )  # fmt: skip
        for text in pieces_of_text(alphabet, drawn, start):
            print(text, end="", flush=True)
        print()
    seconds = time.perf_counter() - began
    made = options.samples * options.length
    print(f"{made} tokens in {seconds:.2f} s, {made / seconds:,.0f} a second", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    try:
        write(parse_arguments(arguments))
    except (gg.GpugradError, OSError, ImportError, ValueError) as error:
        print(f"sample_gpt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
