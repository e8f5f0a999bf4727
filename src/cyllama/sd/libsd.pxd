# stable-diffusion.h: what is used of it.

cdef extern from "stable-diffusion.h" nogil:
    cdef enum sd_log_level_t:
        SD_LOG_DEBUG
        SD_LOG_INFO
        SD_LOG_WARN
        SD_LOG_ERROR

    ctypedef void (*sd_log_cb_t)(sd_log_level_t level, const char * text, void * data) noexcept nogil
    void sd_set_log_callback(sd_log_cb_t sd_log_cb, void * data)
    const char * sd_get_system_info()
    const char * sd_commit()
    const char * sd_version()
