"""``cyllama complete``: complete a text with a language model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cyllama._paths import expanded
from cyllama.cli._language import add_model, load, unescape
from cyllama.cli._parser import CommandParser

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments."""
    parser.add_argument("prompt", nargs="?", help="the prompt; default: the standard input")
    parser.add_argument("-f", "--file", type=expanded, help="file with the prompt")
    parser.add_argument("--max-tokens", type=int, help="maximum number of tokens to generate")
    parser.add_argument("-p", "--prompt", dest="text", metavar="PROMPT", help="the prompt")
    parser.add_argument(
        "-e", "--escape", action="store_true", help="replace escape sequences such as \\n and \\t in the prompt"
    )
    parser.add_argument("--verbose-prompt", action="store_true", help="print the tokens of the prompt first")
    parser.add_argument("--no-echo", "--no-display-prompt", action="store_true", help="do not print the prompt")
    parser.add_argument("--prompt-cache", type=expanded, metavar="FILE",
                        help="load the prompt cache from a file, and save it there")  # fmt: skip
    parser.add_argument("--prompt-cache-ro", action="store_true", help="do not save the prompt cache")
    parser.add_argument("--show-timings", action="store_true", help="print tokens and tokens per second at the end")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the prompt and its completion."""
    given = [text for text in (arguments.prompt, arguments.text, arguments.file) if text is not None]
    if len(given) > 1:
        raise ValueError("the prompt is given more than once, expected one of PROMPT, --prompt and --file")
    cache: Path | None = arguments.prompt_cache
    prompt = given[0] if given else sys.stdin.read()
    if isinstance(prompt, Path):
        prompt = prompt.read_text(encoding="utf-8")
    if arguments.escape:
        prompt = unescape(prompt)
    part = None
    with load(arguments, **({} if cache is None else {"n_parallel": 1})) as llm:
        if cache is not None and cache.exists():
            llm.load_state(cache)
        if arguments.verbose_prompt:
            for token in llm.tokenize(prompt):
                print(f"{token:6} {llm.detokenize([token])!r}", file=sys.stderr)
        if not arguments.no_echo:
            print(prompt, end="", flush=True)
        with llm.complete(prompt, max_tokens=arguments.max_tokens, stream=True) as stream:
            for part in stream:
                print(part.text, end="", flush=True)
        print()
        if cache is not None and not arguments.prompt_cache_ro:
            llm.save_state(cache)
    timings = part.timings if arguments.show_timings and part is not None else None
    if timings is not None:
        print(
            f"[prompt: {timings.prompt_n} tokens computed, {timings.cache_n} cached, "
            f"{timings.prompt_per_second:.1f} tokens/s; text: {timings.predicted_n} tokens, "
            f"{timings.predicted_per_second:.1f} tokens/s]",
            file=sys.stderr,
        )
    return 0
