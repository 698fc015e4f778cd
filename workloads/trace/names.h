/*
 * Numbers for names: the n-th new name is number n.
 */
#ifndef MOESIM_WORKLOADS_TRACE_NAMES_H
#define MOESIM_WORKLOADS_TRACE_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/status.h>

/* Names by their hash, by open addressing, at most half full. */
struct names {
    struct name {
        uint64_t hash;
        uint32_t number;
        bool used;
    } * slot;
    uint32_t n, room;
};

MOESIM_MUST_CHECK enum moesim_status names_number(struct names *names, uint64_t hash, uint32_t *number,
                                                  struct moesim_error *err);
void names_free(struct names *names);

#endif
