/*
 * The parts of the conformance suite: synthetic batches, one router instance on them, random settings of its
 * parameters, and the three families of checks that conformance.c runs.
 */
#ifndef MOESIM_SIM_CONFORMANCE_SUITE_H
#define MOESIM_SIM_CONFORMANCE_SUITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/plan.h>
#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/experiment/conformance.h"

struct suite {
    const struct moesim_router *router;
    uint64_t seed;
    struct moesim_conformance *result;
};

/* ---- what is tried ---- */

#define TRIAL_STEPS 3u

struct trial_case {
    uint64_t seed;
    uint32_t n_tokens, n_experts, top_k, n_devices;
    uint32_t n_steps; /* batches, at most TRIAL_STEPS */
    uint32_t phase;   /* enum moesim_phase */
    bool has_padding; /* one token in eight */
};

/* Counts a check; a false one is kept as a sentence with the case and the settings that show it. */
void suite_check(struct suite *suite, bool holds, const struct trial_case *c, const char *settings, const char *format,
                 ...) MOESIM_PRINTF(5, 6);

/* ---- random draws, and settings of the parameters ---- */

struct draw {
    struct moesim_random random;
    uint64_t next;
};

struct draw draw_start(uint64_t seed, uint32_t step);
uint32_t draw_below(struct draw *d, uint32_t n);
bool draw_coin(struct draw *d);
double draw_uniform(struct draw *d); /* in [0, 1) */
/* Log-uniform between lo and hi, both above 0. */
double draw_log(struct draw *d, double lo, double hi);

#define SETTINGS_TEXT 320
#define VALUE_TEXT 40
struct settings {
    struct moesim_arena *arena;
    void *params;
    char text[SETTINGS_TEXT]; /* "k=3,capacity_factor=0.5": what differs from the defaults */
};

MOESIM_MUST_CHECK enum moesim_status settings_init(struct settings *s, const struct moesim_router *router,
                                                   uint32_t top_k, struct moesim_error *err);
void settings_finish(struct settings *s);

/* Sets one parameter from text and notes it; false when the schema refuses the value. */
bool settings_set(struct settings *s, const struct moesim_param *row, const char *text);

/* A random value for the row as text; false for a text parameter that is no group (a file, say). */
bool draw_value(struct draw *d, const struct moesim_param *row, const void *params, const struct trial_case *c,
                char text[VALUE_TEXT]);

/* Random values for about half of the parameters, `except` excepted (may be NULL). */
void settings_draw(struct settings *s, const struct moesim_router *router, const struct trial_case *c,
                   const struct moesim_param *except, struct draw *d);

/* ---- batches ---- */

#define TRIAL_D_MODEL 16u
#define TRIAL_VOCABULARY 1000u
#define TRIAL_LAYERS 2u                 /* of which layer 1 is tried, so that there are previous logits */
#define TRIAL_BYTES ((size_t)256 << 20) /* of a case's batches, and of an instance */

/* The batches of a case for one shape of router, made once for all the instances that are compared. What the router
 * did not ask for is NULL, as it may be in a run. Batches of odd steps are shorter. */
struct trial_inputs {
    struct moesim_arena *arena; /* NULL = not made yet */
    struct moesim_shape shape;  /* that they were made for */
    struct moesim_batch batch[TRIAL_STEPS];
    float *columns[TRIAL_STEPS];        /* [n_tokens][stride] of the batch */
    const float *upstream[TRIAL_STEPS]; /* [max_pairs], [n_tokens][n_slots]: the loss by weights */
};

/* MOESIM_EREFUSE when they take more than TRIAL_BYTES. inputs_finish in every case. */
MOESIM_MUST_CHECK enum moesim_status inputs_init(struct trial_inputs *in, const struct trial_case *c, uint32_t needs,
                                                 const struct moesim_shape *shape, uint32_t max_groups,
                                                 struct moesim_error *err);
void inputs_finish(struct trial_inputs *in);

/* ---- one instance ---- */

struct trial {
    const struct moesim_router *router;
    struct trial_case c;
    struct moesim_arena *arena;
    const void *params;
    struct trial_inputs *inputs, own; /* borrowed, or its own */
    void *state;
    bool ready; /* init succeeded */
    struct moesim_env env;
    struct moesim_shape shape;
    struct moesim_batch batch; /* the present step's */
    float *columns;            /* [n_tokens][batch.stride] of it */
    struct moesim_plan plan;
    struct moesim_expert_view view;
    void *check_scratch;
    uint64_t *assigned, *kept;
    double *load;
    float *start_memory; /* [n_memory] what init left */
    float *d_columns, *d_hidden, *d_weights;
    uint64_t first_plan; /* hash of the first step's */
};

/* Shape, memory and init; makes `inputs` (all zero before) where they are not made yet, and borrows them; NULL = makes
 * its own. MOESIM_EINVAL and MOESIM_EREFUSE are refusals; trial_finish in every case. */
MOESIM_MUST_CHECK enum moesim_status trial_init(struct trial *t, const struct moesim_router *router,
                                                const struct trial_case *c, const void *params,
                                                struct trial_inputs *inputs, struct moesim_error *err);
void trial_finish(struct trial *t);

/* Makes a step's batch the present one. */
void trial_take(struct trial *t, uint32_t step);

/* Routes the batch as it is and checks the plan, its counts and the experts' view. */
MOESIM_MUST_CHECK enum moesim_status trial_route(struct trial *t, struct moesim_error *err);

/* Gradients of the routed batch (finite), and the update after it, as training has them. */
MOESIM_MUST_CHECK enum moesim_status trial_learn(struct trial *t, struct moesim_error *err);

/* Hash of all that the last route() decided; `decisions` leaves out weights and losses. */
uint64_t trial_plan_hash(const struct trial *t, bool decisions);

/* Takes, routes and learns every step; *hash covers plans, gradients, memory and what shape() asked for. */
MOESIM_MUST_CHECK enum moesim_status trial_steps(struct trial *t, uint64_t *hash, struct moesim_error *err);

/* Routes the first batch again with the memory that init left, after all steps: is the plan the same? */
MOESIM_MUST_CHECK enum moesim_status trial_repeat(struct trial *t, bool *same, struct moesim_error *err);

/* The steps of a new instance on batches of its own. */
MOESIM_MUST_CHECK enum moesim_status trial_run(const struct moesim_router *router, const struct trial_case *c,
                                               const void *params, uint64_t *hash, struct moesim_error *err);

static inline bool is_refusal(enum moesim_status status)
{
    return status == MOESIM_EINVAL || status == MOESIM_EREFUSE;
}

/* ---- the families of checks ---- */

MOESIM_MUST_CHECK enum moesim_status suite_shapes(struct suite *suite, uint32_t n_shapes, struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status suite_hostile(struct suite *suite, struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status suite_parameters(struct suite *suite, struct moesim_error *err);

#endif
