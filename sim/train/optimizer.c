#include "sim/train/optimizer.h"

#include <math.h>

#define RUN 65536 /* floats of a task */

struct moesim_run {
    uint32_t tensor;
    size_t first, n;
};

static uint32_t runs_of(const struct moesim_tensor *t)
{
    return (uint32_t)((moesim_tensor_size(t) + RUN - 1) / RUN);
}

static void split(struct moesim_adamw *a)
{
    struct moesim_run *run = a->run;
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        const size_t size = moesim_tensor_size(&a->tensor[i]);
        for (size_t first = 0; first < size; first += RUN)
            *run++ = (struct moesim_run){i, first, size - first < RUN ? size - first : RUN};
    }
}

enum moesim_status moesim_adamw_init(struct moesim_adamw *adamw, const struct moesim_optimizer_config *config,
                                     const struct moesim_tensor *tensor, uint32_t n_tensors, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    struct moesim_adamw *a = adamw;
    *a = (struct moesim_adamw){.config = *config, .rows = moesim_rows_find(), .tensor = tensor, .n_tensors = n_tensors};
    a->first = moesim_alloc(arena, n_tensors, sizeof *a->first);
    a->second = moesim_alloc(arena, n_tensors, sizeof *a->second);
    a->square = moesim_alloc(arena, n_tensors, sizeof *a->square);
    bool ok = a->first && a->second && a->square;
    for (uint32_t i = 0; ok && i < n_tensors; i++) {
        a->n_runs += runs_of(&tensor[i]);
        a->first[i] = moesim_alloc(arena, moesim_tensor_size(&tensor[i]), sizeof(float));
        a->second[i] = moesim_alloc(arena, moesim_tensor_size(&tensor[i]), sizeof(float));
        ok = a->first[i] && a->second[i];
    }
    a->run = moesim_alloc(arena, a->n_runs, sizeof *a->run);
    a->run_square = moesim_alloc(arena, a->n_runs, sizeof *a->run_square);
    if (!ok || !a->run || !a->run_square)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the optimizer's moments of %u tensors", n_tensors);
    split(a);
    return MOESIM_OK;
}

double moesim_learning_rate(const struct moesim_optimizer_config *config, uint32_t step)
{
    const struct moesim_optimizer_config *c = config;
    if (step < c->warm_up)
        return c->learning_rate * (step + 1) / c->warm_up;
    const double progress = c->steps > c->warm_up ? (double)(step - c->warm_up) / (c->steps - c->warm_up) : 0;
    const double left = progress < 1 ? (1 + cos(acos(-1) * progress)) / 2 : 0;
    return c->min_learning_rate + (c->learning_rate - c->min_learning_rate) * left;
}

struct moesim_gradient_norm moesim_gradient_norm(struct moesim_adamw *adamw)
{
    struct moesim_adamw *a = adamw;
    double all = 0, gates = 0;
#pragma omp parallel for schedule(dynamic, 4)
    for (uint32_t i = 0; i < a->n_runs; i++)
        a->run_square[i] = a->rows->square_sum(a->tensor[a->run[i].tensor].gradient + a->run[i].first, a->run[i].n);
    for (uint32_t i = 0; i < a->n_tensors; i++)
        a->square[i] = 0;
    for (uint32_t i = 0; i < a->n_runs; i++)
        a->square[a->run[i].tensor] += a->run_square[i];
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        all += a->square[i];
        gates += a->tensor[i].is_gate ? a->square[i] : 0;
    }
    return (struct moesim_gradient_norm){sqrt(all), sqrt(gates)};
}

void moesim_adamw_step(struct moesim_adamw *adamw, uint32_t step, double norm)
{
    const struct moesim_adamw *a = adamw;
    const struct moesim_optimizer_config *c = &a->config;
    const double rate = moesim_learning_rate(c, step);
    const struct moesim_adamw_step common = {.gradient_scale =
                                                 c->clip > 0 && norm > c->clip ? (float)(c->clip / norm) : 1,
                                             .rate = (float)(rate / (1 - pow(c->beta1, step + 1.0))),
                                             .beta1 = (float)c->beta1,
                                             .beta2 = (float)c->beta2,
                                             .second_scale = (float)(1 / (1 - pow(c->beta2, step + 1.0))),
                                             .epsilon = (float)c->epsilon};
#pragma omp parallel for schedule(dynamic, 4)
    for (uint32_t i = 0; i < a->n_runs; i++) {
        const struct moesim_run *run = &a->run[i];
        const struct moesim_tensor *t = &a->tensor[run->tensor];
        struct moesim_adamw_step own = common;
        own.decay = t->decays ? (float)(rate * c->weight_decay) : 0;
        a->rows->adamw(&own, run->n, t->gradient + run->first, a->first[run->tensor] + run->first,
                       a->second[run->tensor] + run->first, t->value + run->first);
    }
}
