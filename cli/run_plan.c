/* The plan of a run. */
#include "cli/run_plan.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/model_sizes.h"
#include "cli/print_table.h"
#include "cli/progress.h"
#include "sim/experiment/experiment.h"

struct plan {
    enum results_state *state; /* [n_points] */
    uint32_t n_due, n_routings;
    uint64_t memory_bytes; /* of the largest point */
    double run_s;          /* mean of past runs of this study; NaN unknown */
};

static enum moesim_status read_past(const struct loaded_study *loaded, struct results_store *store, struct plan *plan,
                                    struct moesim_error *err)
{
    char hash[20];
    snprintf(hash, sizeof hash, "%016" PRIx64, moesim_study_hash(loaded->study));
    const char *text[] = {hash};
    struct results_query *query;
    bool row = false;
    enum moesim_status status =
        results_query(store,
                      "SELECT s.id, avg(r.seconds) FROM study s LEFT JOIN run r ON r.study = s.id AND r.state = 'done' "
                      "WHERE s.hash = ?1 GROUP BY s.id",
                      text, 1, &query, err);
    if (!status)
        status = results_next(query, &row, err);
    int64_t study = 0;
    if (!status && row) {
        study = results_integer(query, 0);
        plan->run_s = results_number(query, 1);
    }
    results_query_close(query);
    return status || !row ? status : sweep_states(loaded, store, study, plan->state, err);
}

static enum moesim_status make_plan(const struct loaded_study *loaded, const char *db,
                                    const struct sweep_options *options, struct plan *plan, struct moesim_error *err)
{
    *plan = (struct plan){.state = calloc(loaded->n_points ? loaded->n_points : 1, sizeof *plan->state),
                          .run_s = (double)NAN};
    if (!plan->state)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    struct results_store *store = NULL;
    enum moesim_status status = MOESIM_OK;
    if (access(db, F_OK) == 0)
        status = results_open(db, RESULTS_READ, &store, err);
    if (!status && store)
        status = read_past(loaded, store, plan, err);
    results_close(store);
    uint64_t routing = 0;
    for (uint32_t i = 0; !status && i < loaded->n_points; i++) {
        bool due = options->fresh || plan->state[i] == RESULTS_ABSENT ||
                   (plan->state[i] == RESULTS_FAILED && options->retry_failed);
        uint64_t bytes = moesim_experiment_memory(loaded->points[i]);
        plan->memory_bytes = bytes > plan->memory_bytes ? bytes : plan->memory_bytes;
        if (due && (!plan->n_due || loaded->points[i]->route_hash != routing))
            plan->n_routings++;
        if (due)
            routing = loaded->points[i]->route_hash;
        plan->n_due += due;
    }
    return status;
}

static const char *state_word(enum results_state state)
{
    return state == RESULTS_DONE ? "done" : state == RESULTS_FAILED ? "failed" : "to do";
}

static struct print_table *points_table(const struct loaded_study *loaded, const struct plan *plan)
{
    bool cluster = false;
    for (uint32_t i = 0; i < loaded->n_points; i++)
        cluster |= loaded->points[i]->has_cluster;
    const struct print_column head[] = {{.title = "point", .right = true},
                                        {.title = "workload", .wrap = true},
                                        {.title = "router", .wrap = true},
                                        {.title = "seed", .right = true},
                                        {.title = "state"},
                                        {.title = "cluster", .wrap = true},
                                        {.title = "placement", .wrap = true}};
    struct print_table *table = print_table_create(head, cluster ? 7 : 5);
    for (uint32_t i = 0; table && i < loaded->n_points; i++) {
        const struct moesim_point *point = loaded->points[i];
        print_number(table, i, NULL);
        print_text(table, point->workload_spec);
        print_text(table, point->router_spec);
        char seed[24];
        snprintf(seed, sizeof seed, "%" PRIu64, point->seed);
        print_number(table, (double)point->seed, seed);
        print_text(table, state_word(plan->state[i]));
        if (cluster) {
            print_text(table, point->has_cluster ? point->cluster_spec : "");
            print_text(table, point->has_cluster ? point->placement_spec : "");
        }
    }
    return table;
}

static void print_totals(const struct loaded_study *loaded, const struct plan *plan,
                         const struct sweep_options *options)
{
    char time[32];
    double left_s = plan->run_s * plan->n_due / options->jobs;
    printf("\n%u point%s, %u to run in %u routing%s; memory %.3g MiB a job, %u job%s of %u thread%s; time: %s\n",
           loaded->n_points, loaded->n_points == 1 ? "" : "s", plan->n_due, plan->n_routings,
           plan->n_routings == 1 ? "" : "s", (double)plan->memory_bytes / 1048576, options->jobs,
           options->jobs == 1 ? "" : "s", options->threads, options->threads == 1 ? "" : "s",
           isnan(left_s) ? "not known before the first run" : progress_duration(left_s, time));
}

/* One object: the totals and the points. */
static bool print_plan_json(const struct loaded_study *loaded, const struct plan *plan,
                            const struct sweep_options *options)
{
    json_t *points = json_array();
    for (uint32_t i = 0; i < loaded->n_points; i++) {
        const struct moesim_point *p = loaded->points[i];
        json_array_append_new(points, json_pack("{s:i, s:s, s:s, s:I, s:s, s:s?, s:s?}", "point", (int)i, "workload",
                                                p->workload_spec, "router", p->router_spec, "seed", (json_int_t)p->seed,
                                                "state", state_word(plan->state[i]), "cluster",
                                                p->has_cluster ? p->cluster_spec : NULL, "placement",
                                                p->has_cluster ? p->placement_spec : NULL));
    }
    double left_s = plan->run_s * plan->n_due / options->jobs;
    json_t *root =
        json_pack("{s:s, s:i, s:i, s:I, s:i, s:i, s:o, s:o}", "study", moesim_study_name(loaded->study), "to_run",
                  (int)plan->n_due, "routings", (int)plan->n_routings, "memory_bytes", (json_int_t)plan->memory_bytes,
                  "jobs", (int)options->jobs, "threads", (int)options->threads, "time_s",
                  isnan(left_s) ? json_null() : json_real(left_s), "points", points);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (text)
        puts(text);
    free(text);
    return text != NULL;
}

int run_plan_print(const struct loaded_study *loaded, const char *db, const struct sweep_options *options, bool json)
{
    struct plan plan;
    struct moesim_error err;
    enum moesim_status status = make_plan(loaded, db, options, &plan, &err);
    bool good = true;
    if (!status && json) {
        good = print_plan_json(loaded, &plan, options);
    } else if (!status) {
        struct print_table *table = points_table(loaded, &plan);
        good = table && print_table(table, PRINT_TABLE);
        print_table_destroy(table);
        print_totals(loaded, &plan, options);
        model_sizes_print(loaded, stdout);
    }
    free(plan.state);
    if (status)
        return cli_fail_status(status, &err);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}
