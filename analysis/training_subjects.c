/*
 * What training tells by subject: held-out text by domain, and routing by domain and token id.
 */
#include "analysis/training.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/compare.h"

#define MAX_EXPERTS 65536
#define MAX_SUBJECTS 65536

static const char sql_domains[] =
    "SELECT d.domain, d.run, d.bits_per_byte FROM run r JOIN v_domain_loss d ON d.run = r.id "
    "WHERE r.study = CAST(?1 AS INTEGER) AND r.state = 'done' AND d.bits_per_byte IS NOT NULL "
    "AND d.step = (SELECT max(step) FROM v_domain_loss WHERE run = d.run) ORDER BY d.domain, r.seed, r.id";

static const char sql_routing[] =
    "SELECT subject, tokens, expert, assigned, layer, (SELECT max(expert) FROM v_specialisation WHERE run = "
    "CAST(?1 AS INTEGER)), (SELECT count(*) FROM specialisation WHERE run = CAST(?1 AS INTEGER)) "
    "FROM v_specialisation WHERE run = CAST(?1 AS INTEGER) AND kind = ?2 AND layer = (SELECT max(layer) FROM "
    "v_specialisation WHERE run = CAST(?1 AS INTEGER)) ORDER BY subject, expert";

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory is left for the report");
}

/* ---- bits per byte by domain ---- */

struct loss {
    char *domain; /* in the arena */
    uint32_t router;
    double value;
};

