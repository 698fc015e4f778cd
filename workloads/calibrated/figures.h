/*
 * Figures that tell a model's routing: how uneven, how it differs by domain, how it lasts, how it hangs on the token.
 * Of recorded decisions and of drawn ones alike, one layer at a time.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_FIGURES_H
#define MOESIM_WORKLOADS_CALIBRATED_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/status.h>

enum calibrated_figure {
    CALIBRATED_LOAD_CV,
    CALIBRATED_MAX_MEAN,
    CALIBRATED_GINI,
    CALIBRATED_LOG_SIGMA,
    CALIBRATED_DOMAIN_CV,
    CALIBRATED_DOMAIN_MAX,
    CALIBRATED_DIVERGENCE,
    CALIBRATED_RANKS,
    CALIBRATED_LAG1,
    CALIBRATED_LAG2,
    CALIBRATED_LAG8,
    CALIBRATED_LAG64,
    CALIBRATED_LAG256,
    CALIBRATED_FIRST_AGAIN,
    CALIBRATED_ANY_AGAIN,
    CALIBRATED_WINDOW_MAX,
    CALIBRATED_MIXED_MAX,
    CALIBRATED_TOKEN_BITS,
    CALIBRATED_N_FIGURES,
};

struct calibrated_figure_info {
    const char *name, *meaning;
};
extern const struct calibrated_figure_info calibrated_figures[CALIBRATED_N_FIGURES];

/* Consecutive decisions of one layer: the experts of token t are expert[first[t]] .. expert[first[t + 1] - 1], by rank.
 * Labels may be NULL: one sequence, no domains, no types. */
struct decided {
    uint32_t n_tokens;
    const uint32_t *first, *expert;
    const uint32_t *sequence, *domain, *token_id;
};

/* What will come; 0 = none of that kind. */
struct figures_shape {
    uint32_t n_experts, top_k, n_domains, vocabulary;
    uint64_t n_tokens;
};

struct figures;

/* NULL when memory is exhausted. Domains beyond 256 and tables of token types beyond 2^26 counts are left out. */
struct figures *figures_create(const struct figures_shape *shape);
void figures_destroy(struct figures *figures); /* NULL is allowed */

/* Adds the next tokens. */
void figures_add(struct figures *figures, const struct decided *decided);

/* value[CALIBRATED_N_FIGURES]; NaN = not defined here. */
void figures_take(const struct figures *figures, double *value);

/* The figures of loads [n_loads][n_experts], of which each is a domain; the others are NaN. False when memory is
 * exhausted. */
bool figures_of_loads(const double *loads, uint32_t n_loads, uint32_t n_experts, double *value);

#endif
