// Convolutions with weights of 16-bit floats: products of the weights with the values around each pixel, which are
// gathered in panels of neighbouring pixels where they are needed, and not in memory as by im2col.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "float_tiles.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "traits.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace cyllama {
namespace {

#ifdef CYLLAMA_TILES
constexpr int64_t PIXELS   = 256;        // at a time
#else
constexpr int64_t PIXELS   = 128;
#endif
constexpr int64_t CHANNELS = 4 * TILE;   // of the result, at a time
constexpr int64_t DEPTH    = 128;        // weights of a channel at a time
constexpr int64_t STRIDE   = DEPTH + 16; // rows at a distance of a power of two would share lines of the cache
constexpr int64_t AHEAD    = 8;          // channels
static_assert(PIXELS % PANEL == 0 && PANEL % 8 == 0);

struct Scratch { // of a thread
    float panels[PIXELS / PANEL][DEPTH][PANEL];
    float rows[TILE * STRIDE];
    float sums[PIXELS / PANEL][CHANNELS][PANEL];
};

// A part of a panel: pixels of one line.
struct Segment {
    int64_t lane, n, x, y;
};

struct Convolution {
    const ggml_tensor * op;
    const ggml_tensor * weights; // columns, lines, channels, channels of the result
    const ggml_tensor * image;   // columns, lines, channels, images
    int64_t stride_x, stride_y, pad_x, pad_y, dilation_x, dilation_y;
    int64_t n_columns, n_channels, n_pixels; // weights of a channel; channels and pixels of the result

    explicit Convolution(const ggml_tensor * op)
        : op(op), weights(op->src[0]), image(op->src[1]), stride_x(op->op_params[0]), stride_y(op->op_params[1]),
          pad_x(op->op_params[2]), pad_y(op->op_params[3]), dilation_x(op->op_params[4]), dilation_y(op->op_params[5]),
          n_columns(weights->ne[0] * weights->ne[1] * weights->ne[2]), n_channels(weights->ne[3]),
          n_pixels(op->ne[0] * op->ne[1]) {}

    int64_t n_groups() const { return parts_of(n_pixels, PIXELS); }
    int64_t n_parts() const { return parts_of(n_channels, CHANNELS) * n_groups() * op->ne[3]; }

    void compute(int64_t part, Scratch & scratch) const {
        const int64_t n_parts_of_image = n_groups() * parts_of(n_channels, CHANNELS);
        const int64_t number = part / n_parts_of_image, pixel = part % n_groups() * PIXELS;
        const int64_t channel = part % n_parts_of_image / n_groups() * CHANNELS;
        const int64_t n = std::min(CHANNELS, n_channels - channel), n_now = std::min(PIXELS, n_pixels - pixel);
        const int64_t n_panels = parts_of(n_now, PANEL), at_once = rows_at_once();
        for (int64_t p = 0; p < n_panels; p++) {
            memset(scratch.sums[p], 0, parts_of(n, at_once) * at_once * sizeof(scratch.sums[0][0]));
        }
        const PanelProduct product = panel_product<STRIDE, float>();
        for (int64_t column = 0; column < n_columns; column += DEPTH) {
            const int64_t depth = std::min(DEPTH, n_columns - column), filled = whole_steps(depth);
            for (int64_t p = 0; p < n_panels; p++) {
                gather(number, pixel + p * PANEL, column, depth, scratch.panels[p]);
                memset(scratch.panels[p][depth], 0, (filled - depth) * sizeof(scratch.panels[p][0]));
                split_panel(scratch.panels[p][0], filled);
            }
            for (int64_t tile = 0; tile < n; tile += TILE) {
                const int64_t n_rows = std::min(TILE, n - tile);
                read_weights(channel + tile, n_rows, column, depth, scratch.rows);
                for (int64_t p = 0; p < n_panels; p++) {
                    for (int64_t r = 0; r < n_rows; r += at_once) {
                        product(scratch.rows + r * STRIDE, scratch.panels[p], filled, scratch.sums[p] + tile + r);
                    }
                }
            }
        }
        float * to = (float *) ((char *) op->data + number * op->nb[3]) + channel * n_pixels + pixel;
        for (int64_t r = 0; r < n; r++) {
            for (int64_t p = 0; p < n_panels; p++) {
                memcpy(to + r * n_pixels + p * PANEL, scratch.sums[p][r],
                       std::min(PANEL, n_now - p * PANEL) * sizeof(float));
            }
        }
    }

