/* SPDX-License-Identifier: MIT
 *
 * The router contract. A router is one constant struct; an instance is a block of state the host allocates.
 * A plugin includes this header and kernels.h, links libmoesim, and ends with MOESIM_PLUGIN(mine).
 */
#ifndef MOESIM_ROUTER_H
#define MOESIM_ROUTER_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/param.h>
#include <moesim/plan.h>
#include <moesim/status.h>

#define MOESIM_ROUTER_ABI 1u

/* Which tokens share capacity, priority and expert choice. */
enum moesim_group {
    MOESIM_GROUP_DEVICE = 0,
    MOESIM_GROUP_BATCH = 1,
    MOESIM_GROUP_SEQUENCE = 2,
    MOESIM_GROUP_TOKENS = 3, /* runs of shape.group_tokens tokens */
};

enum moesim_expert_kind { MOESIM_EXPERT_FFN = 0, MOESIM_EXPERT_ZERO, MOESIM_EXPERT_COPY, MOESIM_EXPERT_CONSTANT };

/* The numbers of a file that a parameter names (MOESIM_TYPE_FILE); arrays are row-major. */
struct moesim_file_array {
    const char *key;     /* the parameter's */
    const float *values; /* [n] */
    uint64_t n;
    uint32_t n_dimensions;
    uint64_t shape[4];
};

/* What an instance is set up for; borrowed for the call. */
struct moesim_env {
    uint32_t struct_size;
    uint32_t phase; /* enum moesim_phase */
    uint64_t seed;
    uint32_t layer, n_layers;
    uint32_t n_experts, top_k;
    uint32_t d_model, vocabulary; /* 0 = not known */
    uint32_t max_tokens, max_groups;
    uint32_t n_devices;
    const uint32_t *expert_device;         /* [n_experts] device of each expert (its first replica) */
    struct moesim_arena *arena;            /* lives as long as the instance */
    float *weights;                        /* [n_weights] initialised by the host; NULL in shape() */
    float *memory;                         /* [n_memory] zeroed; init may set starting values; NULL in shape() */
    const struct moesim_file_array *files; /* [n_files] what the parameters of type file name */
    uint32_t n_files;
};

/* What an instance asks of the host. The host fills the defaults (in brackets) before shape(). */
struct moesim_shape {
    uint32_t struct_size;
    uint32_t needs;              /* beyond the router's own [0] */
    uint32_t n_columns;          /* of the gate [n_experts] */
    uint32_t n_optional_columns; /* trailing columns that count as 0 where a file lacks them [0] */
    uint32_t n_experts;          /* that pairs may name, zero-computation experts included [env n_experts] */
    uint64_t n_weights;          /* learned beyond the gate [0] */
    float weight_std;            /* of their initial normal distribution [0.02] */
    uint64_t n_memory;           /* floats kept between steps [0] */
    uint64_t max_pairs;          /* of a plan over max_tokens [max_tokens * top_k] */
    uint32_t n_slots;            /* of one group: soft routers only [0] */
    uint32_t group;              /* enum moesim_group [device] */
    uint32_t group_tokens;       /* for MOESIM_GROUP_TOKENS */
    float input_jitter;          /* the gate's input is multiplied by U(1-j, 1+j) in training [0] */
    const uint8_t *expert_kind;  /* [n_experts] enum moesim_expert_kind; NULL = all FFN */
    uint32_t n_logits; /* leading columns that are the logits of one expert each: what routers have in common, so that a
                          gate trained with one serves others [env n_experts] */
};

/* After each global batch, for update(): integer counts of this layer and their means over layers. */
struct moesim_feedback {
    uint32_t struct_size;
    uint32_t layer, n_layers;
    uint32_t n_experts;
    uint64_t n_tokens;           /* of the global batch */
    const uint64_t *assigned;    /* [n_experts] */
    const uint64_t *kept;        /* [n_experts] */
    const double *mean_assigned; /* [n_experts] over layers */
    const double *mean_kept;     /* [n_experts] over layers */
    float *memory;               /* [n_memory] of this layer */
};

