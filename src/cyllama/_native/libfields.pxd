cdef extern from "shim_fields.hpp":
    void set_enum "cyllama_set_enum"[T](T & field, int value) noexcept nogil
