"""What a parameter may be: the base of the parameter classes, and the check of every value before C sees it."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Self

import numpy as np

from cyllama.sd import _enums

__all__ = ["Params", "check_image", "check_number", "check_rules", "check_same_size", "checked", "param"]

MAX_SIDE = 16384  # pixels; the engine computes sizes with 32-bit integers
MAX_TEXT = 65536  # bytes of a prompt or of another text
PARAMS_MODULE = "cyllama.sd.params"  # where the parameter classes are


def _nearest(cls: type, name: str) -> str:
    names = [f.name for f in dataclasses.fields(cls)]
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


class Params:
    """Refuses names that the C struct does not have, when it is made and later."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{cls.__name__} has no parameter {name!r}{_nearest(cls, name)}")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in {f.name for f in dataclasses.fields(self)}:  # type: ignore[arg-type]
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}{_nearest(type(self), name)}")
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The parameters that were given (not None) as a dict; nested ones are dicts as well."""
        found = {}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is not None:
                found[f.name] = value.to_dict() if isinstance(value, Params) else value
        return found


def param(kind: str, help_text: str, **metadata: Any) -> Any:
    """A field that is None unless given; `kind` and `metadata` are what its value must satisfy."""
    return field(default=None, metadata={"kind": kind, "help": help_text, **metadata})


def checked(params: Any, cls: type, what: str) -> dict[str, Any]:
    """The values that were given, each checked and as C takes it.

    Parameters
    ----------
    params : Params or None
        None has no values.
    cls : type
        The class that `params` must have.
    what : str
        Its name in messages.

    Returns
    -------
    dict
        By name: int, float, bool, bytes (texts and paths), ndarray (images, C-contiguous uint8), lists of these,
        or nested parameters as they are.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, IsADirectoryError, PermissionError
        Names the parameter, the value and what was expected.
    """
    if params is None:
        return {}
    if not isinstance(params, cls):
        raise TypeError(f"{what} is {params!r}, expected {cls.__name__}")
    values = {}
    for f in dataclasses.fields(params):  # type: ignore[arg-type]
        value = getattr(params, f.name)
        if value is not None:
            values[f.name] = _CHECKS[f.metadata["kind"]](value, f.name, f.metadata)
    return values


def _integer(value: Any, name: str, limits: Mapping[str, Any]) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}, expected an integer")
    low, high = limits.get("low", -(2**31)), limits.get("high", 2**31 - 1)
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected {low} to {high}")
    return int(value)


def _number(value: Any, name: str, limits: Mapping[str, Any]) -> float:
    if isinstance(value, bool | str | bytes):
        raise TypeError(f"{name} is {value!r}, expected a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, expected a number") from None
    if limits.get("infinite") and number == math.inf:
        return number  # how the engine spells "automatic"
    low, high = limits.get("low", -1e6), limits.get("high", 1e6)
    if not low <= number <= high:  # NaN as well
        raise ValueError(f"{name} is {number}, expected {low} to {high}")
    return number


def _switch(value: Any, name: str, limits: Mapping[str, Any]) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def _enum(value: Any, name: str, limits: Mapping[str, Any]) -> int:
    number: int = _enums.enum_value(getattr(_enums, limits["enum"]), value, name)
    return number


def _text(value: Any, name: str, limits: Mapping[str, Any]) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, expected a string")
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has a lone surrogate, expected text that UTF-8 can hold") from None
    if b"\0" in raw:
        raise ValueError(f"{name} has a null character, which the engine would take for its end")
    if len(raw) > MAX_TEXT:
        raise ValueError(f"{name} has {len(raw)} bytes, expected {MAX_TEXT} at most")
    return raw


def _path(value: Any, name: str, limits: Mapping[str, Any]) -> bytes:
    try:
        text = os.fspath(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected a path (str, bytes or os.PathLike)") from None
    raw = os.fsencode(text)
    if not raw or b"\0" in raw:
        raise ValueError(f"{name} is {text!r}, expected a path without null characters")
    if os.path.isdir(raw):
        if limits.get("folder"):
            return raw
        raise IsADirectoryError(f"{name} is {text!r}, a directory, expected a file")
    with open(raw, "rb"):
        pass  # FileNotFoundError, PermissionError with the path
    return raw


def _image(value: Any, name: str, limits: Mapping[str, Any]) -> np.ndarray:
    channels = limits.get("channels", 3)
    if not isinstance(value, np.ndarray):
        expected = f"a uint8 array of shape (height, width, {channels})"
        raise TypeError(f"{name} is {type(value).__name__}, expected {expected}")
    array = value[:, :, np.newaxis] if channels == 1 and value.ndim == 2 else value
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise ValueError(f"{name} has shape {value.shape} and dtype {value.dtype}, "
                         f"expected (height, width, {channels}) and uint8")  # fmt: skip
    if not (1 <= array.shape[0] <= MAX_SIDE and 1 <= array.shape[1] <= MAX_SIDE):
        raise ValueError(f"{name} has shape {value.shape}, expected sides of 1 to {MAX_SIDE} pixels")
    return np.ascontiguousarray(array)


def _several(check: Callable[[Any, str, Mapping[str, Any]], Any]) -> Callable[[Any, str, Mapping[str, Any]], list[Any]]:
    def check_all(value: Any, name: str, limits: Mapping[str, Any]) -> list[Any]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"{name} is {value!r}, expected a sequence")
        return [check(part, f"{name}[{i}]", limits) for i, part in enumerate(value)]

    return check_all


def _sigmas(value: Any, name: str, limits: Mapping[str, Any]) -> list[float]:
    sigmas: list[float] = _several(_number)(value, name, limits)
    if not 2 <= len(sigmas) <= 1001:
        raise ValueError(f"{name} has {len(sigmas)} values, expected 2 to 1001")
    for before, after in itertools.pairwise(sigmas):
        if after >= before:
            raise ValueError(f"{name} has {after} after {before}, expected values that fall")
    return sigmas


def _mask(value: Any, name: str, limits: Mapping[str, Any]) -> bytes:
    raw = _text(value, name, limits)
    if any(part.strip() not in (b"0", b"1") for part in raw.split(b",")):
        raise ValueError(f"{name} is {value!r}, expected 0 and 1 with commas between, such as '1,1,0,1'")
    return raw


def _rules(value: Any, name: str, limits: Mapping[str, Any]) -> bytes:
    raw = _text(value, name, limits)
    types = _enums.engine_names(_enums.SDType)
    for rule in filter(None, value.split(",")):
        pattern, _, kind = rule.partition("=")
        if not pattern or kind not in types:
            raise ValueError(f"{name} has the rule {rule!r}, expected 'regex=type' with a type of {', '.join(types)}")
    return raw


def _nested(value: Any, name: str, limits: Mapping[str, Any]) -> Any:
    kind = type(value)
    if not isinstance(value, Params) or (kind.__module__, kind.__name__) != (PARAMS_MODULE, limits["of"]):
        raise TypeError(f"{name} is {value!r}, expected {limits['of']}")
    return value


_CHECKS: dict[str, Callable[[Any, str, Mapping[str, Any]], Any]] = {
    "int": _integer,
    "float": _number,
    "bool": _switch,
    "enum": _enum,
    "text": _text,
    "path": _path,
    "image": _image,
    "images": _several(_image),
    "ints": _several(_integer),
    "sigmas": _sigmas,
    "mask": _mask,
    "rules": _rules,
    "params": _nested,
    "list": _several(_nested),
}


def check_same_size(image: Sequence[int] | np.ndarray | None, name: str, width: int, height: int) -> None:
    """Refuse an image of another size than the result.

    Raises
    ------
    ValueError
    """
    if isinstance(image, np.ndarray) and image.shape[:2] != (height, width):
        raise ValueError(f"{name} has {image.shape[1]}x{image.shape[0]} pixels, expected {width}x{height}")


def check_image(value: Any, name: str) -> np.ndarray:
    """A picture as C takes it: C-contiguous, uint8, (height, width, 3).

    Raises
    ------
    TypeError, ValueError
    """
    return _image(value, name, {})


def check_number(value: Any, name: str, low: float, high: float) -> float:
    """A number from `low` to `high`; NaN is none.

    Raises
    ------
    TypeError, ValueError
    """
    return _number(value, name, {"low": low, "high": high})


def check_rules(value: Any) -> bytes:
    """Types by tensor name.

    Raises
    ------
    TypeError, ValueError
    """
    return _rules(value, "tensor_type_rules", {})
