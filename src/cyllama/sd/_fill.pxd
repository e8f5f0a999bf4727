from cyllama.sd cimport libsd as lib


cdef class Memory:
    cdef list _keep
    cdef list _addresses

    cdef void * alloc(self, size_t count, size_t size) except NULL
    cdef const char * text(self, bytes value) except NULL
    cdef lib.sd_image_t image(self, object array)
    cdef lib.sd_image_t * images(self, list arrays) except NULL


cdef lib.sd_image_t c_image(object array)
cdef Memory fill_context(object params, lib.sd_ctx_params_t * c)
cdef Memory fill_sample(object params, lib.sd_sample_params_t * c)
cdef Memory fill_image(object params, lib.sd_img_gen_params_t * c)
cdef Memory fill_video(object params, lib.sd_vid_gen_params_t * c)
