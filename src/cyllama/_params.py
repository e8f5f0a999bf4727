"""Parameters of the engines, declared once.

A parameter is one line of a dataclass: its annotation, and `param` with its help and limits. The check of values, the
code that fills the C struct (``scripts/gen_fill.py``), flags of the command line, TypedDicts
(``scripts/gen_option_types.py``) and the tables of the documentation are made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import numpy as np

from cyllama._param_kinds import kind_of

__all__ = [
    "CHECKS",
    "Params",
    "aliases_of",
    "check_image",
    "check_names",
    "check_number",
    "check_text",
    "checked",
    "common",
    "enum_value",
    "names_of",
    "param",
    "resolve_aliases",
]

P = ParamSpec("P")
R = TypeVar("R")

MAX_IMAGE_SIDE = 16384  # pixels; engines compute sizes with 32-bit integers


def _cached(function: Callable[P, R]) -> Callable[P, R]:
    """Cache the results of a function of classes."""
    cached: Any = functools.cache(function)  # mypy takes a class for unhashable if its instances are
    return cached  # type: ignore[no-any-return]


def param(
    help_text: str,
    default: Any = None,
    *,
    kind: str | None = None,
    low: float | None = None,
    high: float | None = None,
    infinite: bool = False,
    channels: int = 3,
    folder: bool = False,
    choices: tuple[str, ...] | None = None,
    enum: type[IntEnum] | None = None,
    aliases: tuple[str, ...] = (),
    flag: bool = True,
    short: str | None = None,
    nargs: str | None = None,
    c: str | None = "",
    count: str | None = None,
    prefix: str = "",
    main: str | None = None,
) -> Any:
    """Declare a parameter.

    Parameters
    ----------
    help_text : str
        Shown by the command line and in the documentation.
    default : object
        None is the engine's own default.
    kind : str, optional
        One of `CHECKS`, or "any". Default: by the annotation.
    low, high : float, optional
        Limits of a number; `high` is the most bytes of a text.
    infinite : bool
        Infinity is valid as well: the engine chooses.
    channels, folder : int, bool
        Channels of an image; whether a path may be a directory.
    choices : tuple of str, optional
        The valid texts.
    enum : type, optional
        The enum of an ``int | str``.
    aliases : tuple of str
        Other names that options accept.
    flag : bool
        Whether the command line has a flag.
    short : str, optional
        Letter of a short flag.
    nargs : str, optional
        Number of values of the flag, as argparse takes it.
    c : str or None
        Field of the C struct, a dotted path; default: the same name. None: filled by hand.
    count : str, optional
        Field of the C struct for the number of elements.
    prefix : str
        Put before the names of the parameters inside, in messages and in flags.
    main : str, optional
        Of an option that may be a `Params` object: the parameter that a plain value is.
    """
    given = locals()
    default, help_text = given.pop("default"), given.pop("help_text")
    return dataclasses.field(default=default, metadata={"help": help_text, **given})


class Params:
    """Base of the parameter dataclasses.

    Unknown names are rejected by the constructor (TypeError) and on assignment (AttributeError). The class keyword `c`
    is the name of the C struct.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, c: str | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)

    def __new__(cls, *args: Any, **values: Any) -> Self:
        if not values.keys() <= names_of(cls):
            check_names(values, names_of(cls), cls.__name__, aliases=aliases_of(cls))
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if name not in names_of(cls):
            try:
                check_names((name,), names_of(cls), cls.__name__, aliases=aliases_of(cls))
            except TypeError as error:
                raise AttributeError(str(error)) from None
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        defaults = defaults_of(type(self))
        given = (f"{name}={value!r:.80}" for name, value in self.__dict__.items() if value is not defaults[name])
        return f"{type(self).__name__}({', '.join(given)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters that were given (not None); nested ones are dicts as well."""
        return {
            name: value.to_dict() if isinstance(value, Params) else value
            for name, value in self.__dict__.items()
            if value is not None
        }

    def check(self) -> None:
        """Check every value that was given.

        Raises
        ------
        TypeError, ValueError, OSError
            Names the parameter, its value and what was expected.
        """
        checked(self, type(self))

    def _check_together(self) -> None:
        """Check the values against each other."""


@_cached
def names_of(cls: type[Params]) -> frozenset[str]:
    """Return the names of the parameters of a class."""
    return frozenset(cls.__dataclass_fields__)


@_cached
def defaults_of(cls: type[Params]) -> dict[str, Any]:
    """Return the defaults of the parameters of a class."""
    return {name: field.default for name, field in cls.__dataclass_fields__.items()}