static int by_domain(const void *a, const void *b)
{
    const struct loss *x = a, *y = b;
    const int order = strcmp(x->domain, y->domain);
    if (order)
        return order;
    if (x->router != y->router)
        return x->router < y->router ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static enum moesim_status read_losses(struct results_store *store, const struct report_data *data, uint32_t workload,
                                      struct loss **losses, size_t *n, struct moesim_error *err)
{
    struct results_query *query;
    bool row = false;
    size_t room = 0;
    enum moesim_status status = results_query(store, sql_domains, &data->study_id, 1, &query, err);
    while (!status && !(status = results_next(query, &row, err)) && row) {
        const struct report_run *run = training_run(data, results_integer(query, 1));
        if (!run || run->workload != workload)
            continue;
        if (*n == room) {
            room = room ? 2 * room : 64;
            struct loss *more = realloc(*losses, room * sizeof *more);
            if (!more) {
                status = no_memory(err);
                break;
            }
            *losses = more;
        }
        struct loss *loss = &(*losses)[(*n)++];
        *loss =
            (struct loss){moesim_strdup(data->arena, results_text(query, 0)), run->router, results_number(query, 2)};
        if (!loss->domain)
            status = no_memory(err);
    }
    results_query_close(query);
    return status;
}

static bool begin_domain(struct training_domain *domain, const char *name, const struct report_data *data)
{
    *domain = (struct training_domain){name, moesim_alloc(data->arena, data->n_routers, sizeof(double)),
                                       moesim_alloc(data->arena, data->n_routers, sizeof(double))};
    for (uint32_t r = 0; domain->mean && domain->half && r < data->n_routers; r++)
        domain->mean[r] = domain->half[r] = NAN;
    return domain->mean && domain->half;
}

/* Sorted losses into one mean a domain and router. */
static bool fold_losses(const struct loss *loss, size_t n, const struct report_data *data, struct training *training)
{
    double *value = moesim_alloc(data->arena, n, sizeof *value);
    training->domain = moesim_alloc(data->arena, n, sizeof *training->domain);
    if (!value || !training->domain)
        return false;
    for (size_t i = 0, j; i < n; i = j) {
        const bool fresh = i == 0 || strcmp(loss[i].domain, loss[i - 1].domain) != 0;
        if (fresh && !begin_domain(&training->domain[training->n_domains++], loss[i].domain, data))
            return false;
        for (j = i; j < n && loss[j].router == loss[i].router && !strcmp(loss[j].domain, loss[i].domain); j++)
            value[j - i] = loss[j].value;
        const struct training_domain *domain = &training->domain[training->n_domains - 1];
        analysis_t_interval(value, (uint32_t)(j - i), &domain->mean[loss[i].router], &domain->half[loss[i].router]);
    }
    return true;
}

enum moesim_status training_load_domains(struct results_store *store, const struct report_data *data,
                                         struct training *training, struct moesim_error *err)
{
    struct loss *loss = NULL;
    size_t n = 0;
    enum moesim_status status = read_losses(store, data, training->workload, &loss, &n, err);
    if (!status && n)
        qsort(loss, n, sizeof *loss, by_domain);
    if (!status && !fold_losses(loss, n, data, training))
        status = no_memory(err);
    free(loss);
    return status;
}

/* ---- routing by subject ---- */

/* Makes room at the first row of a run, which tells the sizes. */
static bool begin_routing(struct training_routing *routing, uint32_t kind, struct results_query *query,
                          struct moesim_arena *arena)
{
    const int64_t experts = results_integer(query, 5) + 1, subjects = results_integer(query, 6);
    if (experts < 1 || experts > MAX_EXPERTS || subjects < 1 || subjects > MAX_SUBJECTS)
        return false;
    routing->n_experts = (uint32_t)experts;
    routing->layer = (uint32_t)results_integer(query, 4);
    routing->subject[kind] = moesim_alloc(arena, (size_t)subjects, sizeof **routing->subject);
    return routing->subject[kind];
}

static bool take_row(struct training_routing *routing, uint32_t kind, struct results_query *query,
                     struct moesim_arena *arena)
{
    if (!routing->subject[kind] && !begin_routing(routing, kind, query, arena))
        return false;
    struct training_subject *subject = &routing->subject[kind][routing->n[kind]];
    const int64_t expert = results_integer(query, 2);
    const double assigned = results_number(query, 3);
    if (expert == 0 || routing->n[kind] == 0) { /* the next subject */
        *subject = (struct training_subject){.name = moesim_strdup(arena, results_text(query, 0)),
                                             .tokens = results_number(query, 1),
                                             .assigned = moesim_alloc(arena, routing->n_experts, sizeof(double))};
        if (!subject->name || !subject->assigned)
            return false;
        routing->n[kind]++;
    } else {
        subject--;
    }
    if (expert < 0 || expert >= routing->n_experts || !(assigned >= 0.0) || !isfinite(assigned))
        return false;
    subject->assigned[expert] = assigned;
    subject->total += assigned;
    return true;
}

/* Leaves the routing without experts where the run has none, or none that makes sense. */
static enum moesim_status load_run(struct results_store *store, const struct report_data *data,
                                   const struct report_run *run, struct training_routing *routing,
                                   struct moesim_error *err)
{
    static const char *const kind_name[MOESIM_N_SUBJECTS] = {"domain", "token"};
    char id[24];
    enum moesim_status status = MOESIM_OK;
    bool good = true;
    snprintf(id, sizeof id, "%" PRId64, run->id);
    *routing = (struct training_routing){.seed = run->seed};
    for (uint32_t kind = 0; !status && good && kind < MOESIM_N_SUBJECTS; kind++) {
        const char *text[] = {id, kind_name[kind]};
        struct results_query *query;
        bool row = false;
        status = results_query(store, sql_routing, text, 2, &query, err);
        while (!status && good && !(status = results_next(query, &row, err)) && row)
            good = take_row(routing, kind, query, data->arena);
        results_query_close(query);
    }
    if (!good)
        routing->n_experts = 0;
    return status;
}

enum moesim_status training_load_routing(struct results_store *store, const struct report_data *data,
                                         struct training *training, struct moesim_error *err)
{
    training->routing = moesim_alloc(data->arena, data->n_routers, sizeof *training->routing);
    if (!training->routing)
        return no_memory(err);
    enum moesim_status status = MOESIM_OK;
    for (uint32_t r = 0; !status && r < data->n_routers; r++) {
        const uint32_t cell = training->workload * data->n_routers + r;
        if (data->first[cell] < data->first[cell + 1])
            status = load_run(store, data, &data->run[data->first[cell]], &training->routing[r], err);
    }
    return status;
}
