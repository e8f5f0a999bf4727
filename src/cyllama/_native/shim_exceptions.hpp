// C++ exceptions to Python exceptions, for every `except +translate_exception` in the lib*.pxd files.
#pragma once

#include <Python.h>

#include <exception>
#include <future>
#include <ios>
#include <new>
#include <stdexcept>
#include <string>

namespace cyllama {

// What the abort callback throws starts with this, so that it is known in every extension module
// without sharing a C++ type between them.
constexpr const char * ABORT_PREFIX = "assertion of the engine failed: ";

// Called with the GIL held, inside a catch block. _native._core knows the exception classes and the log.
inline void translate_exception() {
    const char * kind = "error";
    std::string  what;
    if (PyErr_Occurred()) {
        return; // a callback has raised, its exception is the cause
    }
    try {
        throw;
    } catch (const std::bad_alloc & e) {
        kind = "memory";
        what = e.what();
    } catch (const std::out_of_range & e) {
        kind = "index";
        what = e.what();
    } catch (const std::invalid_argument & e) {
        kind = "value";
        what = e.what();
    } catch (const std::exception & e) {
        what = e.what();
        if (what.rfind(ABORT_PREFIX, 0) == 0) {
            kind = "abort";
        }
    } catch (...) {
        what = "unknown C++ exception";
    }
    PyObject * module = PyImport_ImportModule("cyllama._native._core");
    if (!module) {
        return;
    }
    PyObject * result = PyObject_CallMethod(module, "_raise_native", "sy", kind, what.c_str());
    Py_XDECREF(result); // it always raises
    Py_DECREF(module);
}

} // namespace cyllama
