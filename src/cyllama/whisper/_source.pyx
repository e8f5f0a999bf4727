"""A model as whisper.cpp's loaders read it."""

cimport cython

from cyllama.whisper.libmodel cimport source_in_file, source_in_memory

from cyllama.whisper.model_files import ModelFile


@cython.no_gc_clear  # __dealloc__ frees what reads from the file
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
