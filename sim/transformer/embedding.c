#include "sim/transformer/embedding.h"

#include <string.h>

/* Where element 0 of a token's column is; the next is a panel's width further. */
static size_t column_of(const struct moesim_embedding *e, uint32_t token)
{
    const size_t width = moesim_panel_width(e->products, e->vocabulary);
    return token / width * e->d_model * width + token % width;
}

void moesim_embedding_forward(const struct moesim_embedding *embedding, const uint32_t *token, uint32_t n_tokens,
                              float *out)
{
    const struct moesim_embedding *e = embedding;
    const size_t d = e->d_model, width = moesim_panel_width(e->products, e->vocabulary);
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n_tokens; t++) {
        const float *column = e->w + column_of(e, token[t]);
        const float *position = e->position ? e->position + t % e->sequence * d : NULL;
        for (size_t k = 0; k < d; k++)
            out[t * d + k] = column[k * width] + (position ? position[k] : 0);
    }
}

/* Elements of a vector that one task takes. */
#define RUN 16

void moesim_embedding_backward(const struct moesim_embedding *embedding, const uint32_t *token, uint32_t n_tokens,
                               const float *d_out, bool add)
{
    const struct moesim_embedding *e = embedding;
    const size_t d = e->d_model, width = moesim_panel_width(e->products, e->vocabulary);
#pragma omp parallel for schedule(static)
    for (uint32_t first = 0; first < e->d_model; first += RUN) {
        const size_t last = first + RUN < d ? first + RUN : d;
        for (uint32_t t = 0; t < n_tokens; t++) {
            float *column = e->d_w + column_of(e, token[t]);
            for (size_t k = first; k < last; k++)
                column[k * width] += d_out[t * d + k];
        }
    }
    if (!e->position)
        return;
    if (!add)
        memset(e->d_position, 0, e->sequence * d * sizeof(float));
#pragma omp parallel for schedule(static)
    for (uint32_t place = 0; place < e->sequence; place++)
        for (size_t t = place; t < n_tokens; t += e->sequence)
            for (size_t k = 0; k < d; k++)
                e->d_position[place * d + k] += d_out[t * d + k];
}
