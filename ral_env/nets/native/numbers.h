/* Functions of a number, each within some 1e-7 of it, and of a row of numbers.

   They have no branches, so that compilers make vectors of loops over them. Sums go by as many
   lanes whatever the length of a vector is. */

#include <stdint.h>
#include <string.h>

enum { SUMS = 16 }; /* lanes that sums go by */

static inline float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* e^x of |x| <= 87: 2^n e^r, the second by its series (Cephes' expf). */
static inline float exponential(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: what is added to it is rounded to an integer */
    const float shifted = x * 1.44269504088896341f + shift;
    const float n = shifted - shift;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return from_bits(to_bits(p) + (to_bits(shifted) << 23));
}

/* log x of a normal x > 0: 2^n m with m from sqrt(1/2) to sqrt(2) (Cephes' logf). */
static inline float logarithm(float x) {
    const uint32_t offset = to_bits(x) - 0x3f3504f3u;
    const int32_t exponent = (int32_t)offset >> 23;
    const float n = (float)exponent;
    const float f = from_bits(to_bits(x) - ((uint32_t)exponent << 23)) - 1.0f;
    const float square = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    p = p * f * square - n * 2.12194440e-4f - 0.5f * square;
    return (f + p) + n * 0.693359375f;
}

/* tanh(a) * sigmoid(b) */
static inline float gate(float a, float b) {
    const float ea = exponential(-2.0f * clamp(a, -10.0f, 10.0f));
    const float eb = exponential(-clamp(b, -60.0f, 60.0f));
    return (1.0f - ea) / ((1.0f + ea) * (1.0f + eb));
}

/* Gumbel noise of random bits, as gumbel_from_bits in noise.py. */
static inline float gumbel(int32_t bits) {
    const float size = (float)bits;
    const float u = ((size < 0 ? -size : size) + 0.5f) * (0x1.fffffep-1f / 2147483648.0f);
    const float rest = 1.0f - u;
    const float lost = (1.0f - rest) - u; /* to rounding; next to 1 it is also what log loses */
    return -logarithm(-(logarithm(rest) + lost));
}

/* The sum of numbers by SUMS lanes, whose sums are added in this order. */
static float sum_of(const float *x, int64_t count) {
    float lanes[SUMS] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SUMS <= count; i += SUMS)
        for (int lane = 0; lane < SUMS; lane++) lanes[lane] += x[i + lane];
    for (int lane = 0; i < count; lane++, i++) lanes[lane] += x[i];
    for (int lane = 0; lane < SUMS; lane++) sum += lanes[lane];
    return sum;
}

static float largest_of(const float *x, int64_t count) {
    float lanes[SUMS], largest = x[0];
    int64_t i = 0;
    for (int lane = 0; lane < SUMS; lane++) lanes[lane] = x[0];
    for (; i + SUMS <= count; i += SUMS)
        for (int lane = 0; lane < SUMS; lane++)
            lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
    for (int lane = 0; i < count; lane++, i++)
        lanes[lane] = x[i] > lanes[lane] ? x[i] : lanes[lane];
    for (int lane = 0; lane < SUMS; lane++)
        largest = lanes[lane] > largest ? lanes[lane] : largest;
    return largest;
}

static void gate_row(const float *restrict x, float *restrict gated, int64_t inner) {
    for (int64_t i = 0; i < inner; i++) gated[i] = gate(x[i], x[inner + i]);
}

static void relu(const float *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i] > 0 ? from[i] : 0;
}
