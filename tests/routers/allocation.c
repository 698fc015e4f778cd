/*
 * No router allocates in route(), backward() or update(): every call of malloc and its kin from such a hook is counted
 * while the conformance suite tries shapes and settings. What the OpenMP runtime and the dynamic linker take for their
 * threads is theirs.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "routers/table.h"
#include "sim/experiment/conformance.h"
#include "tests/allocations.h"

#define N_SHAPES 30

/* ---- a router whose hooks are watched ---- */

static const struct moesim_router *real;

static enum moesim_status route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                struct moesim_error *err)
{
    allocations_watch(true);
    const enum moesim_status status = real->route(state, batch, plan, err);
    allocations_watch(false);
    return status;
}

static enum moesim_status backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                   struct moesim_grad *grad, struct moesim_error *err)
{
    allocations_watch(true);
    const enum moesim_status status = real->backward(state, batch, plan, grad, err);
    allocations_watch(false);
    return status;
}

static enum moesim_status update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    allocations_watch(true);
    const enum moesim_status status = real->update(state, feedback, err);
    allocations_watch(false);
    return status;
}

static void try(const struct moesim_router *router, uint32_t n_shapes)
{
    static struct moesim_conformance result;
    struct moesim_error err;
    struct moesim_router watched = *router;
    real = router;
    watched.route = route;
    watched.backward = router->backward ? backward : NULL;
    watched.update = router->update ? update : NULL;
    cr_assert_eq(moesim_conformance_run(&watched, n_shapes, 2000, &result, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(result.n_failed, 0, "%s", result.failure[0]);
}

TestSuite(router_allocation, .init = allocations_init, .timeout = 120);

ParameterizedTestParameters(router_allocation, no_hook_allocates)
{
    static size_t index[256];
    size_t n = 0;
    for (; routers_table[n]; n++)
        index[n] = n;
    return cr_make_param_array(size_t, index, n);
}

ParameterizedTest(size_t *index, router_allocation, no_hook_allocates)
{
    try(routers_table[*index], N_SHAPES);
    cr_assert_eq(allocations_counted(), 0, "%s: its hooks allocate, %u times over all", real->name,
                 allocations_counted());
}

/* ---- the counter counts ---- */

static enum moesim_status allocate_and_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                             struct moesim_error *err)
{
    moesim_arena_destroy(moesim_arena_create(0)); /* from within libmoesim */
    return routers_table[0]->route(state, batch, plan, err);
}

Test(router_allocation, a_planted_one_is_found)
{
    struct moesim_router planted = *routers_table[0];
    planted.route = allocate_and_route;
    try(&planted, 5);
    cr_assert(allocations_counted() >= 5, "%u", allocations_counted());
}
