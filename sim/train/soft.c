#include "sim/train/soft.h"

#include <string.h>

#include <cblas.h>

enum moesim_status moesim_soft_create(struct moesim_soft **soft, const struct moesim_transformer_config *config,
                                      const struct moesim_shape *shape, uint32_t max_groups, struct moesim_arena *arena,
                                      struct moesim_error *err)
{
    struct moesim_soft *s = *soft = moesim_alloc(arena, 1, sizeof *s);
    const uint64_t max_slots = (uint64_t)shape->n_slots * max_groups;
    const uint32_t n_tokens = moesim_transformer_tokens(config);
    if (!s || max_slots > UINT32_MAX)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u slots in %u groups", shape->n_slots, max_groups);
    *s = (struct moesim_soft){.n_slots = shape->n_slots,
                              .n_experts = shape->n_experts,
                              .d_model = config->d_model,
                              .max_slots = (uint32_t)max_slots};
    float **const rows[] = {&s->slots, &s->made, &s->d_slots, &s->d_made};
    bool ok = true;
    for (int i = 0; i < 4; i++)
        ok = (*rows[i] = moesim_alloc(arena, max_slots, s->d_model * sizeof(float))) && ok;
    s->d_weight = moesim_alloc(arena, max_slots, sizeof(float));
    s->d_dispatch = moesim_alloc(arena, n_tokens, s->n_slots * sizeof(float));
    s->d_combine = moesim_alloc(arena, n_tokens, s->n_slots * sizeof(float));
    if (!ok || !s->d_weight || !s->d_dispatch || !s->d_combine)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u slots in %u groups", shape->n_slots, max_groups);
    return moesim_plan_init(&s->plan, s->max_slots, s->n_experts, 1, max_slots, 0, arena, err);
}

/* Slot i of a group belongs to expert i / (slots of an expert). */
static void fill_plan(struct moesim_soft *s, uint32_t n_groups)
{
    const uint32_t n = n_groups * s->n_slots, per_expert = s->n_slots / s->n_experts;
    s->plan.n_tokens = n;
    s->plan.n_pairs = n;
    for (uint32_t i = 0; i < n; i++) {
        s->plan.first[i + 1] = i + 1;
        s->plan.expert[i] = i % s->n_slots / per_expert;
        s->plan.weight[i] = 1;
        s->plan.slot[i] = 0;
        s->plan.fate[i] = MOESIM_KEPT;
    }
}

/* ---- products of one group; tasks take some columns or rows each, in one shape for any number of threads ---- */

#define RUN 64

/* A group's rows of a matrix over tokens, and where its slots begin. */
struct group {
    uint32_t first, n_tokens;
    size_t slots;
};

static struct group group_of(const struct moesim_soft *s, const struct moesim_batch *batch, uint32_t g)
{
    const uint32_t first = batch->group_start[g];
    return (struct group){first, batch->group_start[g + 1] - first, (size_t)g * s->n_slots * s->d_model};
}

/* slots [n_slots][d_model] = weights^T rows, for a group's weights [n_tokens][n_slots] and rows [n_tokens][d_model]. */
static void to_slots(const struct moesim_soft *s, const struct group *g, const float *weights, const float *rows,
                     float *slots)
{
    const int d = (int)s->d_model, n = (int)s->n_slots;
#pragma omp parallel for schedule(static)
    for (int c = 0; c < d; c += RUN)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, d - c < RUN ? d - c : RUN, (int)g->n_tokens, 1,
                    weights + (size_t)g->first * s->n_slots, n, rows + (size_t)g->first * s->d_model + c, d, 0,
                    slots + g->slots + c, d);
}

/* rows += weights slots. */
static void to_rows(const struct moesim_soft *s, const struct group *g, const float *weights, const float *slots,
                    float *rows)
{
    const int d = (int)s->d_model, n = (int)s->n_slots;
#pragma omp parallel for schedule(static)
    for (int c = 0; c < d; c += RUN)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)g->n_tokens, d - c < RUN ? d - c : RUN, n, 1,
                    weights + (size_t)g->first * s->n_slots, n, slots + g->slots + c, d, 1,
                    rows + (size_t)g->first * s->d_model + c, d);
}

/* d_weights [n_tokens][n_slots] = rows slots^T. */
static void to_weights(const struct moesim_soft *s, const struct group *g, const float *rows, const float *slots,
                       float *d_weights)
{
    const int d = (int)s->d_model, n = (int)s->n_slots, last = (int)(g->first + g->n_tokens);
#pragma omp parallel for schedule(static)
    for (int t = (int)g->first; t < last; t += RUN)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, last - t < RUN ? last - t : RUN, n, d, 1,
                    rows + (size_t)t * s->d_model, d, slots + g->slots, d, 0, d_weights + (size_t)t * s->n_slots, n);
}

void moesim_soft_forward(struct moesim_soft *soft, struct moesim_layer *layer, const struct moesim_batch *batch,
                         const struct moesim_plan *plan, float *output)
{
    fill_plan(soft, batch->n_groups);
    for (uint32_t i = 0; i < batch->n_groups; i++) {
        const struct group g = group_of(soft, batch, i);
        to_slots(soft, &g, plan->dispatch, batch->hidden, soft->slots);
    }
    memset(soft->made, 0, (size_t)soft->plan.n_tokens * soft->d_model * sizeof(float));
    moesim_layer_forward(layer, &soft->plan, soft->slots, soft->made);
    for (uint32_t i = 0; i < batch->n_groups; i++) {
        const struct group g = group_of(soft, batch, i);
        to_rows(soft, &g, plan->combine, soft->made, output);
    }
}

void moesim_soft_backward(struct moesim_soft *soft, struct moesim_layer *layer, const struct moesim_batch *batch,
                          const struct moesim_plan *plan, const float *d_output, bool add, float *d_hidden)
{
    for (uint32_t i = 0; i < batch->n_groups; i++) {
        const struct group g = group_of(soft, batch, i);
        to_weights(soft, &g, d_output, soft->made, soft->d_combine);
        to_slots(soft, &g, plan->combine, d_output, soft->d_made);
    }
    memset(soft->d_slots, 0, (size_t)soft->plan.n_tokens * soft->d_model * sizeof(float));
    moesim_layer_backward(layer, &soft->plan, soft->slots, soft->d_made, add, soft->d_slots, soft->d_weight);
    for (uint32_t i = 0; i < batch->n_groups; i++) {
        const struct group g = group_of(soft, batch, i);
        to_weights(soft, &g, batch->hidden, soft->d_slots, soft->d_dispatch);
        to_rows(soft, &g, plan->dispatch, soft->d_slots, d_hidden);
    }
}
