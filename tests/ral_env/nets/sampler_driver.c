/* Walks down nets of random weights, for sanitizers to watch; test_native.py compiles it. */

#include "sampler.c"

#include <stdio.h>
#include <stdlib.h>

static float *random_floats(int64_t count) {
    float *found = malloc(4 * count); /* no more than is said, so that reading on is noticed */
    for (int64_t i = 0; i < count; i++) found[i] = 0.4f * (float)rand() / (float)RAND_MAX - 0.2f;
    return found;
}

/* All weights in the order of _in_order in native/__init__.py. */
static int weights_of(const Sizes *s, int conditional, const float **to) {
    const int64_t C = s->hidden, R = s->residual, U = 2 * R, taps = s->reach + 1;
    int n = 0;
    to[n++] = random_floats(s->codes * C);
    to[n++] = random_floats(s->rows * s->columns * C);
    for (int64_t i = 0; i < s->layers; i++) {
        const int attended = s->heads && i == 1;
        to[n++] = random_floats(U * C * taps * (2 * s->reach + 1));
        to[n++] = random_floats(U);
        to[n++] = random_floats(U * C * taps);
        to[n++] = random_floats(U);
        to[n++] = random_floats(U * U);
        to[n++] = conditional ? random_floats(U * C) : 0;
        to[n++] = i + 1 < s->layers ? random_floats(C * R) : 0;
        to[n++] = random_floats(C * R);
        to[n++] = attended ? random_floats(C) : 0;
        to[n++] = attended ? random_floats(C) : 0;
        to[n++] = attended ? random_floats(3 * C * C) : 0;
        to[n++] = attended ? random_floats(3 * C) : 0;
        to[n++] = attended ? random_floats(C * C) : 0;
        to[n++] = attended ? random_floats(C) : 0;
    }
    for (int64_t i = 0; i < s->outputs; i++) {
        to[n++] = random_floats(R * C);
        to[n++] = random_floats(R);
        to[n++] = random_floats(C * R);
        to[n++] = random_floats(C);
    }
    to[n++] = random_floats(s->codes * C);
    to[n++] = random_floats(s->codes);
    return n;
}

/* The sum of all codes that are written behind `known` rows. */
static int64_t walk_down(Sizes s, int conditional, int64_t known) {
    const float *weights[100];
    const int count = weights_of(&s, conditional, weights);
    const int64_t w = s.columns, cells = s.rows * w, row_bits = w * s.batch * s.codes;
    char *net = aligned_alloc(ALIGNMENT, ral_net(&s, weights, 0));
    ral_net(&s, weights, net);
    int64_t row, sum = 0;
    const int64_t bytes = ral_walk(&s, net, known, 0, &row);
    char *walk = aligned_alloc(ALIGNMENT, bytes);
    memset(walk, 0, bytes);
    ral_walk(&s, net, known, walk, &row);
    int64_t *codes = malloc(8 * s.batch * cells);
    for (int64_t i = 0; i < s.batch * cells; i++)
        codes[i] = i % cells < known * w ? i % s.codes : s.codes;
    float *context = random_floats(s.batch * w * s.hidden);
    int32_t *bits = malloc(4 * row_bits);
    for (; row < s.rows; row++) {
        for (int64_t i = 0; i < row_bits; i++) bits[i] = (int32_t)((uint32_t)rand() * 2654435761u);
        ral_row(walk, row, row >= known, codes, cells, row % 2 ? bits : 0, s.batch * s.codes,
                conditional ? context : 0, 0.9f);
    }
    float *features = malloc(4 * s.batch * s.hidden), *logits = malloc(4 * s.batch * s.codes);
    memset(walk, 0, bytes);
    ral_walk(&s, net, 0, walk, &row);
    for (; row < s.rows; row++) {
        ral_enter(walk, row, codes, cells, conditional ? context : 0);
        if (row < known) ral_pass(walk, row, codes, cells);
        for (int64_t column = 0; row >= known && column < w; column++) {
            ral_cell(walk, row, column, codes, cells, features, s.hidden);
            ral_logits(walk, features, logits);
        }
    }
    free(features), free(logits);
    for (int64_t i = 0; i < s.batch * cells; i++) {
        if (codes[i] < 0 || codes[i] >= s.codes) exit(2);
        sum += codes[i];
    }
    for (int i = 0; i < count; i++) free((void *)weights[i]);
    free(net), free(walk), free(codes), free(context), free(bits);
    return sum;
}

int main(void) {
    int64_t sum = 0;
    for (int64_t batch = 1; batch <= 9; batch += 4)
        for (int64_t known = 0; known <= 4; known += 2) {
            /* rows, columns, codes, hidden, residual, layers, reach, outputs, heads, batch, eps */
            sum += walk_down((Sizes){5, 4, 11, 16, 12, 3, 2, 2, 0, batch, 0}, 0, known);
            sum += walk_down((Sizes){6, 3, 33, 12, 5, 2, 1, 0, 1, batch, 1e-5f}, 1, known);
            sum += walk_down((Sizes){5, 9, 16, 40, 24, 2, 3, 1, 2, batch, 1e-5f}, 0, known);
        }
    printf("%lld\n", (long long)sum);
    return 0;
}
