/*
 * Home devices and groups: groups are runs of consecutive tokens.
 */
#include "sim/experiment/groups.h"

#include <assert.h>

uint32_t moesim_groups_max(const struct moesim_shape *shape, uint32_t n_tokens, uint32_t n_devices)
{
    switch ((enum moesim_group)shape->group) {
    case MOESIM_GROUP_DEVICE:
        return n_devices;
    case MOESIM_GROUP_SEQUENCE:
        return n_tokens;
    case MOESIM_GROUP_TOKENS:
        return n_tokens / shape->group_tokens + 1;
    case MOESIM_GROUP_BATCH:
        break;
    }
    return 1;
}

void moesim_home_devices(uint32_t *device, uint32_t n_tokens, uint32_t n_devices)
{
    for (uint32_t t = 0; t < n_tokens; t++)
        device[t] = (uint32_t)((uint64_t)t * n_devices / n_tokens);
}

static uint32_t groups_by_device(const struct moesim_batch *batch, uint32_t *start)
{
    uint32_t t = 0;
    for (uint32_t d = 0; d < batch->n_devices; d++) {
        start[d] = t;
        while (d + 1 < batch->n_devices && t < batch->n_tokens && batch->device[t] == d) /* the last takes the rest */
            t++;
    }
    start[batch->n_devices] = batch->n_tokens;
    return batch->n_devices;
}

static uint32_t groups_by_sequence(const struct moesim_batch *batch, uint32_t *start)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        if (t == 0 || batch->sequence_id[t] != batch->sequence_id[t - 1])
            start[n++] = t;
    start[n] = batch->n_tokens;
    return n;
}

static uint32_t groups_of_tokens(const struct moesim_batch *batch, uint32_t tokens, uint32_t *start)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t += tokens)
        start[n++] = t;
    start[n] = batch->n_tokens;
    return n;
}

uint32_t moesim_groups_make(const struct moesim_shape *shape, const struct moesim_batch *batch, uint32_t *group_start)
{
    switch ((enum moesim_group)shape->group) {
    case MOESIM_GROUP_DEVICE:
        return groups_by_device(batch, group_start);
    case MOESIM_GROUP_SEQUENCE:
        assert(batch->sequence_id);
        return groups_by_sequence(batch, group_start);
    case MOESIM_GROUP_TOKENS:
        return groups_of_tokens(batch, shape->group_tokens, group_start);
    case MOESIM_GROUP_BATCH:
        break;
    }
    group_start[0] = 0;
    group_start[1] = batch->n_tokens;
    return 1;
}
