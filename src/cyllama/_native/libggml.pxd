# ggml.h, ggml-backend.h, ggml-cpu.h, ggml-opt.h: what is used of them, in upstream's order.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception


cdef extern from "ggml.h" nogil:
    const int GGML_MAX_DIMS
    const int GGML_MAX_NAME
    const int GGML_MAX_N_THREADS
    const int GGML_QNT_VERSION
    const int GGML_QNT_VERSION_FACTOR

    cdef struct ggml_context:
        pass
    cdef struct ggml_cgraph:
        pass
    cdef struct ggml_backend_buffer:
        pass
    cdef struct ggml_tensor:
        ggml_type type
        ggml_backend_buffer * buffer
        int64_t ne[4]
        size_t nb[4]
        ggml_op op
        ggml_tensor * src[10]
        void * data

    ctypedef void (* ggml_abort_callback_t)(const char * error_message) noexcept nogil
    ggml_abort_callback_t ggml_set_abort_callback(ggml_abort_callback_t callback) except +translate_exception
    cdef enum ggml_type:
        GGML_TYPE_F32
        GGML_TYPE_F16
        GGML_TYPE_Q4_0
        GGML_TYPE_Q4_1
        GGML_TYPE_Q5_0
        GGML_TYPE_Q5_1
        GGML_TYPE_Q8_0
        GGML_TYPE_Q8_1
        GGML_TYPE_Q2_K
        GGML_TYPE_Q3_K
        GGML_TYPE_Q4_K
        GGML_TYPE_Q5_K
        GGML_TYPE_Q6_K
        GGML_TYPE_Q8_K
        GGML_TYPE_IQ2_XXS
        GGML_TYPE_IQ2_XS
        GGML_TYPE_IQ3_XXS
        GGML_TYPE_IQ1_S
        GGML_TYPE_IQ4_NL
        GGML_TYPE_IQ3_S
        GGML_TYPE_IQ2_S
        GGML_TYPE_IQ4_XS
        GGML_TYPE_I8
        GGML_TYPE_I16
        GGML_TYPE_I32
        GGML_TYPE_I64
        GGML_TYPE_F64
        GGML_TYPE_IQ1_M
        GGML_TYPE_BF16
        GGML_TYPE_TQ1_0
        GGML_TYPE_TQ2_0
        GGML_TYPE_MXFP4
        GGML_TYPE_NVFP4
        GGML_TYPE_Q1_0
        GGML_TYPE_Q2_0
        GGML_TYPE_COUNT

    cdef enum ggml_ftype:
        GGML_FTYPE_MOSTLY_Q4_0
        GGML_FTYPE_MOSTLY_Q4_1
        GGML_FTYPE_MOSTLY_Q8_0
        GGML_FTYPE_MOSTLY_Q5_0
        GGML_FTYPE_MOSTLY_Q5_1

    cdef enum ggml_op:
        GGML_OP_MUL_MAT
        GGML_OP_MUL_MAT_ID
        GGML_OP_IM2COL
        GGML_OP_CONV_2D
        GGML_OP_FLASH_ATTN_EXT

    cdef enum ggml_log_level:
        GGML_LOG_LEVEL_NONE
        GGML_LOG_LEVEL_DEBUG
        GGML_LOG_LEVEL_INFO
        GGML_LOG_LEVEL_WARN
        GGML_LOG_LEVEL_ERROR
        GGML_LOG_LEVEL_CONT

    cdef struct ggml_init_params:
        size_t mem_size
        void * mem_buffer
        bool no_alloc

    ctypedef bool (* ggml_abort_callback)(void * data) noexcept nogil
    const char * ggml_version() noexcept
    const char * ggml_commit() noexcept
    void ggml_time_init() noexcept
    int64_t ggml_time_us() noexcept
    int64_t ggml_nelements(const ggml_tensor * tensor) except +translate_exception
    size_t ggml_nbytes(const ggml_tensor * tensor) except +translate_exception
    int64_t ggml_blck_size(ggml_type type) except +translate_exception
    size_t ggml_type_size(ggml_type type) except +translate_exception
    size_t ggml_row_size(ggml_type type, int64_t ne) except +translate_exception
    const char * ggml_type_name(ggml_type type) except +translate_exception
    const char * ggml_op_desc(const ggml_tensor * t) except +translate_exception
    bool ggml_is_quantized(ggml_type type) except +translate_exception
    int ggml_n_dims(const ggml_tensor * tensor) except +translate_exception
    bool ggml_is_contiguous(const ggml_tensor * tensor) except +translate_exception
    size_t ggml_tensor_overhead() except +translate_exception
    ggml_context * ggml_init(ggml_init_params params) except +translate_exception
    void ggml_free(ggml_context * ctx) noexcept
    ggml_tensor * ggml_new_tensor(
        ggml_context * ctx, ggml_type type, int n_dims, const int64_t * ne) except +translate_exception
    ggml_tensor * ggml_get_first_tensor(const ggml_context * ctx) except +translate_exception
    ggml_tensor * ggml_get_next_tensor(const ggml_context * ctx, ggml_tensor * tensor) except +translate_exception
    ggml_tensor * ggml_get_tensor(ggml_context * ctx, const char * name) except +translate_exception
    void * ggml_get_data(const ggml_tensor * tensor) except +translate_exception
    const char * ggml_get_name(const ggml_tensor * tensor) except +translate_exception
    ggml_tensor * ggml_set_name(ggml_tensor * tensor, const char * name) except +translate_exception
    ctypedef void (* ggml_log_callback)(ggml_log_level level, const char * text, void * user_data) noexcept nogil
    void ggml_log_get(ggml_log_callback * log_callback, void ** user_data) except +translate_exception
    void ggml_log_set(ggml_log_callback log_callback, void * user_data) except +translate_exception
    size_t ggml_quantize_chunk(
        ggml_type type, const float * src, void * dst, int64_t start, int64_t nrows, int64_t n_per_row,
        const float * imatrix) except +translate_exception
    cdef enum ggml_sched_priority:
        GGML_SCHED_PRIO_LOW
        GGML_SCHED_PRIO_NORMAL
        GGML_SCHED_PRIO_MEDIUM
        GGML_SCHED_PRIO_HIGH
        GGML_SCHED_PRIO_REALTIME

    cdef struct ggml_threadpool_params:
        bool cpumask[512]
        int n_threads
        ggml_sched_priority prio
        uint32_t poll
        bool strict_cpu
        bool paused

    cdef struct ggml_threadpool:
        pass

    ctypedef ggml_threadpool * ggml_threadpool_t
    void ggml_threadpool_params_init(ggml_threadpool_params * p, int n_threads) noexcept


