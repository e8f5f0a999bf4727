# gguf.h: all public functions, in upstream's order.
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport FILE
from libcpp cimport bool

from cyllama._native.libggml cimport ggml_context, ggml_tensor, ggml_type
from cyllama._native.libexceptions cimport translate_exception


cdef extern from "gguf.h" nogil:
    cdef enum gguf_type:
        GGUF_TYPE_UINT8
        GGUF_TYPE_INT8
        GGUF_TYPE_UINT16
        GGUF_TYPE_INT16
        GGUF_TYPE_UINT32
        GGUF_TYPE_INT32
        GGUF_TYPE_FLOAT32
        GGUF_TYPE_BOOL
        GGUF_TYPE_STRING
        GGUF_TYPE_ARRAY
        GGUF_TYPE_UINT64
        GGUF_TYPE_INT64
        GGUF_TYPE_FLOAT64
        GGUF_TYPE_COUNT

    cdef struct gguf_context:
        pass
    cdef struct gguf_init_params:
        bool no_alloc
        ggml_context ** ctx

    ctypedef size_t (
        * gguf_reader_callback_t)(void * userdata, void * output, uint64_t offset, size_t len) noexcept nogil
    gguf_context * gguf_init_empty() except +translate_exception
    gguf_context * gguf_init_from_file_ptr(FILE * file, gguf_init_params params) except +translate_exception
    gguf_context * gguf_init_from_file(const char * fname, gguf_init_params params) except +translate_exception
    gguf_context * gguf_init_from_buffer(
        const void * data, size_t size, gguf_init_params params) except +translate_exception
    gguf_context * gguf_init_from_callback(
        gguf_reader_callback_t callback, void * userdata, size_t max_chunk_read, uint64_t max_expected_size,
        gguf_init_params params) except +translate_exception
    void gguf_free(gguf_context * ctx) noexcept
    const char * gguf_type_name(gguf_type type) except +translate_exception
    uint32_t gguf_get_version(const gguf_context * ctx) noexcept
    size_t gguf_get_alignment(const gguf_context * ctx) except +translate_exception
    size_t gguf_get_data_offset(const gguf_context * ctx) except +translate_exception
    int64_t gguf_get_n_kv(const gguf_context * ctx) except +translate_exception
    int64_t gguf_find_key(const gguf_context * ctx, const char * key) except +translate_exception
    const char * gguf_get_key(const gguf_context * ctx, int64_t key_id) except +translate_exception
    gguf_type gguf_get_kv_type(const gguf_context * ctx, int64_t key_id) except +translate_exception
    gguf_type gguf_get_arr_type(const gguf_context * ctx, int64_t key_id) except +translate_exception
    uint8_t gguf_get_val_u8(const gguf_context * ctx, int64_t key_id) except +translate_exception
    int8_t gguf_get_val_i8(const gguf_context * ctx, int64_t key_id) except +translate_exception
    uint16_t gguf_get_val_u16(const gguf_context * ctx, int64_t key_id) except +translate_exception
    int16_t gguf_get_val_i16(const gguf_context * ctx, int64_t key_id) except +translate_exception
    uint32_t gguf_get_val_u32(const gguf_context * ctx, int64_t key_id) except +translate_exception
    int32_t gguf_get_val_i32(const gguf_context * ctx, int64_t key_id) except +translate_exception
    float gguf_get_val_f32(const gguf_context * ctx, int64_t key_id) except +translate_exception
    uint64_t gguf_get_val_u64(const gguf_context * ctx, int64_t key_id) except +translate_exception
    int64_t gguf_get_val_i64(const gguf_context * ctx, int64_t key_id) except +translate_exception
    double gguf_get_val_f64(const gguf_context * ctx, int64_t key_id) except +translate_exception
    bool gguf_get_val_bool(const gguf_context * ctx, int64_t key_id) except +translate_exception
    const char * gguf_get_val_str(const gguf_context * ctx, int64_t key_id) except +translate_exception
    const void * gguf_get_val_data(const gguf_context * ctx, int64_t key_id) except +translate_exception
    size_t gguf_get_arr_n(const gguf_context * ctx, int64_t key_id) except +translate_exception
    const void * gguf_get_arr_data(const gguf_context * ctx, int64_t key_id) except +translate_exception
    const char * gguf_get_arr_str(const gguf_context * ctx, int64_t key_id, size_t i) except +translate_exception
    int64_t gguf_get_n_tensors(const gguf_context * ctx) except +translate_exception
    int64_t gguf_find_tensor(const gguf_context * ctx, const char * name) except +translate_exception
    size_t gguf_get_tensor_offset(const gguf_context * ctx, int64_t tensor_id) except +translate_exception
    const char * gguf_get_tensor_name(const gguf_context * ctx, int64_t tensor_id) except +translate_exception
    const int64_t * gguf_get_tensor_ne(const gguf_context * ctx, int64_t tensor_id) except +translate_exception
    ggml_type gguf_get_tensor_type(const gguf_context * ctx, int64_t tensor_id) except +translate_exception
    size_t gguf_get_tensor_size(const gguf_context * ctx, int64_t tensor_id) except +translate_exception
    int64_t gguf_remove_key(gguf_context * ctx, const char * key) except +translate_exception
    void gguf_set_val_u8(gguf_context * ctx, const char * key, uint8_t val) except +translate_exception
    void gguf_set_val_i8(gguf_context * ctx, const char * key, int8_t val) except +translate_exception
    void gguf_set_val_u16(gguf_context * ctx, const char * key, uint16_t val) except +translate_exception
    void gguf_set_val_i16(gguf_context * ctx, const char * key, int16_t val) except +translate_exception
    void gguf_set_val_u32(gguf_context * ctx, const char * key, uint32_t val) except +translate_exception
    void gguf_set_val_i32(gguf_context * ctx, const char * key, int32_t val) except +translate_exception
    void gguf_set_val_f32(gguf_context * ctx, const char * key, float val) except +translate_exception
    void gguf_set_val_u64(gguf_context * ctx, const char * key, uint64_t val) except +translate_exception
    void gguf_set_val_i64(gguf_context * ctx, const char * key, int64_t val) except +translate_exception
    void gguf_set_val_f64(gguf_context * ctx, const char * key, double val) except +translate_exception
    void gguf_set_val_bool(gguf_context * ctx, const char * key, bool val) except +translate_exception
    void gguf_set_val_str(gguf_context * ctx, const char * key, const char * val) except +translate_exception
    void gguf_set_arr_data(
        gguf_context * ctx, const char * key, gguf_type type, const void * data, size_t n) except +translate_exception
    void gguf_set_arr_str(
        gguf_context * ctx, const char * key, const char ** data, size_t n) except +translate_exception
    void gguf_set_kv(gguf_context * ctx, const gguf_context * src) except +translate_exception
    void gguf_add_tensor(gguf_context * ctx, const ggml_tensor * tensor) except +translate_exception
    void gguf_set_tensor_type(gguf_context * ctx, const char * name, ggml_type type) except +translate_exception
    void gguf_set_tensor_data(gguf_context * ctx, const char * name, const void * data) except +translate_exception
    bool gguf_write_to_file_ptr(const gguf_context * ctx, FILE * file, bool only_meta) except +translate_exception
    bool gguf_write_to_file(const gguf_context * ctx, const char * fname, bool only_meta) except +translate_exception
    size_t gguf_get_meta_size(const gguf_context * ctx) except +translate_exception
    void gguf_get_meta_data(const gguf_context * ctx, void * data) except +translate_exception
