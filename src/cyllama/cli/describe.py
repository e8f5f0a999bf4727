"""``cyllama describe``: ask a language model about pictures and sound."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from cyllama.cli._language import add_model, load
from cyllama.cli._media import add_media, media_parts

__all__ = ["add_arguments", "run"]

MODEL, PROJECTOR = "smollm2-135m-instruct", "vision-dinov2s"
PROMPT = "What is in this picture?"
SOUND_PROMPT = "What is said here?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("picture", nargs="*", metavar="IMAGE", help="a picture; several are shown together, in order")
    add_media(parser)
    parser.add_argument("-p", "--prompt", help=f"the question; default: {PROMPT!r}")
    parser.add_argument("-sys", "--system", "--system-prompt", help="what the model is told before")
    parser.add_argument("--each", action="store_true", help="ask about each picture alone, an answer in each line")
    parser.add_argument("--max-tokens", type=int, default=128, help="tokens of an answer at most; default: 128")
    add_model(parser, default=(MODEL, PROJECTOR))


def run(arguments: argparse.Namespace) -> int:
    """Print the answer."""
    images = [*arguments.picture, *arguments.image]
    if not images and not arguments.audio:
        raise ValueError("nothing to look at: name pictures, or sounds with --audio")
    if arguments.each and (arguments.audio or not images):
        raise ValueError("--each is for pictures alone")
    prompt = arguments.prompt or (PROMPT if images else SOUND_PROMPT)
    with load(arguments) as llm:
        if not arguments.each:
            _answer(llm, media_parts(llm, images, arguments.audio), prompt, arguments)
        for image in images if arguments.each else ():
            print(f"{image}: ", end="")
            _answer(llm, media_parts(llm, [image], []), prompt, arguments)
    return 0


def _answer(llm: Any, parts: list[dict[str, Any]], prompt: str, arguments: argparse.Namespace) -> None:
    system = [{"role": "system", "content": arguments.system}] if arguments.system else []
    question = {"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}
    # what is seen is told, not invented, unless the options say otherwise
    calm = {} if getattr(arguments, "upstream:--temperature", None) is not None else {"temperature": 0}
    with llm.chat([*system, question], max_tokens=arguments.max_tokens, stream=True, **calm) as stream:
        for part in stream:
            if part.reasoning:
                print(part.reasoning, end="", file=sys.stderr, flush=True)
            print(part.text, end="", flush=True)
    print()
