"""The log hook, the backends and devices, the thread budget and the ABI check: once for the process."""

import json
import logging
import os
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path

from cyllama._native cimport libggml as ggml
from cyllama._native cimport libnative as lib
from cyllama._native._exit cimport RunningCall, is_ending
from cyllama._native.libggml cimport ggml_log_level

from cyllama import errors, log
from cyllama._native.failures import failure_type
from cyllama._native.threads import default_threads

LIB = Path(__file__).resolve().parent.parent / "lib"

# --------------------------------------------------------------------------------------------- log

cdef int _PYTHON_LEVEL[6]
_PYTHON_LEVEL[<int> ggml.GGML_LOG_LEVEL_NONE] = logging.DEBUG
_PYTHON_LEVEL[<int> ggml.GGML_LOG_LEVEL_DEBUG] = logging.DEBUG
_PYTHON_LEVEL[<int> ggml.GGML_LOG_LEVEL_INFO] = logging.INFO
_PYTHON_LEVEL[<int> ggml.GGML_LOG_LEVEL_WARN] = logging.WARNING
_PYTHON_LEVEL[<int> ggml.GGML_LOG_LEVEL_ERROR] = logging.ERROR
_PYTHON_LEVEL[<int> ggml.GGML_LOG_LEVEL_CONT] = logging.DEBUG

_loggers = {name.encode(): logging.getLogger(f"cyllama.{name}") for name in log.ENGINES}


cdef void log_hook(ggml_log_level level, const char * text, void * engine) noexcept nogil:
    """Handle a log message of an engine (ggml_log_callback); `engine` is its name, a static C string."""
    cdef lib.log_line line
    if lib.log_append(level, text, line) and not is_ending():
        _log_gil(line.level, line.text.c_str(), <const char *> engine)


cdef void _log_gil(ggml_log_level level, const char * text, const char * engine) noexcept with gil:
    try:
        if not sys.is_finalizing():
            _loggers[<bytes> engine].log(_PYTHON_LEVEL[<int> level], "%s", text.decode("utf-8", "backslashreplace"))
    except Exception:
        return  # ignore errors of `logging` handlers: C cannot handle them


def _level_changed(level: int) -> None:
    if level > logging.CRITICAL:
        lib.set_log_threshold(<int> ggml.GGML_LOG_LEVEL_CONT + 1)
    elif level > logging.WARNING:
        lib.set_log_threshold(<int> ggml.GGML_LOG_LEVEL_ERROR)
    elif level > logging.INFO:
        lib.set_log_threshold(<int> ggml.GGML_LOG_LEVEL_WARN)
    elif level > logging.DEBUG:
        lib.set_log_threshold(<int> ggml.GGML_LOG_LEVEL_INFO)
    else:
        lib.set_log_threshold(<int> ggml.GGML_LOG_LEVEL_NONE)


# ------------------------------------------------------------------------------------------ errors

cdef int start_call() except -1:
    """Forget the log lines of earlier calls of this thread."""
    lib.log_clear()
    return 0


def last_log() -> tuple[str, ...]:
    """Return the warnings and errors that engines logged on this thread since its last call began, oldest first."""
    return tuple([lib.log_get(i).decode("utf-8", "backslashreplace") for i in range(lib.log_size())])


cdef object engine_error(type kind, str message, str engine, str function, object code):
    lines = last_log()
    return failure_type(kind, message, lines)(message, engine=engine, function=function, code=code, log=lines)


def _raise_native(kind: str, message: bytes) -> None:
    """Raise the Python exception for a C++ one (called by shim_exceptions.hpp)."""
    text = message.decode("utf-8", "backslashreplace")
    if kind == "index":
        raise IndexError(text)
    if kind == "value":
        raise ValueError(text)
    if kind == "memory":
        raise errors.OutOfMemoryError("not enough memory", log=last_log())
    lines = last_log()
    raise failure_type(errors.EngineError, text, lines)(text, log=lines, aborted=kind == "abort")


