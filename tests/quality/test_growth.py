"""Time for text of callers grows linearly: eight times the text takes far less than 64 times as long."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cyllama.llama._special_tokens import MARK, ControlTexts
from cyllama.llama.tools import tool_dicts
from cyllama.media.message_parts import MediaRules, part_media
from cyllama.pipelines.prompts import prompt_from_speech
from cyllama.sd.loras import prompt_with_loras, reject_lora_tags, split_prompt
from cyllama.sd.metadata import parse_infotext
from cyllama.whisper._grammar_check import check_rules
from cyllama.whisper._segments import Token
from cyllama.whisper._word_timestamps import join_words

SMALL, FACTOR, MAX_RATIO = 2_000, 8, 32
LEAST_SECONDS = 0.002  # shorter times are mostly noise

Task = Callable[[], object]


def control(tokens: list[str], text: str) -> Task:
    found = ControlTexts(tokens)
    return lambda: found.plain(text)


def chain(n: int) -> Task:
    """Rules that each begin with the next; all match the empty text."""
    rules = [[[i + 1]] for i in range(n)] + [[[]]]
    return lambda: check_rules(rules, {})


def words(n: int) -> Task:
    tokens = [Token(id=0, raw=b"a", probability=1.0, logprob=0.0) for _ in range(n)]
    return lambda: join_words(tokens, "en", 0.0, 1.0)


def tools(n: int) -> Task:
    made = [{"type": "function", "function": {"name": f"f{i}"}} for i in range(n)]
    return lambda: tool_dicts(made)


TASKS: dict[str, Callable[[int], Task]] = {
    "parameters without a label": lambda n: lambda: parse_infotext("a " * n),
    "parameters with empty labels": lambda n: lambda: parse_infotext(" -:" * n),
    "parameters with open quotes": lambda n: lambda: parse_infotext('a: "x, ' * n),
    "parameters with escapes": lambda n: lambda: parse_infotext('a: "' + '\\"' * n),
    "parameters with spaces": lambda n: lambda: parse_infotext("a:" + " " * n + "b"),
    "many parameters": lambda n: lambda: parse_infotext("a b: c, " * n),
    "beginnings of control tokens": lambda n: control([f"<|{i}|>" for i in range(500)], "<|" * n),
    "control tokens": lambda n: control([f"<|{i}|>" for i in range(500)], "<|17|>" * n),
    "control tokens in control tokens": lambda n: control(["<" * (i + 2) + ">" for i in range(100)], "<" * n + ">"),
    "a vocabulary of control tokens": lambda n: lambda: ControlTexts(f"<|{i}|>" for i in range(n)).plain("<|" * n),
    "open LoRA tags": lambda n: lambda: (split_prompt("<lora:a:" * n, None), reject_lora_tags("<lora:" + "a" * n)),
    "LoRA spaces": lambda n: lambda: prompt_with_loras(" \t" * n, ()),
    "open annotations": lambda n: lambda: prompt_from_speech("[(" * n + "*"),
    "closed annotations": lambda n: lambda: prompt_from_speech("[(*" * n + "]"),
    "rules of a grammar": chain,
    "tokens of a word": words,
    "tools": tools,
    "base64 with line breaks": lambda n: (
        lambda: part_media({"type": "image", "source": {"type": "base64", "data": "QUJD\n" * n}}, "part", MediaRules())
    ),
}


def seconds(task: Task) -> float:
    found = []
    for _ in range(3):
        start = time.thread_time()
        task()
        found.append(time.thread_time() - start)
    return min(found)


@pytest.mark.parametrize("name", TASKS)
def test_time_is_linear(name: str) -> None:
    make = TASKS[name]
    small, large = seconds(make(SMALL)), seconds(make(FACTOR * SMALL))
    assert large < MAX_RATIO * max(small, LEAST_SECONDS)


def test_marks_as_control_tokens_end() -> None:
    for token in (MARK, MARK[0] * 2, "a" + MARK[0]):
        assert ControlTexts([token]).plain(f"x{token}y").replace(MARK, "") in (f"x{token}y", "xy")
