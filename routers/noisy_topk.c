/*
 * noisy-topk: in training the gate's logits get normal noise of a learned width, H = clean + normal * (softplus(noise
 * column)
 * + noise_eps); each token takes the k best experts by H, weighted by the softmax over those k. In evaluation H =
 * clean.
 *
 * Two losses keep experts even: importance, CV^2 of each expert's sum of gates, and load, CV^2 of the expected number
 * of tokens. The latter is smooth: P(x, e) is the probability that e stays among the k best when its noise alone is
 * drawn again, the normal distribution function of (clean_e - threshold) / width_e. The threshold is the (k+1)-th noisy
 * logit for an expert above it and the k-th for the others. Without noise, or with k = E, load counts the gates above
 * 0.
 *
 * Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, section 4 and appendix A; thresholds as in the
 * authors' tensor2tensor.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>
#include <moesim/router.h>

struct noisy_topk_params {
    struct moesim_token_choice choice;
    double noise, noise_eps;
    double w_importance, w_load;
};

static const struct moesim_param noisy_topk_schema[] = {
    MOESIM_TOKEN_CHOICE_PARAMS(struct noisy_topk_params, choice, "top_k", "softmax", "0", "megatron", "token"),
    MOESIM_PARAM(struct noisy_topk_params, noise, "1", 0, 1e3, "factor on the noise's standard deviation; 0 = none"),
    MOESIM_PARAM(struct noisy_topk_params, noise_eps, "0.01", 1e-6, 1e3, "least standard deviation of the noise"),
    MOESIM_PARAM(struct noisy_topk_params, w_importance, "0.1", 0, 1e6, "coefficient of the importance loss"),
    MOESIM_PARAM(struct noisy_topk_params, w_load, "0.1", 0, 1e6, "coefficient of the load loss"),
    MOESIM_PARAM_END,
};

struct noisy_topk {
    struct noisy_topk_params p;
    struct moesim_token_choice gates; /* the same weights as if nothing were dropped, for the losses */
    struct moesim_token_choice_scratch *scratch;
    uint32_t n_threads;
    float *chosen; /* [max_tokens][k] the choosing logits of what was chosen */
    /* [n_threads * MOESIM_SLOTS] rows of E, and of k */
    float *width, *gate;
    uint32_t *best;
    double *importance, *load; /* [E] */
    /* [max_tokens / MOESIM_RUN_TOKENS + 1][E] of a run's tokens */
    double *run_importance, *run_load;
    /* for backward: [E], [max_pairs], and [n_threads] rows of E */
    double *d_importance, *d_load;
    float *d_gate;
    uint8_t *fate;
    float *noisy, *normal, *d_noisy;
};

static enum moesim_status noisy_topk_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                           struct moesim_error *err)
{
    const struct noisy_topk_params *p = params;
    shape->n_columns = 2 * env->n_experts;
    shape->n_optional_columns = env->n_experts;
    return moesim_token_choice_shape(&p->choice, env, shape, err);
}

static enum moesim_status noisy_topk_init(void *state, const void *params, const struct moesim_env *env,
                                          struct moesim_error *err)
{
    struct noisy_topk *r = state;
    r->p = *(const struct noisy_topk_params *)params;
    r->gates = r->p.choice;
    r->gates.renorm = MOESIM_BEFORE_DROP;
    r->gates.scale = 1;
    r->n_threads = moesim_threads();
    struct moesim_arena *arena = env->arena;
    const uint32_t k = r->p.choice.k;
    const size_t n_experts = env->n_experts, n_rows = (size_t)r->n_threads * MOESIM_SLOTS;
    const size_t n_runs = env->max_tokens / MOESIM_RUN_TOKENS + 1;
    const size_t n_pairs = (size_t)env->max_tokens * k * (r->p.choice.overflow == MOESIM_REROUTE ? 2 : 1);
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(chosen, (size_t)env->max_tokens * k) && ROOM(width, n_rows * n_experts);
    ok = ok && ROOM(gate, n_rows * k) && ROOM(best, n_rows * k);
    ok = ok && ROOM(importance, n_experts) && ROOM(load, n_experts);
    ok = ok && ROOM(run_importance, n_runs * n_experts) && ROOM(run_load, n_runs * n_experts);
    ok = ok && ROOM(d_importance, n_experts) && ROOM(d_load, n_experts) && ROOM(d_gate, n_pairs) && ROOM(fate, n_pairs);
    ok = ok && ROOM(noisy, r->n_threads * n_experts) && ROOM(normal, r->n_threads * n_experts);
    ok = ok && ROOM(d_noisy, r->n_threads * n_experts);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the noise of %u tokens", env->max_tokens);
    return moesim_token_choice_init(&r->p.choice, env, &r->scratch, err);
}

