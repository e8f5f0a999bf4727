"""``cyllama doctor``: check the installation, and show what is missing."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cyllama import models
from cyllama.cli import _style

__all__ = ["add_arguments", "diagnosis", "run"]

ENGINES = ("llama", "llava", "whisper", "sd")
EXTRAS = {
    "av": "audio in containers such as MP4 and WebM",
    "cli": "shell completion",
    "hub": "models of the Hugging Face Hub: hf:organisation/repository/file",
    "ray": "batches and servers on a Ray cluster",
}
GIB = 1 << 30
PACKAGES = {"PIL": "pillow", "huggingface_hub": "huggingface_hub", "_soundfile_data": "soundfile"}
"""Packages of modules with another name."""
AGAIN = "reinstall cyllama"
# Offsets in the head of a 64-bit ELF file: of the table of sections, and of the size and the number of its entries.
ELF, ELF_TABLE, ELF_ENTRIES = b"\x7fELF\x02", (40, "Q"), (58, "HH")
REQUIREMENT = re.compile(r"[\w.-]+")
EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)""")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="RPC servers to check too, separated by commas")


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis; the exit code is 1 if there are problems."""
    found = diagnosis(arguments.rpc or ())
    if arguments.json:
        print(json.dumps(found, indent=2, default=str))
    else:
        print("\n".join(_coloured(line) for line in _lines(found)))
    return 1 if found["problems"] else 0


def diagnosis(rpc: Sequence[str] | str = ()) -> dict[str, Any]:
    """Check the build, engines, memory, models and extras.

    Parameters
    ----------
    rpc : sequence of str, or str with commas
        RPC servers to check too, each ``host:port``.

    Returns
    -------
    dict
        Keys ``package``, ``build``, ``engines``, ``memory``, ``models``, ``extras``, ``rpc``, ``configuration``,
        ``problems`` (what does not work, each with the next step) and ``hints`` (optional improvements).
    """
    problems: list[str] = []
    hints: list[str] = []
    damaged = _damaged_libraries(problems)
    build = {} if damaged else _try("the build", _build, problems) or {}
    found: dict[str, Any] = {
        "package": _package(),
        "build": build,
        "engines": {name: _engine(name, problems, damaged) for name in ENGINES},
        "memory": {} if damaged else _try("the memory", _memory, problems) or {},
        "configuration": _try("the configuration", _configuration, problems) or {},
        "models": _try("the model folder", _models, problems) or {},
        "extras": _extras(),
        "rpc": _rpc_servers(rpc, problems) if rpc else [],
    }
    _add_findings(found, problems, hints)
    return {**found, "problems": problems, "hints": hints}


def _package() -> dict[str, Any]:
    import cyllama

    folder = os.path.dirname(os.path.abspath(cyllama.__file__ or ""))
    try:
        version = cyllama.__version__
    except metadata.PackageNotFoundError:  # `_build` reports it
        version = "of unknown version"
    return {"version": version, "python": sys.version.split()[0], "executable": sys.executable,
            "folder": folder}  # fmt: skip


def _build() -> dict[str, Any]:
    import cyllama

    info: dict[str, Any] = cyllama.build_info()
    return info


def _memory() -> dict[str, Any]:
    from cyllama._native.memory import free_memory, total_memory

    return {"free": free_memory(), "total": total_memory()}


def _configuration() -> dict[str, Any]:
    """Return the configuration file, and the variables of the environment that set flags."""
    from cyllama.cli import COMMANDS
    from cyllama.cli._settings import config_file, read_file

    path = config_file()
    prefixes = tuple(f"CYLLAMA_{name.upper()}_" for name in COMMANDS)
    return {
        "file": str(path),
        "commands": sorted(read_file(path, COMMANDS)),
        "variables": sorted(name for name in os.environ if name.startswith(prefixes)),
    }


def _damaged_libraries(problems: list[str]) -> list[str]:
    """Return the shared objects that are cut off, which would end the process when they are loaded."""
    import cyllama

    root = Path(cyllama.__file__ or "").parent
    found = [path for path in (*root.glob("lib/*.so"), *root.glob("*/*.so")) if _is_cut(path)]
    problems += [f"{path} is cut off; {AGAIN}" for path in found]
    return [str(path) for path in found]


def _is_cut(path: Path) -> bool:
    """Return whether an ELF file ends before its table of sections, which is its last part."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if len(head) < 64:
        return True
    if not head.startswith(ELF):
        return False
    (table,) = struct.unpack_from(f"<{ELF_TABLE[1]}", head, ELF_TABLE[0])
    entry, count = struct.unpack_from(f"<{ELF_ENTRIES[1]}", head, ELF_ENTRIES[0])
    return bool(table + entry * count > size)


