/*
 * calibrated: tokens whose routing has the figures that were measured on a model.
 *
 * A step is a batch of sequences, one after the other, from the domains in turn. A logit is the sum of what the layer,
 * the domain, the sequence, the stretch of text, the token's type and chance add (calibrated/effects.h has the law,
 * calibrated/presets.c the numbers of each model). The figures hold for the k largest logits; another router on these
 * logits has its own. Columns past the experts are standard normal.
 */
#include <moesim/workload.h>

#include "workloads/calibrated/source.h"
#include "workloads/table.h"

struct calibrated_params {
    struct source_params source;
    uint32_t domain;
};

static const struct moesim_param params[] = {
    SOURCE_PARAMS(struct calibrated_params, source, "olmoe-1b-7b"),
    MOESIM_PARAM(struct calibrated_params, domain, "0", 0, 65536, "0 = all domains in turn, n = the n-th only"),
    MOESIM_PARAM_END,
};

struct calibrated {
    struct source source;
    uint32_t domain;
};

static enum moesim_status calibrated_shape(const void *p, struct moesim_workload_shape *shape, struct moesim_error *err)
{
    const struct calibrated_params *params_ = p;
    const enum moesim_status status = source_shape(&params_->source, shape, err);
    if (!status && params_->domain > shape->n_domains)
        return moesim_fail(err, MOESIM_EINVAL, "calibrated: domain = %u, but domains = %u", params_->domain,
                           shape->n_domains);
    return status;
}

static enum moesim_status calibrated_init(void *state, const void *p, const struct moesim_workload_env *env,
                                          struct moesim_error *err)
{
    struct calibrated *c = state;
    const struct calibrated_params *params_ = p;
    c->domain = params_->domain;
    return source_init(&c->source, "calibrated", &params_->source, env, err);
}

static enum moesim_status calibrated_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                          struct moesim_error *err)
{
    (void)err;
    struct calibrated *c = state;
    if (source_label(&c->source, step) && c->domain)
        source_set_domain(&c->source, c->domain - 1);
    source_draw(&c->source, step, layer, batch);
    return MOESIM_OK;
}

const struct moesim_workload moesim_workload_calibrated = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_COLUMNS | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES,
    .name = "calibrated",
    .summary = "tokens whose routing has the figures measured on a model: loads, domains, memory, words",
    .reference = "docs/synthetic-load.md; Gumbel-max: Yellott, J. Math. Psychology 15 (1977)",
    .params = params,
    .params_size = sizeof(struct calibrated_params),
    .state_size = sizeof(struct calibrated),
    .shape = calibrated_shape,
    .init = calibrated_init,
    .step = calibrated_step,
};
