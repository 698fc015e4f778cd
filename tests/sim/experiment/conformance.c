/*
 * The conformance suite passes a router that keeps its word, and catches each way of breaking it.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "contract_router.h"
#include "sim/experiment/conformance.h"

TestSuite(conformance, .timeout = 240);

static struct moesim_conformance result;
static struct moesim_error err;

static void run(const struct moesim_router *router, enum contract_fault fault, uint32_t n_shapes)
{
    contract_fault = fault;
    cr_assert_eq(moesim_conformance_run(router, n_shapes, 7, &result, &err), MOESIM_OK, "%s", err.text);
}

/* Whether a kept sentence has the words in it. */
static bool says(const char *words)
{
    for (uint32_t i = 0; i < result.n_failures_kept; i++)
        if (strstr(result.failure[i], words))
            return true;
    return false;
}

Test(conformance, hidden_states_columns_weights_and_memory)
{
    run(&contract_router, FAULT_NONE, 40);
    cr_assert_eq(result.n_failed, 0, "%s", result.failure[0]);
    cr_assert_eq(result.n_shapes, 40);
    cr_assert(result.n_checks > 120);
    cr_assert(result.n_refused < 20); /* what is drawn may be refused, but not all of it */
}

Test(conformance, smallest_router)
{
    run(&argmax_router, FAULT_NONE, 40);
    cr_assert_eq(result.n_failed, 0, "%s", result.failure[0]);
    cr_assert_eq(result.n_refused, 0);
}

Test(conformance, broken_promises_are_found)
{
    const struct {
        const struct moesim_router *router;
        enum contract_fault fault;
        uint32_t n_shapes;
        const char *words;
    } faults[] = {
        {&contract_router, FAULT_DUPLICATE, 4, "already has this expert"},
        {&argmax_router, FAULT_NO_EXPERT, 4, "there is no such expert"},
        {&argmax_router, FAULT_CAPACITY, 4, "its slot is outside the expert's capacity"},
        {&argmax_router, FAULT_SLOT, 4, "another pair of the group has this slot"},
        {&argmax_router, FAULT_NAN_WEIGHT, 4, "its weight is not finite"},
        {&argmax_router, FAULT_LOST_PAIR, 4, "pairs wanted, but"},
        {&contract_router, FAULT_PADDING, 12, "padding is routed somewhere"},
        {&contract_router, FAULT_THREADS, 4, "threads give different bits"},
        {&contract_router, FAULT_THREADS_GRADIENT, 4, "threads give different bits"},
        {&contract_router, FAULT_OWN_MEMORY, 12, "routed differently the second time"},
        {&contract_router, FAULT_SHAPE, 4, "shape() answers the same question differently"},
        {&contract_router, FAULT_ARENA, 4, "route() allocates from the arena"},
        {&contract_router, FAULT_DEAD_PARAM, 4, "parameter mix changes nothing"},
        {&contract_router, FAULT_NAN, 4, "a bad row is routed or not counted"},
        {&contract_router, FAULT_BAD_GRADIENT, 4, "d_columns[0] is not finite"},
        {&contract_router, FAULT_BAD_HIDDEN, 4, "d_hidden[0] is not finite"},
        {&contract_router, FAULT_BAD_WEIGHTS, 4, "d_weights[0] is not finite"},
        {&contract_router, FAULT_BAD_MEMORY, 4, "memory[0] is not finite"},
        {&argmax_router, FAULT_TIES, 4, "a tie does not go to the lowest id"},
        {&argmax_router, FAULT_FORGETFUL, 4, "routed differently the second time"},
        {&argmax_router, FAULT_LEAK, 4, "routed differently the second time"},
        {&argmax_router, FAULT_FORGETFUL, 4, "repeats differ"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        run(faults[i].router, faults[i].fault, faults[i].n_shapes);
        cr_assert(result.n_failed > 0, "not found: %s", faults[i].words);
        cr_assert(says(faults[i].words), "%s: %s", faults[i].words, result.failure[0]);
        cr_assert(says("T="));
    }
}
