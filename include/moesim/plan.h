/* SPDX-License-Identifier: MIT
 *
 * A plan: what a router decided for a batch. Flat arrays, filled in bulk.
 */
#ifndef MOESIM_PLAN_H
#define MOESIM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/status.h>

#define MOESIM_NO_EXPERT UINT32_MAX
#define MOESIM_UNLIMITED UINT32_MAX
#define MOESIM_MAX_AUX 8

struct moesim_confidence_run; /* metric.h */

/* What became of a pair (token, expert). */
enum moesim_fate {
    MOESIM_KEPT = 0,
    MOESIM_OVER_CAPACITY = 1, /* the expert was full: weight 0, slot -1 */
    MOESIM_REROUTED = 2,      /* refused like the above, but the token was served by a pair added after it */
    MOESIM_BAD_ROW = 3,       /* the token has no finite score: expert MOESIM_NO_EXPERT, weight 0, slot -1 */
};

/* One auxiliary loss with its coefficient applied. */
struct moesim_aux {
    const char *name; /* static text */
    double value;
};

/* The host allocates every array for `max_pairs` and resets the counts before route(); the router fills
 * all fields from `n_pairs` on. */
struct moesim_plan {
    uint32_t struct_size;
    uint32_t n_tokens, n_experts, n_groups;
    uint64_t max_pairs;

    uint64_t n_pairs;
    uint32_t *first;    /* [n_tokens + 1] pairs of token t are first[t] .. first[t + 1] - 1, by rank */
    uint32_t *expert;   /* [n_pairs] */
    float *weight;      /* [n_pairs] the multiplier that is applied; 0 when refused */
    int32_t *slot;      /* [n_pairs] place in the expert's buffer within the token's group; -1 when refused */
    uint8_t *fate;      /* [n_pairs] enum moesim_fate */
    uint32_t *capacity; /* [n_groups][n_experts] slots; MOESIM_UNLIMITED = dropless */
    uint64_t n_wanted;  /* pairs the tokens asked for: kept + over capacity (a bad row asks for none, a rerouted pair
                           counts once); 0 where asking has no meaning (expert choice, mixture of depths, soft) */
    uint32_t n_bad_rows;

    uint32_t n_aux;
    struct moesim_aux aux[MOESIM_MAX_AUX];

    uint32_t n_slots; /* soft routers: slots of one group over all experts; else 0 */
    float *dispatch;  /* [n_tokens][n_slots] or NULL */
    float *combine;   /* [n_tokens][n_slots] or NULL */

    const char *note; /* what people should know about these decisions (a solver's limit was reached); static text, NULL
                         = nothing */

    /* How sure the tokens' logits are, for the metrics: the host gives the room where it wants to know, and the kernels
     * fill it where the pass that chooses has it at hand. */
    struct moesim_confidence_run *confidence; /* [runs of MOESIM_RUN_TOKENS tokens]; NULL = not wanted */
    bool has_confidence;                      /* it is filled */
};

/* An empty plan with room for `max_pairs` pairs, `n_groups` groups and, if n_slots > 0, the soft matrices; memory
 * comes from `arena`. EINVAL when max_pairs does not fit 32 bits. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_plan_init(struct moesim_plan *plan, uint32_t max_tokens,
                                                                 uint32_t n_experts, uint32_t max_groups,
                                                                 uint64_t max_pairs, uint32_t n_slots,
                                                                 struct moesim_arena *arena, struct moesim_error *err);

/* Sets the sizes to the batch's and forgets the last decisions; arrays are not cleared. */
MOESIM_API void moesim_plan_reset(struct moesim_plan *plan, const struct moesim_batch *batch);

/* Adds an auxiliary loss; ignored past MOESIM_MAX_AUX (validation reports it). */
MOESIM_API void moesim_plan_add_aux(struct moesim_plan *plan, const char *name, double value);

/* Sum of the auxiliary losses. */
MOESIM_API double moesim_plan_aux_loss(const struct moesim_plan *plan);

/* Checks the plan against its promises: offsets rise from 0 to n_pairs, ids below E, no expert twice among
 * a token's kept pairs, finite weights, refused pairs with weight 0 and slot -1, kept slots distinct and below
 * capacity within (group, expert), bad rows and padding routed nowhere; in a soft plan finite weights, of which a
 * group's dispatch weights sum to 1 for each slot and the combine weights to 1 for each token. MOESIM_EBROKEN and a
 * sentence that names `router`, token and pair otherwise. `scratch` has moesim_plan_check_scratch() bytes. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_plan_check(const struct moesim_plan *plan,
                                                                  const struct moesim_batch *batch, const char *router,
                                                                  void *scratch, struct moesim_error *err);
MOESIM_API size_t moesim_plan_check_scratch(uint32_t n_experts, uint64_t max_pairs);

/* The same pairs seen from the experts: kept pairs of expert e are pair[start[e]] .. pair[start[e + 1] - 1], by
 * group, then token. The host builds it. */
struct moesim_expert_view {
    uint32_t *start; /* [n_experts + 1] */
    uint32_t *pair;  /* [kept pairs] index into the plan's pair arrays */
    uint32_t *token; /* [kept pairs] the pair's token */
};
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_expert_view_init(struct moesim_expert_view *view,
                                                                        uint32_t n_experts, uint64_t max_pairs,
                                                                        struct moesim_arena *arena,
                                                                        struct moesim_error *err);
MOESIM_API void moesim_expert_view_build(struct moesim_expert_view *view, const struct moesim_plan *plan);

/* Whether no pair of tokens [first, last) is refused. */
static inline bool moesim_plan_all_kept(const struct moesim_plan *plan, uint32_t first, uint32_t last)
{
    uint8_t fates = 0;
    for (uint32_t i = plan->first[first]; i < plan->first[last]; i++)
        fates |= plan->fate[i];
    return fates == MOESIM_KEPT;
}

/* Counts of a plan: assigned (every pair that named the expert, before capacity) and kept, both [n_experts];
 * either may be NULL. Overwritten, not added to. */
MOESIM_API void moesim_plan_count(const struct moesim_plan *plan, uint64_t *assigned, uint64_t *kept);

#endif
