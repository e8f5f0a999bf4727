// Write fields of C structs.
#pragma once

// Assign a number to a field of any enum type.
template <typename T>
static inline void cyllama_set_enum(T & field, int value) { field = static_cast<T>(value); }
