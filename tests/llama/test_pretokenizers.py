"""Pre-tokenizers: any length of text, and the splits of std::regex, which upstream uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama.compare_linear_regex import different

from cyllama.llama import GGUFContext, LlamaModel, LlamaModelParams

ROOT = Path(__file__).resolve().parents[2]
THIRDPARTY = ROOT / "thirdparty"
VOCABULARY = THIRDPARTY / "llama.cpp" / "models" / "ggml-vocab-gpt-2.gguf"
SOURCE = THIRDPARTY / "llama.cpp" / "src" / "llama-vocab.cpp"
LENGTH = 40_000  # std::regex ended the process at about 30,000
RUNS = [".", "a", "A", " ", "\n", "7", "一", "é", "\u0301", "!", "' ", "a1", " \n", "€"]
# As upstream replaces Unicode categories: the byte of each category, and its ASCII characters.
CATEGORIES = {
    **dict.fromkeys(["L", "Lu", "Ll", "Lt", "Lm", "Lo"], "\xd2A-Za-z"),
    "N": "\xd10-9",
    "P": "\xd3!-#%-*,-/:-;?-@\\[-\\]_\\{\\}",
    "M": "\xd4",
    "S": "\xd5\\$\\+<->^`\\|\\~",
}
# libstdc++ forgets the character before a lookahead, so \b in one has another meaning there than in Python or PCRE.
UNLIKE_STD = r"\d{1,3}(?=(?:\d{3})*\b)"
OWN_CODE = (r"\p{Han}", "AFMoE", r"\u200C")  # upstream has functions for these instead


def names() -> list[str]:
    return sorted(set(re.findall(r'tokenizer_pre == "([^"]+)"', SOURCE.read_text(encoding="utf-8"))))


def expressions() -> list[str]:
    """Return the regular expressions of all BPE pre-tokenizers."""
    source = SOURCE.read_text(encoding="utf-8")
    begin = source.index("struct llm_tokenizer_bpe :")
    body = source[begin : source.index("std::vector<std::string> regex_exprs;", begin)]
    found = re.findall(r'^\s*"((?:[^"\\]|\\.)*)",', body, re.MULTILINE)
    escapes = {"n": "\n", "r": "\r", "t": "\t"}
    plain = [re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[1]), text) for text in found]
    return [text for text in dict.fromkeys(plain) if not any(part in text for part in OWN_CODE)]


def collapsed(expression: str) -> Iterator[str]:
    """Yield an expression with its categories replaced, as upstream does it."""
    inside = False
    for part in re.findall(r"\\p\{\w+\}|\\.|.", expression, re.DOTALL):
        if part.startswith("\\p{"):
            category = CATEGORIES[part[3:-1]]
            yield category if inside else f"[{category}]"
            continue
        inside = part == "[" or (inside and part != "]")
        yield part


def model_with(pre: str, folder: Path) -> LlamaModel:
    """Return the vocabulary of GPT-2 with another pre-tokenizer."""
    with GGUFContext.from_file(VOCABULARY) as file:
        file["tokenizer.ggml.pre"] = pre
        path = folder / "vocabulary.gguf"
        file.write(path)
    return LlamaModel(path, LlamaModelParams(vocab_only=True))


def test_finds_pre_tokenizers() -> None:
    assert {"tekken", "gpt-4o", "deepseek-v3", "llama-bpe"} < set(names())
    assert len(expressions()) > 35


@pytest.mark.parametrize("pre", names())
def test_tokenizes_long_runs(pre: str, tmp_path: Path) -> None:
    with model_with(pre, tmp_path) as model:
        for run in RUNS:
            if pre == "whitespace" and " " in run:
                continue  # its vocabularies have no spaces, which the engine asserts
            short, text = f"x{run * 4}x", f"x{run * LENGTH}x"
            tokens = model.vocab.tokenize(text, add_special=False)
            # Some pre-tokenizers do not split bytes as the vocabulary of GPT-2 does, which loses characters.
            if model.vocab.detokenize(model.vocab.tokenize(short, add_special=False)) == short:
                assert model.vocab.detokenize(tokens) == text, run
            else:
                assert tokens


def test_splits_like_std_regex(tmp_path: Path) -> None:
    cases = []
    for expression in expressions():
        if expression != UNLIKE_STD:
            text = "".join(collapsed(expression)) if "\\p{" in expression else expression
            cases.append(("narrow" if "\\p{" in expression else "wide", text))
    assert different(cases, tmp_path) == []
