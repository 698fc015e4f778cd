/*
 * adversarial: loads that are uneven on purpose, to the token: patterns W0 to W7, each with a statement of the load
 * that it produces (patterns.h), which a simulator's or a dispatcher's counts must equal.
 *
 * The choices of a step are laid out expert by expert, as many of each as its load says; choice i goes to token i mod T
 * of a drawn order, so that a token has top_k different experts. A token's chosen experts have columns from 10 to 11,
 * which of them comes first taking turns by token, the others a drawn value from 0 to 1. The loads hold for routers
 * that take a token's top_k largest columns. Columns past the experts are standard normal.
 */
#include <moesim/random.h>
#include <moesim/workload.h>

#include "workloads/calibrated/effects.h"
#include "workloads/patterns.h"
#include "workloads/table.h"

struct adversarial_params {
    uint32_t pattern, hot, every, devices;
    double heat, ragged, factor;
};

static const struct moesim_param params[] = {
    MOESIM_CHOICE(struct adversarial_params, pattern, "W1", PATTERN_CHOICES,
                  "W0 balanced, W1 hot experts, W2 a hot device, W3 the same heat spread over devices, W4 devices with "
                  "unlike numbers of tokens, W5 a device whose experts get nothing, W6 hot experts that rotate, W7 "
                  "quiet steps and bursts"),
    MOESIM_PARAM(struct adversarial_params, heat, "0.5", 0, 1,
                 "share of all choices that the hot experts get, as far as tokens go (W1, W2, W3, W6)"),
    MOESIM_PARAM(struct adversarial_params, hot, "0", 0, 1 << 20,
                 "number of hot experts; 0 = as many as a device has, of one device an eighth (W1, W3, W6)"),
    MOESIM_PARAM(struct adversarial_params, ragged, "1.75", 1, 2, "most tokens of a device over the mean (W4)"),
    MOESIM_PARAM(struct adversarial_params, every, "10", 1, 4294967295,
                 "steps until the hot experts change (W6), or from burst to burst (W7)"),
    MOESIM_PARAM(struct adversarial_params, factor, "4", 1, 1e6, "tokens of a burst over those of a quiet step (W7)"),
    MOESIM_PARAM(struct adversarial_params, devices, "0", 0, 1 << 20, "devices of the pattern; 0 = the study's"),
    MOESIM_PARAM_END,
};

struct adversarial {
    struct pattern_setting setting;
    uint32_t n_columns, stride;
    uint32_t *load, *order; /* [n_experts] */
    uint32_t *token;        /* [n_tokens] a drawn order */
    uint32_t *choice;       /* [n_tokens][top_k] experts */
    uint32_t *sent, *turn;  /* [n_devices], W4 */
    uint32_t *device;       /* [n_tokens], W4; else NULL */
    float *values;          /* [n_tokens][stride] */
};

static struct pattern_setting setting_of(const struct adversarial_params *p, const struct moesim_workload_env *env)
{
    const uint32_t n_devices = p->devices ? p->devices : env->n_devices;
    const uint32_t n_parts = n_devices > 1 ? n_devices : 8;
    return (struct pattern_setting){.pattern = p->pattern,
                                    .seed = env->seed,
                                    .n_tokens = env->n_tokens,
                                    .n_experts = env->n_experts,
                                    .top_k = env->top_k,
                                    .n_devices = n_devices,
                                    .n_hot = p->hot ? p->hot : env->n_experts / n_parts + (env->n_experts < n_parts),
                                    .heat = p->heat,
                                    .ragged = p->ragged,
                                    .every = p->every,
                                    .factor = p->factor};
}

/* In W4 devices hold tokens, so that they are the study's own. */
static enum moesim_status adversarial_fits(const void *p, const struct moesim_workload_env *env,
                                           struct moesim_error *err)
{
    const struct pattern_setting setting = setting_of(p, env);
    if (setting.pattern == PATTERN_RAGGED && setting.n_devices != env->n_devices)
        return moesim_fail(err, MOESIM_EINVAL, "adversarial: devices = %u, but in pattern W4 they are the study's %u",
                           setting.n_devices, env->n_devices);
    return pattern_check(&setting, err);
}

