#include "cli/model_sizes.h"

#include <string.h>

#include "sim/experiment/experiment.h"

enum { LINE = 256, MAX_LINES = 16 };

/* The sizes without the router's name, which is in front. */
static void describe(const struct moesim_point *p, const struct moesim_transformer_counts *c, char text[LINE])
{
    const uint32_t blocks = p->model.layers * (p->train.moe_every ? p->train.moe_every : 1);
    snprintf(text, LINE,
             "%u blocks, %.4g M parameters (%.4g M active), %.4g MFLOP a token (%.4g to train on it), at most %.4g MiB",
             blocks, (double)c->n_parameters / 1e6, (double)c->n_active_parameters / 1e6, c->flop_per_token / 1e6,
             c->training_flop_per_token / 1e6, (double)moesim_experiment_memory(p) / (1 << 20));
}

void model_sizes_print(const struct loaded_study *loaded, FILE *out)
{
    char told[MAX_LINES][LINE];
    uint32_t n_told = 0;
    for (uint32_t i = 0; i < loaded->n_points && n_told < MAX_LINES; i++) {
        const struct moesim_point *p = loaded->points[i];
        struct moesim_transformer_counts counts;
        struct moesim_error ignored;
        if (p->mode != MOESIM_MODE_TRAIN || moesim_experiment_count(p, &counts, &ignored) != MOESIM_OK)
            continue;
        bool known = false;
        describe(p, &counts, told[n_told]);
        for (uint32_t j = 0; j < n_told; j++)
            known |= !strcmp(told[j], told[n_told]);
        if (!known)
            fprintf(out, "model of %s:\n  %s\n", p->router_spec, told[n_told++]);
    }
}
