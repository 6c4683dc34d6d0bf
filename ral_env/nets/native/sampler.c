/* Samples a PixelCNN on the CPU: cache.py's walk down the rows and along each of them, in C.

   It is compiled once for each instruction set, with nothing else changed. All compilations give
   the same bits, for batches of any size and in any number of threads (see the headers).

   B canvases; h rows and w columns of the grid; C hidden channels; R inner ones; U = 2 * R units
   in front of a gate. Arrays are float32, rows of channels one behind the other. */

#include "net.h"

enum { ROW_CELLS = 512 }; /* cells that a row's work takes at a time, to stay in a near cache */

/* ---- A walk over a batch of canvases ---- */

typedef struct {
    const Net *net;
    int64_t batch, group;  /* canvases in all, and those that a row's work takes at a time */
    int64_t first_row;     /* the first whose cells are asked for */
    int64_t *start;        /* of each layer, its first row that any such cell depends on */
    float *v;              /* (layers, reach + 1, B, w + 2 * reach, C): rows of vertical inputs */
    float *above;          /* (layers, B, w, U): what the vertical stack is to the horizontal one */
    float *h;              /* (layers, B, reach + w, C): the row of horizontal inputs */
    float *keys, *values;  /* (layers, B, C, h * w in lanes), (layers, B, h * w, C) */
    float *features;       /* (B, C), or those of a group's row: behind all layers */
    float *units, *gated;  /* (.., U), (.., R or C): scratch of as many cells */
    float *split, *scores; /* (.., 3 * C), (lanes of h * w, or of codes): scratch */
} Walk;

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t in_sums(int64_t count) { return (count + SUMS - 1) / SUMS * SUMS; }
static int64_t key_cells(const Sizes *s) { return in_sums(s->rows * s->columns); }

static int64_t make_room(Walk *walk, const Sizes *s, Arena *arena) {
    const int64_t C = s->hidden, R = s->residual, B = s->batch, w = s->columns;
    const int64_t group = most(1, ROW_CELLS / w), cells = most(B, (group < B ? group : B) * w);
    const int64_t attended = s->heads ? s->layers * B * C : 0;
    walk->group = group;
    walk->start = take(arena, s->layers * sizeof(int64_t));
    walk->v = take_floats(arena, s->layers * (s->reach + 1) * B * (w + 2 * s->reach) * C);
    walk->h = take_floats(arena, s->layers * B * (s->reach + w) * C);
    walk->above = take_floats(arena, s->layers * B * w * 2 * R);
    walk->keys = take_floats(arena, attended * key_cells(s));
    walk->values = take_floats(arena, attended * s->rows * w + SUMS);
    walk->features = take_floats(arena, cells * C);
    walk->units = take_floats(arena, cells * 2 * R);
    walk->gated = take_floats(arena, cells * most(R, C));
    walk->split = take_floats(arena, cells * 3 * C);
    walk->scores = take_floats(arena, most(B * in_sums(s->codes), key_cells(s)));
    return arena->used;
}

/* The vertical input of a layer at a row: (B, w + 2 * reach, C). */
static float *v_row(const Walk *walk, int64_t layer, int64_t row) {
    const Sizes *s = &walk->net->sizes;
    const int64_t kept = s->reach + 1, canvas = (s->columns + 2 * s->reach) * s->hidden;
    return walk->v + (layer * kept + row % kept) * walk->batch * canvas;
}

