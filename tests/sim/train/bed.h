/*
 * A small model with a router to test, and samples for it.
 */
#ifndef TESTS_SIM_TRAIN_BED_H
#define TESTS_SIM_TRAIN_BED_H

#include "routers/table.h"
#include "sim/train/transformer.h"

/* A router by its SPEC ("switch:capacity_factor=1.25"), parsed into `arena`. */
struct moesim_router_choice bed_router(const char *spec, uint32_t top_k, struct moesim_arena *arena);

/* Seeded tokens, each to predict the next; every seventh has no target. */
struct moesim_sequences bed_sample(const struct moesim_transformer_config *config, uint32_t seed,
                                   struct moesim_arena *arena);

/* A small model of bytes with that router, trained for some steps and kept in `path`: of the sizes in `model`, and of
 * 2 blocks, d_model 16, 2 heads, 8 experts with top_k 2, d_ff 12, sequences of 16 where it has 0. The seed is 7, and
 * the header calls the router `name`; NULL = by its SPEC. */
void bed_keep(const char *spec, const char *name, const struct moesim_transformer_config *model, const char *path);

#endif
