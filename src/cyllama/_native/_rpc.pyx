"""The server side of ggml's RPC backend: compute on the devices of this machine for other machines."""

from libcpp.vector cimport vector

from cyllama._native cimport libggml as ggml

from cyllama import errors
from cyllama._native import _core

ctypedef bint (*serve_t)(int fd, const char * cache_dir, size_t n_backends,
                         ggml.ggml_backend_t * backends) noexcept nogil
ctypedef void (*set_n_threads_t)(ggml.ggml_backend_t backend, int n_threads) noexcept nogil


cdef ggml.ggml_backend_reg_t _registration(ggml.ggml_backend_dev_t device) except NULL:
    return ggml.ggml_backend_dev_backend_reg(device)


def _serve_function() -> int:
    cdef size_t i
    cdef ggml.ggml_backend_reg_t reg
    _core.load_backends()
    for i in range(ggml.ggml_backend_reg_count()):
        reg = ggml.ggml_backend_reg_get(i)
        if ggml.ggml_backend_reg_name(reg) == b"RPC":
            return <size_t> ggml.ggml_backend_reg_get_proc_address(reg, b"ggml_backend_rpc_serve_socket")
    return 0


def supports_rpc() -> bool:
    """Return whether this build has the RPC backend."""
    return _serve_function() != 0


def serve_client(socket: int, devices: list[str], n_threads: int, cache_folder: str | None = None) -> bool:
    """Serve one client of the RPC backend until its connection ends.

    Parameters
    ----------
    socket : int
        File descriptor of the accepted connection; it is closed.
    devices : list of str
        Names of :func:`cyllama.devices`.
    n_threads : int
        Threads of the CPU device for this client.
    cache_folder : str, optional
        Folder for large tensors, so that a client need not send them again.

    Returns
    -------
    bool
        False if a request of the client was invalid.

    Notes
    -----
    Releases the GIL. Thread safety: a thread for each client.
    Source: ``rpc_serve_client``, ggml/src/ggml-rpc/ggml-rpc.cpp.
    """
    cdef serve_t serve = <serve_t> <void *> <size_t> _serve_function()
    cdef vector[ggml.ggml_backend_t] backends
    cdef ggml.ggml_backend_dev_t device
    cdef ggml.ggml_backend_t backend
    cdef set_n_threads_t set_n_threads
    cdef bytes folder = b"" if cache_folder is None else cache_folder.encode()
    cdef const char * c_folder = NULL
    cdef int c_threads = n_threads
    cdef int fd = socket
    cdef bint served
    if cache_folder is not None:
        c_folder = folder
    if serve == NULL:
        raise errors.UnsupportedError("this build has no RPC backend")
    try:
        for name in devices:
            device = ggml.ggml_backend_dev_by_name(name.encode())
            if device == NULL:
                raise ValueError(f"devices contains {name!r}, expected names of cyllama.devices()")
            backend = ggml.ggml_backend_dev_init(device, NULL)
            if backend == NULL:
                raise errors.EngineError(f"the device {name} cannot be used")
            backends.push_back(backend)
            set_n_threads = <set_n_threads_t> ggml.ggml_backend_reg_get_proc_address(
                _registration(device), b"ggml_backend_set_n_threads")
            if set_n_threads != NULL:
                set_n_threads(backend, c_threads)
        with nogil:
            served = serve(fd, c_folder, backends.size(), backends.data())
        return served
    finally:
        for backend in backends:
            with nogil:
                ggml.ggml_backend_free(backend)