cdef extern from "ggml-backend.h" nogil:
    cdef struct ggml_backend_buffer_type:
        pass

    ctypedef ggml_backend_buffer_type * ggml_backend_buffer_type_t
    cdef struct ggml_backend:
        pass

    ctypedef ggml_backend * ggml_backend_t
    cdef struct ggml_backend_reg:
        pass

    ctypedef ggml_backend_reg * ggml_backend_reg_t
    cdef struct ggml_backend_device:
        pass

    ctypedef ggml_backend_device * ggml_backend_dev_t
    const char * ggml_backend_buft_name(ggml_backend_buffer_type_t buft) except +translate_exception
    void ggml_backend_tensor_set(
        ggml_tensor * tensor, const void * data, size_t offset, size_t size) except +translate_exception
    void ggml_backend_tensor_get(
        const ggml_tensor * tensor, void * data, size_t offset, size_t size) except +translate_exception
    cdef enum ggml_backend_dev_type:
        GGML_BACKEND_DEVICE_TYPE_CPU
        GGML_BACKEND_DEVICE_TYPE_GPU
        GGML_BACKEND_DEVICE_TYPE_IGPU
        GGML_BACKEND_DEVICE_TYPE_ACCEL
        GGML_BACKEND_DEVICE_TYPE_META

    cdef struct ggml_backend_dev_caps:
        bool async_ "async"
        bool host_buffer
        bool buffer_from_host_ptr
        bool events
        bool mmap_support

    cdef struct ggml_backend_dev_props:
        const char * name
        const char * description
        size_t memory_free
        size_t memory_total
        ggml_backend_dev_type type
        const char * device_id
        ggml_backend_dev_caps caps

    const char * ggml_backend_dev_name(ggml_backend_dev_t device) except +translate_exception
    void ggml_backend_dev_get_props(
        ggml_backend_dev_t device, ggml_backend_dev_props * props) except +translate_exception
    ggml_backend_t ggml_backend_dev_init(ggml_backend_dev_t device, const char * params) except +translate_exception
    void ggml_backend_free(ggml_backend_t backend) noexcept
    ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t device) except +translate_exception
    ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t device) except +translate_exception
    const char * ggml_backend_reg_name(ggml_backend_reg_t reg) except +translate_exception
    void * ggml_backend_reg_get_proc_address(ggml_backend_reg_t reg, const char * name) except +translate_exception
    cdef struct ggml_backend_feature:
        const char * name
        const char * value

    ctypedef ggml_backend_feature *(* ggml_backend_get_features_t)(ggml_backend_reg_t reg) noexcept nogil
    size_t ggml_backend_reg_count() except +translate_exception
    ggml_backend_reg_t ggml_backend_reg_get(size_t index) except +translate_exception
    size_t ggml_backend_dev_count() except +translate_exception
    ggml_backend_dev_t ggml_backend_dev_get(size_t index) except +translate_exception
    ggml_backend_dev_t ggml_backend_dev_by_name(const char * name) except +translate_exception
    ggml_backend_dev_t ggml_backend_dev_by_type(ggml_backend_dev_type type) except +translate_exception
    ggml_backend_reg_t ggml_backend_load(const char * path) except +translate_exception
    void ggml_backend_load_all_from_path(const char * dir_path) except +translate_exception
    ctypedef bool (* ggml_backend_sched_eval_callback)(ggml_tensor * t, bool ask, void * user_data) noexcept nogil