/* One layer's vertical stack at a row of canvases `canvas` .. `canvas + count - 1`. */
static void vertical_layer(
    Walk *walk, int64_t layer, int64_t row, int64_t canvas, int64_t count, const float *context) {
    const Sizes *s = &walk->net->sizes;
    const Block *block = &walk->net->blocks[layer];
    const int64_t C = s->hidden, R = s->residual, U = 2 * R, w = s->columns, reach = s->reach;
    const int64_t padded = (w + 2 * reach) * C, taps = (2 * reach + 1) * C, cells = count * w;
    const Rows units = packed_rows(walk->units, w, U);
    Rows start = one_row(block->vertical_bias);
    for (int64_t i = 0; i <= reach; i++) {
        const int64_t from = row - reach + i;
        if (from < walk->start[layer]) continue;
        const Rows windows = {v_row(walk, layer, from) + canvas * padded, padded, C};
        multiply(cells, w, windows, inputs(block->vertical, i * taps, taps), start, units);
        start = units;
    }
    if (row >= walk->first_row) {
        float *to = walk->above + (layer * walk->batch + canvas) * w * U;
        const Rows above = packed_rows(to, w, U);
        multiply(cells, w, units, block->across, one_row(block->horizontal_bias), above);
        if (context) {
            const Rows given = packed_rows((float *)context + canvas * w * C, w, C);
            multiply(cells, w, given, block->condition, above, above);
        }
    }
    if (layer + 1 == s->layers) return;
    for (int64_t i = 0; i < cells; i++) gate_row(walk->units + i * U, walk->gated + i * R, R);
    const int64_t inside = canvas * padded + reach * C;
    const Rows v = {v_row(walk, layer, row) + inside, padded, C};
    const Rows next = {v_row(walk, layer + 1, row) + inside, padded, C};
    multiply(cells, w, packed_rows(walk->gated, w, R), block->vertical_out, v, next);
}

/* out = embedding of the code + position, where there is a code. */
static void embed(const Net *net, const int64_t *code, const float *position, float *out) {
    const int64_t C = net->sizes.hidden;
    if (code)
        for (int64_t c = 0; c < C; c++) out[c] = net->embedding[*code * C + c] + position[c];
    else
        memcpy(out, position, 4 * C);
}

/* The vertical stack of all layers at a row; codes (B, h', w) are `canvas_codes` apart. */
static void vertical(
    Walk *walk, int64_t row, const int64_t *codes, int64_t canvas_codes, const float *context) {
    const Sizes *s = &walk->net->sizes;
    const int64_t C = s->hidden, w = s->columns;
    float *v = v_row(walk, 0, row) + s->reach * C;
    for (int64_t b = 0; b < walk->batch; b++, v += 2 * s->reach * C)
        for (int64_t c = 0; c < w; c++, v += C) {
            const int64_t *above = row ? codes + b * canvas_codes + (row - 1) * w + c : 0;
            embed(walk->net, above, walk->net->position + (row * w + c) * C, v);
        }
    for (int64_t layer = 0; layer < s->layers; layer++) {
        if (row < walk->start[layer]) break;
        if (layer + 1 == s->layers && row < walk->first_row) break;
        for (int64_t canvas = 0; canvas < walk->batch; canvas += walk->group) {
            const int64_t left = walk->batch - canvas;
            const int64_t count = left < walk->group ? left : walk->group;
            vertical_layer(walk, layer, row, canvas, count, context);
        }
    }
}

/* (x - mean) / deviation * scale + bias, over C channels */
static void normalise(
    const float *x, const float *scale, const float *bias, float eps, int64_t C, float *out) {
    const float mean = sum_of(x, C) / (float)C;
    for (int64_t i = 0; i < C; i++) out[i] = (x[i] - mean) * (x[i] - mean);
    const float over = 1.0f / __builtin_sqrtf(sum_of(out, C) / (float)C + eps);
    for (int64_t i = 0; i < C; i++) out[i] = (x[i] - mean) * over * scale[i] + bias[i];
}

