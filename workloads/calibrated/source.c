/*
 * Sequences of tokens: who they are, and what their logits are.
 */
#include "workloads/calibrated/source.h"

#include <math.h>
#include <string.h>

#include <moesim/kernels.h>

#include "workloads/gumbel.h"

enum { PIECE = 2048 };

/* ---- token types ---- */

/* law[w] = 2^32 times the share of types 0..w, rounded down; the last takes all. */
static void make_law(struct source *s, double zipf, double *cumulated)
{
    double sum = 0;
    for (uint32_t w = 0; w < s->vocabulary; w++)
        cumulated[w] = sum += zipf == 1 ? 1.0 / (w + 1.0) : (double)moesim_expf((float)(-zipf * gumbel_ln(w + 1.0)));
    for (uint32_t w = 0; w < s->vocabulary; w++) {
        const double x = cumulated[w] / sum * 0x1p32;
        s->law[w] = x < UINT32_MAX ? (uint32_t)x : UINT32_MAX;
    }
    s->law[s->vocabulary - 1] = UINT32_MAX;
}

/* How likely two tokens are of one type. */
static double same_type(const struct source *s)
{
    double sum = 0;
    for (uint32_t w = 0, before = 0; w < s->vocabulary; before = s->law[w++]) {
        const double p = (s->law[w] - before) * 0x1p-32;
        sum += p * p;
    }
    return sum;
}

/* ---- layers ---- */

/* The factor on popularity and domains by layer: what the profile's number at that depth over its mean asks for. */
static enum moesim_status make_factors(struct source *s, const struct source_params *params, uint32_t top_k,
                                       struct moesim_error *err)
{
    double number[PROFILE_MOST], sum = 0;
    uint32_t n;
    enum moesim_status status = source_profile(params, number, &n, err);
    for (uint32_t i = 0; i < n; i++)
        sum += number[i];
    const struct effects_mix mix = {(double)top_k / s->n_experts, same_type(s), s->n_domains};
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        const uint32_t at = n ? (uint32_t)((2 * (uint64_t)l + 1) * n / (2 * (uint64_t)s->n_layers)) : 0;
        s->factor[l] = n ? effects_factor(&s->effects, &mix, number[at] * n / sum) : 1;
    }
    return status;
}

/* ---- set-up ---- */

static enum moesim_status allocate(struct source *s, struct moesim_arena *arena, double **scratch,
                                   struct moesim_error *err)
{
    const size_t n = s->n_tokens, experts = s->n_experts;
    *scratch = moesim_alloc(arena, s->vocabulary, sizeof **scratch);
    s->factor = moesim_alloc(arena, s->n_layers, sizeof *s->factor);
    s->law = moesim_alloc(arena, s->vocabulary, sizeof *s->law);
    s->token_id = moesim_alloc(arena, n, sizeof *s->token_id);
    s->sequence_id = moesim_alloc(arena, n, sizeof *s->sequence_id);
    s->domain = moesim_alloc(arena, n, sizeof *s->domain);
    s->b = moesim_alloc(arena, experts, sizeof *s->b);
    s->token_effect = moesim_alloc(arena, s->vocabulary, experts * sizeof *s->token_effect);
    s->has_token = moesim_alloc(arena, s->vocabulary, sizeof *s->has_token);
    s->state = moesim_alloc(arena, s->n_sequences, 4 * experts * sizeof *s->state);
    s->values = moesim_alloc(arena, n, s->stride * sizeof *s->values);
    if (*scratch && s->factor && s->law && s->token_id && s->sequence_id && s->domain && s->b && s->token_effect &&
        s->has_token && s->state && s->values)
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u tokens of %u gate columns and %u token types", s->n_tokens,
                       s->n_columns, s->vocabulary);
}

enum moesim_status source_init(struct source *s, const char *name, const struct source_params *params,
                               const struct moesim_workload_env *env, struct moesim_error *err)
{
    *s = (struct source){.effects = source_effects(params),
                         .seed = env->seed,
                         .n_tokens = env->n_tokens,
                         .n_experts = env->n_experts,
                         .n_columns = env->n_columns,
                         .n_layers = env->n_layers,
                         .n_domains = source_domains(params),
                         .vocabulary = params->vocabulary,
                         .sequence = params->sequence,
                         .n_sequences = env->n_tokens / params->sequence + (env->n_tokens % params->sequence != 0),
                         .stride = env->n_columns > env->n_experts ? env->n_columns : env->n_experts,
                         .label_step = UINT32_MAX,
                         .token_layer = UINT32_MAX};
    double *scratch;
    enum moesim_status status = source_check(params, err);
    if (!status)
        status = allocate(s, env->arena, &scratch, err);
    if (!status) {
        make_law(s, params->zipf, scratch);
        status = make_factors(s, params, env->top_k, err);
    }
    if (status)
        moesim_error_prefix(err, "%s", name);
    return status;
}

