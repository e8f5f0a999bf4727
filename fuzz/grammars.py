"""Grammars, JSON schemas and chat templates of requests and of downloaded models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from cyllama.errors import GrammarError, UnsupportedError
from cyllama.llama import LlamaModel, LlamaModelParams, LlamaSampler, json_schema_to_grammar
from cyllama.llama._json_schema import for_grammar
from cyllama.llama._templates import ChatTemplate
from cyllama.whisper import WhisperGrammar
from fuzz.target import Target, documented
from fuzz.tiny_model import TEMPLATE, tiny_model_path

__all__ = ["TARGETS"]


def _model() -> LlamaModel:
    return LlamaModel(tiny_model_path(), LlamaModelParams(vocab_only=True))


def grammar_seeds() -> Iterator[bytes]:
    """Yield grammars with each element of the language."""
    yield b'root ::= "a" [b-d] ("e" | [^f\\n])* "\\x41"+ x?\nx ::= root2{2,3} # comment\nroot2 ::= .'
    yield json_schema_to_grammar({"type": "object", "properties": {"a": {"type": "integer"}}}).encode()
    yield b'root ::= <[3]> !<[4]> "\\u00e4\\U0001F600" _{0,}'


def prepare_grammar() -> Callable[[bytes], None]:
    """Return a function that makes a grammar of a text, for llama.cpp and for whisper.cpp."""
    vocab = _model().vocab

    def parse(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        with documented(GrammarError), LlamaSampler() as chain:
            chain.add_grammar(vocab, text)
        with documented(GrammarError):
            WhisperGrammar(text)

    return parse


def schema_seeds() -> Iterator[bytes]:
    """Yield schemas with each keyword that the converter supports."""
    for schema in (
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 20}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "maxItems": 3, "$defs": {"x": {"const": 1}}},
        {"anyOf": [{"type": "string", "pattern": "^[a-c]+(x|y){2}\\d$"}, {"enum": [1, "a", None]}]},
        {"type": "string", "minLength": 1, "maxLength": 5},
        {"type": "string", "format": "date-time"},
        {"type": ["number", "null"]},
        {"allOf": [{"properties": {"a": {"type": "boolean"}}}, {"properties": {"b": {}}}]},
        {"prefixItems": [{"type": "string"}], "items": False},
        {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}},
    ):
        yield json.dumps(schema).encode()


def prepare_schema() -> Callable[[bytes], None]:
    """Return a function that converts a schema; the grammar of a schema must be valid."""
    vocab = _model().vocab

    def convert(data: bytes) -> None:
        try:
            schema = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(schema, dict):
            return
        forms = [schema]
        with documented(ValueError):
            forms.append(for_grammar(schema))
        for form in forms:
            grammar = None
            with documented(GrammarError):
                grammar = json_schema_to_grammar(form)
            if grammar is not None:
                with LlamaSampler() as chain:
                    chain.add_grammar(vocab, grammar)

    return convert


def template_seeds() -> Iterator[bytes]:
    """Yield templates with each kind of statement."""
    yield TEMPLATE.encode()
    yield (
        b"{%- macro m(a, b=1) -%}{{ a ~ b }}{%- endmacro -%}{% set ns = namespace(n=0) %}"
        b"{% for x in messages[::-1] if x.role != 'system' %}{% set ns.n = ns.n + loop.index0 %}"
        b"{{ m(x['content'] | trim | upper, b=ns.n) }}{% else %}none{% endfor %}"
        b"{% if tools is defined and not bos_token in 'a' %}{{ raise_exception('no') }}{% elif 1 < 2 %}x{% endif %}"
    )
    yield b"{{ messages | map(attribute='role') | join(', ') }}{{ {'a': [1, 2.5, none, true]} | tojson(indent=2) }}"
    yield b"{% filter upper %}{{ 'a b'.split(' ')[0].replace('a', 'c') }}{% endfilter %}{{ 1 if x else -2 ** 3 }}"


def prepare_template() -> Callable[[bytes], None]:
    """Return a function that parses a template and renders a conversation."""
    model = _model()

    def render(data: bytes) -> None:
        with (
            documented(ValueError, UnsupportedError),
            ChatTemplate(model, data.decode("utf-8", "replace") or " ") as template,
        ):
            template.apply([("system", "be brief"), ("user", "hi"), ("assistant", "hello"), ("user", "bye")])

    return render


TARGETS = {
    "grammar": Target(prepare_grammar, grammar_seeds),
    "schema": Target(prepare_schema, schema_seeds),
    "template": Target(prepare_template, template_seeds),
}
