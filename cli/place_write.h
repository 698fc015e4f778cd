/*
 * Plans in the formats that serving engines read; docs/formats.md has them.
 */
#ifndef MOESIM_CLI_PLACE_WRITE_H
#define MOESIM_CLI_PLACE_WRITE_H

#include <stdint.h>
#include <stdio.h>

#include <moesim/status.h>

#include "sim/placement/placement.h"

struct plan_format {
    const char *name;
    bool equal_slots;  /* it has as many slots on every device */
    bool distinct;     /* and no expert twice on one */
    bool counts_dense; /* layers have the model's numbers */
    void (*write)(FILE *out, const struct moesim_placement *placement, uint32_t n_layers, uint32_t first_layer);
};

/* Ended by name NULL. The words of --format, in this order: */
#define PLAN_FORMATS "moesim|vllm-ascend|trtllm"
extern const struct plan_format plan_formats[];

const struct plan_format *plan_format_find(const char *name);

/* Whether the format can say it. */
MOESIM_MUST_CHECK enum moesim_status plan_format_check(const struct plan_format *format,
                                                       const struct moesim_placement *placement, uint32_t n_layers,
                                                       struct moesim_error *err);

#endif
