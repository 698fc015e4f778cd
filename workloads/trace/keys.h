/*
 * The names that logs of routing give to the same things.
 */
#ifndef MOESIM_WORKLOADS_TRACE_KEYS_H
#define MOESIM_WORKLOADS_TRACE_KEYS_H

#include "workloads/json_scan.h"

enum trace_key {
    KEY_LAYER,
    KEY_TOKEN,    /* its place in the sequence */
    KEY_TOKEN_ID, /* in the vocabulary; its place where no other key tells that */
    KEY_SEQUENCE,
    KEY_PART, /* names a part of a run: rows of one part belong together */
    KEY_EXPERTS,
    KEY_EXPERTS_BY_LAYER, /* [layers][tokens][k] */
    KEY_WEIGHTS,
    KEY_EXPERT, /* of a file with one row a pair */
    KEY_WEIGHT,
    KEY_CHOICE,
    KEY_KEPT,
    KEY_SLOT,
    KEY_COUNT,
    KEY_N_EXPERTS,
    KEY_STAGE, /* encoder, decoder or mtp */
    KEY_STATE, /* unassigned: over capacity */
    KEY_LOGICAL_COUNT,
    KEY_PHYSICAL_COUNT,
    KEY_PHYSICAL_MAP,
    KEY_ROUTER_DATA,
    KEY_INSIDE, /* what it holds may be records */
    N_KEYS,
};

/* What makes the search quick. */
struct trace_keys {
    uint32_t lengths[N_KEYS];
};
void trace_keys_init(struct trace_keys *keys);

/* The key of that name, or N_KEYS. */
enum trace_key trace_key_of(const struct trace_keys *keys, struct scan_text name);

/* All names of a key, "a|b|c". */
const char *trace_key_names(enum trace_key key);

#endif
