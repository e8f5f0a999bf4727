"""The option ``chat_template``: a Jinja template, a file that contains one, or the name of a built-in template."""

from __future__ import annotations

import difflib
import errno
import os
import re
from pathlib import Path

from cyllama.llama._model import llama_chat_builtin_templates

__all__ = ["TEMPLATE_OPTIONS", "template_arguments"]

NAMES = frozenset(llama_chat_builtin_templates())
JINJA_NAMES = {"chatml"}  # upstream has a Jinja template for it too
TEMPLATE_OPTIONS = ("--chat-template", "--chat-template-file")
SUFFIXES = {".jinja", ".jinja2", ".j2", ".tmpl", ".txt"}
_STATEMENT = re.compile(r"\{[{%]")


def template_arguments(value: str | os.PathLike[str], name: str = "chat_template") -> list[str]:
    """Return the arguments of upstream's parser for a chat template.

    Upstream takes any other text for a template, and a template without a statement drops the messages.

    Parameters
    ----------
    value : str or path
        A template, a file, or the name of a built-in template.
    name : str
        The name of the option, for messages.

    Raises
    ------
    TypeError
    ValueError
        The value is none of these, or the file contains no template.
    FileNotFoundError
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is {value!r}, expected a Jinja template, a file or a name")
    if isinstance(value, str) and value in NAMES:
        return [*([] if value in JINJA_NAMES else ["--no-jinja"]), TEMPLATE_OPTIONS[0], value]
    text = value if isinstance(value, str) and _STATEMENT.search(value) else _read(Path(_path(value, name)), name)
    return [TEMPLATE_OPTIONS[0], text]


def _path(value: str | os.PathLike[str], name: str) -> str:
    """Return the value if it is a path, or reads like one."""
    path = os.fspath(value)
    if isinstance(value, os.PathLike) or os.sep in path or Path(path).suffix in SUFFIXES or os.path.isfile(path):
        return path
    near = difflib.get_close_matches(path, NAMES, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f" ({', '.join(sorted(NAMES))})"
    raise ValueError(f"{name} is {path!r:.200}, expected a Jinja template, a file or the name of a template{hint}")


def _read(path: Path, name: str) -> str:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, f"{name}: there is no such file", str(path))
    text = path.read_text(encoding="utf-8")
    if not _STATEMENT.search(text):
        raise ValueError(f"{name} is the file {path}, which contains no Jinja template")
    return text
