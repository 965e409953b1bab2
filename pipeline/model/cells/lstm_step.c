/* One step of an LSTM, forwards and backwards, but for its matrix product: what lstm_scan.py does in a dozen calls.

   Arrays are contiguous float32, (batch, size) or (batch, gates * size); gates in the order input, forget, cell,
   output, or forget, cell, output where the input gate is coupled. Compiled by native.py. */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* exp(x) to about one unit in the last place, in plain arithmetic that a compiler can vectorise. The sum with 1.5 * 2^23
   rounds to the nearest whole number n and leaves it in the low bits; what remains of x lies within ln(2) / 2. */
INLINE float exponential(float x) {
    const float rounder = 12582912.0f;
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float shifted = x * 1.44269504f + rounder;
    const float n = shifted - rounder;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000 + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

INLINE float hyperbolic_tangent(float x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

INLINE void forward(const float *pre, const float *product, const float *peephole, const float *before, float *gates,
                    float *cell, float *hidden, int64_t batch, int64_t size, int coupled, int peep) {
    const int64_t width = (coupled ? 3 : 4) * size;
    for (int64_t b = 0; b < batch; b++) {
        const int64_t first = b * width;
        const int64_t at_f = first + (coupled ? 0 : size), at_g = at_f + size, at_o = at_g + size;
        const float *restrict c = before + b * size;
        float *restrict new_c = cell + b * size, *restrict h = hidden + b * size;
        for (int64_t j = 0; j < size; j++) {
            float f = pre[at_f + j] + product[at_f + j];
            if (peep) f += peephole[size + j] * c[j];
            f = sigmoid(f);
            float i;
            if (coupled) {
                i = 1.0f - f;
            } else {
                i = pre[first + j] + product[first + j];
                if (peep) i += peephole[j] * c[j];
                i = sigmoid(i);
                gates[first + j] = i;
            }
            const float g = hyperbolic_tangent(pre[at_g + j] + product[at_g + j]);
            const float made = f * c[j] + i * g;
            float o = pre[at_o + j] + product[at_o + j];
            if (peep) o += peephole[2 * size + j] * made;
            o = sigmoid(o);
            gates[at_f + j] = f;
            gates[at_g + j] = g;
            gates[at_o + j] = o;
            new_c[j] = made;
            h[j] = o * hyperbolic_tangent(made);
        }
    }
}

INLINE void backward(const float *gates, const float *peephole, const float *before, const float *cell,
                     const float *grad_hidden, const float *grad_cell, const float *dh, float *dc, float *grad_pre,
                     double *grad_peephole, int64_t batch, int64_t size, int coupled, int peep) {
    const int64_t width = (coupled ? 3 : 4) * size;
    for (int64_t b = 0; b < batch; b++) {
        const int64_t row = b * size, first = b * width;
        const int64_t at_f = first + (coupled ? 0 : size), at_g = at_f + size, at_o = at_g + size;
        for (int64_t j = 0; j < size; j++) {
            const float f = gates[at_f + j], g = gates[at_g + j], o = gates[at_o + j];
            const float i = coupled ? 1.0f - f : gates[first + j];
            const float c = before[row + j], shown = hyperbolic_tangent(cell[row + j]);
            const float to_h = grad_hidden[row + j] + dh[row + j];
            const float by_o = to_h * shown * o * (1.0f - o);
            float to_c = dc[row + j] + (grad_cell ? grad_cell[row + j] : 0.0f) + to_h * o * (1.0f - shown * shown);
            if (peep) to_c += by_o * peephole[2 * size + j];
            const float by_f = to_c * (coupled ? c - g : c) * f * (1.0f - f);
            const float by_g = to_c * i * (1.0f - g * g);
            float former = to_c * f;
            if (!coupled) {
                const float by_i = to_c * g * i * (1.0f - i);
                grad_pre[first + j] = by_i;
                if (peep) {
                    former += by_i * peephole[j] + by_f * peephole[size + j];
                    grad_peephole[j] += by_i * c;
                    grad_peephole[size + j] += by_f * c;
                    grad_peephole[2 * size + j] += by_o * cell[row + j];
                }
            }
            grad_pre[at_f + j] = by_f;
            grad_pre[at_g + j] = by_g;
            grad_pre[at_o + j] = by_o;
            dc[row + j] = former;
        }
    }
}

/* before, cell: the cell state before and after the step; gates, cell and hidden are written. */
void lstm_forward(const float *restrict pre, const float *restrict product, const float *restrict peephole,
                  const float *restrict before, float *restrict gates, float *restrict cell, float *restrict hidden,
                  int64_t batch, int64_t size, int64_t coupled) {
    if (coupled) forward(pre, product, peephole, before, gates, cell, hidden, batch, size, 1, 0);
    else if (peephole) forward(pre, product, peephole, before, gates, cell, hidden, batch, size, 0, 1);
    else forward(pre, product, peephole, before, gates, cell, hidden, batch, size, 0, 0);
}

/* dh: gradient that reaches the hidden state from the step after; dc: that of the cell state, replaced by that of the
   step before; grad_hidden, grad_cell (or NULL): what arrives from outside; grad_pre is written, grad_peephole added to. */
void lstm_backward(const float *restrict gates, const float *restrict peephole, const float *restrict before,
                   const float *restrict cell, const float *restrict grad_hidden, const float *restrict grad_cell,
                   const float *restrict dh, float *restrict dc, float *restrict grad_pre,
                   double *restrict grad_peephole, int64_t batch, int64_t size, int64_t coupled) {
    if (coupled)
        backward(gates, peephole, before, cell, grad_hidden, grad_cell, dh, dc, grad_pre, grad_peephole, batch, size, 1, 0);
    else if (peephole)
        backward(gates, peephole, before, cell, grad_hidden, grad_cell, dh, dc, grad_pre, grad_peephole, batch, size, 0, 1);
    else
        backward(gates, peephole, before, cell, grad_hidden, grad_cell, dh, dc, grad_pre, grad_peephole, batch, size, 0, 0);
}
