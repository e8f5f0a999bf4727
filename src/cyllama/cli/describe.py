"""``cyllama describe``: describe images and audio with a multimodal model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from cyllama.cli._language import add_model, load
from cyllama.cli._media import add_media, media_parts
from cyllama.cli._parser import CommandParser

__all__ = ["add_arguments", "run"]

PROMPT = "What is in this picture?"
AUDIO_PROMPT = "What is said here?"


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="an image; several are sent together, in order")
    add_media(parser)
    parser.add_argument("-p", "--prompt", help=f"the prompt; default: {PROMPT!r}")
    parser.add_argument("-sys", "--system", "--system-prompt", help="the system prompt")
    parser.add_argument("--each", action="store_true", help="describe each image in a request and a line of its own")
    parser.add_argument("--max-tokens", type=int, default=128, help="maximum number of tokens of a reply; default: 128")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the reply."""
    images = [*arguments.images, *arguments.image]
    if not images and not arguments.audio:
        raise ValueError("there is no input, expected images, or audio with --audio")
    if arguments.each and (arguments.audio or not images):
        raise ValueError("--each was given, expected images alone")
    prompt = arguments.prompt or (PROMPT if images else AUDIO_PROMPT)
    with load(arguments) as llm:
        if not arguments.each:
            _reply(llm, media_parts(llm, images, arguments.audio), prompt, arguments)
        for image in images if arguments.each else ():
            print(f"{image}: ", end="")
            _reply(llm, media_parts(llm, [image], []), prompt, arguments)
    return 0


def _reply(llm: Any, parts: list[dict[str, Any]], prompt: str, arguments: argparse.Namespace) -> None:
    system = [{"role": "system", "content": arguments.system}] if arguments.system else []
    message = {"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}
    # deterministic by default
    sampling = {} if getattr(arguments, "upstream:--temperature", None) is not None else {"temperature": 0}
    with llm.chat([*system, message], max_tokens=arguments.max_tokens, stream=True, **sampling) as stream:
        for part in stream:
            if part.reasoning:
                print(part.reasoning, end="", file=sys.stderr, flush=True)
            print(part.text, end="", flush=True)
    print()
