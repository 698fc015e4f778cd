/*
 * When a point's experts are placed: at once, after a warm-up, anew every so many steps, or at every step from its own
 * loads; and what moving the experts costs.
 */
#ifndef MOESIM_SIM_PLACING_H
#define MOESIM_SIM_PLACING_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/plan.h>
#include <moesim/status.h>

#include "sim/placement/migration.h"
#include "sim/placement/placement.h"
#include "sim/study/point.h"

struct moesim_placing {
    const struct moesim_point *point;
    const struct moesim_placement_fit *fit; /* NULL: a rule that does not look at load */
    enum moesim_placement_source source;
    uint32_t n_layers;
    const uint8_t *expert_kind;          /* [n_experts] NULL = all FFN; the others have no load */
    struct moesim_placement *placement;  /* [n_layers] in force */
    struct moesim_placement *before;     /* [n_layers] the one before, where a placement can change; else NULL */
    struct moesim_placement_stats stats; /* of the steps since `gather_from` */
    uint32_t gather_from, place_at;      /* steps; UINT32_MAX = never (again) */
    uint32_t *choice;                    /* [max_tokens] first choices of the last layer, for MOESIM_WANTS_NEXT */
    struct moesim_migration migration;   /* of the last re-placement */
};

/* Places the experts of the point's layers for the first time: by the loads of its file, else by even ones. n_experts,
 * expert_kind and max_pairs are those of the router's shape. */
MOESIM_MUST_CHECK enum moesim_status moesim_placing_init(struct moesim_placing *placing,
                                                         const struct moesim_point *point, uint32_t n_experts,
                                                         const uint8_t *expert_kind, uint64_t max_pairs,
                                                         struct moesim_arena *arena, struct moesim_error *err);

/* Before a step: places anew where it is due, from what was gathered. *moved = the placement changed in the run's
 * counted part, and `migration` has the price. */
MOESIM_MUST_CHECK enum moesim_status moesim_placing_begin(struct moesim_placing *placing, uint32_t step, bool *moved,
                                                          struct moesim_error *err);

/* After a layer is routed and before it is priced: takes its loads (`kept` [n_experts] and the plan), with from =
 * oracle places the layer by them, and readies the placement for the plan. */
MOESIM_MUST_CHECK enum moesim_status moesim_placing_layer(struct moesim_placing *placing, uint32_t step, uint32_t layer,
                                                          const struct moesim_plan *plan,
                                                          const struct moesim_batch *batch, const uint64_t *kept,
                                                          struct moesim_error *err);

/* Memory of a point's placing in bytes, statistics included; an upper estimate. */
uint64_t moesim_placing_bytes(const struct moesim_point *point, uint32_t n_experts);

#endif