def fail_assertion(n_threads: int | None = None, thread: int = 0) -> None:
    """Make an assertion of the engine fail, to test that it raises EngineError and does not end the process.

    Parameters
    ----------
    n_threads : int, optional
        Let it fail in a computation of this many threads.
    thread : int
        In which of them it fails.
    """
    cdef int c_n = 0 if n_threads is None else n_threads
    cdef int c_thread = thread
    start_call()
    if c_n:
        load_backends()
    with nogil:
        if c_n:
            lib.provoke_assertion_in_graph(c_n, c_thread)
        else:
            lib.provoke_assertion()


# ---------------------------------------------------------------------------------------- backends

_load_lock = threading.Lock()
_loaded = False


def _plugin_folders() -> list[Path]:
    """Return the folders of plug-in packages: entry points of the group ``cyllama.backends``, each a function."""
    return [Path(entry.load()()) for entry in entry_points(group="cyllama.backends")]


_KERNELS = ("cyllama", "upstream", "reference")


def load_backends() -> None:
    """Load ggml's backends from the package's own folder and from plug-in packages; once.

    ``CYLLAMA_CPU_VARIANT`` (such as ``haswell``) picks the CPU variant instead of the best one. ``CYLLAMA_KERNELS``
    picks the matrix products: ``cyllama`` (the default), ``upstream`` (ggml's own) or ``reference`` (plain C, for
    tests).

    Raises
    ------
    ValueError
        ``CYLLAMA_KERNELS`` has another value.
    ImportError
        No CPU backend runs on this machine.

    Notes
    -----
    Releases the GIL. Source: ``ggml_backend_load_all_from_path``, ggml-backend.h.
    """
    global _loaded
    with _load_lock:
        if _loaded:
            return
        start_call()
        kernels = os.environ.get("CYLLAMA_KERNELS", "")
        if kernels not in ("", *_KERNELS):
            raise ValueError(f"CYLLAMA_KERNELS is {kernels!r}, expected one of: {', '.join(_KERNELS)}")
        folders = [LIB, *_plugin_folders()]
        variant = os.environ.get("CYLLAMA_CPU_VARIANT", "")
        if variant:
            _load_file(_module(f"cpu-{variant}"))
        for folder in folders:
            _load_folder(os.fsencode(folder), bool(variant))
        if ggml.ggml_backend_dev_by_type(ggml.GGML_BACKEND_DEVICE_TYPE_CPU) == NULL:
            raise ImportError(_no_cpu_backend(folders))
        _loaded = True
    set_threads()


def _no_cpu_backend(folders: list[Path]) -> str:
    names = sorted(path.stem.partition("ggml-cpu-")[2] for folder in folders for path in folder.glob("*ggml-cpu-*"))
    if not names:
        return f"there is no CPU backend in {LIB}; install cyllama again"
    return (f"this processor runs none of the CPU variants of this build ({', '.join(names)}); build cyllama on this "
            "machine, or with CYLLAMA_CPU_VARIANTS=all")


def _module(name: str) -> Path:
    suffix = "dll" if sys.platform == "win32" else "so"
    prefix = "" if sys.platform == "win32" else "lib"
    return LIB / f"{prefix}ggml-{name}.{suffix}"


def _load_file(path: Path) -> None:
    cdef bytes c_path = os.fsencode(path)
    cdef const char * p = c_path
    cdef ggml.ggml_backend_reg_t reg
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    with nogil:
        reg = ggml.ggml_backend_load(p)
    if reg == NULL:
        raise ImportError(f"{path.name} cannot be loaded on this machine: {lib.load_error(p).decode() or last_log()}")


def _load_folder(folder: bytes, has_cpu: bool) -> None:
    cdef const char * c_folder = folder
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    if has_cpu:
        for path in sorted(Path(os.fsdecode(folder)).glob("*ggml-*")):
            if "ggml-cpu" not in path.name and "cyllama" not in path.name and path.suffix in (".so", ".dll"):
                _load_file(path)
        return
    with nogil:
        ggml.ggml_backend_load_all_from_path(c_folder)


