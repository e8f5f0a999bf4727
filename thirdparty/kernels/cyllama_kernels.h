// The buffer type through which ggml's CPU backend uses the kernels.
#pragma once

#include "ggml-backend.h"

// Returns null where the kernels do not serve this variant or CYLLAMA_KERNELS is "upstream".
ggml_backend_buffer_type_t cyllama_kernels_buffer_type(void);

// Returns the types that the kernels serve, separated by commas; null if there are none.
const char * cyllama_kernels_types(void);