/* What the callbacks of one batch share. */
struct pass {
    const struct noisy_topk *r;
    const struct moesim_batch *batch;
    bool is_noisy;
    bool has_smooth_load;
    const struct moesim_plan *plan; /* of backward */
    struct moesim_grad *grad;
};

static struct pass set_up(const struct noisy_topk *r, const struct moesim_batch *batch)
{
    struct pass pass = {.r = r, .batch = batch};
    pass.is_noisy = batch->phase == MOESIM_TRAIN && r->p.noise * r->p.noise_eps > FLT_MIN;
    pass.has_smooth_load = pass.is_noisy && r->p.choice.k < batch->n_experts;
    return pass;
}

/* ---- the noise ---- */

static const float *clean_of(const struct moesim_batch *batch, uint32_t token)
{
    return batch->columns + (size_t)token * batch->stride;
}

static void draw_normals(const struct moesim_batch *batch, uint32_t token, float *normal)
{
    const struct moesim_random random = {batch->seed, MOESIM_STREAM_ROUTER, batch->layer, batch->step};
    const uint64_t index = (uint64_t)batch->micro_batch * batch->n_tokens + token;
    moesim_random_normals(&random, index * batch->n_experts, batch->n_experts, normal);
}

static void set_widths(const struct noisy_topk *r, const float *noise_column, uint32_t n_experts, float *width)
{
    const float noise = (float)r->p.noise, eps = (float)r->p.noise_eps;
    moesim_softplus(noise_column, n_experts, width);
    for (uint32_t e = 0; e < n_experts; e++)
        width[e] = noise * (width[e] + eps);
}

/* noisy = clean + normal * width; noisy and normal may be the same. */
static void add_noise(const float *clean, const float *normal, const float *width, uint32_t n_experts, float *noisy)
{
    for (uint32_t e = 0; e < n_experts; e++)
        noisy[e] = clean[e] + normal[e] * width[e];
}

static void make_logits(const void *context, uint32_t token, uint32_t slot, float *row)
{
    const struct pass *pass = context;
    const uint32_t n_experts = pass->batch->n_experts;
    const float *clean = clean_of(pass->batch, token);
    float *width = pass->r->width + (size_t)slot * n_experts;
    if (!pass->is_noisy) {
        memcpy(row, clean, n_experts * sizeof *row);
        return;
    }
    draw_normals(pass->batch, token, row);
    set_widths(pass->r, clean + n_experts, n_experts, width);
    add_noise(clean, row, width, n_experts, row);
}

/* ---- the load loss of one token ---- */

/* The noisy logit that an expert must beat: the (k + 1)-th best if its own is above that, else the k-th. */
struct rivals {
    float inside, outside;
};

/* Of k + 1 finite values at least, where `expert` holds the k chosen ones, best first. */
static struct rivals find_rivals(const struct noisy_topk *r, const float *noisy, uint32_t n_experts, uint32_t slot,
                                 const uint32_t *expert)
{
    const uint32_t k = r->p.choice.k;
    if (r->p.choice.score == MOESIM_RELU) { /* which chose by scores: all negative logits are alike */
        uint32_t *best = r->best + (size_t)slot * k;
        moesim_topk(noisy, n_experts, 1, n_experts, k, best);
        expert = best;
    }
    const float kth = noisy[expert[k - 1]];
    return (struct rivals){.inside = moesim_next_best(noisy, n_experts, k, kth), .outside = kth};
}

/* ---- route ---- */

/* False, and nothing is added, for a token whose logits are not all numbers. */
static bool add_load(const struct pass *pass, uint32_t slot, const float *clean, const float *noisy,
                     const uint32_t *expert, double *load)
{
    const uint32_t n_experts = pass->batch->n_experts;
    if (expert[pass->r->p.choice.k - 1] == MOESIM_NO_EXPERT)
        return false;
    const struct rivals rivals = find_rivals(pass->r, noisy, n_experts, slot, expert);
    return moesim_add_chances(clean, noisy, rivals.inside, rivals.outside, pass->r->width + (size_t)slot * n_experts,
                              n_experts, load);
}

/* Adds one token to the sums of its run. */
static void add_chosen(const void *context, uint32_t token, uint32_t slot, const float *row, const uint32_t *expert,
                       const float *score)
{
    const struct pass *pass = context;
    const struct noisy_topk *r = pass->r;
    const uint32_t n_experts = pass->batch->n_experts, k = r->p.choice.k;
    const float *clean = clean_of(pass->batch, token);
    double *importance = r->run_importance + (size_t)(token / MOESIM_RUN_TOKENS) * n_experts;
    double *load = r->run_load + (size_t)(token / MOESIM_RUN_TOKENS) * n_experts;
    float *gate = r->gate + (size_t)slot * k;
    const bool smooth = pass->has_smooth_load && add_load(pass, slot, clean, row, expert, load);
    moesim_token_choice_gates(&r->gates, r->chosen + (size_t)token * k, score, expert, gate);
    for (uint32_t j = 0; j < k; j++)
        if (expert[j] != MOESIM_NO_EXPERT) {
            importance[expert[j]] += gate[j];
            load[expert[j]] += !smooth && gate[j] > 0;
        }
}

