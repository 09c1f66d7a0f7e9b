/* Norms, GELU gates and attention with what stands beside them, forward and back, on bfloat16 rows of channels. */
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

/* Group norm, with SiLU if asked. x, y: [images, cells, channels]; more: [images, channels], added to x, or NULL;
 * stats: [images, groups, 2], mean and 1 / deviation. */
void norm_forward(const bf16 *x, const bf16 *more, const bf16 *weight, const bf16 *bias, bf16 *y, float *stats, long images,
                  long cells, long channels, long groups, float eps, int silu) {
    long size = channels / groups;
    float *scale = malloc(5 * channels * sizeof(float)), *shift = scale + channels, *sum = shift + channels, *square = sum + channels;
    float *add = square + channels;
    for (long image = 0; image < images; image++, x += cells * channels, y += cells * channels, stats += 2 * groups) {
        memset(sum, 0, 2 * channels * sizeof(float));
        for (long c = 0; c < channels; c++) add[c] = more ? wide(more[image * channels + c]) : 0;
        for (long cell = 0; cell < cells; cell++)
            IVDEP
            for (long c = 0; c < channels; c++) {
                float v = wide(x[cell * channels + c]) + add[c];
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
                shift[c] = wide(bias[c]) + (add[c] - stats[2 * g]) * scale[c];
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

/* grad: of y; dx, dmore: of x and more; dweight and dbias are added to. */
void norm_backward(const bf16 *grad, const bf16 *x, const bf16 *more, const bf16 *weight, const bf16 *bias, const float *stats,
                   bf16 *dx, float *dmore, float *dweight, float *dbias, long images, long cells, long channels, long groups,
                   int silu) {
    long size = channels / groups;
    float *room = malloc((7 * channels + cells * channels) * sizeof(float));
    float *mean = room, *inverse = mean + channels, *w = inverse + channels, *sum = w + channels, *product = sum + channels;
    float *b = product + channels, *total = b + channels, *dz = total + channels;
    for (long c = 0; c < channels; c++) w[c] = wide(weight[c]), b[c] = wide(bias[c]);
    for (long image = 0; image < images; image++) {
        for (long c = 0; c < channels; c++) {
            mean[c] = stats[2 * (c / size)] - (more ? wide(more[image * channels + c]) : 0);
            inverse[c] = stats[2 * (c / size) + 1];
        }
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
        memset(total, 0, channels * sizeof(float));
        for (long cell = 0; cell < cells; cell++)
            IVDEP
            for (long c = 0; c < channels; c++) {
                float normal = (wide(x[cell * channels + c]) - mean[c]) * inverse[c];
                float d = inverse[c] * (w[c] * dz[cell * channels + c] - sum[c] - normal * product[c]);
                dx[cell * channels + c] = narrow(d);
                total[c] += d;
            }
        if (more) memcpy(dmore + image * channels, total, channels * sizeof(float));
        grad += cells * channels, x += cells * channels, dx += cells * channels, stats += 2 * groups;
    }
    free(room);
}

/* h = x + y + beside, a sum that goes on, and n, its layer norm. x (or NULL), y, h, n: [rows, width]; stats: [rows, 2]. */
void add_norm_forward(const bf16 *x, const bf16 *y, const bf16 *beside, const bf16 *weight, const bf16 *bias, bf16 *h, bf16 *n,
                      float *stats, long rows, long width, float eps) {
    float *fixed = malloc(4 * width * sizeof(float)), *w = fixed + width, *b = w + width, *v = b + width;
    for (long c = 0; c < width; c++) fixed[c] = wide(beside[c]), w[c] = wide(weight[c]), b[c] = wide(bias[c]);
    for (long row = 0; row < rows; row++, y += width, h += width, n += width, stats += 2) {
        float sum = 0, square = 0;
        IVDEP
        for (long c = 0; c < width; c++) {
            h[c] = narrow((x ? wide(x[row * width + c]) : 0) + wide(y[c]) + fixed[c]);
            v[c] = wide(h[c]);
            sum += v[c];
        }
        float mean = sum / width;
        IVDEP
        for (long c = 0; c < width; c++) v[c] -= mean, square += v[c] * v[c];
        float inverse = 1 / sqrtf(square / width + eps);
        IVDEP
        for (long c = 0; c < width; c++) n[c] = narrow(v[c] * inverse * w[c] + b[c]);
        stats[0] = mean, stats[1] = inverse;
    }
    free(fixed);
}

/* gh, gn: of h and n; dx: of x and y alike; dbeside, dweight and dbias are added to. */
void add_norm_backward(const bf16 *gh, const bf16 *gn, const bf16 *h, const bf16 *weight, const float *stats, bf16 *dx,
                       float *dbeside, float *dweight, float *dbias, long rows, long width) {
    float *w = malloc(3 * width * sizeof(float)), *normal = w + width, *slope = normal + width;
    for (long c = 0; c < width; c++) w[c] = wide(weight[c]);
    for (long row = 0; row < rows; row++, gh += width, gn += width, h += width, dx += width, stats += 2) {
        float first = 0, second = 0, mean = stats[0], inverse = stats[1];
        IVDEP
        for (long c = 0; c < width; c++) {
            float d = wide(gn[c]);
            normal[c] = (wide(h[c]) - mean) * inverse, slope[c] = d * w[c];
            dweight[c] += d * normal[c], dbias[c] += d;
            first += slope[c], second += slope[c] * normal[c];
        }
        first /= width, second /= width;
        IVDEP
        for (long c = 0; c < width; c++) {
            float d = wide(gh[c]) + inverse * (slope[c] - first - normal[c] * second);
            dx[c] = narrow(d);
            dbeside[c] += d;
        }
    }
    free(w);
}

/* both: [rows, 2 * width], values and gates; bias: [2 * width], added to them; y: [rows, width]. */
void gate_forward(const bf16 *both, const bf16 *bias, bf16 *y, long rows, long width) {
    for (long row = 0; row < rows; row++, both += 2 * width, y += width)
        IVDEP
        for (long c = 0; c < width; c++) {
            float gate = wide(both[width + c]) + wide(bias[width + c]);
            y[c] = narrow((wide(both[c]) + wide(bias[c])) * 0.5f * gate * (1 + erff(gate * 0.70710678f)));
        }
}

/* grad: of y; dboth: of both; dbias is added to. */
void gate_backward(const bf16 *grad, const bf16 *both, const bf16 *bias, bf16 *dboth, float *dbias, long rows, long width) {
    for (long row = 0; row < rows; row++, both += 2 * width, dboth += 2 * width, grad += width)
        IVDEP
        for (long c = 0; c < width; c++) {
            float gate = wide(both[width + c]) + wide(bias[width + c]), value = wide(both[c]) + wide(bias[c]), d = wide(grad[c]);
            float share = 0.5f * (1 + erff(gate * 0.70710678f));
            float dvalue = d * gate * share, dgate = d * value * (share + gate * 0.39894228f * expf(-0.5f * gate * gate));
            dboth[c] = narrow(dvalue), dboth[width + c] = narrow(dgate);
            dbias[c] += dvalue, dbias[width + c] += dgate;
        }
}

/* Attention in blocks of ROWS queries, whose scores stay in cache; nothing but the logarithm of each row's sum is kept for the way
 * back (Dao et al. 2022). Sums are in float32. A head's width is a multiple of LANES. */
enum { ROWS = 8, LANES = 16 };
#define FAR -80.f /* in the place of no key: exp(FAR) is nothing beside 1, and still a normal number, which exp takes fast */
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

static inline lanes *at(const float *x) { return (lanes *)x; }

/* out[ROWS, many * LANES] = a[ROWS, inner] b[inner, many * LANES] */
static inline __attribute__((always_inline)) void tile(const float *a, long a_step, const float *b, long b_step, float *out,
                                                       long out_step, long inner, int many) {
    lanes sum[ROWS][2] = {0};
    for (long i = 0; i < inner; i++)
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < many; c++) sum[r][c] += a[r * a_step + i] * *at(b + i * b_step + c * LANES);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < many; c++) *at(out + r * out_step + c * LANES) = sum[r][c];
}

static void product(const float *a, long a_step, const float *b, float *out, long inner, long columns) {
    long c = 0;
    for (; c + 2 * LANES <= columns; c += 2 * LANES) tile(a, a_step, b + c, columns, out + c, columns, inner, 2);
    for (; c < columns; c += LANES) tile(a, a_step, b + c, columns, out + c, columns, inner, 1);
}

/* out[rows, columns] += a[ROWS, rows]^T b[ROWS, columns] */
static void add_outer(const float *a, const float *b, float *out, long rows, long columns) {
    for (long c = 0; c < columns; c += LANES) {
        lanes by[ROWS];
        for (int r = 0; r < ROWS; r++) by[r] = *at(b + r * columns + c);
        for (long j = 0; j < rows; j++) {
            lanes even = *at(out + j * columns + c), odd = {0};
            for (int r = 0; r < ROWS; r += 2) even += a[r * rows + j] * by[r], odd += a[(r + 1) * rows + j] * by[r + 1];
            *at(out + j * columns + c) = even + odd;
        }
    }
}

static long up(long count, long to) { return (count + to - 1) / to * to; }

/* One head's rows as float32, times a factor, and zeros up to `padded` rows; then the same on its side where asked. */
static void unpack(const bf16 *x, long step, long rows, long padded, long width, float factor, float *out, float *turned) {
    for (long i = 0; i < rows; i++)
        IVDEP
        for (long d = 0; d < width; d++) out[i * width + d] = factor * wide(x[i * step + d]);
    memset(out + rows * width, 0, (padded - rows) * width * sizeof(float));
    for (long d = 0; turned && d < width; d++)
        IVDEP
        for (long i = 0; i < padded; i++) turned[d * padded + i] = out[i * width + d];
}

/* q, o: [images, queries, heads * width]; k, v: [images, keys, heads * width]; logs: [images, heads, queries]. A row of q begins
 * q_step numbers after the one before, of k and v k_step. */
void attention_forward(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *o, float *logs, long images, long heads, long queries,
                       long keys, long width, long q_step, long k_step) {
    long o_step = heads * width, many = up(queries, ROWS), others = up(keys, LANES);
    float *fq = malloc((many * width + 2 * others * width + ROWS * (others + width)) * sizeof(float));
    float *kt = fq + many * width, *fv = kt + others * width, *scores = fv + others * width, *sums = scores + ROWS * others;
    for (long image = 0; image < images; image++)
        for (long head = 0; head < heads; head++, logs += queries) {
            long mine = image * queries * q_step + head * width, theirs = image * keys * k_step + head * width;
            long ours = image * queries * o_step + head * width;
            unpack(q + mine, q_step, queries, many, width, 1 / sqrtf(width), fq, NULL);
            unpack(k + theirs, k_step, keys, others, width, 1, fv, kt);
            unpack(v + theirs, k_step, keys, others, width, 1, fv, NULL);
            for (long i = 0; i < queries; i += ROWS) {
                float total[ROWS];
                product(fq + i * width, width, kt, scores, width, others);
                for (int r = 0; r < ROWS; r++) {
                    float *row = scores + r * others, most = row[0], sum = 0;
                    for (long j = 0; j < keys; j++) most = row[j] > most ? row[j] : most;
                    for (long j = 0; j < others; j++) row[j] = j < keys ? row[j] - most : FAR;
                    IVDEP
                    for (long j = 0; j < others; j++) row[j] = expf(row[j]), sum += row[j];
                    total[r] = sum;
                    if (i + r < queries) logs[i + r] = most + logf(sum);
                }
                product(scores, others, fv, sums, others, width);
                for (int r = 0; r < ROWS && i + r < queries; r++)
                    IVDEP
                    for (long d = 0; d < width; d++) o[ours + (i + r) * o_step + d] = narrow(sums[r * width + d] / total[r]);
            }
        }
    free(fq);
}

/* grad: of o; dq, dk, dv: of q, k, v, and laid out like them. */
void attention_backward(const bf16 *grad, const bf16 *q, const bf16 *k, const bf16 *v, const float *logs, bf16 *dq, bf16 *dk,
                        bf16 *dv, long images, long heads, long queries, long keys, long width, long q_step, long k_step) {
    long o_step = heads * width, many = up(queries, ROWS), others = up(keys, LANES), size = others * width;
    float factor = 1 / sqrtf(width), *fq = malloc((2 * many * width + 5 * size + ROWS * (2 * others + width)) * sizeof(float));
    float *fg = fq + many * width, *fk = fg + many * width, *kt = fk + size, *vt = kt + size, *fdk = vt + size, *fdv = fdk + size;
    float *scores = fdv + size, *slopes = scores + ROWS * others, *sums = slopes + ROWS * others;
    for (long image = 0; image < images; image++)
        for (long head = 0; head < heads; head++, logs += queries) {
            long mine = image * queries * q_step + head * width, theirs = image * keys * k_step + head * width;
            unpack(q + mine, q_step, queries, many, width, factor, fq, NULL);
            unpack(grad + image * queries * o_step + head * width, o_step, queries, many, width, 1, fg, NULL);
            unpack(v + theirs, k_step, keys, others, width, 1, fk, vt);
            unpack(k + theirs, k_step, keys, others, width, 1, fk, kt);
            memset(fdk, 0, 2 * size * sizeof(float));
            for (long i = 0; i < queries; i += ROWS) {
                product(fq + i * width, width, kt, scores, width, others);
                product(fg + i * width, width, vt, slopes, width, others);
                for (int r = 0; r < ROWS; r++) {
                    float *row = scores + r * others, *slope = slopes + r * others, log = i + r < queries ? logs[i + r] : 0, mean = 0;
                    for (long j = 0; j < others; j++) row[j] = j < keys ? row[j] - log : FAR;
                    IVDEP
                    for (long j = 0; j < others; j++) row[j] = expf(row[j]), mean += row[j] * slope[j];
                    for (long j = 0; j < others; j++) slope[j] = row[j] * (slope[j] - mean);
                }
                add_outer(scores, fg + i * width, fdv, others, width);
                add_outer(slopes, fq + i * width, fdk, others, width);
                product(slopes, others, fk, sums, others, width);
                for (int r = 0; r < ROWS && i + r < queries; r++)
                    IVDEP
                    for (long d = 0; d < width; d++) dq[mine + (i + r) * q_step + d] = narrow(factor * sums[r * width + d]);
            }
            for (long j = 0; j < keys; j++)
                IVDEP
                for (long d = 0; d < width; d++) {
                    dk[theirs + j * k_step + d] = narrow(fdk[j * width + d]);
                    dv[theirs + j * k_step + d] = narrow(fdv[j * width + d]);
                }
        }
    free(fq);
}