/* What one head mixes of the values of a canvas's cells up to this one: (C / heads). */
static void attend(
    const Sizes *s, const float *query, const float *keys, const float *values, int64_t cell,
    float *scores, float *mixed) {
    const int64_t width = s->hidden / s->heads, count = cell + 1;
    const Matrix by_key = {keys, width, count, key_cells(s), LANES};
    const Matrix by_value = {values, count, width, s->hidden, LANES};
    const float scale = 1.0f / __builtin_sqrtf((float)width);
    memset(scores, 0, 4 * count);
    multiply(1, 1, one_row(query), by_key, one_row(scores), one_row(scores));
    const float largest = largest_of(scores, count);
    for (int64_t i = 0; i < count; i++)
        scores[i] = exponential(clamp((scores[i] - largest) * scale, -87.0f, 0.0f));
    const float over = 1.0f / sum_of(scores, count);
    memset(mixed, 0, 4 * width);
    multiply(1, 1, one_row(scores), by_value, one_row(mixed), one_row(mixed));
    for (int64_t i = 0; i < width; i++) mixed[i] *= over;
}

/* h += attention of `per` cells of each canvas, `cell` the first of them in raster order. */
static void attention(
    Walk *walk, int64_t layer, int64_t cell, int64_t canvas, int64_t count, int64_t per, Rows h) {
    const Sizes *s = &walk->net->sizes;
    const Block *block = &walk->net->blocks[layer];
    const int64_t C = s->hidden, width = C / s->heads, all = key_cells(s);
    const Rows normed = packed_rows(walk->gated, per, C);
    const Rows split = packed_rows(walk->split, per, 3 * C);
    for (int64_t i = 0; i < count * per; i++)
        normalise(row_of(h, i, per), block->norm, block->norm_bias, s->norm_eps, C,
                  row_of(normed, i, per));
    multiply(count * per, per, normed, block->split, one_row(block->split_bias), split);
    for (int64_t b = 0; b < count; b++) {
        const int64_t place = layer * walk->batch + canvas + b;
        float *keys = walk->keys + place * C * all;
        float *values = walk->values + place * C * s->rows * s->columns;
        for (int64_t i = 0; i < per; i++) {
            const float *query = row_of(split, b * per + i, per);
            float *mixed = row_of(normed, b * per + i, per);
            for (int64_t c = 0; c < C; c++) keys[c * all + cell + i] = query[C + c];
            memcpy(values + (cell + i) * C, query + 2 * C, 4 * C);
            for (int64_t first = 0; first < C; first += width)
                attend(s, query + first, keys + first * all, values + first, cell + i,
                       walk->scores, mixed + first);
        }
    }
    for (int64_t i = 0; i < count * per; i++)
        for (int64_t c = 0; c < C; c++) row_of(h, i, per)[c] += block->merge_bias[c];
    multiply(count * per, per, normed, block->merge, h, h);
}

/* The horizontal stack of `per` cells of a row, from `column` on, of some canvases. Their features
   go to walk->features. Codes to the left are known. */
static void horizontal(
    Walk *walk, int64_t row, int64_t column, int64_t per, int64_t canvas, int64_t count,
    const int64_t *codes, int64_t canvas_codes) {
    const Sizes *s = &walk->net->sizes;
    const int64_t C = s->hidden, R = s->residual, U = 2 * R, w = s->columns, reach = s->reach;
    const int64_t padded = (reach + w) * C, layer_h = walk->batch * padded;
    const Rows units = packed_rows(walk->units, per, U), gated = packed_rows(walk->gated, per, R);
    const Rows features = packed_rows(walk->features, per, C);
    Rows windows = {walk->h + canvas * padded + column * C, padded, C};
    Rows h = {windows.first + reach * C, padded, C};
    Rows above = {walk->above + (canvas * w + column) * U, w * U, U};
    for (int64_t i = 0; i < count * per; i++) {
        const int64_t cell = row * w + column + i % per;
        const int64_t *left = codes + (canvas + i / per) * canvas_codes + cell - 1;
        const float *position = walk->net->position + cell * C;
        embed(walk->net, column + i % per ? left : 0, position, row_of(h, i, per));
    }
    for (int64_t layer = 0; layer < s->layers; layer++) {
        const Block *block = &walk->net->blocks[layer];
        multiply(count * per, per, windows, block->horizontal, above, units);
        for (int64_t i = 0; i < count * per; i++)
            gate_row(walk->units + i * U, walk->gated + i * R, R);
        windows.first += layer_h;
        above.first += walk->batch * w * U;
        const Rows next = {h.first + layer_h, padded, C};
        const Rows out = layer + 1 == s->layers ? features : next;
        multiply(count * per, per, gated, block->horizontal_out, h, out);
        h = out;
        if (block->split.in) attention(walk, layer, row * w + column, canvas, count, per, h);
    }
}

