"""Program: call each member of each handle of an engine in a thread, while the handle and its parents are closed.

``python closing_during_calls.py llama [FIRST]`` prints the number of members. It ends with an error if a class or the arguments
of a method are missing here; a fault of native code ends it with a signal.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import pkgutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from native.closing_handles import GROUPS, Builder, Group

from cyllama._native._handle import Handle
from cyllama.errors import ClosedError, InUseError

CALLS = 40
SECONDS = 0.3  # how long a member is called at most


def handle_classes(package: str) -> set[str]:
    """Return the names of the handles of a package that can be made."""
    root = importlib.import_module(package)
    for module in pkgutil.iter_modules(root.__path__):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{package}.{module.name}")

    def below(kind: type) -> Iterator[type]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return {
        kind.__name__
        for kind in below(Handle)
        if kind.__module__.startswith(package + ".") and kind.__name__ != "BaseState"
    }


def members(thing: Any) -> list[str]:
    return [name for name in dir(type(thing)) if not name.startswith("_") and name not in ("close", "closed")]


def walk(group: Group, build: Builder, name: str) -> None:
    """Call a member until its object is closed, and close the object and its parents meanwhile."""
    chain = build()
    thing = chain[0]
    is_method = callable(getattr(type(thing), name))
    started, outcomes = threading.Event(), []

    def call_once() -> None:
        try:
            if is_method:
                method = getattr(thing, name)
                method(*group.arguments(chain, name, method))
            else:
                getattr(thing, name)
        finally:
            started.set()

    def work() -> None:
        end = time.monotonic() + SECONDS
        for _ in range(CALLS):
            try:
                call_once()
            except ClosedError:
                return
            except TypeError as error:  # an argument is missing here
                outcomes.append(error)
                return
            except Exception:
                pass  # a member may reject what another call has left
            if time.monotonic() > end:
                return

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(0.05)
    to_close = [item for item in chain if isinstance(item, Handle)]
    while to_close:
        for parent in reversed(to_close[1:]):
            with contextlib.suppress(InUseError):
                parent.close()
        try:
            to_close[0].close()
            to_close.pop(0)
        except InUseError:
            time.sleep(0)
            if not thread.is_alive():
                thread.join()
                if to_close[0] is not thing:
                    del thing, chain, call_once
                to_close[0].close()
                to_close.pop(0)
    thread.join()
    if outcomes:
        raise AssertionError(f"{name}: {outcomes[0]!r}") from outcomes[0]


def main() -> None:
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)  # collections run Python code in the middle of native code, and other threads with it
    gc.callbacks.append(lambda phase, info: time.sleep(0))
    group = GROUPS[sys.argv[1]]()
    missing = handle_classes(group.package) - group.builders.keys()
    assert not missing, f"no builder for {sorted(missing)}"
    gc.freeze()
    names = [(kind, name) for kind, build in group.builders.items() for name in members(build()[0])]
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for i, (kind, name) in enumerate(names[first:], first):
        print(i, f"{kind}.{name}", file=sys.stderr, flush=True)
        walk(group, group.builders[kind], name)
    print(len(names))


if __name__ == "__main__":
    main()