@_cached
def aliases_of(cls: type[Params]) -> dict[str, str]:
    """Return the other names of parameters, and the names that they stand for."""
    return {alias: field.name for field in cls.__dataclass_fields__.values() for alias in field.metadata["aliases"]}


@_cached
def _common_names(cls: type[Params], other: type[Params]) -> tuple[str, ...]:
    return tuple(name for name in cls.__dataclass_fields__ if name in names_of(other))


def common(params: Params, other: type[Params]) -> dict[str, Any]:
    """Return the values of the parameters that `other` has as well."""
    return {name: getattr(params, name) for name in _common_names(type(params), other)}


def check_names(
    given: Iterable[str],
    names: Collection[str],
    what: str,
    *,
    aliases: Mapping[str, str] | None = None,
    others: Iterable[str] = (),
) -> None:
    """Check names of parameters or options.

    Parameters
    ----------
    given, names : iterable of str
        Names, and the valid ones.
    what : str
        What has them, in the message.
    aliases, others : mapping, iterable of str
        Other names, whose targets are suggested, and more names to suggest.

    Raises
    ------
    TypeError
        One is unknown; the message has the nearest one.
    """
    for name in given:
        if name not in names:
            aliases = aliases or {}
            near = difflib.get_close_matches(str(name), [*sorted(names), *aliases, *others], 1)
            found = aliases.get(name) or (aliases.get(near[0], near[0]) if near else None)
            hint = f"; did you mean {found!r}?" if found else ""
            raise TypeError(f"{what} has no option {name!r}{hint}")


