from cyllama._native._c_memory cimport CMemory
from cyllama.sd cimport libsd as lib


cdef lib.sd_image_t c_image(object array, CMemory memory=*)
cdef CMemory fill_context(object params, lib.sd_ctx_params_t * c)
cdef CMemory fill_sample(object params, lib.sd_sample_params_t * c)
cdef CMemory fill_image(object params, lib.sd_img_gen_params_t * c)
cdef CMemory fill_video(object params, lib.sd_vid_gen_params_t * c)
