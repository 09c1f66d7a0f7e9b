/* Group norm with SiLU, and GELU gates, forward and back, on bfloat16 rows of channels: what torch does in six passes. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
/* glibc's vector library has both for 16 numbers at once, but says so to compilers only under -ffast-math */
__attribute__((simd("notinbranch"))) float expf(float);
__attribute__((simd("notinbranch"))) float erff(float);
#endif

#define IVDEP _Pragma("GCC ivdep")
typedef uint16_t bf16;

static inline float wide(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

static inline bf16 narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* x, y: [images, cells, channels]; stats: [images, groups, 2], mean and 1 / deviation. */
void norm_forward(const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *y, float *stats, long images, long cells,
                  long channels, long groups, float eps, int silu) {
    long size = channels / groups;
    float *scale = malloc(4 * channels * sizeof(float)), *shift = scale + channels, *sum = shift + channels, *square = sum + channels;
    for (long image = 0; image < images; image++, x += cells * channels, y += cells * channels, stats += 2 * groups) {
        memset(sum, 0, 2 * channels * sizeof(float));
        for (long cell = 0; cell < cells; cell++)
            IVDEP
            for (long c = 0; c < channels; c++) {
                float v = wide(x[cell * channels + c]);
                sum[c] += v;
                square[c] += v * v;
            }
        for (long g = 0; g < groups; g++) {
            double total = 0, squares = 0;
            for (long c = g * size; c < (g + 1) * size; c++) total += sum[c], squares += square[c];
            double mean = total / (cells * size), variance = squares / (cells * size) - mean * mean;
            stats[2 * g] = (float)mean;
            stats[2 * g + 1] = (float)(1 / sqrt((variance > 0 ? variance : 0) + eps));
            for (long c = g * size; c < (g + 1) * size; c++) {
                scale[c] = wide(weight[c]) * stats[2 * g + 1];
                shift[c] = wide(bias[c]) - stats[2 * g] * scale[c];
            }
        }
        for (long cell = 0; cell < cells; cell++)
            IVDEP
            for (long c = 0; c < channels; c++) {
                float z = wide(x[cell * channels + c]) * scale[c] + shift[c];
                y[cell * channels + c] = narrow(silu ? z / (1 + expf(-z)) : z);
            }
    }
    free(scale);
}

/* grad: of y; dx: of x; dweight and dbias are added to. */
void norm_backward(const bf16 *grad, const bf16 *x, const bf16 *weight, const bf16 *bias, const float *stats, bf16 *dx,
                   float *dweight, float *dbias, long images, long cells, long channels, long groups, int silu) {
    long size = channels / groups;
    float *room = malloc((6 * channels + cells * channels) * sizeof(float));
    float *mean = room, *inverse = mean + channels, *w = inverse + channels, *sum = w + channels, *product = sum + channels;
    float *b = product + channels, *dz = b + channels;
    for (long c = 0; c < channels; c++) w[c] = wide(weight[c]), b[c] = wide(bias[c]);
    for (long image = 0; image < images; image++) {
        for (long c = 0; c < channels; c++) mean[c] = stats[2 * (c / size)], inverse[c] = stats[2 * (c / size) + 1];
        memset(sum, 0, 2 * channels * sizeof(float));
        for (long cell = 0; cell < cells; cell++)
            IVDEP
            for (long c = 0; c < channels; c++) {
                float normal = (wide(x[cell * channels + c]) - mean[c]) * inverse[c], d = wide(grad[cell * channels + c]);
                if (silu) {
                    float z = normal * w[c] + b[c], gate = 1 / (1 + expf(-z));
                    d *= gate * (1 + z * (1 - gate));
                }
                dz[cell * channels + c] = d;
                sum[c] += d;
                product[c] += d * normal;
            }
        for (long c = 0; c < channels; c++) dbias[c] += sum[c], dweight[c] += product[c];
        for (long g = 0; g < groups; g++) {
            float first = 0, second = 0;
            for (long c = g * size; c < (g + 1) * size; c++) first += w[c] * sum[c], second += w[c] * product[c];
            for (long c = g * size; c < (g + 1) * size; c++) sum[c] = first / (cells * size), product[c] = second / (cells * size);
        }
        for (long cell = 0; cell < cells; cell++)
            IVDEP
            for (long c = 0; c < channels; c++) {
                float normal = (wide(x[cell * channels + c]) - mean[c]) * inverse[c];
                dx[cell * channels + c] = narrow(inverse[c] * (w[c] * dz[cell * channels + c] - sum[c] - normal * product[c]));
            }
        grad += cells * channels, x += cells * channels, dx += cells * channels, stats += 2 * groups;
    }
    free(room);
}

/* both: [rows, 2 * width], values and gates; y: [rows, width]. */
void gate_forward(const bf16 *both, bf16 *y, long rows, long width) {
    for (long row = 0; row < rows; row++, both += 2 * width, y += width)
        IVDEP
        for (long c = 0; c < width; c++) {
            float gate = wide(both[width + c]);
            y[c] = narrow(wide(both[c]) * 0.5f * gate * (1 + erff(gate * 0.70710678f)));
        }
}

void gate_backward(const bf16 *grad, const bf16 *both, bf16 *dboth, long rows, long width) {
    for (long row = 0; row < rows; row++, both += 2 * width, dboth += 2 * width, grad += width)
        IVDEP
        for (long c = 0; c < width; c++) {
            float gate = wide(both[width + c]), d = wide(grad[c]), share = 0.5f * (1 + erff(gate * 0.70710678f));
            dboth[c] = narrow(d * gate * share);
            dboth[width + c] = narrow(d * wide(both[c]) * (share + gate * 0.39894228f * expf(-0.5f * gate * gate)));
        }
}