/* walk->features to logits, walk->scores (B, codes in lanes). */
static void readout(Walk *walk) {
    const Net *net = walk->net;
    const int64_t C = net->sizes.hidden, R = net->sizes.residual, B = walk->batch;
    const Rows h = packed_rows(walk->features, 1, C), inner = packed_rows(walk->units, 1, R);
    const Rows scores = packed_rows(walk->scores, 1, in_sums(net->sizes.codes));
    const Rows positive = packed_rows(walk->gated, 1, C);
    for (int64_t i = 0; i < net->sizes.outputs; i++) {
        const Output *output = &net->outputs[i];
        relu(walk->features, walk->gated, B * C);
        multiply(B, 1, positive, output->enter, one_row(output->enter_bias), inner);
        relu(walk->units, walk->units, B * R);
        for (int64_t b = 0; b < B; b++)
            for (int64_t c = 0; c < C; c++) walk->features[b * C + c] += output->leave_bias[c];
        multiply(B, 1, inner, output->leave, h, h);
    }
    relu(walk->features, walk->gated, B * C);
    multiply(B, 1, positive, net->head, one_row(net->head_bias), scores);
}

/* The first code whose logit + temperature * noise is the largest; logits are overwritten. */
static int64_t choose(float *logits, const int32_t *bits, float temperature, int64_t codes) {
    if (bits)
        for (int64_t i = 0; i < codes; i++) logits[i] += temperature * gumbel(bits[i]);
    const float largest = largest_of(logits, codes);
    for (int64_t i = 0; i < codes; i++)
        if (logits[i] == largest) return i;
    return 0; /* no number at all */
}

/* ---- What native/__init__.py calls ---- */

/* Bytes that a net takes, packed; with memory, aligned to 64 bytes, it is packed there. */
int64_t ral_net(const Sizes *sizes, const float *const *weights, char *memory) {
    Arena arena = {memory, 0};
    Net counted = {.sizes = *sizes}, *net = take(&arena, sizeof(Net));
    if (net) net->sizes = *sizes;
    return lay_out(net ? net : &counted, &arena, weights);
}

/* Bytes that a walk takes; with memory, zeroed and aligned to 64 bytes, one is begun there.

   first_row is the first row whose cells will be asked for. Returned in *start_row: the row that
   the walk begins with, as rows that none of those depends on are left out. */
int64_t ral_walk(
    const Sizes *sizes, const char *net, int64_t first_row, char *memory, int64_t *start_row) {
    Arena arena = {memory, 0};
    Walk counted, *walk = take(&arena, sizeof(Walk));
    const int64_t bytes = make_room(walk ? walk : &counted, sizes, &arena);
    if (!walk) return bytes;
    walk->net = (const Net *)net;
    walk->batch = sizes->batch;
    walk->first_row = sizes->heads ? 0 : first_row; /* attention sees all cells */
    *start_row = walk->first_row;
    for (int64_t layer = sizes->layers - 1; layer >= 0; layer--) {
        *start_row = most(0, *start_row - sizes->reach);
        walk->start[layer] = *start_row;
    }
    return bytes;
}

/* Go to a row: rows are entered in order, from *start_row on.

   codes: (B, h', w), canvas_codes apart; those above the row are known.
   context: of the row, (B, w, C), or none. */
void ral_enter(
    char *memory, int64_t row, const int64_t *codes, int64_t canvas_codes, const float *context) {
    vertical((Walk *)memory, row, codes, canvas_codes, context);
}

