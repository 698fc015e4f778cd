/*
 * dselect-k: k selectors, each a smooth choice of one expert by the bits of its id. Selector j reads ceil(log2 E) + 1
 * gate columns of the token, its bits z and its score w, and gives expert e the share
 *     q_j(e) = prod_b (S(z_jb) if bit b of e is set, else 1 - S(z_jb)),
 * where the smooth step S goes from 0 at -width/2 to 1 at width/2. An expert's weight is sum_j softmax(w)_j q_j(e); the
 * experts with a weight above 0 are the token's, so that there are k of them once all bits have made up their mind, and
 * everything is differentiable on the way. (The per-example variant: the bits come from the gate, not from the layer.)
 *
 * The losses: entropy_coef sum -q ln(q + 1e-6) over tokens, selectors and experts, and, when E is not a power of two,
 * reach_coef sum 1 / (sum_e q(e) + 1e-6) over tokens and selectors, which keeps bits away from ids that no expert has.
 *
 * Columns: z of selector 0, ..., z of selector k - 1, then the k scores w. Bit 0 of an id is its lowest.
 *
 * Hazimeh et al., "DSelect-k: Differentiable Selection in the Mixture of Experts", NeurIPS 2021 (arXiv:2106.03760).
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct dselect_k_params {
    uint32_t k;
    double width, entropy_coef, reach_coef, jitter;
};

static const struct moesim_param dselect_k_schema[] = {
    MOESIM_PARAM(struct dselect_k_params, k, "top_k", 1, 65536, "selectors: experts per token in the end"),
    MOESIM_PARAM(struct dselect_k_params, width, "1", 1e-3, 1e3, "where the smooth step rises from 0 to 1"),
    MOESIM_PARAM(struct dselect_k_params, entropy_coef, "0.0001", 0, 1e6, "coefficient of the entropy loss"),
    MOESIM_PARAM(struct dselect_k_params, reach_coef, "1", 0, 1e6,
                 "coefficient of the loss on ids without an expert, unless E is a power of two"),
    MOESIM_PARAM(struct dselect_k_params, jitter, "0", 0, 0.999, "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

#define MOST_BITS 20 /* 2^20 experts are the most there are */
#define REACH_EPS 1e-6
#define LOG_OF_ONE 9.999995000003334e-7 /* ln(1 + 1e-6) */

struct dselect_k {
    struct dselect_k_params p;
    uint32_t n_experts, n_bits, n_threads;
    struct moesim_chooser *chooser;
    float *weight, *d_weight;  /* [n_threads][E] by expert */
    uint32_t *id;              /* [n_threads][2^n_bits] experts of one selector */
    float *share;              /* [n_threads][2^n_bits] their shares */
    float *mix;                /* [n_threads][k] softmax of the selectors' scores */
    float *d_mix;              /* [n_threads][k] */
    double *entropy, *unreach; /* [max_tokens] */
};

static uint32_t bits_of(uint32_t n_experts)
{
    uint32_t n = 0;
    while ((UINT64_C(1) << n) < n_experts)
        n++;
    return n;
}

static enum moesim_status dselect_k_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                          struct moesim_error *err)
{
    const struct dselect_k_params *p = params;
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u selectors exceed the %u experts", p->k, env->n_experts);
    shape->n_columns = p->k * (bits_of(env->n_experts) + 1);
    shape->n_logits = 0;
    shape->max_pairs = (uint64_t)env->max_tokens * env->n_experts;
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}

static enum moesim_status dselect_k_init(void *state, const void *params, const struct moesim_env *env,
                                         struct moesim_error *err)
{
    struct dselect_k *r = state;
    r->p = *(const struct dselect_k_params *)params;
    r->n_experts = env->n_experts;
    r->n_bits = bits_of(env->n_experts);
    r->n_threads = moesim_threads();
    const size_t threads = r->n_threads, n = threads * env->n_experts, codes = threads << r->n_bits;
    struct moesim_arena *arena = env->arena;
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(weight, n) && ROOM(d_weight, n) && ROOM(id, codes) && ROOM(share, codes);
    ok = ok && ROOM(mix, threads * r->p.k) && ROOM(d_mix, threads * r->p.k);
    ok = ok && ROOM(entropy, env->max_tokens) && ROOM(unreach, env->max_tokens);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u selectors over %u experts", r->p.k, env->n_experts);
    return moesim_chooser_init(env, env->n_experts, env->n_experts, &r->chooser, err);
}

/* What all tokens of one call share. */
struct call {
    const struct dselect_k *r;
    const struct moesim_batch *batch;
    const struct moesim_plan *plan;
    const struct moesim_grad *grad;
};

/* ---- one selector ---- */

