/*
 * Loads from a file.
 */
#ifndef MOESIM_SIM_PLACEMENT_LOADS_H
#define MOESIM_SIM_PLACEMENT_LOADS_H

#include <stdint.h>

#include <moesim/router.h>
#include <moesim/status.h>

/* Whether an array is loads [n_experts] or [n_layers, n_experts]: finite, none below 0, some above it in every row.
 * 0 layers and experts: of any number. */
MOESIM_MUST_CHECK enum moesim_status moesim_loads_check(const struct moesim_file_array *array, uint32_t n_layers,
                                                        uint32_t n_experts, struct moesim_error *err);

/* Takes off the layers before the first that has a load: dense ones, which recorders list too. How many they were; none
 * where no layer has any. */
uint32_t moesim_loads_skip_dense(struct moesim_file_array *array);

#endif
