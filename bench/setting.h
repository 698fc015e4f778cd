/*
 * A router set up on a full batch, with all that it needs filled in, ready to be timed.
 */
#ifndef BENCH_SETTING_H
#define BENCH_SETTING_H

#include <stdbool.h>

#include <moesim/router.h>

#include "sim/gate/gate.h"

#define SETTING_TOKENS 65536u /* of published comparisons */
#define SETTING_D_MODEL 512u
#define SETTING_VOCABULARY 50257u
#define SETTING_SEQUENCE 2048u /* tokens of a sequence */

/* How the columns come about: seeded normals plus `shift`, or by the gate from hidden states in every step. 0 tokens
 * and d_model are the above. */
struct setting_shape {
    uint32_t n_experts, top_k, n_tokens, d_model;
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
    float *hidden;                     /* [n_tokens][d_model] or NULL */
    void *params, *state, *check;      /* of moesim_plan_check */
};

/* Sets `router` up with `params` ("key=value,key=value" or "") for one group of tokens in training. */
MOESIM_MUST_CHECK enum moesim_status setting_open(struct setting *s, const struct moesim_router *router,
                                                  const char *params, struct setting_shape shape,
                                                  struct moesim_error *err);

/* Finds a built-in router. */
const struct moesim_router *setting_router(const char *name);

/* The same for "NAME" or "NAME:params"; ends the program with a sentence when that fails. */
void setting_open_spec(struct setting *s, const char *spec, struct setting_shape shape);

/* One step, from gate columns (or hidden states) to a filled plan, without and with its validation; `setting` is a
 * struct setting. Either ends the program with a sentence when the router fails. */
void setting_route(void *setting);
void setting_route_and_check(void *setting);
/* The gate alone. */
void setting_gate(void *setting);

/* Bytes of scratch that the router holds. */
size_t setting_scratch(const struct setting *s);

void setting_close(struct setting *s);

#endif
