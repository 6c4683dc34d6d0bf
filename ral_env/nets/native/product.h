/* Products of rows of features and packed matrices, in tiles that are kept in registers.

   Each number of a product is one chain of fused multiply-adds in the order of k, whichever tile it
   falls into: it does not depend on how many rows there are, nor on the length of a vector. */

#include <stdint.h>

#ifdef __AVX512F__
enum { LANES = 16, TILE_ROWS = 8, TILE_PANELS = 3 };
#else
enum { LANES = 8, TILE_ROWS = 6, TILE_PANELS = 2 };
#endif
enum { NARROW_PANELS = 4 }; /* of tiles of one or two rows */
enum { AHEAD = 16 };        /* inputs whose weights are fetched before they are needed */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* (in, out), in panels of LANES outputs: an input's LANES weights stand together. */
typedef struct {
    const float *panels;
    int64_t in, out;
    int64_t row, panel; /* floats from an input to the next, from a panel to the next */
} Matrix;

/* Rows of features: `per` of them stand `inner` floats apart, then `outer` to the next such. */
typedef struct {
    float *first;
    int64_t outer, inner;
} Rows;

static float *row_of(Rows rows, int64_t index, int64_t per) {
    return rows.first + index / per * rows.outer + index % per * rows.inner;
}

static Rows one_row(const float *row) { return (Rows){(float *)row, 0, 0}; }

static Rows packed_rows(float *first, int64_t per, int64_t channels) {
    return (Rows){first, per * channels, channels};
}

static int64_t panels_of(int64_t outputs) { return (outputs + LANES - 1) / LANES; }

static vec load(const float *from, int64_t count) {
    if (count >= LANES) return *(const loose_vec *)from;
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < count; i++) lanes[i] = from[i];
    return *(const loose_vec *)lanes;
}

static void store(float *to, vec value, int64_t count) {
    if (count >= LANES) {
        *(loose_vec *)to = value;
    } else {
        for (int64_t i = 0; i < count; i++) to[i] = value[i];
    }
}

/* out = start + a @ weights for `rows` rows and `panels` panels: constants where it is called. */
static inline __attribute__((always_inline)) void tile(
    const int rows, const int panels, const float *const *a, const float *const *start,
    float *const *out, const Matrix *weights, int64_t first_panel) {
    vec sum[TILE_ROWS][NARROW_PANELS];
    const float *b = weights->panels + first_panel * weights->panel;
    const int64_t left = weights->out - first_panel * LANES;
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++)
            sum[i][p] = load(start[i] + (first_panel + p) * LANES, left - p * LANES);
    for (int64_t k = 0; k < weights->in; k++, b += weights->row) {
        vec weight[NARROW_PANELS];
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++) {
            weight[p] = *(const loose_vec *)(b + p * weights->panel);
            __builtin_prefetch(b + p * weights->panel + AHEAD * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (int p = 0; p < panels; p++) sum[i][p] += a[i][k] * weight[p];
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++)
            store(out[i] + (first_panel + p) * LANES, sum[i][p], left - p * LANES);
}

/* out = start + a @ weights, of `count` rows; `start` may be `out` or one row for all. */
static void multiply(
    int64_t count, int64_t per, Rows a, Matrix weights, Rows start, Rows out) {
    const int64_t panels = panels_of(weights.out);
    for (int64_t first = 0, taken; first < panels; first += taken) {
        const int64_t widest = count < 4 ? NARROW_PANELS : TILE_PANELS;
        const int64_t groups = (panels - first + widest - 1) / widest;
        taken = (panels - first + groups - 1) / groups; /* as even as can be */
        for (int64_t row = 0, rows; row < count; row += rows) {
            const int64_t left = count - row;
            rows = left >= TILE_ROWS ? TILE_ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            const float *from[TILE_ROWS], *begin[TILE_ROWS];
            float *to[TILE_ROWS];
            int64_t far = row / per, near = row % per;
            for (int64_t i = 0; i < rows; i++) {
                from[i] = a.first + far * a.outer + near * a.inner;
                begin[i] = start.first + far * start.outer + near * start.inner;
                to[i] = out.first + far * out.outer + near * out.inner;
                if (++near == per) near = 0, far++;
            }
            switch (rows * 8 + taken) {
#define TILE(rows, panels) \
    case rows * 8 + panels: \
        tile(rows, panels, from, begin, to, &weights, first); \
        break;
#ifdef __AVX512F__
                TILE(8, 1) TILE(8, 2) TILE(8, 3)
                TILE(4, 3)
#endif
#ifndef __AVX512F__
                TILE(6, 1) TILE(6, 2)
#endif
                TILE(4, 1) TILE(4, 2)
                TILE(2, 1) TILE(2, 2) TILE(2, 3) TILE(2, 4)
                TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4)
#undef TILE
            }
        }
    }
}

/* Only some inputs of a matrix. */
static Matrix inputs(Matrix whole, int64_t first, int64_t count) {
    whole.panels += first * whole.row;
    whole.in = count;
    return whole;
}
