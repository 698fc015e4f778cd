/*
 * bursty: calibrated tokens whose sequences have spells in which their own liking of experts is louder.
 *
 * A two-state Markov chain runs along each sequence, from its stationary law: a burst ends after `burst_length` tokens
 * in the mean, and takes `burst_share` of all tokens. In a burst what the sequence adds to the logits is multiplied by
 * `burst_factor`. All layers of a step have the same bursts.
 */
#include <moesim/workload.h>

#include "workloads/calibrated/source.h"
#include "workloads/table.h"

struct bursty_params {
    struct source_params source;
    double burst_length, burst_share, burst_factor;
};

static const struct moesim_param params[] = {
    SOURCE_PARAMS(struct bursty_params, source, "gpt-oss-20b"),
    MOESIM_PARAM(struct bursty_params, burst_length, "128", 1, 1e9, "mean tokens of a burst"),
    MOESIM_PARAM(struct bursty_params, burst_share, "0.25", 0, 1, "share of all tokens that is in a burst"),
    MOESIM_PARAM(struct bursty_params, burst_factor, "2.2", 0, 1000, "factor on a sequence's own effect in a burst"),
    MOESIM_PARAM_END,
};

struct bursty {
    struct source source;
    double share, leave, enter; /* probabilities, the last two from token to token */
};

/* A chain whose quiet spells would be shorter than a token cannot be. */
static enum moesim_status check_chain(const struct bursty_params *p, struct moesim_error *err)
{
    const double most = p->burst_length / (p->burst_length + 1);
    if (p->burst_share <= most || p->burst_share == 1)
        return MOESIM_OK;
    return moesim_fail(
        err, MOESIM_EINVAL,
        "bursty: burst_share = %g: bursts of %g tokens can take up to %.6g of all tokens, or all of them",
        p->burst_share, p->burst_length, most);
}

static enum moesim_status bursty_shape(const void *p, struct moesim_workload_shape *shape, struct moesim_error *err)
{
    const struct bursty_params *params_ = p;
    const enum moesim_status status = check_chain(params_, err);
    return status ? status : source_shape(&params_->source, shape, err);
}

static enum moesim_status bursty_init(void *state, const void *p, const struct moesim_workload_env *env,
                                      struct moesim_error *err)
{
    struct bursty *b = state;
    const struct bursty_params *params_ = p;
    enum moesim_status status = check_chain(params_, err);
    if (!status)
        status = source_init(&b->source, "bursty", &params_->source, env, err);
    if (status)
        return status;
    b->share = params_->burst_share;
    b->leave = b->share < 1 ? 1 / params_->burst_length : 0;
    b->enter = b->share < 1 ? b->share / (1 - b->share) / params_->burst_length : 1;
    b->source.loud_factor = params_->burst_factor;
    b->source.loud = moesim_alloc(env->arena, env->n_tokens, sizeof *b->source.loud);
    return b->source.loud ? MOESIM_OK
                          : moesim_fail(err, MOESIM_ENOMEM, "bursty: no memory for %u tokens", env->n_tokens);
}

static void make_bursts(struct bursty *b, uint32_t step)
{
    const struct moesim_random random = {b->source.seed, EFFECTS_STATE, 0, step};
    bool in_burst = false;
    for (uint32_t t = 0; t < b->source.n_tokens; t++) {
        const double u = (double)moesim_random_uniform(&random, t);
        if (t % b->source.sequence == 0)
            in_burst = u < b->share;
        else
            in_burst = in_burst ? u >= b->leave : u < b->enter;
        b->source.loud[t] = in_burst;
    }
}

static enum moesim_status bursty_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                      struct moesim_error *err)
{
    (void)err;
    struct bursty *b = state;
    if (source_label(&b->source, step))
        make_bursts(b, step);
    source_draw(&b->source, step, layer, batch);
    return MOESIM_OK;
}

const struct moesim_workload moesim_workload_bursty = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_COLUMNS | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES,
    .name = "bursty",
    .summary = "calibrated tokens with spells in which a sequence keeps to its own experts",
    .reference = "docs/synthetic-load.md",
    .params = params,
    .params_size = sizeof(struct bursty_params),
    .state_size = sizeof(struct bursty),
    .shape = bursty_shape,
    .init = bursty_init,
    .step = bursty_step,
};