static float smooth_step(float z, float width)
{
    const float x = z / width, inside = -2 * x * x * x + 1.5f * x + 0.5f;
    return fabsf(x) < 0.5f ? inside : (float)(x > 0); /* NaN: a selector with it has no part */
}

static float smooth_slope(float z, float width)
{
    const float x = z / width;
    return x <= -0.5f || x >= 0.5f ? 0 : (1.5f - 6 * x * x) / width;
}

static bool any_nan(const float *x, uint32_t n)
{
    bool any = false;
    for (uint32_t i = 0; i < n; i++)
        any |= x[i] != x[i];
    return any;
}

/* The ids with a share above 0, those without an expert among them, and their shares; returns how many. */
static uint32_t select_ids(const struct dselect_k *r, const float *z, uint32_t *id, float *share)
{
    uint32_t n = 1, decided = 0;
    id[0] = 0;
    share[0] = 1;
    for (uint32_t b = 0; b < r->n_bits; b++) {
        const float set = smooth_step(z[b], (float)r->p.width);
        const uint32_t before = set > 0 && set < 1 ? n : 0;
        decided |= (uint32_t)(set == 1) << b;
        for (uint32_t i = 0; i < before; i++) {
            id[n] = id[i] | 1u << b;
            share[n++] = share[i] * set;
            share[i] *= 1 - set;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        id[i] |= decided;
    return n;
}

/* softmax over the selectors' scores; a selector with NaN anywhere has no part. False when none is left or no bit (for
 * one expert: no score) of the token is finite. */
static bool mix_selectors(const struct call *c, const float *row, float *mix)
{
    const struct dselect_k *r = c->r;
    const float *w = row + (size_t)r->p.k * r->n_bits;
    bool finite = false;
    for (uint32_t i = 0; i < r->p.k * (r->n_bits > 0 ? r->n_bits : 1); i++)
        finite |= row[i] - row[i] == 0;
    float max = -INFINITY;
    bool usable = false;
    for (uint32_t j = 0; j < r->p.k; j++)
        if (w[j] == w[j] && !any_nan(row + (size_t)j * r->n_bits, r->n_bits)) {
            usable = true;
            max = w[j] > max ? w[j] : max;
        }
    double sum = 0;
    for (uint32_t j = 0; j < r->p.k; j++) {
        const bool in = w[j] == w[j] && !any_nan(row + (size_t)j * r->n_bits, r->n_bits);
        mix[j] = !in ? 0 : isinf(max) ? (float)(w[j] == max) : moesim_expf(w[j] - max);
        sum += mix[j];
    }
    for (uint32_t j = 0; usable && j < r->p.k; j++)
        mix[j] = (float)(mix[j] / sum);
    return finite && usable;
}

/* ---- routing ---- */

/* Whether every id names an expert, so that nothing is out of reach. */
static bool is_power(const struct dselect_k *r)
{
    return r->n_experts == 1u << r->n_bits;
}

/* One selector's part in the experts' weights, and its losses. */
static void add_selector(const struct dselect_k *r, uint32_t t, uint32_t n, const uint32_t *id, const float *share,
                         float mix, float *weight)
{
    double reached = 0, entropy = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (id[i] >= r->n_experts)
            continue;
        weight[id[i]] += mix * share[i];
        reached += share[i];
        entropy -= share[i] * (share[i] == 1 ? LOG_OF_ONE : log(share[i] + 1e-6)); /* most have made up their mind */
    }
    r->entropy[t] += entropy;
    r->unreach[t] += is_power(r) ? 0 : 1 / (reached + REACH_EPS);
}

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const struct dselect_k *r = c->r;
    const float *row = c->batch->columns + (size_t)t * c->batch->stride;
    float *mix = r->mix + (size_t)thread * r->p.k, *weight = r->weight + (size_t)thread * r->n_experts;
    uint32_t *id = r->id + ((size_t)thread << r->n_bits);
    float *share = r->share + ((size_t)thread << r->n_bits);
    if (!mix_selectors(c, row, mix))
        return MOESIM_NO_CHOICE;
    memset(weight, 0, r->n_experts * sizeof *weight);
    for (uint32_t j = 0; j < r->p.k; j++)
        if (mix[j] > 0)
            add_selector(r, t, select_ids(r, row + (size_t)j * r->n_bits, id, share), id, share, mix[j], weight);
    const uint32_t n = moesim_rank_above(weight, r->n_experts, 0, out->expert);
    for (uint32_t i = 0; i < n; i++)
        out->weight[i] = weight[out->expert[i]];
    return n;
}

/* ---- gradient ---- */

/* Adds one selector's gradient, losses included, to d_z. `d_weight` is the loss by the experts' weights, `mix` this
 * selector's part in them; returns the loss by mix. */
