/* Attention of one set of bfloat16 rows to another, for Linux on x86-64 with AMX: softmax(q k^T scale) v for each head.

   A head's keys and values are packed once for the matrix tiles; then 32 query rows at a time meet 64 keys at a time,
   with the softmax kept up to date as keys come (Milakov and Gimelshein 2018; Dao et al. 2022, FlashAttention), so that
   scores never leave the first caches. Products are of bfloat16, scores and sums in float32; a chance is rounded to
   bfloat16 once, from a power of two in fixed point (Schraudolph 1999, with a table for what he leaves out).

   Softmax wants its scores measured by something near the largest, so that no power overflows. The largest of the first
   keys does, with some slack over it: only where a later score lies higher is a row's top raised. */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vbmi")
#include <immintrin.h>

enum {
    ROWS = 32,      /* query rows at once: two tiles */
    KEYS = 64,      /* keys at once: with their scores they fit the first cache */
    PAIR = 32,      /* bfloat16 numbers in a row of a tile */
    LANES = 16,     /* float32 numbers in a row of a tile */
    WIDEST = 160,   /* numbers a head, at most */
    SCORES = KEYS + LANES,  /* a row of scores; no power of two, so that rows do not share cache lines' places */
    CHANCES = KEYS + PAIR,
    TILE = 1024,    /* bytes of a tile */
};

#define LEAST (-3e38f) /* below every score; not infinite, since infinities have no difference */
#define SLACK 24.0f    /* of a row's top over its largest score yet, in powers of two */

typedef uint16_t bf16;

/* Strides are in numbers, between batches and between tokens; the numbers of a head lie together, head after head. */
typedef struct {
    const bf16 *q, *k, *v;
    bf16 *out;
    int64_t q_batch, q_token, k_batch, k_token, v_batch, v_token, out_batch, out_token;
    int batch, heads, rows, others, width;
    float scale;
    int parts;         /* of a head's query rows, each a piece of work */
    atomic_int next;   /* piece of work */
    atomic_int failed; /* for want of memory */
} Task;

typedef struct {
    uint8_t palette, start;
    uint8_t reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) TileShapes;

static int round_up(int value, int step) { return (value + step - 1) / step * step; }

/* Keys [16 at a time][32 of the width at a time][pair][key][2]: column n of a tile is key n. */
static void pack_keys(bf16 *to, const bf16 *k, int64_t token, int others, int width) {
    int pairs = round_up(width, PAIR) / 2;
    __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i along = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(token));
    for (int n = 0; n < round_up(others, PAIR); n += LANES) {
        int left = others - n;
        __mmask16 there = left >= LANES ? 0xffff : left > 0 ? (1 << left) - 1 : 0;
        for (int pair = 0; pair < pairs; pair++, to += PAIR) {
            __mmask16 mask = 2 * pair < width ? there : 0;
            const bf16 *from = k + n * token + 2 * pair;
            _mm512_storeu_si512(to, _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, along, from, 2));
        }
    }
}

/* Values [32 keys at a time][16 of the width at a time][pair of keys][number][2]; keys in the order in which `weigh`
   leaves them: four of the first sixteen, four of the others, and so on. */
static void pack_values(bf16 *to, const bf16 *v, int64_t token, int others, int width) {
    for (int n = 0; n < round_up(others, PAIR); n += PAIR)
        for (int i = 0; i < width; i += LANES) {
            __mmask16 mask = width - i < LANES ? (1 << (width - i)) - 1 : 0xffff;
            for (int place = 0; place < PAIR; place += 2, to += PAIR) {
                int key = n + place / 8 * 4 + place % 4 + (place & 4) * 4;
                const bf16 *from = v + key * token + i;
                __m256i even = _mm256_maskz_loadu_epi16(key < others ? mask : 0, from);
                __m256i odd = _mm256_maskz_loadu_epi16(key + 1 < others ? mask : 0, from + token);
                __m512i both = _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16);
                _mm512_storeu_si512(to, _mm512_or_si512(both, _mm512_cvtepu16_epi32(even)));
            }
        }
}