static struct moesim_logit_rows rows_of(const struct pass *pass)
{
    return (struct moesim_logit_rows){
        .make = make_logits, .chosen = add_chosen, .context = pass, .logit = pass->r->chosen};
}

/* sum[E] of the runs, one after the other. */
static void add_runs(const double *run, uint32_t n_runs, uint32_t n_experts, double *sum)
{
    memset(sum, 0, n_experts * sizeof *sum);
    for (uint32_t i = 0; i < n_runs; i++)
        for (uint32_t e = 0; e < n_experts; e++)
            sum[e] += run[(size_t)i * n_experts + e];
}

static enum moesim_status noisy_topk_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                           struct moesim_error *err)
{
    const struct noisy_topk *r = state;
    const struct pass pass = set_up(r, batch);
    const struct moesim_logit_rows rows = rows_of(&pass);
    const uint32_t n_experts = batch->n_experts, n_runs = batch->n_tokens / MOESIM_RUN_TOKENS + 1;
    memset(r->run_importance, 0, (size_t)n_runs * n_experts * sizeof *r->run_importance);
    memset(r->run_load, 0, (size_t)n_runs * n_experts * sizeof *r->run_load);
    const enum moesim_status status =
        moesim_token_choice_route_rows(&r->p.choice, batch, &rows, NULL, r->scratch, plan, err);
    if (status)
        return status;
    add_runs(r->run_importance, n_runs, n_experts, r->importance);
    add_runs(r->run_load, n_runs, n_experts, r->load);
    moesim_plan_add_aux(plan, "importance", moesim_aux_cv2(r->importance, n_experts, r->p.w_importance, NULL));
    moesim_plan_add_aux(plan, "load", moesim_aux_cv2(r->load, n_experts, r->p.w_load, NULL));
    return MOESIM_OK;
}

/* ---- backward ---- */

/* The pairs' fates as if nothing had been dropped. */
static void set_gate_fates(const struct noisy_topk *r, const struct moesim_plan *plan)
{
    for (uint32_t t = 0; t < plan->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const bool chosen = i < plan->first[t] + r->p.choice.k; /* not added by rerouting */
            r->fate[i] = plan->fate[i] == MOESIM_BAD_ROW ? MOESIM_BAD_ROW : chosen ? MOESIM_KEPT : MOESIM_OVER_CAPACITY;
        }
}

/* d width / d noise column. */
static float width_slope(const struct noisy_topk *r, float noise_column)
{
    return (float)r->p.noise / (1 + moesim_expf(-noise_column));
}

/* The rank-th best expert, whose value is known. */
static uint32_t holder_of(float value, uint32_t rank, const float *noisy, uint32_t n_experts)
{
    uint32_t e = 0;
    for (uint32_t i = 0; i < n_experts; i++)
        rank -= noisy[i] > value;
    while (noisy[e] != value || --rank > 0)
        e++;
    return e;
}

/* One token's rows: the batch's, and this thread's. */
struct token_rows {
    const float *clean, *noise_column;
    float *noisy, *normal, *width;
    float *d_clean, *d_noise, *d_noisy;
};

/* Whether all of a token's logits are numbers; else its load has no gradient. */
static bool is_smooth(const float *clean, const float *noisy, uint32_t n_experts)
{
    for (uint32_t e = 0; e < n_experts; e++)
        if (!isfinite(clean[e]) || !isfinite(noisy[e]))
            return false;
    return true;
}

/* Gradient of the load loss: by the clean logit and the width of each expert, and by its rival's noisy logit. */
static void load_backward(const struct pass *pass, uint32_t slot, const uint32_t *expert, const struct token_rows *own)
{
    const struct noisy_topk *r = pass->r;
    const uint32_t n_experts = pass->batch->n_experts, k = r->p.choice.k;
    const struct rivals rivals = find_rivals(r, own->noisy, n_experts, slot, expert);
    const uint32_t inside = holder_of(rivals.inside, k + 1, own->noisy, n_experts);
    const uint32_t outside = holder_of(rivals.outside, k, own->noisy, n_experts);
    for (uint32_t e = 0; e < n_experts; e++) {
        const bool is_inside = own->noisy[e] > rivals.inside;
        const double x = (own->clean[e] - (is_inside ? rivals.inside : rivals.outside)) / own->width[e];
        const double by_clean = r->d_load[e] * exp(-x * x / 2) * 0.3989422804014327 / own->width[e];
        own->d_clean[e] += (float)by_clean;
        own->d_noise[e] -= (float)(by_clean * x * width_slope(r, own->noise_column[e]));
        own->d_noisy[is_inside ? inside : outside] -= (float)by_clean;
    }
}

