"""Find the extension modules: all modules of a sub-package are in one shared object.

The build writes ``lib/modules.txt``: on each line a sub-package, its shared object, and the modules in it. The package
calls `install` before anything else, so that Python finds the modules by their names.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PACKAGE = os.path.dirname(os.path.abspath(__file__))
TABLE = os.path.join(PACKAGE, "lib", "modules.txt")


def read_table(table: str) -> dict[str, str]:
    """Return the path of the shared object of each extension module; empty if the package is not built."""
    try:
        with open(table, encoding="ascii") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        package, shared_object, *modules = line.split()
        path = os.path.join(PACKAGE, package, shared_object)
        found.update({f"cyllama.{package}.{module}": path for module in modules})
    return found


class ExtensionFinder:
    """A finder (`importlib.abc.MetaPathFinder`) of the modules in `read_table`."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.objects = read_table(table)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of an extension module of this package, None for any other name."""
        shared_object = self.objects.get(name)
        if shared_object is None:
            return None
        spec = ModuleSpec(name, ExtensionFileLoader(name, shared_object), origin=shared_object)
        spec.has_location = True  # gives the module its __file__
        return spec

    def invalidate_caches(self) -> None:
        """Read the table again (`importlib.invalidate_caches`)."""
        self.objects = read_table(self.table)


def install() -> None:
    """Add the finder to `sys.meta_path`, behind the other finders; once."""
    if not any(getattr(finder, "table", None) == TABLE for finder in sys.meta_path):
        sys.meta_path.append(ExtensionFinder(TABLE))
