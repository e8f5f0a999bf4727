"""Validate the fields of requests: upstream silently ignores or changes some invalid values."""

from __future__ import annotations

import functools
import math
import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama.errors import UnsupportedError
from cyllama.llama._engine import engine_fields
from cyllama.llama._limits import INTERNAL, check_limits
from cyllama.llama._sampler import check_grammar

__all__ = [
    "FieldValidator",
    "check_field",
    "effective_fields",
    "request_fields",
    "rerank_body",
    "text_or_token_lists",
    "token_list",
]

INT, LARGEST_FLOAT = 2**31, 3.4028234e38
LARGE = {"seed": 2**32, "t_max_predict_ms": 2**63}  # limits of the fields with larger values
SAMPLERS = frozenset(
    ("dry", "topk", "topp", "topnsigma", "typp", "minp", "temperature", "xtc", "infill", "penalties", "adaptivep",
     "nucleus", "temp", "typ")
)  # fmt: skip
FLAGS = ("parallel_tool_calls", "add_generation_prompt", "parse_special")  # and those of upstream's list
TEXTS = ("reasoning_effort", "reasoning_format", "reasoning_budget_message", "model", "user")


@functools.cache
def request_fields() -> dict[str, dict[str, Any]]:
    """Return the fields of completions by each of their names, from upstream's schema."""
    every: Any = engine_fields()
    return {name: info for info in every for name in info["names"] if name not in INTERNAL}


@dataclass(frozen=True)
class FieldValidator:
    """Validate fields for a loaded model.

    Attributes
    ----------
    n_vocab, n_slots, n_loras : int
        The number of tokens of the vocabulary, of slots and of adapters.
    drafts : bool
        Tokens are drafted: upstream has no probabilities of accepted ones after sampling.
    """

    n_vocab: int
    n_slots: int
    n_loras: int
    drafts: bool = False

    def check(self, fields: Mapping[str, Any]) -> None:
        """Check the values of known fields; None means that a field is not given.

        Raises
        ------
        TypeError, ValueError, GrammarError
            A value is invalid; the message names the field, the value and the expected values.
        UnsupportedError
        """
        check_limits(fields)
        if self.drafts and fields.get("post_sampling_probs"):
            raise UnsupportedError(
                "post_sampling_probs is not supported with a draft model: accepted tokens are not sampled one by one"
            )
        for name in ("n", "n_cmpl", "best_of"):
            value = fields.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= self.n_slots:
                raise ValueError(f"{name} is {value}, expected 1 to {self.n_slots} (n_parallel)")
        special: dict[str, Callable[[Any], None]] = {
            "grammar": check_grammar,
            "logit_bias": self._logit_bias,
            "stop": _stop,
            "samplers": _samplers,
            "lora": self._lora,
            "id_slot": functools.partial(self.slot, name="id_slot", least=-1),
        }
        for name, value in fields.items():
            if value is None:
                continue
            if name in special:
                special[name](value)
            elif name in FLAGS and not isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}, expected True or False")
            elif name in TEXTS and not isinstance(value, str):
                raise TypeError(f"{name} is {value!r}, expected a string")
            elif name in ("stream_options", "chat_template_kwargs") and not isinstance(value, Mapping):
                raise TypeError(f"{name} is {value!r}, expected a mapping")
            elif name in request_fields() and not (name == "logprobs" and isinstance(value, bool)):  # the form of chats
                check_field(name, value)
            else:
                _number_in_range(name, value)

    def tokens(self, tokens: list[int]) -> list[int]:
        """Return the tokens if all of them are in the vocabulary.

        Raises
        ------
        IndexError
        """
        for i, token in enumerate(tokens):
            if not 0 <= token < self.n_vocab:
                raise IndexError(f"tokens[{i}] is {token}, expected 0 to {self.n_vocab - 1}")
        return tokens

    def _logit_bias(self, value: Any) -> None:
        pairs = value.items() if isinstance(value, Mapping) else value
        if isinstance(pairs, str) or not all(_is_pair(pair) for pair in _items(pairs, "logit_bias")):
            raise TypeError(f"logit_bias is {value!r:.200}, expected a mapping, or pairs, of tokens and numbers")
        for token, bias in pairs:
            number = int(token) if isinstance(token, str) and token.lstrip("-").isdecimal() else token
            if isinstance(number, bool) or not isinstance(number, int | str):
                raise TypeError(f"logit_bias has the token {token!r}, expected a number or a string")
            if isinstance(number, int) and not 0 <= number < self.n_vocab:
                raise ValueError(f"logit_bias has the token {token!r}, expected 0 to {self.n_vocab - 1}")
            if bias is not False and (isinstance(bias, bool) or not isinstance(bias, int | float)):
                raise TypeError(f"logit_bias[{token!r}] is {bias!r}, expected a number, or False: never")

    def _lora(self, value: Any) -> None:
        for item in _items(value, "lora"):
            number = item.get("id") if isinstance(item, Mapping) else None
            if not isinstance(number, int) or not isinstance(item.get("scale"), int | float):
                raise TypeError(f"lora has {item!r}, expected a mapping with id and scale")
            if not 0 <= number < self.n_loras:
                raise ValueError(f"lora has the id {number}, but {self.n_loras} adapters are loaded")

    def slot(self, value: Any, name: str, least: int = 0) -> None:
        """Check the number of a slot; in a request, -1 means any.

        Raises
        ------
        TypeError, ValueError
        """
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected an integer")
        if not least <= value < self.n_slots:
            first = "-1 (any)" if least else "0"
            raise ValueError(f"{name} is {value}, expected {first} to {self.n_slots - 1}")


