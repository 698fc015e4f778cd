/*
 * What a router keeps between init() and finish(), beside the logits (which the host allocates, or the router that
 * makes its own) and the plan: at most 64 MiB for 65536 tokens, 256 experts and k = 8.
 */
#include <criterion/criterion.h>
#include <omp.h>
#include <string.h>

#include <moesim/router.h>

#include "routers/table.h"
#include "sim/experiment/groups.h"

#define N_TOKENS 65536u
#define N_EXPERTS 256u
#define TOP_K 8u
#define D_MODEL 64u
#define N_DEVICES 8u
#define MOST_BYTES ((size_t)64 << 20)

TestSuite(router_memory, .timeout = 60);

/* Bytes that init() takes from the arena, without logits. */
static size_t bytes_of(const struct moesim_router *router)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    static uint32_t device[N_EXPERTS];
    struct moesim_shape shape;
    struct moesim_error err;
    struct moesim_env env = {.struct_size = sizeof env,
                             .n_layers = 1,
                             .n_experts = N_EXPERTS,
                             .top_k = TOP_K,
                             .d_model = D_MODEL,
                             .vocabulary = 50000,
                             .max_tokens = N_TOKENS,
                             .n_devices = N_DEVICES,
                             .expert_device = device,
                             .arena = arena};
    void *params = moesim_alloc(arena, 1, router->params_size), *state = moesim_alloc(arena, 1, router->state_size);
    cr_assert_eq(moesim_params_default(moesim_router_schema(router), TOP_K, params, arena, &err), MOESIM_OK, "%s: %s",
                 router->name, err.text);
    cr_assert_eq(moesim_router_shape(router, params, &env, &shape, &err), MOESIM_OK, "%s: %s", router->name, err.text);
    env.max_groups = moesim_groups_max(&shape, N_TOKENS, N_DEVICES);
    env.weights = moesim_alloc(arena, (size_t)shape.n_weights, sizeof(float));
    env.memory = moesim_alloc(arena, (size_t)shape.n_memory, sizeof(float));
    const size_t before = moesim_arena_used(arena);
    cr_assert_eq(moesim_router_init(router, state, params, &env, &err), MOESIM_OK, "%s: %s", router->name, err.text);
    const size_t bytes = moesim_arena_used(arena) - before;
    const bool gated = (shape.needs | router->needs) & MOESIM_NEEDS_HIDDEN && shape.n_columns == 0;
    const size_t own_logits = !gated ? 0 : (size_t)N_TOKENS * (shape.n_slots ? shape.n_slots : N_EXPERTS) * 4;
    if (router->finish)
        router->finish(state);
    moesim_arena_destroy(arena);
    return bytes > own_logits ? bytes - own_logits : 0;
}

Test(router_memory, at_most_64_mib)
{
    omp_set_num_threads(2);
    for (size_t i = 0; routers_table[i]; i++) {
        const size_t bytes = bytes_of(routers_table[i]);
        cr_log_info("%-18s %7.1f MiB", routers_table[i]->name, (double)bytes / (1 << 20));
        cr_expect(bytes <= MOST_BYTES, "%s keeps %zu MiB", routers_table[i]->name, bytes >> 20);
    }
}