def cpu_variant() -> str:
    """Return the name of the CPU variant in use, such as ``"haswell"`` or ``"sapphirerapids"``."""
    load_backends()
    cdef ggml.ggml_backend_dev_t dev = ggml.ggml_backend_dev_by_type(ggml.GGML_BACKEND_DEVICE_TYPE_CPU)
    cdef void * address = ggml.ggml_backend_reg_get_proc_address(
        ggml.ggml_backend_dev_backend_reg(dev), b"ggml_backend_set_n_threads")
    name = Path(os.fsdecode(lib.file_of_address(address))).name
    return name.split("ggml-cpu-")[-1].split(".")[0]


cdef dict _features():
    load_backends()
    cdef ggml.ggml_backend_dev_t dev = ggml.ggml_backend_dev_by_type(ggml.GGML_BACKEND_DEVICE_TYPE_CPU)
    cdef ggml.ggml_backend_get_features_t get = <ggml.ggml_backend_get_features_t> \
        ggml.ggml_backend_reg_get_proc_address(ggml.ggml_backend_dev_backend_reg(dev), b"ggml_backend_get_features")
    cdef ggml.ggml_backend_feature * feature = get(ggml.ggml_backend_dev_backend_reg(dev))
    found = {}
    while feature.name != NULL:
        found[feature.name.decode()] = feature.value.decode()
        feature += 1
    return found


def cpu_features() -> list[str]:
    """Return the instruction-set features that the CPU variant was compiled with, such as ``"AVX2"``."""
    return [name for name in _features() if name != "KERNELS"]


def cpu_kernels() -> list[str]:
    """Return the types of weights that this package's matrix products serve, such as ``"q4_K"``.

    Products with weights of other types are ggml's own.
    """
    types = _features().get("KERNELS", "")
    return types.split(",") if types else []


_DEVICE_TYPES = {
    <int> ggml.GGML_BACKEND_DEVICE_TYPE_CPU: "cpu",
    <int> ggml.GGML_BACKEND_DEVICE_TYPE_GPU: "gpu",
    <int> ggml.GGML_BACKEND_DEVICE_TYPE_IGPU: "igpu",
    <int> ggml.GGML_BACKEND_DEVICE_TYPE_ACCEL: "accelerator",
    <int> ggml.GGML_BACKEND_DEVICE_TYPE_META: "meta",
}


def devices() -> list[dict]:
    """Return the devices that the engines can compute on.

    Returns
    -------
    list of dict
        ``name``, ``description``, ``backend``, ``type`` (``cpu``, ``gpu``, ``igpu``, ``accelerator``),
        ``memory_free`` and ``memory_total`` in bytes.

    Notes
    -----
    Source: ``ggml_backend_dev_get_props``, ggml-backend.h.
    """
    load_backends()
    cdef size_t i
    cdef ggml.ggml_backend_dev_t dev
    cdef ggml.ggml_backend_dev_props props
    found = []
    for i in range(ggml.ggml_backend_dev_count()):
        dev = ggml.ggml_backend_dev_get(i)
        with nogil:
            ggml.ggml_backend_dev_get_props(dev, &props)
        found.append({
            "name": props.name.decode("utf-8", "replace"),
            "description": props.description.decode("utf-8", "replace"),
            "backend": ggml.ggml_backend_reg_name(ggml.ggml_backend_dev_backend_reg(dev)).decode(),
            "type": _DEVICE_TYPES.get(<int> props.type, "unknown"),
            "memory_free": props.memory_free,
            "memory_total": props.memory_total,
        })
    return found


def backends() -> list[dict]:
    """Return the backends of this build: ``name``, ``file``, ``loaded``, and ``reason`` if one is not loaded.

    CPU variants that were not chosen are not listed; :func:`cpu_variant` tells the chosen one.
    """
    load_backends()
    cdef size_t i
    loaded = {ggml.ggml_backend_reg_name(ggml.ggml_backend_reg_get(i)).decode().lower(): i
              for i in range(ggml.ggml_backend_reg_count())}
    listed = []
    for folder in [LIB, *_plugin_folders()]:
        for path in sorted(folder.glob("*ggml-*")):
            name = path.name.split("ggml-")[-1].split(".")[0]
            if "cyllama" in path.name or (name.startswith("cpu-") and name != f"cpu-{cpu_variant()}"):
                continue
            is_loaded = name.split("-")[0] in loaded
            reason = ""
            if not is_loaded:
                reason = lib.load_error(os.fsencode(path)).decode("utf-8", "replace") or "no usable device"
            listed.append({"name": name, "file": path.name, "loaded": is_loaded, "reason": reason})
    return listed


