/*
 * The report, table by table.
 */
#include "sim/fidelity/fidelity.h"

#include <omp.h>

#include "sim/fidelity/table.h"

/* Those that read a file of the user's come early, so that a broken one is refused at once. */
static fidelity_table_maker *const makers[] = {
    fidelity_eplb,
    fidelity_duplication,
    fidelity_identities,
    fidelity_experts,
    fidelity_h100_all_to_all,
    fidelity_a100_all_to_all,
    fidelity_h100_all_reduce,
    fidelity_a100_all_reduce,
    fidelity_h100_low_latency,
    fidelity_h800_low_latency,
    fidelity_h800_normal,
    fidelity_directions,
};
enum { N_TABLES = sizeof makers / sizeof *makers };

static enum moesim_status make_tables(const struct fidelity_context *context, struct moesim_fidelity_table *tables,
                                      struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; i < N_TABLES && status == MOESIM_OK; i++) {
        tables[i] = (struct moesim_fidelity_table){.preset = "", .calibration = "", .unit = "", .remark = ""};
        status = makers[i](context, &tables[i], err);
        if (status == MOESIM_OK && !tables[i].skipped)
            status = fidelity_judge(&tables[i], context->arena, err);
    }
    return status;
}

enum moesim_status moesim_fidelity_run(const struct moesim_fidelity_data *data, const struct moesim_registry *registry,
                                       struct moesim_arena *arena, const struct moesim_fidelity_table **tables,
                                       uint32_t *n_tables, struct moesim_error *err)
{
    const struct fidelity_context context = {.data = data, .registry = registry, .arena = arena};
    struct moesim_fidelity_table *made = moesim_alloc(arena, N_TABLES, sizeof *made);
    if (!made)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the fidelity report");
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* thousands of small counts: a team of threads costs more than it saves */
    const enum moesim_status status = make_tables(&context, made, err);
    omp_set_num_threads(threads);
    *tables = made;
    *n_tables = N_TABLES;
    return status;
}