static double selector_backward(const struct call *c, const float *z, float *d_z, uint32_t thread, float mix,
                                const float *d_weight)
{
    const struct dselect_k *r = c->r;
    uint32_t *id = r->id + ((size_t)thread << r->n_bits);
    float *share = r->share + ((size_t)thread << r->n_bits);
    const uint32_t n = select_ids(r, z, id, share);
    double reached = 0, d_mix = 0, by_bit[32][2] = {{0}}; /* sum of loss by share * share, over ids by each bit */
    for (uint32_t i = 0; i < n; i++)
        reached += id[i] < r->n_experts ? share[i] : 0;
    const double inverse = 1 / (reached + REACH_EPS);
    const double unreach = is_power(r) ? 0 : r->p.reach_coef * inverse * inverse;
    for (uint32_t i = 0; i < n; i++) {
        if (id[i] >= r->n_experts)
            continue;
        const double s = share[i];
        const double losses = -r->p.entropy_coef * (log(s + 1e-6) + s / (s + 1e-6)) - unreach;
        const double d_log = ((double)mix * d_weight[id[i]] + c->grad->loss_scale * losses) * s;
        d_mix += s * d_weight[id[i]];
        for (uint32_t b = 0; b < r->n_bits; b++)
            by_bit[b][id[i] >> b & 1] += d_log;
    }
    for (uint32_t b = 0; b < r->n_bits; b++) {
        const float set = smooth_step(z[b], (float)r->p.width), slope = smooth_slope(z[b], (float)r->p.width);
        const double of_set = set > 0 ? by_bit[b][1] / set : 0, of_unset = set < 1 ? by_bit[b][0] / (1 - set) : 0;
        d_z[b] += (float)(slope * (of_set - of_unset));
    }
    return d_mix;
}

static void backward_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    const struct dselect_k *r = c->r;
    const uint32_t k = r->p.k;
    float *mix = r->mix + (size_t)thread * k, *d_mix = r->d_mix + (size_t)thread * k;
    float *d_weight = r->d_weight + (size_t)thread * r->n_experts;
    for (uint32_t t = first; t < last; t++) {
        const float *row = c->batch->columns + (size_t)t * c->batch->stride;
        float *d_row = c->grad->d_columns + (size_t)t * c->batch->stride;
        if ((c->batch->padding && c->batch->padding[t]) || !mix_selectors(c, row, mix))
            continue;
        memset(d_weight, 0, r->n_experts * sizeof *d_weight);
        for (uint32_t i = c->plan->first[t]; i < c->plan->first[t + 1]; i++)
            d_weight[c->plan->expert[i]] = c->grad->d_weight[i];
        double mean = 0;
        for (uint32_t j = 0; j < k; j++) {
            const size_t at = (size_t)j * r->n_bits;
            d_mix[j] = mix[j] > 0 ? (float)selector_backward(c, row + at, d_row + at, thread, mix[j], d_weight) : 0;
            mean += (double)mix[j] * d_mix[j];
        }
        for (uint32_t j = 0; j < k; j++)
            d_row[(size_t)k * r->n_bits + j] += (float)(mix[j] * (d_mix[j] - mean));
    }
}

/* ---- hooks ---- */

static enum moesim_status dselect_k_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                          struct moesim_error *err)
{
    const struct dselect_k *r = state;
    struct call c = {.r = r, .batch = batch, .plan = plan};
    (void)err;
    moesim_plan_unlimited(plan);
    memset(r->entropy, 0, batch->n_tokens * sizeof *r->entropy);
    memset(r->unreach, 0, batch->n_tokens * sizeof *r->unreach);
    moesim_choose(r->chooser, batch, choose, &c, plan);
    double entropy = 0, unreach = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        entropy += r->entropy[t];
        unreach += r->unreach[t];
    }
    moesim_plan_add_aux(plan, "entropy", r->p.entropy_coef * entropy);
    moesim_plan_add_aux(plan, "reachability", r->p.reach_coef * unreach);
    return MOESIM_OK;
}

static enum moesim_status dselect_k_backward(void *state, const struct moesim_batch *batch,
                                             const struct moesim_plan *plan, struct moesim_grad *grad,
                                             struct moesim_error *err)
{
    const struct dselect_k *r = state;
    struct call c = {r, batch, plan, grad};
    (void)err;
    moesim_for_tokens(batch->n_tokens, r->n_threads, backward_tokens, &c);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_dselect_k = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "dselect-k",
    .summary = "k smooth selectors choose experts by the bits of their ids",
    .reference = "Hazimeh et al., DSelect-k: Differentiable Selection in the Mixture of Experts, NeurIPS 2021",
    .params = dselect_k_schema,
    .params_size = sizeof(struct dselect_k_params),
    .state_size = sizeof(struct dselect_k),
    .shape = dselect_k_shape,
    .init = dselect_k_init,
    .route = dselect_k_route,
    .backward = dselect_k_backward,
};
