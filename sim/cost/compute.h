/*
 * What the experts compute: rows with their padding, and the time of the grouped GEMM.
 */
#ifndef MOESIM_SIM_COST_COMPUTE_H
#define MOESIM_SIM_COST_COMPUTE_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/router.h>

#include "sim/cost/cost.h"

/* Whether an expert has weights; `expert_kind` NULL = all do. */
static inline bool moesim_is_ffn(const uint8_t *expert_kind, uint32_t expert)
{
    return !expert_kind || expert_kind[expert] == MOESIM_EXPERT_FFN;
}

/* Rows of all experts when every group's capacity is computed in full; kept pairs where it is unlimited. */
uint64_t moesim_capacity_rows(const struct moesim_plan *plan, const struct moesim_batch *batch,
                              const uint8_t *expert_kind);

/* Adds a plan's capacity to work->slots, each physical expert its part, and to work->n_slots. */
void moesim_slots_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                      const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                      const uint8_t *expert_kind, struct moesim_cost_work *work);

/* Turns work->rows from kept pairs into computed rows. */
void moesim_rows_pad(const struct moesim_cluster *cluster, enum moesim_padding padding, struct moesim_cost_work *work);

/* Adds work->rows up by device, into work->experts, for a layer in that many equal chunks (0 = one). */
void moesim_rows_sum(const struct moesim_placement *placement, const struct moesim_cluster *cluster, uint32_t chunks,
                     struct moesim_cost_work *work);

/* Seconds of one pass of the slowest device's experts over one of the chunks that moesim_rows_sum was told (at least
 * 1), shared ones included, from work->experts, tokens and received. */
double moesim_compute_time(const struct moesim_cluster *cluster, const struct moesim_model *model,
                           enum moesim_pass pass, uint32_t chunks, const struct moesim_cost_work *work);

#endif
