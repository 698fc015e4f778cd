/*
 * Arrays as a trace: what each is for, and how decisions, logits and loads are read from them.
 */
#ifndef MOESIM_WORKLOADS_TRACE_ARRAYS_H
#define MOESIM_WORKLOADS_TRACE_ARRAYS_H

#include "workloads/trace/source.h"

enum arrays_role {
    ROLE_DECISIONS,          /* [tokens][layers][k] */
    ROLE_DECISIONS_BY_LAYER, /* [layers][tokens][k] */
    ROLE_WEIGHTS,            /* as the decisions */
    ROLE_LOGITS,             /* [layers][tokens][experts], or [samples][layers][tokens][experts] */
    ROLE_TOKEN_COUNTS,       /* [samples] tokens that count */
    ROLE_LOADS,              /* [experts], [layers][experts], [steps][layers][experts] */
    ROLE_PHYSICAL_LOADS,     /* [layers][slots], [steps][layers][slots] */
    ROLE_PHYSICAL_MAP,       /* [layers][slots] */
    ROLE_SEQUENCE,           /* [tokens] */
    ROLE_TOKEN_ID,
    ROLE_DOMAIN,
    N_ROLES,
};

struct arrays {
    char *path;
    struct mapping *mappings;
    size_t n_mappings;
    struct npy weights_file;   /* of the option */
    struct npy array[N_ROLES]; /* data NULL = there is none */
    bool missing;              /* some ids are -1: no expert */
    uint64_t *sample_start;    /* [samples + 1] first token of each sample, for logits by sample */
    uint64_t touched;          /* bytes read since pages were given back */
    struct trace_shape shape;
};

/* Names of the arrays that sequence, token and domain labels have. */
extern const char *const arrays_names[N_ROLES];

extern const struct trace_reading arrays_reading;

static inline bool arrays_has(const struct arrays *a, enum arrays_role role)
{
    return a->array[role].data != NULL;
}

static inline const struct npy *arrays_decisions(const struct arrays *a)
{
    return &a->array[arrays_has(a, ROLE_DECISIONS) ? ROLE_DECISIONS : ROLE_DECISIONS_BY_LAYER];
}

/* Counts bytes that were read, and gives pages back now and then: they would count as ours. */
void arrays_account(struct arrays *arrays, uint64_t bytes);

#endif
