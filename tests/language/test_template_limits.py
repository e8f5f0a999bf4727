"""Chat templates of downloaded models: nested, endless and huge ones are errors, while the model loads and afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.model_files import with_template

from cyllama import LLM
from cyllama.errors import ModelLoadError

REFUSED = {
    "recursive macro": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "macros that call each other": "{% macro f(x) %}{{ g(x) }}{% endmacro %}{% macro g(x) %}{{ f(x) }}{% endmacro %}"
    "{{ f(1) }}",
    "parentheses": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "lists": "{{ " + "[" * 100_000 + "]" * 100_000 + " }}",
    "mappings": "{{ " + "{1:" * 60_000 + "1" + "}" * 60_000 + " }}",
    "not": "{{ " + "not " * 60_000 + "1 }}",
    "minus": "{{ " + "-" * 100_000 + "1 }}",
    "sum": "{{ " + "1+" * 100_000 + "1 }}",
    "and": "{{ " + "1 and " * 30_000 + "1 }}",
    "comparisons": "{{ " + "1 < " * 60_000 + "1 }}",
    "conditional expressions": "{{ " + "1 if 1 else " * 20_000 + "2 }}",
    "filters": "{{ 'a'" + "|trim" * 50_000 + " }}",
    "attributes": "{{ a" + ".b" * 100_000 + " }}",
    "calls": "{{ a" + "()" * 100_000 + " }}",
    "if blocks": "{% if true %}" * 9_000 + "x" + "{% endif %}" * 9_000,
    "elif chain": "{% if a %}x" + "{% elif a %}y" * 15_000 + "{% endif %}",
    "call blocks": "{% macro m() %}{{ caller() }}{% endmacro %}" + "{% call m() %}" * 8_000 + "{% endcall %}" * 8_000,
    "long range": "{% for i in range(1000000000) %}{% endfor %}",
    "nested ranges": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "repeated string": "{{ 'a' * 10000000000 }}",
    "doubled string": "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "string copied in a loop": "{% set a = 'a' * 10000000 %}{% for i in range(1000000) %}{% set b = a|upper %}"
    "{% endfor %}",
    "replacement": "{% set a = 'a' * 4000000 %}{{ a|replace('a', 'b' * 100)|length }}",
    "separator": "{{ range(1000000)|join('x' * 100000) }}",
    "indented lines": "{{ ('a\n' * 1000000)|indent('x' * 100000) }}",
    "chain of lists": "{% set ns = namespace(a=[]) %}{% for i in range(1000000) %}{% set ns.a = [ns.a] %}{% endfor %}",
    "cycle": "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns|tojson }}",
    "list in itself": "{% set a = [] %}{% set x = a.append(a) %}{{ a|string }}",
    "list of lists": "{% set ns = namespace(t=[1]) %}{% for i in range(80) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}"
    "{{ ns.t|tojson }}",
    "key of tuples": "{% set ns = namespace(t=(1, 2)) %}{% for i in range(80) %}{% set ns.t = (ns.t, ns.t) %}"
    "{% endfor %}{{ {ns.t: 1} }}",
    "many scopes": "".join(f"{{% set v{i} = 1 %}}" for i in range(8_000))
    + "{% for i in range(100000) %}{% for j in [1] %}{% endfor %}{% endfor %}",
    "long source": "x" * 300_000,
    "division by zero": "{% if 5 is divisibleby(0) %}{% endif %}",
    "wide indent": "{{ 'a\nb'|indent(2000000000) }}",
    "wide indent of JSON": "{{ messages|tojson(indent=2000000000) }}",
}
REASONS = "the chat template has|division by zero|expected at most"
RENDERED = {
    "mixed sort": (
        "{% set l = [] %}{% for i in range(300) %}{% set x = l.append((i * 7919) % 1000) %}"
        "{% set x = l.append('' ~ ((i * 31) % 100) ~ 'a') %}{% endfor %}{{ l|sort|length }}",
        "600",
    ),
    "split": ("{{ ('a,' * 1000).split(',')|length }}", "1001"),
    "replace": ("{{ 'banana'|replace('an', 'x') }}{{ 'ab'|replace('', '-') }}", "bxxa-a-b-"),
    "indent": ("{{ 'a\nb'|indent(2) }}", "a\n  b"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_hostile_templates(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=REASONS):
        LLM(with_template("tiny-random-llama", REFUSED[name], tmp_path), n_ctx=512, n_parallel=1)


@pytest.mark.parametrize("name", ["recursive macro", "parentheses", "long range", "chain of lists", "wide indent"])
def test_refuses_hostile_template_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=REASONS):
        LLM("tiny-random-llama", n_ctx=512, n_parallel=1, chat_template=REFUSED[name])


@pytest.mark.parametrize("name", RENDERED)
def test_renders_as_before(name: str) -> None:
    template, expected = RENDERED[name]
    with LLM("tiny-random-llama", n_ctx=512, n_parallel=1, chat_template=template) as llm:
        assert llm.render("hi") == expected


def test_long_conversations_render() -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": "word " * 20} for i in range(5_001)]
    with LLM("smollm2-135m-instruct", n_ctx=512, n_parallel=1) as llm:
        assert llm.render(messages).count("word ") == 5_001 * 20
