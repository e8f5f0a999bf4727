"""Model files as the loaders of whisper.cpp read them."""

cimport cython

from cyllama._native._core cimport start_call
from cyllama._native._handle cimport CallState
from cyllama.whisper.libmodel cimport check_function, source_in_file, source_in_memory, stop_function, stop_source

from cyllama.errors import EngineError, ModelLoadError
from cyllama.whisper._model_source import ModelFile


@cython.no_gc_clear  # __dealloc__ frees the reader of the file
cdef class ModelSource:
    """Reads a `ModelFile` for C."""

    def __cinit__(self, model: ModelFile):
        cdef const unsigned char[::1] view
        self._model = model
        self.what = model.what
        if model.data is not None:
            view = model.data
            self.ptr = source_in_memory(&view[0] if len(view) else NULL, len(view))
        else:
            self.ptr = source_in_file(model.file.fileno(), model.start, model.size)

    def __dealloc__(self):
        del self.ptr

    cdef int check(self, check_function check, stop_function stop, CallState state, str function) except -1:
        """Check every number of the file before the engine reads it; return whether it has weights.

        Releases the GIL. `state` stops the check, and later the engine's loader. `function` is the name of the loader
        for the error.
        """
        cdef bint has_weights = False
        state.finish()  # cancelled before the start
        stop_source(self.ptr[0], stop, <void *> state)
        start_call()
        try:
            with nogil:
                has_weights = check(self.ptr[0])
        except EngineError as e:
            state.finish()
            raise ModelLoadError(f"{self.what} cannot be loaded: {e.args[0] if e.args else e}", engine="whisper",
                                 function=function) from None
        return has_weights
