/* A net's weights, packed as products read them, in memory that the caller gives.

   C hidden channels; R inner ones; U = 2 * R units in front of a gate. */

#include "numbers.h"
#include "product.h"

enum { ALIGNMENT = 64 }; /* bytes */

typedef struct { /* native/__init__.py fills it in */
    int64_t rows, columns, codes, hidden, residual, layers, reach, outputs, heads;
    int64_t batch; /* canvases of a walk */
    float norm_eps;
} Sizes;

typedef struct {
    Matrix vertical, horizontal, across, condition, vertical_out, horizontal_out;
    const float *vertical_bias, *horizontal_bias;
    Matrix split, merge; /* of attention; split.in is 0 where there is none */
    const float *norm, *norm_bias, *split_bias, *merge_bias;
} Block;

typedef struct {
    Matrix enter, leave;
    const float *enter_bias, *leave_bias;
} Output;

typedef struct {
    Sizes sizes;
    const float *embedding, *position; /* (codes, C), (h, w, C) */
    Matrix head;
    const float *head_bias;
    Block *blocks;
    Output *outputs;
} Net;

/* Hands out memory from front to back; with none to hand out it only counts. */
typedef struct {
    char *memory;
    int64_t used;
} Arena;

static void *take(Arena *arena, int64_t bytes) {
    void *found = arena->memory ? arena->memory + arena->used : 0;
    arena->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return found;
}

static float *take_floats(Arena *arena, int64_t count) { return take(arena, 4 * count); }

/* A filter (out, channels, taps) as a matrix (taps * channels, out). */
static Matrix pack(
    Arena *arena, const float *const **next, int64_t out, int64_t channels, int64_t taps) {
    const float *filter = *(*next)++;
    const int64_t in = channels * taps;
    float *packed = take_floats(arena, panels_of(out) * LANES * in);
    Matrix matrix = {packed, in, out, LANES, in * LANES};
    if (!packed || !filter) return filter ? matrix : (Matrix){0};
    for (int64_t first = 0; first < out; first += LANES, packed += in * LANES) {
        const int64_t lanes = out - first < LANES ? out - first : LANES;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t tap = 0; tap < taps; tap++) {
                float *to = packed + (tap * channels + c) * LANES;
                const float *from = filter + first * in + c * taps + tap;
                if (lanes == LANES)
                    for (int64_t i = 0; i < LANES; i++) to[i] = from[i * in];
                else
                    for (int64_t i = 0; i < LANES; i++) to[i] = i < lanes ? from[i * in] : 0;
            }
    }
    return matrix;
}

static int64_t lay_out(Net *net, Arena *arena, const float *const *next) {
    const Sizes *s = &net->sizes;
    const int64_t C = s->hidden, R = s->residual, U = 2 * R, taps = s->reach + 1;
    net->blocks = take(arena, s->layers * sizeof(Block));
    net->outputs = take(arena, s->outputs * sizeof(Output));
    net->embedding = *next++;
    net->position = *next++;
    for (int64_t i = 0; i < s->layers; i++) {
        Block block;
        block.vertical = pack(arena, &next, U, C, taps * (2 * s->reach + 1));
        block.vertical_bias = *next++;
        block.horizontal = pack(arena, &next, U, C, taps);
        block.horizontal_bias = *next++;
        block.across = pack(arena, &next, U, U, 1);
        block.condition = pack(arena, &next, U, C, 1);
        block.vertical_out = pack(arena, &next, C, R, 1);
        block.horizontal_out = pack(arena, &next, C, R, 1);
        block.norm = *next++;
        block.norm_bias = *next++;
        block.split = pack(arena, &next, 3 * C, C, 1);
        block.split_bias = *next++;
        block.merge = pack(arena, &next, C, C, 1);
        block.merge_bias = *next++;
        if (arena->memory) net->blocks[i] = block;
    }
    for (int64_t i = 0; i < s->outputs; i++) {
        Output output;
        output.enter = pack(arena, &next, R, C, 1);
        output.enter_bias = *next++;
        output.leave = pack(arena, &next, C, R, 1);
        output.leave_bias = *next++;
        if (arena->memory) net->outputs[i] = output;
    }
    net->head = pack(arena, &next, s->codes, C, 1);
    net->head_bias = *next++;
    return arena->used;
}