/* The devices of the tokens in W4. */
static enum moesim_status make_sources(struct adversarial *a, const struct moesim_workload_env *env,
                                       struct moesim_error *err)
{
    const uint32_t n_devices = a->setting.n_devices;
    if (a->setting.pattern != PATTERN_RAGGED)
        return MOESIM_OK;
    a->sent = moesim_alloc(env->arena, n_devices, sizeof *a->sent);
    a->turn = moesim_alloc(env->arena, n_devices, sizeof *a->turn);
    a->device = moesim_alloc(env->arena, env->n_tokens, sizeof *a->device);
    if (!a->sent || !a->turn || !a->device)
        return moesim_fail(err, MOESIM_ENOMEM, "adversarial: no memory for %u tokens", env->n_tokens);
    pattern_sources(&a->setting, a->sent, a->turn);
    for (uint32_t d = 0, t = 0; d < n_devices; d++)
        for (uint32_t i = 0; i < a->sent[d]; i++)
            a->device[t++] = d;
    return MOESIM_OK;
}

static enum moesim_status adversarial_init(void *state, const void *p, const struct moesim_workload_env *env,
                                           struct moesim_error *err)
{
    struct adversarial *a = state;
    const uint32_t stride = env->n_columns > env->n_experts ? env->n_columns : env->n_experts;
    *a = (struct adversarial){.setting = setting_of(p, env), .n_columns = env->n_columns, .stride = stride};
    const enum moesim_status status = adversarial_fits(p, env, err);
    if (status)
        return status;
    a->load = moesim_alloc(env->arena, env->n_experts, sizeof *a->load);
    a->order = moesim_alloc(env->arena, env->n_experts, sizeof *a->order);
    a->token = moesim_alloc(env->arena, env->n_tokens, sizeof *a->token);
    a->choice = moesim_alloc(env->arena, env->n_tokens, env->top_k * sizeof *a->choice);
    a->values = moesim_alloc(env->arena, env->n_tokens, stride * sizeof *a->values);
    if (!a->load || !a->order || !a->token || !a->choice || !a->values)
        return moesim_fail(err, MOESIM_ENOMEM, "adversarial: no memory for %u tokens of %u gate columns", env->n_tokens,
                           env->n_columns);
    return make_sources(a, env, err);
}

/* choice[token][c] for all tokens: choice i of the layout goes to token i mod T as its c-th, c = i / T. */
static void assign(struct adversarial *a, uint32_t step, uint32_t layer, uint32_t n_tokens)
{
    const struct moesim_random random = {a->setting.seed, EFFECTS_PATTERN_TOKENS, layer, step};
    const uint32_t k = a->setting.top_k;
    uint64_t at = 0;
    for (uint32_t i = 0; i < n_tokens; i++) {
        const uint32_t other = moesim_random_below(&random, i, i + 1);
        a->token[i] = a->token[other];
        a->token[other] = i;
    }
    for (uint32_t e = 0; e < a->setting.n_experts; e++)
        for (uint32_t i = 0; i < a->load[a->order[e]]; i++, at++)
            a->choice[(size_t)a->token[at % n_tokens] * k + at / n_tokens] = a->order[e];
}

static void fill_row(const struct adversarial *a, uint32_t step, uint32_t layer, uint32_t t)
{
    const struct moesim_random random = {a->setting.seed, MOESIM_STREAM_COLUMNS, layer, step};
    const struct moesim_random extra = {a->setting.seed, MOESIM_STREAM_COLUMNS_EXTRA, layer, step};
    const uint32_t n = a->setting.n_experts, k = a->setting.top_k, n_extra = a->stride - n;
    float *row = a->values + (size_t)t * a->stride;
    moesim_random_uniforms(&random, (uint64_t)t * n, n, row);
    for (uint32_t c = 0; c < k; c++)
        row[a->choice[(size_t)t * k + c]] = 11 - (float)((c + t) % k) / (float)k;
    if (n_extra)
        moesim_random_normals(&extra, (uint64_t)t * n_extra, n_extra, row + n);
}

static enum moesim_status adversarial_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                           struct moesim_error *err)
{
    (void)err;
    struct adversarial *a = state;
    const uint32_t n_tokens = pattern_tokens(&a->setting, step);
    pattern_loads(&a->setting, step, layer, a->load, a->order);
    assign(a, step, layer, n_tokens);
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n_tokens; t++)
        fill_row(a, step, layer, t);
    batch->n_tokens = n_tokens;
    batch->n_columns = a->n_columns;
    batch->stride = a->stride;
    batch->columns = a->values;
    if (a->device)
        batch->device = a->device;
    return MOESIM_OK;
}

const struct moesim_workload moesim_workload_adversarial = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_COLUMNS,
    .name = "adversarial",
    .summary = "loads uneven on purpose, to the token: hot experts and devices, idle ones, bursts",
    .reference = "docs/synthetic-load.md",
    .params = params,
    .params_size = sizeof(struct adversarial_params),
    .state_size = sizeof(struct adversarial),
    .init = adversarial_init,
    .step = adversarial_step,
    .fits = adversarial_fits,
};
