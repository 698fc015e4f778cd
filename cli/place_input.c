/* Reading loads and decisions for `moesim place`. */
#include "cli/place_input.h"

#include <inttypes.h>
#include <string.h>

#include <moesim/plan.h>

#include "sim/placement/loads.h"

#define MOST_EXPERTS 65536

/* ---- loads ---- */

static enum moesim_status read_loads(struct place_input *in, const char *path, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    struct moesim_file_array array = {.key = "loads"};
    enum moesim_status status = trace_read_loads(path, arena, &array, err);
    if (status != MOESIM_OK)
        return status;
    const uint64_t n_experts = array.shape[array.n_dimensions - 1];
    in->first_layer = moesim_loads_skip_dense(&array);
    status = moesim_loads_check(&array, 0, 0, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "%.200s", path);
        return status;
    }
    status = moesim_placement_stats_init(&in->stats, MOESIM_WANTS_LOAD, (uint32_t)(array.n / n_experts),
                                         (uint32_t)n_experts, arena, err);
    for (uint64_t i = 0; i < array.n && status == MOESIM_OK; i++)
        in->stats.load[i] = (double)array.values[i];
    return status;
}

/* ---- decisions ---- */

static enum moesim_status check_size(const struct trace *trace, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    if (s->n_experts <= MOST_EXPERTS && s->n_tokens < UINT32_MAX && s->n_tokens * s->top_k <= UINT32_MAX)
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL,
                       "%.200s: %" PRIu64 " tokens with up to %u of %u experts are too many; a layer may have fewer "
                       "than 2^32 choices, of %u experts",
                       trace_path(trace), s->n_tokens, s->top_k, s->n_experts, MOST_EXPERTS);
}

static bool is_kept(const struct trace_pairs *pairs, uint32_t pair)
{
    return pairs->fate[pair] == MOESIM_KEPT;
}

static void add_together(const struct trace_pairs *pairs, uint32_t t, uint32_t n_experts, double *together)
{
    for (uint32_t i = pairs->first[t]; i < pairs->first[t + 1]; i++)
        for (uint32_t j = pairs->first[t]; j < pairs->first[t + 1] && is_kept(pairs, i); j++)
            if (is_kept(pairs, j) && pairs->expert[j] != pairs->expert[i])
                together[(size_t)pairs->expert[i] * n_experts + pairs->expert[j]]++;
}

/* `before`: each token's first choice in the layer before, which this layer's replace. */
static void add_next(const struct trace_pairs *pairs, uint32_t t, uint32_t n_experts, uint32_t *before, double *next)
{
    uint32_t choice = MOESIM_NO_EXPERT;
    for (uint32_t i = pairs->first[t]; i < pairs->first[t + 1] && choice == MOESIM_NO_EXPERT; i++)
        choice = is_kept(pairs, i) ? pairs->expert[i] : MOESIM_NO_EXPERT;
    if (next && choice != MOESIM_NO_EXPERT && before[t] != MOESIM_NO_EXPERT)
        next[(size_t)before[t] * n_experts + choice]++;
    before[t] = choice;
}

static void add_layer(struct place_input *in, uint32_t layer, const struct trace_pairs *pairs, uint32_t *before)
{
    const struct moesim_placement_stats *s = &in->stats;
    const size_t n = s->n_experts;
    double *next = s->next && layer > 0 ? s->next + (layer - 1) * n * n : NULL;
    for (uint32_t t = 0; t < in->n_tokens; t++) {
        for (uint32_t i = pairs->first[t]; i < pairs->first[t + 1]; i++)
            if (is_kept(pairs, i))
                s->load[layer * n + pairs->expert[i]]++;
        if (s->together)
            add_together(pairs, t, s->n_experts, s->together + layer * n * n);
        if (s->next)
            add_next(pairs, t, s->n_experts, before, next);
    }
}