/* Pass over the row that was entered, whose codes are known: attention remembers them. */
void ral_pass(char *memory, int64_t row, const int64_t *codes, int64_t canvas_codes) {
    Walk *walk = (Walk *)memory;
    const Sizes *s = &walk->net->sizes;
    for (int64_t canvas = 0; s->heads && canvas < walk->batch; canvas += walk->group) {
        const int64_t left = walk->batch - canvas;
        const int64_t count = left < walk->group ? left : walk->group;
        horizontal(walk, row, 0, s->columns, canvas, count, codes, canvas_codes);
    }
}

/* Features (B, C), canvas_floats apart, of a cell of the row that was entered. Cells are passed
   from left to right; codes to the left are known. */
void ral_cell(
    char *memory, int64_t row, int64_t column, const int64_t *codes, int64_t canvas_codes,
    float *features, int64_t canvas_floats) {
    Walk *walk = (Walk *)memory;
    const int64_t C = walk->net->sizes.hidden;
    horizontal(walk, row, column, 1, 0, walk->batch, codes, canvas_codes);
    for (int64_t b = 0; b < walk->batch; b++)
        memcpy(features + b * canvas_floats, walk->features + b * C, 4 * C);
}

/* Features (B, C) to logits (B, codes). */
void ral_logits(char *memory, const float *features, float *logits) {
    Walk *walk = (Walk *)memory;
    const Sizes *s = &walk->net->sizes;
    memcpy(walk->features, features, 4 * walk->batch * s->hidden);
    readout(walk);
    for (int64_t b = 0; b < walk->batch; b++)
        memcpy(logits + b * s->codes, walk->scores + b * in_sums(s->codes), 4 * s->codes);
}

/* Enter a row, and pass over it or, if `write`, write its EMPTY cells.

   bits: random ones (w, .., codes), column_bits from a column to the next, or none for no noise. */
void ral_row(
    char *memory, int64_t row, int64_t write, int64_t *codes, int64_t canvas_codes,
    const int32_t *bits, int64_t column_bits, const float *context, float temperature) {
    Walk *walk = (Walk *)memory;
    const Sizes *s = &walk->net->sizes;
    const int64_t w = s->columns, step = in_sums(s->codes);
    ral_enter(memory, row, codes, canvas_codes, context);
    if (!write) ral_pass(memory, row, codes, canvas_codes);
    for (int64_t column = 0; write && column < w; column++) {
        horizontal(walk, row, column, 1, 0, walk->batch, codes, canvas_codes);
        readout(walk);
        for (int64_t b = 0; b < walk->batch; b++) {
            int64_t *code = codes + b * canvas_codes + row * w + column;
            const int32_t *drawn = bits ? bits + column * column_bits + b * s->codes : 0;
            if (*code == s->codes)
                *code = choose(walk->scores + b * step, drawn, temperature, s->codes);
        }
    }
}

/* The noise of random bits, as a walk adds it to logits. */
void ral_noise(int64_t count, const int32_t *bits, float *noise) {
    for (int64_t i = 0; i < count; i++) noise[i] = gumbel(bits[i]);
}

/* `steps` times as many multiply-adds as registers take at a time, of numbers that stay in them:
   how many that is in all. Nothing is faster. `kept` is what came of them. */
int64_t ral_peak(int64_t steps, float *kept) {
    enum { SUMS_AT_ONCE = 12 };
    vec sum[SUMS_AT_ONCE];
    for (int i = 0; i < SUMS_AT_ONCE; i++) sum[i] = load(kept, LANES) + (float)i;
    const vec scale = load(kept, LANES) * 0.999f;
    for (int64_t k = 0; k < steps; k++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS_AT_ONCE; i++) sum[i] = sum[i] * scale + scale;
    for (int i = 1; i < SUMS_AT_ONCE; i++) sum[0] += sum[i];
    store(kept, sum[0], LANES);
    return steps * SUMS_AT_ONCE * LANES;
}