cdef extern from "ggml-cpu.h" nogil:
    cdef enum ggml_numa_strategy:
        GGML_NUMA_STRATEGY_DISABLED
        GGML_NUMA_STRATEGY_DISTRIBUTE
        GGML_NUMA_STRATEGY_ISOLATE
        GGML_NUMA_STRATEGY_NUMACTL
        GGML_NUMA_STRATEGY_MIRROR
        GGML_NUMA_STRATEGY_COUNT


cdef extern from "ggml-opt.h" nogil:
    cdef struct ggml_opt_dataset:
        pass

    cdef struct ggml_opt_context:
        pass

    cdef struct ggml_opt_result:
        pass

    ctypedef ggml_opt_dataset * ggml_opt_dataset_t
    ctypedef ggml_opt_context * ggml_opt_context_t
    ctypedef ggml_opt_result * ggml_opt_result_t
    ggml_opt_dataset_t ggml_opt_dataset_init(
        ggml_type type_data, ggml_type type_label, int64_t ne_datapoint, int64_t ne_label, int64_t ndata, int64_t
        ndata_shard) except +translate_exception
    void ggml_opt_dataset_free(ggml_opt_dataset_t dataset) noexcept
    ggml_tensor * ggml_opt_dataset_data(ggml_opt_dataset_t dataset) except +translate_exception
    ggml_tensor * ggml_opt_dataset_labels(ggml_opt_dataset_t dataset) except +translate_exception
    cdef enum ggml_opt_optimizer_type:
        GGML_OPT_OPTIMIZER_TYPE_ADAMW
        GGML_OPT_OPTIMIZER_TYPE_SGD
        GGML_OPT_OPTIMIZER_TYPE_COUNT

    cdef struct ggml_opt_adamw_params "decltype(ggml_opt_optimizer_params::adamw)":
        float alpha
        float beta1
        float beta2
        float eps
        float wd

    cdef struct ggml_opt_sgd_params "decltype(ggml_opt_optimizer_params::sgd)":
        float alpha
        float wd

    cdef struct ggml_opt_optimizer_params:
        ggml_opt_adamw_params adamw
        ggml_opt_sgd_params sgd

    ctypedef ggml_opt_optimizer_params (* ggml_opt_get_optimizer_params)(void * userdata) noexcept nogil
    ggml_opt_optimizer_params ggml_opt_get_constant_optimizer_params(void * userdata) noexcept
    ggml_opt_result_t ggml_opt_result_init() except +translate_exception
    void ggml_opt_result_free(ggml_opt_result_t result) noexcept
    void ggml_opt_result_ndata(ggml_opt_result_t result, int64_t * ndata) except +translate_exception
    void ggml_opt_result_loss(ggml_opt_result_t result, double * loss, double * unc) except +translate_exception
    void ggml_opt_result_accuracy(
        ggml_opt_result_t result, double * accuracy, double * unc) except +translate_exception
    ctypedef void (* ggml_opt_epoch_callback)(
        bool train, ggml_opt_context_t opt_ctx, ggml_opt_dataset_t dataset, ggml_opt_result_t result, int64_t ibatch,
        int64_t ibatch_max, int64_t t_start_us) noexcept nogil
