"""Griffe extension for the API reference: docstrings of compiled modules, and names that are loaded on first use.

Griffe reads sources. The `.pyi` file of a compiled module has signatures but no docstrings, and a name that a package
loads in its `__getattr__` is not in the source at all. Both are completed here from the imported modules.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from griffe import Alias, Attribute, Docstring, Extension, GriffeLoader, Module, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")

_EMBEDDED_SIGNATURE = re.compile(r"\A[\w.]+(?:\(.*\)(?: -> .*)?|: [^\n]*)(?:\n+|\Z)")


def without_roles(text: str) -> str:
    """Return a docstring with the cross-references of reStructuredText as plain code."""
    return _ROLE.sub(r"`\1`", text)


def _live(path: str) -> Any:
    """Return the object at a dotted path."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = inspect.getattr_static(found, name) if inspect.isclass(found) else getattr(found, name)
        return found
    raise LookupError(path)


def _own_docstring(found: Any) -> str | None:
    """Return the docstring that the source has, without the signature that Cython puts before it."""
    text = getattr(found, "__doc__", None)
    if not text or type(found).__doc__ == text:
        return None
    return _EMBEDDED_SIGNATURE.sub("", inspect.cleandoc(text))


def _add_docstrings(obj: Object) -> None:
    """Set the docstrings of the members of a compiled module, recursively."""
    for member in obj.members.values():
        if member.is_alias or member.name.startswith("_"):
            continue
        if member.docstring is None:
            try:
                text = _own_docstring(_live(member.path))
            except (LookupError, AttributeError):
                text = None
            if text:
                member.docstring = Docstring(text, parent=member, lineno=member.lineno)
        if member.is_class:
            _add_docstrings(member)


def _add_lazy_names(module: Module) -> None:
    """Add an alias for each name of `__all__` that only the imported package has.

    A function that has the name of its module hides that module, as it does for a program.
    """
    live = importlib.import_module(module.path)
    for name in getattr(live, "__all__", ()):
        value = getattr(live, name)
        known = module.members.get(name)
        if inspect.ismodule(value) or not (known is None or (not known.is_alias and known.is_module)):
            continue
        if known is not None:
            for member in module.members.values():
                if isinstance(member, Alias) and member.target_path.startswith(f"{known.path}."):
                    member.resolve_target()
            module.set_member(name, Alias(name, known.members[name], parent=module))
        elif hasattr(value, "__qualname__"):
            module.set_member(name, Alias(name, f"{value.__module__}.{value.__qualname__}"))
        else:
            module.set_member(name, Attribute(name, value=repr(value), parent=module))


class CompiledModules(Extension):
    """Complete what griffe cannot read from the sources."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Walk the loaded package once."""
        self._walk(pkg)

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the cross-references of a docstring."""
        if obj.docstring:
            obj.docstring.value = without_roles(obj.docstring.value)

    def _walk(self, module: Module) -> None:
        if str(module.filepath).endswith(".pyi"):
            module.docstring = Docstring(_own_docstring(_live(module.path)) or "", parent=module)
            _add_docstrings(module)
        elif module.is_init_module and not any(part.startswith("_") for part in module.path.split(".")):
            _add_lazy_names(module)
        for member in list(module.members.values()):
            if not member.is_alias and member.is_module:
                self._walk(member)