/* scores[32][keys] = q[32][deep] k^T, keys a multiple of 32 */
static void score(float *scores, const bf16 *q, int deep, const bf16 *k, int keys) {
    int steps = deep / PAIR;
    for (int j = 0; j < keys; j += 2 * LANES) {
        const char *left = (const char *)k + (int64_t)(j / LANES) * steps * TILE, *right = left + steps * TILE;
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        for (int s = 0; s < steps; s++) {
            _tile_loadd(4, q + s * PAIR, 2 * deep);
            _tile_loadd(6, left + s * TILE, 64);
            _tile_loadd(7, right + s * TILE, 64);
            _tile_loadd(5, q + 16 * deep + s * PAIR, 2 * deep);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, scores + j, 4 * SCORES);
        _tile_stored(1, scores + j + LANES, 4 * SCORES);
        _tile_stored(2, scores + 16 * SCORES + j, 4 * SCORES);
        _tile_stored(3, scores + 16 * SCORES + j + LANES, 4 * SCORES);
    }
}

/* gathered[32][wide] += chances[32][keys] v */
static void gather(float *gathered, int wide, const bf16 *chances, const bf16 *v, int keys) {
    for (int i = 0; i < wide; i += 2 * LANES) {
        int two = i + LANES < wide;
        float *low = gathered + i, *high = low + 16 * wide;
        _tile_loadd(0, low, 4 * wide);
        _tile_loadd(2, high, 4 * wide);
        if (two) {
            _tile_loadd(1, low + LANES, 4 * wide);
            _tile_loadd(3, high + LANES, 4 * wide);
        }
        for (int j = 0; j < keys; j += PAIR) {
            const char *tile = (const char *)v + ((int64_t)(j / PAIR) * (wide / LANES) + i / LANES) * TILE;
            _tile_loadd(4, chances + j, 2 * CHANCES);
            _tile_loadd(6, tile, 64);
            _tile_loadd(5, chances + 16 * CHANCES + j, 2 * CHANCES);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
            if (two) {
                _tile_loadd(7, tile + TILE, 64);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, low, 4 * wide);
        _tile_stored(2, high, 4 * wide);
        if (two) {
            _tile_stored(1, low + LANES, 4 * wide);
            _tile_stored(3, high + LANES, 4 * wide);
        }
    }
}

typedef struct {
    float scores[ROWS * SCORES], gathered[ROWS * WIDEST], totals[ROWS * LANES];
    bf16 chances[ROWS * CHANCES], q[ROWS * WIDEST];
    float tops[ROWS];
} __attribute__((aligned(64))) Desk;

/* A row's top from its largest score on, and what it has gathered measured by that. */
static void raise(Desk *desk, int r, int keys, int wide, float scale) {
    __m512 most = _mm512_set1_ps(LEAST), spoilt = _mm512_setzero_ps();
    for (int j = 0; j < keys; j += LANES) {
        __m512 scores = _mm512_loadu_ps(desk->scores + r * SCORES + j);
        most = _mm512_max_ps(most, scores);
        spoilt = _mm512_fmadd_ps(scores, _mm512_setzero_ps(), spoilt); /* what is not a number makes none of it */
    }
    float top = scale * _mm512_reduce_max_ps(most) + SLACK;
    __m512 shrink = _mm512_set1_ps(exp2f(desk->tops[r] - top) + _mm512_reduce_add_ps(spoilt));
    desk->tops[r] = top;
    float *totals = desk->totals + r * LANES, *gathered = desk->gathered + r * wide;
    _mm512_storeu_ps(totals, _mm512_mul_ps(_mm512_loadu_ps(totals), shrink));
    for (int i = 0; i < wide; i += LANES)
        _mm512_storeu_ps(gathered + i, _mm512_mul_ps(_mm512_loadu_ps(gathered + i), shrink));
}

/* 2^x in bfloat16 for x <= 0 comes from its fixed point number, 9 bits behind the point, with 127 added: shifted by two
   it has the exponent in its place, and 1 + f where 2^f is wanted. BEND[i] is that excess at f = i / 128. */
enum { POINT = 512, HALF = 2, ZERO = 127 * POINT + HALF };
static uint8_t BEND[128] __attribute__((aligned(64)));

static void bend(void) {
    for (int i = 0; i < 128; i++) BEND[i] = lrint(POINT * (1 + i / 128.0 - exp2(i / 128.0)));
}

/* Scores of rows to chances, 2^(score - top), 0 below 2^-127. The rows with a score that is not below the top, a bit
   each, are left as they were. */
static uint32_t weigh(Desk *desk, int from, int to, int keys, float scale) {
    __m512i low_bend = _mm512_load_si512(BEND), high_bend = _mm512_load_si512(BEND + 64);
    __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512 factor = _mm512_set1_ps(POINT * scale), zero = _mm512_set1_ps(ZERO);
    uint32_t over = 0;
    for (int r = from; r < to; r++) {
        const float *scores = desk->scores + r * SCORES;
        bf16 *chances = desk->chances + r * CHANCES;
        float *totals = desk->totals + r * LANES;
        __m512 shift = _mm512_set1_ps(ZERO - POINT * desk->tops[r]);
        __m512 before = _mm512_loadu_ps(totals), total = before;
        __mmask16 high_ones = 0;
        for (int j = 0; j < keys; j += 2 * LANES) {
            __m512 low = _mm512_fmadd_ps(_mm512_loadu_ps(scores + j), factor, shift);
            __m512 high = _mm512_fmadd_ps(_mm512_loadu_ps(scores + j + LANES), factor, shift);
            high_ones |= _mm512_cmp_ps_mask(low, zero, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(high, zero, _CMP_NLE_UQ);
            __m512i fixed = _mm512_packus_epi32(_mm512_cvtps_epi32(low), _mm512_cvtps_epi32(high));
            __m512i places = _mm512_srli_epi16(fixed, 2);
            __m512i excess = _mm512_maskz_permutex2var_epi8(0x5555555555555555, low_bend, places, high_bend);
            __m512i chance = _mm512_srli_epi16(_mm512_sub_epi16(fixed, excess), 2);
            _mm512_storeu_si512(chances + j, chance);
            total = _mm512_dpbf16_ps(total, (__m512bh)chance, ones);
        }
        _mm512_storeu_ps(totals, high_ones ? before : total);
        over |= (uint32_t)(high_ones != 0) << r;
    }
    return over;
}

/* 32 query rows, or those that are left, against all keys of a head. */
static void attend_rows(
    Desk *desk, const Task *task, const bf16 *q, bf16 *out, int rows, const bf16 *k, const bf16 *v
) {
    int width = task->width, deep = round_up(width, PAIR), wide = round_up(width, LANES);
    float scale = task->scale * 1.44269504f; /* log2(e) */
    memset(desk->q, 0, sizeof desk->q);
    for (int r = 0; r < rows; r++) memcpy(desk->q + r * deep, q + r * task->q_token, 2 * width);
    for (int r = ROWS; r < 2 * ROWS; r++) /* the next ones, which may lie in another core's cache */
        for (int i = 0; i < width; i += 32) _mm_prefetch((const char *)(q + r * task->q_token + i), _MM_HINT_T0);
    memset(desk->gathered, 0, sizeof desk->gathered);
    memset(desk->totals, 0, sizeof desk->totals);
    for (int r = 0; r < ROWS; r++) desk->tops[r] = LEAST;
    for (int first = 0; first < task->others; first += KEYS) {
        int left = task->others - first, keys = left < KEYS ? round_up(left, PAIR) : KEYS;
        score(desk->scores, desk->q, deep, k + (int64_t)first * deep, keys);
        for (int r = 0; r < ROWS && left < keys; r++)
            for (int j = left; j < keys; j++) desk->scores[r * SCORES + j] = LEAST;
        for (uint32_t over = first ? weigh(desk, 0, ROWS, keys, scale) : UINT32_MAX; over; over &= over - 1) {
            int r = __builtin_ctz(over);
            raise(desk, r, keys, wide, scale);
            weigh(desk, r, r + 1, keys, scale);
        }
        gather(desk->gathered, wide, desk->chances, v + (int64_t)first * wide, keys);
    }
    for (int r = 0; r < rows; r++) {
        float total = _mm512_reduce_add_ps(_mm512_loadu_ps(desk->totals + r * LANES));
        __m512 share = _mm512_set1_ps(1 / total);
        for (int i = 0; i < width; i += LANES) {
            __m512 one = _mm512_mul_ps(_mm512_loadu_ps(desk->gathered + r * wide + i), share);
            __mmask16 mask = width - i < LANES ? (1 << (width - i)) - 1 : 0xffff;
            _mm256_mask_storeu_epi16(out + r * task->out_token + i, mask, (__m256i)_mm512_cvtneps_pbh(one));
        }
    }
}

static void work(void *given) {
    Task *task = given;
    TileShapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
    int keys = round_up(task->others, PAIR), deep = round_up(task->width, PAIR), wide = round_up(task->width, LANES);
    size_t keys_size = 2 * (size_t)keys * deep, values_size = 2 * (size_t)keys * wide;
    char *room = aligned_alloc(64, sizeof(Desk) + keys_size + values_size);
    if (!room) {
        atomic_store(&task->failed, 1);
        return;
    }
    Desk *desk = (Desk *)room;
    bf16 *k = (bf16 *)(room + sizeof(Desk)), *v = (bf16 *)(room + sizeof(Desk) + keys_size);
    _tile_loadconfig(&shapes);
    int pieces = task->batch * task->heads * task->parts, packed = -1;
    for (int piece; (piece = atomic_fetch_add(&task->next, 1)) < pieces;) {
        int head = piece / task->parts, part = piece % task->parts;
        int each = round_up((task->rows + task->parts - 1) / task->parts, ROWS);
        int64_t b = head / task->heads, across = (int64_t)(head % task->heads) * task->width;
        if (packed != head) {
            pack_keys(k, task->k + b * task->k_batch + across, task->k_token, task->others, task->width);
            pack_values(v, task->v + b * task->v_batch + across, task->v_token, task->others, task->width);
            packed = head;
        }
        int end = (part + 1) * each < task->rows ? (part + 1) * each : task->rows;
        for (int r = part * each; r < end; r += ROWS)
            attend_rows(
                desk, task, task->q + b * task->q_batch + r * task->q_token + across,
                task->out + b * task->out_batch + r * task->out_token + across, end - r < ROWS ? end - r : ROWS, k, v
            );
    }
    _tile_release();
    free(room);
}

extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

/* 0: the kernel may be used from now on; else there are no threads of torch's to be found, or the system does not let
   this process use AMX. */
int begin(void) {
    bend();
    return !GOMP_parallel || syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) != 0;
}

/* 0 when done, 1 when memory was short. Runs in torch's own threads. */
int attend(
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, const int64_t *strides, int batch, int heads, int rows,
    int others, int width, float scale, int threads
) {
    Task task = {
        .q = q, .k = k, .v = v, .out = out, .q_batch = strides[0], .q_token = strides[1], .k_batch = strides[2],
        .k_token = strides[3], .v_batch = strides[4], .v_token = strides[5], .out_batch = strides[6],
        .out_token = strides[7], .batch = batch, .heads = heads, .rows = rows, .others = others, .width = width,
        .scale = scale, .parts = 1,
    };
    while (batch * heads * task.parts < 4 * threads && rows / task.parts > 8 * ROWS) task.parts++;
    GOMP_parallel(work, &task, threads, 0);
    return atomic_load(&task.failed);
}
