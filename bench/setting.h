/*
 * A router set up on a full batch, with all that it needs filled in, ready to be timed.
 */
#ifndef BENCH_SETTING_H
#define BENCH_SETTING_H

#include <stdbool.h>

#include <moesim/router.h>

#include "sim/gate/gate.h"

#define SETTING_TOKENS 65536u
#define SETTING_D_MODEL 512u
#define SETTING_VOCABULARY 50257u
#define SETTING_SEQUENCE 2048u /* tokens of a sequence */

/* How the columns come about: seeded normals plus `shift`, or by the gate from hidden states in every step. */
struct setting_shape {
    uint32_t n_experts, top_k;
    bool gated;
    float shift;
};

/* Two arenas: what the router takes from `own` is its scratch, all the rest is the host's. */
struct setting {
    const struct moesim_router *router;
    struct moesim_arena *host, *own;
    struct moesim_env env;
    struct moesim_shape shape;
    struct moesim_batch batch;
    struct moesim_plan plan;
    struct moesim_decisions decisions; /* top_k a token */
    struct moesim_gate gate;           /* of a setting with one: its columns are the batch's */
    float *hidden;                     /* [SETTING_TOKENS][SETTING_D_MODEL] or NULL */
    void *params, *state;
};

/* Sets `router` up with `params` ("key=value,key=value" or "") for one group of tokens in training. */
MOESIM_MUST_CHECK enum moesim_status setting_open(struct setting *s, const struct moesim_router *router,
                                                  const char *params, struct setting_shape shape,
                                                  struct moesim_error *err);

/* One step, from gate columns (or hidden states) to a filled plan. */
MOESIM_MUST_CHECK enum moesim_status setting_route(struct setting *s, struct moesim_error *err);

/* Bytes of scratch that the router holds. */
size_t setting_scratch(const struct setting *s);

void setting_close(struct setting *s);

#endif
