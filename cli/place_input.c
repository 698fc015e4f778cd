/* Reading loads and decisions for `moesim place`. */
#include "cli/place_input.h"

#include <inttypes.h>
#include <string.h>

#include "sim/placement/loads.h"
#include "workloads/npy.h"

#define MOST_EXPERTS 65536

static enum moesim_status no_memory(const char *path, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%.200s: no memory for its statistics", path);
}

static enum moesim_status read_loads(struct place_input *in, const char *path, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    struct moesim_file_array array = {.key = "loads"};
    enum moesim_status status = npy_read_array(path, arena, &array, err);
    if (status != MOESIM_OK)
        return status;
    status = moesim_loads_check(&array, 0, 0, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "%.200s", path);
        return status;
    }
    const uint32_t d = array.n_dimensions;
    status = moesim_placement_stats_init(&in->stats, MOESIM_WANTS_LOAD, d == 2 ? (uint32_t)array.shape[0] : 1,
                                         (uint32_t)array.shape[d - 1], arena, err);
    for (uint64_t i = 0; i < array.n && status == MOESIM_OK; i++)
        in->stats.load[i] = (double)array.values[i];
    return status;
}

/* ---- decisions ---- */

static enum moesim_status check_shape(const struct npy *npy, const char *path, struct moesim_error *err)
{
    const uint32_t d = npy->n_dimensions;
    if ((d == 2 || d == 3) && npy->shape[0] <= UINT32_MAX && npy->shape[d - 1] <= MOST_EXPERTS &&
        (d == 2 || npy->shape[1] <= 65535) && npy->shape[0] * npy->shape[d - 1] <= UINT32_MAX)
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL,
                       "%.200s: %" PRIu64
                       " numbers in %u dimensions; decisions are [tokens, choices] or [tokens, layers, "
                       "choices], with fewer than 2^32 choices of a layer",
                       path, npy->n, d);
}

/* How many experts the ids speak of. All of one id is a broken recording, not a routing. */
static enum moesim_status count_experts(const uint32_t *decision, uint64_t n, uint32_t n_experts, const char *path,
                                        uint32_t *count, struct moesim_error *err)
{
    uint32_t least = UINT32_MAX, most = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (decision[i] >= (n_experts ? n_experts : MOST_EXPERTS))
            return moesim_fail(err, MOESIM_EINVAL, "%.200s: decision %" PRIu64 " is expert %u; %u experts are 0 to %u",
                               path, i, decision[i], n_experts ? n_experts : MOST_EXPERTS,
                               (n_experts ? n_experts : MOST_EXPERTS) - 1);
        least = decision[i] < least ? decision[i] : least;
        most = decision[i] > most ? decision[i] : most;
    }
    if (least == most && n > 1)
        return moesim_fail(err, MOESIM_EINVAL, "%.200s: all decisions are expert %u; the trace was recorded wrongly",
                           path, most);
    *count = n_experts ? n_experts : most + 1;
    return MOESIM_OK;
}

static void add_token(struct place_input *in, uint32_t layer, const uint32_t *choice, const uint32_t *of_next)
{
    const size_t n = in->stats.n_experts;
    for (uint32_t i = 0; i < in->top_k; i++) {
        in->stats.load[layer * n + choice[i]]++;
        for (uint32_t j = 0; in->stats.together && j < in->top_k; j++)
            if (choice[j] != choice[i])
                in->stats.together[(layer * n + choice[i]) * n + choice[j]]++;
    }
    if (in->stats.next && of_next)
        in->stats.next[(layer * n + choice[0]) * n + of_next[0]]++;
}

static enum moesim_status gather(struct place_input *in, uint32_t n_layers, uint32_t n_experts, uint32_t wants,
                                 struct moesim_arena *arena, struct moesim_error *err)
{
    const enum moesim_status status =
        moesim_placement_stats_init(&in->stats, wants | MOESIM_WANTS_LOAD, n_layers, n_experts, arena, err);
    for (size_t t = 0; t < in->n_tokens && status == MOESIM_OK; t++)
        for (uint32_t l = 0; l < n_layers; l++) {
            const uint32_t *choice = in->decision + (t * n_layers + l) * in->top_k;
            add_token(in, l, choice, l + 1 < n_layers ? choice + in->top_k : NULL);
        }
    return status;
}

static enum moesim_status read_trace(struct place_input *in, const char *path, uint32_t n_experts, uint32_t wants,
                                     struct moesim_arena *arena, struct moesim_error *err)
{
    struct npy npy;
    enum moesim_status status = npy_open(path, &npy, err);
    if (status != MOESIM_OK) {
        const size_t n = strlen(path);
        if (n < 4 || strcmp(path + n - 4, ".npy") != 0)
            moesim_error_prefix(err, "--trace reads decisions from .npy");
        return status;
    }
    uint32_t *decision = NULL;
    status = check_shape(&npy, path, err);
    if (status == MOESIM_OK && !(decision = moesim_alloc(arena, (size_t)npy.n, sizeof *decision)))
        status = no_memory(path, err);
    if (status == MOESIM_OK) {
        status = npy_read_u32(&npy, 0, npy.n, decision, err);
        if (status != MOESIM_OK)
            moesim_error_prefix(err, "%.200s", path);
    }
    if (status == MOESIM_OK)
        status = count_experts(decision, npy.n, n_experts, path, &n_experts, err);
    in->decision = decision;
    in->n_tokens = (uint32_t)npy.shape[0];
    in->top_k = (uint32_t)npy.shape[npy.n_dimensions - 1];
    if (status == MOESIM_OK)
        status = gather(in, npy.n_dimensions == 3 ? (uint32_t)npy.shape[1] : 1, n_experts, wants, arena, err);
    npy_close(&npy);
    return status;
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
