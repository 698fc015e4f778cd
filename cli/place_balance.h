/*
 * How good a placement is, layer by layer, for what it was placed by.
 */
#ifndef MOESIM_CLI_PLACE_BALANCE_H
#define MOESIM_CLI_PLACE_BALANCE_H

#include <stdint.h>

#include "cli/place_input.h"

/* Of one layer. The last three need decisions and are NaN for loads; hops are NaN in the first layer, too. */
struct place_figures {
    double device_imbalance, node_imbalance; /* max / mean */
    double device_fanout, node_fanout;       /* mean distinct devices, nodes of a token */
    double hops; /* share of tokens whose first choice is on another device than in the layer before */
};

/* Judges the placements [stats.n_layers]. Loads are those of each EP group alike, and replicas share them as the
 * placement's choice does, evenly but for lp. Decision t is of a token on device floor(t * devices / tokens). */
MOESIM_MUST_CHECK enum moesim_status place_judge(const struct place_input *input, const struct moesim_cluster *cluster,
                                                 struct moesim_placement *placement, struct moesim_arena *arena,
                                                 struct place_figures *figures, struct moesim_error *err);

#endif