def _items(value: Any, name: str) -> Sequence[Any]:
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected a list") from None


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _stop(value: Any) -> None:
    if not isinstance(value, str) and (
        isinstance(value, Mapping) or not all(isinstance(text, str) for text in _items(value, "stop"))
    ):
        raise TypeError(f"stop is {value!r:.200}, expected a string or a sequence of strings")


def _samplers(value: Any) -> None:
    if isinstance(value, str):
        return  # one letter per sampler
    for name in _items(value, "samplers"):
        if not isinstance(name, str) or name.lower().replace("-", "").replace("_", "") not in SAMPLERS:
            raise ValueError(f"samplers has {name!r}, expected some of {', '.join(sorted(SAMPLERS))}")


def check_field(name: str, value: Any) -> None:
    """Check a field of upstream's schema, which itself truncates 5.5 to 5 and clamps 5 to 1 where 1 is the maximum.

    Raises
    ------
    TypeError, ValueError
    """
    kind, limits = request_fields()[name]["kind"], request_fields()[name]["limits"]
    if kind == "flag":
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}, expected True or False")
    elif kind:
        real: Any = numbers.Integral if kind == "integer" else numbers.Real
        if isinstance(value, bool) or not isinstance(value, real):
            raise TypeError(f"{name} is {value!r}, expected {'an integer' if kind == 'integer' else 'a number'}")
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, expected a finite number")
        _number_in_range(name, value)
        if limits is not None and not limits[0] <= value <= limits[1]:
            least, most = (f"{limit:g}" if abs(limit) < 1e6 else "" for limit in limits)
            expected = f"{least} to {most}" if least and most else f"{least} or more" if least else f"{most} or less"
            raise ValueError(f"{name} is {value}, expected {expected}")


def _number_in_range(name: str, value: Any) -> None:
    """Reject numbers of more than 32 bits: upstream would change their value."""
    if isinstance(value, int) and not isinstance(value, bool):
        limit = LARGE.get(name, INT)
        if not -limit <= value < limit:
            raise ValueError(f"{name} is {value}, expected {-limit} to {limit - 1}")
    elif isinstance(value, float) and math.isfinite(value) and abs(value) > LARGEST_FLOAT:
        raise ValueError(f"{name} is {value}, expected a number of 32 bits")


def effective_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value, without empty stop texts: upstream would end the text at once."""
    found = {name: value for name, value in fields.items() if value is not None}
    if "stop" in found:
        texts = [found["stop"]] if isinstance(found["stop"], str) else found["stop"]
        found["stop"] = [text for text in texts if text]
    return found


def token_list(tokens: Sequence[int], name: str) -> list[int]:
    """Return tokens as a list of int.

    Raises
    ------
    TypeError
    """
    if isinstance(tokens, bytes | bytearray | str | Mapping):
        raise TypeError(f"{name} is {tokens!r}, expected a string or a sequence of tokens")
    try:
        return [operator.index(token) for token in tokens]
    except TypeError:
        raise TypeError(f"{name} is {tokens!r}, expected a string or a sequence of tokens") from None


def text_or_token_lists(texts: object) -> list[str | list[int]]:
    """Return one text, several texts, or lists of tokens as a list.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | bytearray | Mapping):
        raise TypeError(f"texts is {texts!r:.200}, expected a string or a sequence of strings")
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given:
        raise ValueError(f"texts is {texts!r}, expected a string or a sequence of strings")
    return [text if isinstance(text, str) else token_list(text, f"texts[{i}]") for i, text in enumerate(given)]


def rerank_body(query: object, documents: object, top_n: object) -> dict[str, Any]:
    """Return the body of a rerank request; upstream ignores a `top_n` of another type.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(query, str):
        raise TypeError(f"query is {query!r:.200}, expected a string")
    if isinstance(documents, str) or not isinstance(documents, Iterable):
        raise TypeError(f"documents is {documents!r:.200}, expected a sequence of strings")
    given = list(documents)
    if not given:
        raise ValueError(f"documents is {documents!r}, expected at least one string")
    for i, document in enumerate(given):
        if not isinstance(document, str):
            raise TypeError(f"documents[{i}] is {document!r:.200}, expected a string")
    if top_n is None:
        return {"query": query, "documents": given}
    if isinstance(top_n, bool) or not isinstance(top_n, int):
        raise TypeError(f"top_n is {top_n!r}, expected an integer")
    if top_n < 1:
        raise ValueError(f"top_n is {top_n}, expected 1 or more")
    return {"query": query, "documents": given, "top_n": top_n}