/* Gradients for backward(): the host sets the first block, the router adds to the second. */
struct moesim_grad {
    uint32_t struct_size;
    float loss_scale;
    const float *d_weight;   /* [n_pairs] loss by pair weight */
    const float *d_dispatch; /* [n_tokens][n_slots] soft routers */
    const float *d_combine;  /* [n_tokens][n_slots] */

    float *d_columns; /* [n_tokens][stride] */
    float *d_hidden;  /* [n_tokens][d_model] or NULL */
    float *d_weights; /* [n_weights] or NULL */
};

struct moesim_router {
    uint32_t abi, struct_size;  /* first for ever; checked before anything else is read */
    uint32_t param_size, needs; /* stride of params[]; enum moesim_needs */
    const char *name, *summary, *reference;
    const struct moesim_param *params;
    size_t params_size, state_size; /* the host allocates and zeroes both */

    /* What this instance asks of the host; NULL = E gate columns, at most top_k pairs a token, all experts FFN,
     * nothing learned or remembered. Pure: no state yet. */
    enum moesim_status (*shape)(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                struct moesim_error *err);
    /* Rebuilds scratch from parameters; may be NULL. Allocates from env->arena only. */
    enum moesim_status (*init)(void *state, const void *params, const struct moesim_env *env, struct moesim_error *err);
    /* Required. Called by one thread at a time; does not allocate, print or read a clock. */
    enum moesim_status (*route)(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                struct moesim_error *err);
    /* Adds gradients of the pair weights and of its auxiliary losses; NULL = the weights carry no gradient. */
    enum moesim_status (*backward)(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                   struct moesim_grad *grad, struct moesim_error *err);
    /* After each global batch in training: bias rules, controllers; may be NULL. */
    enum moesim_status (*update)(void *state, const struct moesim_feedback *feedback, struct moesim_error *err);
    void (*finish)(void *state); /* may be NULL */
};

/* The first four fields of every router. */
#define MOESIM_ROUTER_HEAD                                                                                             \
    .abi = MOESIM_ROUTER_ABI, .struct_size = sizeof(struct moesim_router), .param_size = sizeof(struct moesim_param)

/* The last line of an out-of-tree router: exports `router` under the one name the host looks up. */
#define MOESIM_PLUGIN(router) MOESIM_API const struct moesim_router *const moesim_plugin = &(router)

/* The router's schema with its stride. */
static inline struct moesim_schema moesim_router_schema(const struct moesim_router *router)
{
    return (struct moesim_schema){router->params, router->param_size};
}

/* The array of a file parameter, or NULL where it names no file. */
MOESIM_API const struct moesim_file_array *moesim_env_file(const struct moesim_env *env, const char *key);

/* Calls shape() over the defaults, or gives the defaults where it is NULL, and checks what comes back. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_router_shape(const struct moesim_router *router,
                                                                    const void *params, const struct moesim_env *env,
                                                                    struct moesim_shape *shape,
                                                                    struct moesim_error *err);

/* Call the hook; one that a router does not have does nothing. Whatever it returns, a failure is a known status with a
 * printable sentence. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_router_init(const struct moesim_router *router, void *state,
                                                                   const void *params, const struct moesim_env *env,
                                                                   struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_router_route(const struct moesim_router *router, void *state,
                                                                    const struct moesim_batch *batch,
                                                                    struct moesim_plan *plan, struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status
moesim_router_backward(const struct moesim_router *router, void *state, const struct moesim_batch *batch,
                       const struct moesim_plan *plan, struct moesim_grad *grad, struct moesim_error *err);
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_router_update(const struct moesim_router *router, void *state,
                                                                     const struct moesim_feedback *feedback,
                                                                     struct moesim_error *err);

#endif