def resolve_aliases(given: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return options under their own names.

    Raises
    ------
    TypeError
        One was given under two names.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        target = aliases.get(name, name)
        if target in values:
            raise TypeError(f"{target} was given twice, once as {name}")
        values[target] = value
    return values


def checked(params: Params | None, cls: type[Params], what: str = "params", prefix: str = "") -> dict[str, Any]:
    """Return the values that were given, checked and as C takes them.

    Parameters
    ----------
    params : Params or None
        None has no values.
    cls : type
        The class that `params` must have.
    what : str
        Its name in messages.
    prefix : str
        Put before the names of its parameters.

    Returns
    -------
    dict
        By name: int, float, bool, bytes (texts and paths), ndarray (images, C-contiguous uint8), a list of these, or a
        dict (nested parameters).

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, IsADirectoryError, PermissionError
        Names the parameter, the value and what was expected.
    """
    if params is None:
        return {}
    if not isinstance(params, cls):
        raise TypeError(f"{what} is {params!r}, expected {cls.__name__}")
    given = params.__dict__
    values = {}
    for name, default, check, metadata in _checks(type(params)):
        value = given[name]
        if value is None:
            value = default
        if value is not None:
            values[name] = check(value, prefix + name, metadata)
    params._check_together()
    return values


def check_image(value: Any, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image as C takes it: C-contiguous, uint8, (height, width, 3).

    Raises
    ------
    TypeError, ValueError
    """
    return _image(value, name, {"channels": 3})


def check_number(value: Any, name: str, low: float, high: float) -> float:
    """Return a number from `low` to `high`.

    Raises
    ------
    TypeError, ValueError
    """
    return _number(value, name, {"low": low, "high": high, "infinite": False})


def check_text(value: Any, name: str, high: int | None = None) -> bytes:
    """Return a text as UTF-8, of at most `high` bytes.

    Raises
    ------
    TypeError, ValueError
    """
    return _text(value, name, {"high": high})


Check = Callable[[Any, str, Mapping[str, Any]], Any]


@_cached
def _checks(cls: type[Params]) -> tuple[tuple[str, Any, Check, Mapping[str, Any]], ...]:
    found = []
    for field in cls.__dataclass_fields__.values():
        kind = kind_of(str(field.type), field.metadata)
        metadata: Mapping[str, Any] = field.metadata
        if kind in ("params", "list"):
            name = re.findall(r"[A-Z]\w+", str(field.type).removeprefix("Sequence").removesuffix(" | None"))[0]
            owner = next(base for base in cls.__mro__ if field.name in vars(base).get("__annotations__", {}))
            metadata = {**metadata, "of": getattr(sys.modules[owner.__module__], name)}
        found.append((field.name, field.default, CHECKS[kind], metadata))
    return tuple(found)


def _integer(value: Any, name: str, limits: Mapping[str, Any]) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}, expected an integer")
    low = -(2**31) if limits["low"] is None else limits["low"]
    high = 2**31 - 1 if limits["high"] is None else limits["high"]
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
    if limits["infinite"] and number == math.inf:
        return number
    low = -3.4e38 if limits["low"] is None else limits["low"]
    high = 3.4e38 if limits["high"] is None else limits["high"]
    if not low <= number <= high:  # NaN as well
        raise ValueError(f"{name} is {number}, expected {low} to {high}")
    return number


def _switch(value: Any, name: str, limits: Mapping[str, Any]) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def _enum(value: Any, name: str, limits: Mapping[str, Any]) -> int:
    return enum_value(limits["enum"], value, name)


def _choice(value: Any, name: str, limits: Mapping[str, Any]) -> str:
    choices: tuple[str, ...] = limits["choices"]
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} is {value!r}, expected one of: {', '.join(choices)}{hint}")
    return str(value)


def _text(value: Any, name: str, limits: Mapping[str, Any]) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, expected a string")
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} has a lone surrogate, expected text that UTF-8 can encode") from None
    if b"\0" in raw:
        raise ValueError(f"{name} has a null character, expected none: the engine would truncate the text there")
    if limits["high"] is not None and len(raw) > limits["high"]:
        raise ValueError(f"{name} has {len(raw)} bytes, expected {limits['high']} at most")
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
        if limits["folder"]:
            return raw
        raise IsADirectoryError(f"{name} is {text!r}, a directory, expected a file")
    with open(raw, "rb"):
        pass  # FileNotFoundError, PermissionError with the path
    return raw


def _image(value: Any, name: str, limits: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    channels = limits["channels"]
    if not isinstance(value, np.ndarray):
        expected = f"a uint8 array of shape (height, width, {channels})"
        raise TypeError(f"{name} is {type(value).__name__}, expected {expected}")
    array = value[:, :, np.newaxis] if channels == 1 and value.ndim == 2 else value
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise ValueError(f"{name} has shape {value.shape} and dtype {value.dtype}, "
                         f"expected (height, width, {channels}) and uint8")  # fmt: skip
    if not (1 <= array.shape[0] <= MAX_IMAGE_SIDE and 1 <= array.shape[1] <= MAX_IMAGE_SIDE):
        raise ValueError(f"{name} has shape {value.shape}, expected sides of 1 to {MAX_IMAGE_SIDE} pixels")
    return np.ascontiguousarray(array)


def _callable(value: Any, name: str, limits: Mapping[str, Any]) -> Any:
    if not callable(value):
        raise TypeError(f"{name} is {value!r}, expected a callable")
    return value


def _nested(value: Any, name: str, limits: Mapping[str, Any]) -> dict[str, Any]:
    return checked(value, limits["of"], name, limits["prefix"])


def _several(check: Check) -> Check:
    def check_all(value: Any, name: str, limits: Mapping[str, Any]) -> list[Any]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"{name} is {value!r}, expected a sequence")
        return [check(part, f"{name}[{i}]", limits) for i, part in enumerate(value)]

    return check_all


CHECKS: dict[str, Check] = {
    "int": _integer,
    "float": _number,
    "bool": _switch,
    "enum": _enum,
    "choice": _choice,
    "text": _text,
    "path": _path,
    "image": _image,
    "callable": _callable,
    "ints": _several(_integer),
    "floats": _several(_number),
    "images": _several(_image),
    "params": _nested,
    "list": _several(_nested),
    "any": lambda value, name, limits: value,
}
"""The checks, by kind."""


def enum_value(enum: type[IntEnum], value: Any, what: str) -> int:
    """Return the C value of an enum given as a member, as its number or by name.

    Parameters
    ----------
    enum : type
        An enum with a method ``engine_names()`` has these names as well; messages show them.
    value : member, int or str
        The case of a name does not matter.
    what : str
        The parameter's name in messages.

    Raises
    ------
    TypeError, ValueError
        Names `what`, the value, and the valid names.
    """
    if not isinstance(value, bool):
        if isinstance(value, int) and value in enum._value2member_map_:
            return int(value)
        if isinstance(value, str) and (name := value.upper().replace("-", "_")) in enum.__members__:
            return int(enum[name])
    names: Callable[[], Mapping[str, int]] | None = getattr(enum, "engine_names", None)
    known = {member.name.lower(): int(member) for member in enum} if names is None else names()
    expected = f"expected one of: {', '.join(known)}"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{what} is {value!r}, {expected}")
    if isinstance(value, int):
        raise ValueError(f"{what} is {int(value)}, {expected}")
    folded = {other.casefold(): number for other, number in known.items()}
    if value.casefold() in folded:
        return folded[value.casefold()]
    near = difflib.get_close_matches(value.casefold(), folded, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what} is {value!r}, {expected}{hint}")