def _engine(name: str, problems: list[str], damaged: list[str]) -> dict[str, Any]:
    if damaged:
        return {"loads": False, "error": f"{os.path.basename(damaged[0])} is cut off"}
    try:
        importlib.import_module(f"cyllama.{name}")
    except Exception as error:  # any error is a diagnosis
        problems.append(f"the engine {name} cannot be loaded: {_first_line(error)}; {_repair(error)}")
        return {"loads": False, "error": _first_line(error)}
    return {"loads": True}


def _rpc_servers(servers: Sequence[str] | str, problems: list[str]) -> list[dict[str, Any]]:
    from cyllama.errors import RPCError
    from cyllama.rpc import endpoints, probe  # needs the libraries, which the checks before may find damaged

    found = []
    for endpoint in endpoints(servers):
        try:
            found.append(dataclasses.asdict(probe(endpoint)))
        except RPCError as error:
            problems.append(str(error))
            found.append({"endpoint": endpoint, "version": None, "devices": []})
    return found


def _repair(error: Exception) -> str:
    """Return what to do about an error of importing."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    top = str(name or "").partition(".")[0]
    return f"pip install {PACKAGES.get(top, top)}" if top and top != "cyllama" else AGAIN


def _models() -> dict[str, Any]:
    known = models.list_models()
    installed = [model for model in known if models.installed(model.name)]
    folder = models.cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    return {
        "folder": str(folder),
        "writable": writable,
        "bytes": sum(model.size for model in installed),
        "installed": [model.name for model in installed],
        "available": [model.name for model in known if model not in installed],
    }


def _extras() -> dict[str, Any]:
    """Return each extra with its missing packages."""
    try:
        wanted = metadata.requires("cyllama") or []
    except metadata.PackageNotFoundError:
        wanted = []
    found: dict[str, Any] = {}
    for line in wanted:
        name, extra = REQUIREMENT.match(line), EXTRA.search(line)
        if name is None or extra is None:
            continue
        entry = found.setdefault(extra[1], {"about": EXTRAS.get(extra[1], ""), "missing": []})
        if not _is_installed(name[0]):
            entry["missing"].append(name[0])
    return found


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _add_findings(found: dict[str, Any], problems: list[str], hints: list[str]) -> None:
    devices = found["build"].get("devices", [])
    if found["build"] and not any(device["type"] == "cpu" for device in devices):
        problems.append(f"the CPU backend is missing; {AGAIN}")
    for backend in found["build"].get("backends", []):
        if not backend["loaded"]:
            hints.append(f"the backend {backend['name']} is not in use: {backend['reason']}")
    if found["build"] and not any(device["type"] in ("gpu", "igpu") for device in devices):
        hints.append("no GPU is available to this build; all engines use the CPU (docs/howto/gpu.md)")
    if found["models"] and not found["models"]["writable"]:
        problems.append(
            f"the model folder {found['models']['folder']} is not writable; set CYLLAMA_CACHE to a writable folder"
        )
    if found["models"].get("available"):
        hints.append("models are downloaded on first use; to download one now: cyllama models get NAME")
    for name, extra in found["extras"].items():
        if extra["missing"]:
            about = f" ({extra['about']})" if extra["about"] else ""
            hints.append(f"the extra {name}{about} is not installed: pip install {' '.join(extra['missing'])}")


def _try(what: str, call: Callable[[], dict[str, Any]], problems: list[str]) -> dict[str, Any] | None:
    try:
        return call()
    except Exception as error:  # the other checks go on
        text = _first_line(error)
        repair = "" if what == "the configuration" or "install" in text else f"; {_repair(error)}"
        problems.append(f"cannot check {what}: {text}{repair}")
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ------------------------------------------------------------------------------------------ printing


def _lines(found: dict[str, Any]) -> Iterator[str]:
    package, build, memory = found["package"], found["build"], found["memory"]
    yield f"cyllama {package['version']} on Python {package['python']}, in {package['folder']}"
    for name, engine in found["engines"].items():
        built = build.get("engines", {}).get(_upstream(name))
        version = _label(built) if built else ""
        yield f"  {name:8} {'loads' if engine['loads'] else 'DOES NOT LOAD: ' + engine['error']}  {version}".rstrip()
    if build:
        yield f"  {'ggml':8} {build['ggml']['version']}, shared by all engines"
        yield ""
        yield f"CPU variant {build['cpu']['variant']}, {build['threads']} threads shared by all engines"
        served = ", ".join(build["cpu"]["kernels"])
        yield f"  kernels  {f'of cyllama for {served}; of ggml for other types' if served else 'of ggml'}"
        for device in build["devices"]:
            yield f"  device   {device['name']}: {device['description']} ({device['type']})"
        for backend in build["backends"]:
            yield f"  backend  {backend['name']}: {'in use' if backend['loaded'] else backend['reason']}"
    for server in found["rpc"]:
        for number, device in enumerate(server["devices"]):
            free, total = device["memory_free"] / GIB, device["memory_total"] / GIB
            yield f"  rpc      {server['endpoint']}, device {number}: {free:.1f} of {total:.1f} GiB free"
    if memory:
        yield f"  memory   {memory['free'] / GIB:.1f} of {memory['total'] / GIB:.1f} GiB free"
    if found["configuration"].get("commands") or found["configuration"].get("variables"):
        yield f"  flags    {found['configuration']['file']} {' '.join(found['configuration']['variables'])}".rstrip()
    if found["models"]:
        yield ""
        yield from _model_lines(found["models"])
    if found["extras"]:
        yield ""
        yield "extras"
        for name, extra in found["extras"].items():
            state = f"missing: {', '.join(extra['missing'])}" if extra["missing"] else "installed"
            yield f"  {name:8} {state}" + (f" ({extra['about']})" if extra["about"] else "")
    yield ""
    for problem in found["problems"]:
        yield f"problem: {problem}"
    for hint in found["hints"]:
        yield f"hint: {hint}"
    count = len(found["problems"])
    yield f"{count} problem{'s' if count > 1 else ''}" if count else "no problems"


def _label(built: Any) -> str:
    from cyllama._native import engine_label

    return engine_label(built)


def _coloured(line: str) -> str:
    """Return a line with its state in colour, if the output is a terminal."""
    if line.startswith("problem: "):
        return _style.bad("problem:", sys.stdout) + line.removeprefix("problem:")
    if line.startswith("hint: "):
        return _style.warn("hint:", sys.stdout) + line.removeprefix("hint:")
    return _style.good(line, sys.stdout) if line == "no problems" else line


def _model_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"models in {found['folder']}: {len(found['installed'])}, {found['bytes'] / 1e6:,.0f} MB"
    for title, names in (("installed", found["installed"]), ("available", found["available"])):
        if names:
            yield f"  {title:9} {', '.join(names)}"


def _upstream(engine: str) -> str:
    return "llama" if engine == "llava" else engine