/* A layer without a kept pair cannot be placed by load; all of one expert is a broken recording, not a routing. */
static enum moesim_status check_layer(const struct place_input *in, uint32_t layer, struct moesim_error *err)
{
    const double *load = in->stats.load + (size_t)layer * in->stats.n_experts;
    double sum = 0, most = 0;
    uint32_t fullest = 0;
    for (uint32_t e = 0; e < in->stats.n_experts; e++) {
        sum += load[e];
        fullest = load[e] > most ? e : fullest;
        most = load[e] > most ? load[e] : most;
    }
    if (sum == 0)
        return moesim_fail(err, MOESIM_EINVAL, "%.200s: no token has an expert in layer %u", trace_path(in->trace),
                           trace_layer_id(in->trace, layer));
    if (sum == most && sum > 1 && (in->stats.n_experts > 1 || trace_shape(in->trace)->all_zero))
        return moesim_fail(err, MOESIM_EINVAL,
                           "%.200s: all decisions are expert %u in layer %u; the trace was recorded wrongly",
                           trace_path(in->trace), fullest, trace_layer_id(in->trace, layer));
    return MOESIM_OK;
}

static enum moesim_status gather(struct place_input *in, uint32_t wants, struct moesim_arena *arena,
                                 struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(in->trace);
    const size_t n_tokens = in->n_tokens, n_pairs = n_tokens * in->top_k;
    struct trace_pairs pairs = {.first = moesim_alloc(arena, n_tokens + 1, sizeof *pairs.first),
                                .expert = moesim_alloc(arena, n_pairs, sizeof *pairs.expert),
                                .fate = moesim_alloc(arena, n_pairs, sizeof *pairs.fate)};
    uint32_t *before = moesim_alloc(arena, n_tokens, sizeof *before);
    if (!pairs.first || !pairs.expert || !pairs.fate || !before)
        return moesim_fail(err, MOESIM_ENOMEM, "%.200s: no memory for a layer's decisions", trace_path(in->trace));
    enum moesim_status status =
        moesim_placement_stats_init(&in->stats, wants | MOESIM_WANTS_LOAD, s->n_layers, s->n_experts, arena, err);
    for (uint32_t l = 0; l < s->n_layers && status == MOESIM_OK; l++) {
        status = place_input_layer(in, l, &pairs, err);
        if (status != MOESIM_OK)
            break;
        add_layer(in, l, &pairs, before);
        status = check_layer(in, l, err);
    }
    return status;
}

static enum moesim_status read_trace(struct place_input *in, const char *path, uint32_t n_experts, uint32_t wants,
                                     struct moesim_arena *arena, struct moesim_error *err)
{
    const struct trace_options options = {.kind = TRACE_DECISIONS, .n_experts = n_experts};
    enum moesim_status status = trace_open(path, &options, &in->trace, err);
    if (status == MOESIM_OK)
        status = check_size(in->trace, err);
    if (status != MOESIM_OK)
        return status;
    in->n_tokens = (uint32_t)trace_shape(in->trace)->n_tokens;
    in->top_k = trace_shape(in->trace)->top_k;
    in->first_layer = trace_layer_id(in->trace, 0);
    return gather(in, wants, arena, err);
}

enum moesim_status place_input_layer(const struct place_input *in, uint32_t layer, struct trace_pairs *pairs,
                                     struct moesim_error *err)
{
    return trace_read_pairs(in->trace, layer, 0, in->n_tokens, pairs, err);
}

void place_input_close(struct place_input *in)
{
    trace_close(in->trace);
    in->trace = NULL;
}

enum moesim_status place_input_read(struct place_input *in, const char *loads, const char *trace, uint32_t n_experts,
                                    const struct moesim_placement_rule *rule, struct moesim_arena *arena,
                                    struct moesim_error *err)
{
    *in = (struct place_input){0};
    if (trace)
        return read_trace(in, trace, n_experts, rule->wants, arena, err);
    if (rule->wants & (MOESIM_WANTS_TOGETHER | MOESIM_WANTS_NEXT))
        return moesim_fail(
            err, MOESIM_EINVAL,
            "%s looks at which experts a token uses, which loads do not tell; give decisions: --trace FILE",
            rule->name);
    return read_loads(in, loads, arena, err);
}