/* From the noisy logits to the clean and noise columns, the drawn normals being constants. */
static void noise_backward(const struct noisy_topk *r, uint32_t n_experts, const struct token_rows *own)
{
    for (uint32_t e = 0; e < n_experts; e++) {
        if (own->d_noisy[e] == 0)
            continue;
        own->d_clean[e] += own->d_noisy[e];
        own->d_noise[e] += own->d_noisy[e] * own->normal[e] * width_slope(r, own->noise_column[e]);
    }
}

static struct token_rows make_rows(const struct pass *pass, uint32_t token, uint32_t thread)
{
    const struct noisy_topk *r = pass->r;
    const size_t n = pass->batch->n_experts, slot = thread * (size_t)MOESIM_SLOTS * n;
    const float *clean = clean_of(pass->batch, token);
    struct token_rows own = {.clean = clean, .noise_column = clean + n};
    own.noisy = r->noisy + thread * n;
    own.normal = r->normal + thread * n;
    own.width = r->width + slot;
    own.d_noisy = r->d_noisy + thread * n;
    own.d_clean = pass->grad->d_columns + (size_t)token * pass->batch->stride;
    own.d_noise = own.d_clean + n;
    draw_normals(pass->batch, token, own.normal);
    set_widths(r, own.noise_column, pass->batch->n_experts, own.width);
    add_noise(clean, own.normal, own.width, pass->batch->n_experts, own.noisy);
    memset(own.d_noisy, 0, n * sizeof *own.d_noisy);
    return own;
}

/* Gradient of the weights and of the importance loss by the choosing logits. */
static void weights_backward(const struct pass *pass, uint32_t token, const float *logits, float *d_logits)
{
    const struct noisy_topk *r = pass->r;
    struct moesim_plan gates = *pass->plan;
    gates.fate = r->fate;
    moesim_token_choice_backward_row(&r->p.choice, pass->plan, token, logits, pass->grad->d_weight, r->scratch,
                                     d_logits);
    moesim_token_choice_backward_row(&r->gates, &gates, token, logits, r->d_gate, r->scratch, d_logits);
}

static void tokens_backward(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct pass *pass = context;
    const struct moesim_plan *plan = pass->plan;
    const uint32_t n_experts = pass->batch->n_experts;
    for (uint32_t t = first; t < last; t++) {
        if (plan->first[t] == plan->first[t + 1])
            continue;
        if (!pass->is_noisy) {
            weights_backward(pass, t, clean_of(pass->batch, t),
                             pass->grad->d_columns + (size_t)t * pass->batch->stride);
            continue;
        }
        const struct token_rows own = make_rows(pass, t, thread);
        weights_backward(pass, t, own.noisy, own.d_noisy);
        if (pass->has_smooth_load && is_smooth(own.clean, own.noisy, n_experts))
            load_backward(pass, thread * MOESIM_SLOTS, plan->expert + plan->first[t], &own);
        noise_backward(pass->r, n_experts, &own);
    }
}

static enum moesim_status noisy_topk_backward(void *state, const struct moesim_batch *batch,
                                              const struct moesim_plan *plan, struct moesim_grad *grad,
                                              struct moesim_error *err)
{
    const struct noisy_topk *r = state;
    const uint32_t n_experts = batch->n_experts;
    struct pass pass = set_up(r, batch);
    pass.plan = plan;
    pass.grad = grad;
    (void)err;
    memset(r->d_importance, 0, n_experts * sizeof *r->d_importance);
    memset(r->d_load, 0, n_experts * sizeof *r->d_load);
    moesim_aux_cv2(r->importance, n_experts, grad->loss_scale * r->p.w_importance, r->d_importance);
    moesim_aux_cv2(r->load, n_experts, grad->loss_scale * r->p.w_load, r->d_load);
    set_gate_fates(r, plan);
    for (uint64_t i = 0; i < plan->n_pairs; i++)
        r->d_gate[i] = r->fate[i] == MOESIM_KEPT ? (float)r->d_importance[plan->expert[i]] : 0;
    moesim_for_tokens(batch->n_tokens, r->n_threads, tokens_backward, &pass);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_noisy_topk = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "noisy-topk",
    .summary = "k best experts by logits with learned noise, importance and load losses",
    .reference = "Shazeer et al., Outrageously Large Neural Networks, ICLR 2017",
    .params = noisy_topk_schema,
    .params_size = sizeof(struct noisy_topk_params),
    .state_size = sizeof(struct noisy_topk),
    .shape = noisy_topk_shape,
    .init = noisy_topk_init,
    .route = noisy_topk_route,
    .backward = noisy_topk_backward,
};