/* ---- labels ---- */

/* The first type whose cumulated law is above the bits. */
static uint32_t type_of(const struct source *s, uint32_t bits)
{
    uint32_t low = 0, high = s->vocabulary - 1;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (bits < s->law[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool source_label(struct source *s, uint32_t step)
{
    if (s->label_step == step)
        return false;
    const struct moesim_random random = {s->seed, EFFECTS_TOKEN_ID, 0, step};
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < s->n_tokens; t++) {
        const uint32_t q = t / s->sequence;
        s->token_id[t] = type_of(s, moesim_random_bits(&random, t));
        s->sequence_id[t] = q;
        s->domain[t] = (uint32_t)(((uint64_t)step * s->n_sequences + q) % s->n_domains);
    }
    s->label_step = step;
    return true;
}

void source_set_domain(struct source *s, uint32_t domain)
{
    for (uint32_t t = 0; t < s->n_tokens; t++)
        s->domain[t] = domain;
}

/* ---- logits ---- */

/* V of the types that the tokens have and that are not there yet. */
static void make_token_effects(struct source *s, uint32_t layer)
{
    const size_t n = s->n_experts;
    if (s->token_layer != layer)
        memset(s->has_token, 0, s->vocabulary);
    s->token_layer = layer;
    for (uint32_t t = 0; t < s->n_tokens; t++) /* 2: wanted */
        s->has_token[s->token_id[t]] |= 2;
    const struct moesim_random random = {s->seed, EFFECTS_TOKEN, layer, 0};
    const float deviation = (float)s->effects.token_effect;
#pragma omp parallel for schedule(dynamic, 16)
    for (uint32_t w = 0; w < s->vocabulary; w++) {
        if (s->has_token[w] == 2) {
            float *effect = s->token_effect + w * n;
            moesim_random_normals(&random, w * n, n, effect);
            for (uint32_t e = 0; e < n; e++)
                effect[e] *= deviation;
        }
        s->has_token[w] = s->has_token[w] != 0;
    }
}

/* One sequence in one layer. */
struct passage {
    const struct source *source;
    struct moesim_random slow, fast, luck;
    const float *common, *own; /* [n_experts] b + D, and S */
    float *slow_state, *fast_state;
    uint32_t first, last; /* tokens */
};

/* How an AR(1) process goes on: x = keep * x + new * N(0, 1). */
struct turn {
    float keep, new;
};

static struct turn turn_of(double deviation, double rho, bool is_first)
{
    if (is_first)
        return (struct turn){0, (float)deviation};
    return (struct turn){(float)rho, (float)(deviation * sqrt(1 - rho * rho))};
}

static void draw_normals(const struct moesim_random *random, double deviation, uint64_t at, uint32_t n, float *out)
{
    if (deviation > 0)
        moesim_random_normals(random, at, n, out);
    else
        memset(out, 0, n * sizeof *out);
}

/* Experts [e, e + n) of token t, from its numbers. */
static void fill_run(const struct passage *p, uint32_t t, uint32_t e, uint32_t n, const float *slow_noise,
                     const float *fast_noise, const float *luck)
{
    const struct source *s = p->source;
    const struct effects *x = &s->effects;
    const struct turn slow = turn_of(x->slow_effect, x->slow_rho, t == p->first);
    const struct turn fast = turn_of(x->fast_effect, x->fast_rho, t == p->first);
    const float loud = s->loud && s->loud[t] ? (float)s->loud_factor : 1;
    const float *restrict common = p->common + e, *restrict own = p->own + e;
    const float *restrict type = s->token_effect + (size_t)s->token_id[t] * s->n_experts + e;
    const bool has_echo = x->token_echo > 0 && t > p->first;
    const float echo = has_echo ? (float)x->token_echo : 0;
    const float *restrict before = has_echo ? s->token_effect + (size_t)s->token_id[t - 1] * s->n_experts + e : type;
    float *restrict slow_state = p->slow_state + e, *restrict fast_state = p->fast_state + e;
    float *restrict out = s->values + (size_t)t * s->stride + e;
    for (uint32_t i = 0; i < n; i++) {
        slow_state[i] = slow.keep * slow_state[i] + slow.new *slow_noise[i];
        fast_state[i] = fast.keep * fast_state[i] + fast.new *fast_noise[i];
        out[i] = common[i] + loud * own[i] + type[i] + echo * before[i] + slow_state[i] + fast_state[i] + luck[i];
    }
}

/* Number t * n_experts + e of each stream belongs to expert e of token t. */
static void fill_passage(const struct passage *p)
{
    const struct source *s = p->source;
    float slow[PIECE], fast[PIECE], luck[PIECE];
    const uint64_t end = (uint64_t)p->last * s->n_experts;
    uint64_t at = (uint64_t)p->first * s->n_experts;
    uint32_t t = p->first, e = 0;
    while (at < end) {
        const uint32_t n = end - at < PIECE ? (uint32_t)(end - at) : PIECE;
        draw_normals(&p->slow, s->effects.slow_effect, at, n, slow);
        draw_normals(&p->fast, s->effects.fast_effect, at, n, fast);
        moesim_random_uniforms(&p->luck, at, n, luck);
        gumbel_from_uniforms(luck, n);
        for (uint32_t i = 0; i < n;) {
            const uint32_t left = s->n_experts - e, run = left < n - i ? left : n - i;
            fill_run(p, t, e, run, slow + i, fast + i, luck + i);
            i += run;
            e += run;
            if (e == s->n_experts) {
                e = 0;
                t++;
            }
        }
        at += n;
    }
}

static void fill_extra(const struct source *s, uint32_t step, uint32_t layer, uint32_t first, uint32_t last)
{
    const struct moesim_random random = {s->seed, MOESIM_STREAM_COLUMNS_EXTRA, layer, step};
    const uint32_t n = s->stride - s->n_experts;
    for (uint32_t t = first; n && t < last; t++)
        moesim_random_normals(&random, (uint64_t)t * n, n, s->values + (size_t)t * s->stride + s->n_experts);
}

static void draw_sequence(const struct source *s, uint32_t step, uint32_t layer, uint32_t q)
{
    const size_t n = s->n_experts;
    float *common = s->state + 4 * q * n, *own = common + n;
    const uint32_t first = q * s->sequence;
    const struct passage passage = {.source = s,
                                    .slow = {s->seed, EFFECTS_SLOW, layer, step},
                                    .fast = {s->seed, EFFECTS_FAST, layer, step},
                                    .luck = {s->seed, MOESIM_STREAM_COLUMNS, layer, step},
                                    .common = common,
                                    .own = own,
                                    .slow_state = own + n,
                                    .fast_state = own + 2 * n,
                                    .first = first,
                                    .last = s->n_tokens - first < s->sequence ? s->n_tokens : first + s->sequence};
    const struct moesim_random domains = {s->seed, EFFECTS_DOMAIN, layer, 0};
    const struct moesim_random sequences = {s->seed, EFFECTS_SEQUENCE, layer, step};
    effects_domain(&domains, s->domain[first] * n, s->factor[layer] * s->effects.domain_effect, s->effects.domain_tail,
                   (uint32_t)n, common);
    moesim_random_normals(&sequences, q * n, n, own);
    for (uint32_t e = 0; e < n; e++) {
        common[e] += s->b[e];
        own[e] *= (float)s->effects.sequence_effect;
    }
    memset(passage.slow_state, 0, 2 * n * sizeof *passage.slow_state);
    fill_passage(&passage);
    fill_extra(s, step, layer, first, passage.last);
}

void source_draw(struct source *s, uint32_t step, uint32_t layer, struct moesim_batch *batch)
{
    const struct moesim_random random = {s->seed, EFFECTS_POPULARITY, layer, 0};
    effects_popularity(&random, s->factor[layer] * s->effects.popularity, s->effects.popularity_skew, s->n_experts,
                       s->b);
    make_token_effects(s, layer);
#pragma omp parallel for schedule(static)
    for (uint32_t q = 0; q < s->n_sequences; q++)
        draw_sequence(s, step, layer, q);
    batch->n_tokens = s->n_tokens;
    batch->n_columns = s->n_columns;
    batch->stride = s->stride;
    batch->columns = s->values;
    batch->token_id = s->token_id;
    batch->sequence_id = s->sequence_id;
    batch->domain = s->domain;
}