def registry_address() -> int:
    """Return the address of the backend registry, which all engines share (used by the tests)."""
    load_backends()
    return <size_t> <void *> ggml.ggml_backend_reg_get(0)


# ----------------------------------------------------------------------------------------- threads

ctypedef void (*team_configure_t)(int budget, bint adaptive) noexcept nogil
ctypedef int (*team_room_t)() noexcept nogil

_budget = 0


cdef void * _cpu_proc(const char * name) except? NULL:
    load_backends()
    cdef ggml.ggml_backend_dev_t dev = ggml.ggml_backend_dev_by_type(ggml.GGML_BACKEND_DEVICE_TYPE_CPU)
    return ggml.ggml_backend_reg_get_proc_address(ggml.ggml_backend_dev_backend_reg(dev), name)


def cpu_function(name: str) -> int:
    """Return the address of a function of the CPU backend, which is a loadable module (for other modules)."""
    cdef bytes raw = name.encode()
    cdef void * address = _cpu_proc(raw)
    if address == NULL:
        raise errors.UnsupportedError(f"the CPU backend has no function {name}")
    return <size_t> address


def set_threads(n: int | None = None, *, adaptive: bool = True) -> None:
    """Set how many threads all engines of the process may use together.

    Parameters
    ----------
    n : int or None
        1 to 512; None is :func:`default_threads`: the physical cores that affinity and cgroup allow.
        Engines that run at the same time share them.
    adaptive : bool
        Follow the load that other processes put on the cores: a thread that waits to be scheduled holds
        up all others. False keeps the team's size (then results do not depend on the machine's load).

    Raises
    ------
    TypeError, ValueError
        `n` is not an integer from 1 to 512.
    """
    global _budget
    if n is None:
        n = default_threads()
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n is {n!r}, expected an integer or None")
    if not 1 <= n <= 512:
        raise ValueError(f"n is {n}, expected 1 to 512 threads")
    cdef team_configure_t configure = <team_configure_t> _cpu_proc(b"ggml_cpu_team_configure")
    cdef int c_n = n
    cdef bint c_adaptive = adaptive and os.environ.get("GGML_TEAM_FIXED", "0") in ("", "0")
    with nogil:
        configure(c_n, c_adaptive)
    _budget = n


def get_threads() -> int:
    """Return the thread budget that :func:`set_threads` set."""
    load_backends()
    return _budget


def threads_available() -> int:
    """Return the number of threads for a new computation: the budget without running graphs and busy cores."""
    cdef team_room_t room = <team_room_t> _cpu_proc(b"ggml_cpu_team_room")
    cdef int n
    with nogil:
        n = room()
    return n


# --------------------------------------------------------------------------------------------- ABI

def abi() -> tuple[str, int, int]:
    """(ggml version, sizeof(ggml_tensor), GGML_MAX_NAME) as this module was compiled and linked."""
    return ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME


def check_abi(module: str, found: tuple[str, int, int]) -> None:
    """Reject an extension module that was built against another ggml.

    Raises
    ------
    ABIMismatchError
    """
    expected = abi()
    if tuple(found) != expected:
        raise errors.ABIMismatchError(
            f"{module} was built for ggml {found}, the package's ggml is {expected} "
            "(version, sizeof(ggml_tensor), GGML_MAX_NAME); reinstall cyllama")


def build_record() -> dict:
    """Return the record of the build: engine versions and commits, compiler, backends."""
    return json.loads((LIB / "build.json").read_text())


lib.install_abort_callback()
ggml.ggml_log_set(log_hook, <void *> <const char *> b"ggml")
log.on_change(_level_changed)