  private:
    // Rows beyond the last are zero up to a multiple of rows_at_once(), as are columns.
    void read_weights(int64_t channel, int64_t n_rows, int64_t column, int64_t depth, float * rows) const {
        const int64_t filled = whole_steps(depth);
        for (int64_t r = 0; r < parts_of(n_rows, rows_at_once()) * rows_at_once(); r++) {
            float * to = rows + r * STRIDE;
            if (r >= n_rows) {
                std::fill(to, to + filled, 0.0f);
                continue;
            }
            const char * all = (const char *) weights->data + (channel + r) * weights->nb[3];
            const auto * from = (const ggml_fp16_t *) all + column;
            int64_t k = 0;
            for (; k + 8 <= depth; k += 8) {
                _mm256_storeu_ps(to + k, _mm256_cvtph_ps(load_16(from + k)));
            }
            for (; k < depth; k++) {
                to[k] = half_to_float(from[k]);
            }
            std::fill(to + depth, to + filled, 0.0f);
            split_row(to, filled);
        }
    }

    // Reads the values around the pixels from `pixel` on; those outside of the image are zero.
    void gather(int64_t number, int64_t pixel, int64_t column, int64_t depth, float (*panel)[PANEL]) const {
        Segment segments[PANEL];
        int n_segments = 0;
        for (int64_t lane = 0; lane < PANEL && pixel + lane < n_pixels;) {
            const int64_t x = (pixel + lane) % op->ne[0], y = (pixel + lane) / op->ne[0];
            const int64_t n = std::min({ PANEL - lane, op->ne[0] - x, n_pixels - pixel - lane });
            segments[n_segments++] = { lane, n, x * stride_x - pad_x, y * stride_y - pad_y };
            lane += n;
        }
        const int64_t area = weights->ne[0] * weights->ne[1];
        int64_t column_in_line = column % weights->ne[0], line = column % area / weights->ne[0];
        const char * plane = (const char *) image->data + number * image->nb[3] + column / area * image->nb[2];
        for (int64_t k = 0; k < depth; k++) {
            const int64_t dx = column_in_line * dilation_x, dy = line * dilation_y;
            const int64_t first = segments[0].x + dx;
            const bool is_inside = first >= 0 && first + PANEL <= image->ne[0];
            const bool is_whole = segments[0].n == PANEL && stride_x == 1 && is_inside;
            for (int i = 0; i < PANEL && !is_whole; i += 8) {
                _mm256_storeu_ps(panel[k] + i, _mm256_setzero_ps());
            }
            for (int i = 0; i < n_segments; i++) {
                const Segment & part = segments[i];
                const int64_t x = part.x + dx, y = part.y + dy;
                if (y >= 0 && y < image->ne[1]) {
                    if (column_in_line == 0) { // the values of a later channel are far away
                        const char * later = plane + AHEAD * image->nb[2] + y * image->nb[1] + part.x * sizeof(float);
                        for (int64_t at = 0; at < part.n * stride_x; at += 16) {
                            _mm_prefetch(later + at * sizeof(float), _MM_HINT_T0);
                        }
                    }
                    copy_line((const float *) (plane + y * image->nb[1]), x, part.n, panel[k] + part.lane);
                } else if (is_whole) {
                    memset(panel[k], 0, sizeof(panel[k]));
                }
            }
            if (++column_in_line == weights->ne[0]) {
                column_in_line = 0;
                if (++line == weights->ne[1]) {
                    line = 0;
                    plane += image->nb[2];
                }
            }
        }
    }

    // Copies n values of a line, from x on, to zeros.
    void copy_line(const float * line, int64_t x, int64_t n, float * to) const {
        const int64_t width = image->ne[0];
        if (stride_x != 1) {
            for (int64_t i = 0; i < n; i++) {
                const int64_t at = x + i * stride_x;
                to[i] = at >= 0 && at < width ? line[at] : 0.0f;
            }
            return;
        }
        int64_t i = std::max<int64_t>(0, -x);
        const int64_t end = std::min(n, width - x);
        for (; i + 8 <= end; i += 8) {
            _mm256_storeu_ps(to + i, _mm256_loadu_ps(line + x + i));
        }
        for (; i < end; i++) {
            to[i] = line[x + i];
        }
    }
};

class ConvolutionTraits : public ggml::cpu::tensor_traits {
  public:
    bool work_size(int n_threads, const ggml_tensor *, size_t & size) override {
        size = n_threads * sizeof(Scratch) + ALIGNMENT;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const Convolution convolution(op);
        const TileShapes shapes;
        auto & scratch = ((Scratch *) aligned(params->wdata))[params->ith];
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        const int64_t n_parts = convolution.n_parts();
        for (int64_t part = params->ith; part < n_parts; part = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            convolution.compute(part, scratch);
        }
        return true;
    }
};

} // namespace

ggml::cpu::tensor_traits * convolution_traits(const ggml_tensor * op) {
    static ConvolutionTraits traits;
    const ggml_tensor * weights = op->src[0], * image = op->src[1];
    return weights->type == GGML_TYPE_F16 && image->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32 &&
                   ggml_is_contiguous(weights) && ggml_is_contiguous(op) && image->nb[0] == sizeof(float) &&
                   weights->buffer && ggml_backend_buft_is_host(weights->buffer->buft)
               ? &traits
               : nullptr;
}

} // namespace cyllama

#endif
