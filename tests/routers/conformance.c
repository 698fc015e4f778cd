/*
 * Every built-in router passes the conformance suite; the nightly run tries more shapes (build-aux/nightly). With
 * MOESIM_PART=I/N in the environment a program tries every Nth router, from the Ith, so that N of them run side by
 * side.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>

#include "routers/table.h"
#include "sim/experiment/conformance.h"

#ifdef __SANITIZE_ADDRESS__
#define N_SHAPES 80
#else
#define N_SHAPES 500
#endif

TestSuite(router_conformance, .timeout = 300);

ParameterizedTestParameters(router_conformance, every_router)
{
    static size_t index[256];
    size_t n = 0;
    unsigned part = 1, n_parts = 1;
    const char *text = getenv("MOESIM_PART");
    if (text && sscanf(text, "%u/%u", &part, &n_parts) != 2)
        abort();
    for (size_t i = 0; routers_table[i]; i++)
        if (i % n_parts == part - 1)
            index[n++] = i;
    return cr_make_param_array(size_t, index, n);
}

ParameterizedTest(size_t *index, router_conformance, every_router)
{
    const struct moesim_router *router = routers_table[*index];
    static struct moesim_conformance result;
    struct moesim_error err;
    cr_assert_eq(moesim_conformance_run(router, N_SHAPES, 1000, &result, &err), MOESIM_OK, "%s: %s", router->name,
                 err.text);
    cr_assert_eq(result.n_failed, 0, "%s: %s", router->name, result.failure[0]);
    cr_assert(result.n_refused < N_SHAPES / 4, "%s refuses %u of %u shapes", router->name, result.n_refused,
              result.n_shapes);
}
