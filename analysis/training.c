/*
 * Curves of training: the series that mode train records, averaged over layers, then over the runs of a router.
 */
#include "analysis/training.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One value of one run. */
struct sample {
    uint32_t router, metric, step;
    double value;
};

struct samples {
    struct sample *sample; /* malloc'd */
    size_t n, room;
};

/* What is recorded of every batch is averaged up to the next validation, over layers too. */
static const char sql_series[] =
    "SELECT s.run, m.name, ifnull((SELECT min(step) FROM series WHERE run = s.run AND metric = b.id AND layer = 0 AND "
    "step >= s.step), s.step) AS at, avg(s.value) FROM run r JOIN series s ON s.run = r.id JOIN metric m ON m.id = "
    "s.metric JOIN metric b ON b.name = 'bits_per_byte' WHERE r.study = CAST(?1 AS INTEGER) AND r.state = 'done' AND "
    "m.name IN ('bits_per_byte', 'max_vio', 'max_vio_global', 'dead_experts', 'routing_fluctuation', "
    "'router_saturation', 'domain_specialisation', 'flop_train', 'time_step') GROUP BY s.run, s.metric, at "
    "ORDER BY s.run, s.metric, at";

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory is left for the report");
}

bool training_any(const struct report_data *data)
{
    return report_has(data, MOESIM_BITS_PER_BYTE) || report_has(data, MOESIM_TRAIN_LOSS);
}

const struct training_curve *training_curve_of(const struct training *training, uint32_t router, uint32_t metric)
{
    return &training->curve[(size_t)router * MOESIM_N_METRICS + metric];
}

const struct report_run *training_run(const struct report_data *data, int64_t id)
{
    for (uint32_t i = 0; i < data->n_runs; i++)
        if (data->run[i].id == id)
            return &data->run[i];
    return NULL;
}

static bool add(struct samples *samples, struct sample sample)
{
    if (samples->n == samples->room) {
        const size_t room = samples->room ? 2 * samples->room : 1024;
        struct sample *more = realloc(samples->sample, room * sizeof *more);
        if (!more)
            return false;
        samples->sample = more;
        samples->room = room;
    }
    samples->sample[samples->n++] = sample;
    return true;
}

/* What a batch costs becomes what all batches up to it cost: a value is the mean since the one before it. */
static double add_up(const struct samples *samples, const struct report_run *run, const struct report_run *last,
                     uint32_t metric, uint32_t step, double value)
{
    const struct sample *before = samples->n ? &samples->sample[samples->n - 1] : NULL;
    if (metric != MOESIM_FLOP_TRAIN && metric != MOESIM_TIME_STEP)
        return value;
    if (!before || last != run || before->metric != metric)
        return value * ((double)step + 1.0);
    return before->value + value * ((double)step - before->step);
}

static enum moesim_status read_samples(struct results_store *store, const struct report_data *data, uint32_t workload,
                                       struct samples *samples, struct moesim_error *err)
{
    struct results_query *query;
    bool row = false;
    enum moesim_status status = results_query(store, sql_series, &data->study_id, 1, &query, err);
    const struct report_run *run = NULL, *last = NULL;
    while (!status && !(status = results_next(query, &row, err)) && row) {
        const int64_t id = results_integer(query, 0), step = results_integer(query, 2);
        const int metric = moesim_metric_find(results_text(query, 1));
        const double value = results_number(query, 3);
        if (!run || run->id != id)
            run = training_run(data, id);
        if (!run || run->workload != workload || metric < 0 || !isfinite(value) || step < 0 || step >= UINT32_MAX)
            continue;
        const uint32_t at = (uint32_t)step;
        const double shown = add_up(samples, run, last, (uint32_t)metric, at, value);
        if (!add(samples, (struct sample){run->router, (uint32_t)metric, at, shown}))
            status = no_memory(err);
        last = run;
    }
    results_query_close(query);
    return status;
}

/* The values last, so that means do not depend on the order of the file. */
static int by_point(const void *a, const void *b)
{
    const struct sample *x = a, *y = b;
    if (x->router != y->router)
        return x->router < y->router ? -1 : 1;
    if (x->metric != y->metric)
        return x->metric < y->metric ? -1 : 1;
    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static bool same_curve(const struct sample *a, const struct sample *b)
{
    return a->router == b->router && a->metric == b->metric;
}

/* Sorted samples into points, and curves as stretches of them. */
static bool fold(const struct samples *samples, const struct report_data *data, struct training *training)
{
    const struct sample *s = samples->sample;
    struct training_point *point = moesim_alloc(data->arena, samples->n, sizeof *point);
    for (size_t i = 0, j, n = 0; point && i < samples->n; i = j, n++) {
        double sum = 0.0;
        for (j = i; j < samples->n && same_curve(&s[i], &s[j]) && s[i].step == s[j].step; j++)
            sum += s[j].value;
        struct training_curve *curve = &training->curve[(size_t)s[i].router * MOESIM_N_METRICS + s[i].metric];
        point[n] = (struct training_point){s[i].step, sum / (double)(j - i), s[i].value, s[j - 1].value};
        if (!curve->n++)
            curve->point = &point[n];
    }
    return point;
}

enum moesim_status training_load_curves(struct results_store *store, const struct report_data *data,
                                        struct training *training, struct moesim_error *err)
{
    struct samples samples = {0};
    training->curve = moesim_alloc(data->arena, (size_t)data->n_routers * MOESIM_N_METRICS, sizeof *training->curve);
    if (!training->curve)
        return no_memory(err);
    enum moesim_status status = read_samples(store, data, training->workload, &samples, err);
    if (!status && samples.n)
        qsort(samples.sample, samples.n, sizeof *samples.sample, by_point);
    if (!status && !fold(&samples, data, training))
        status = no_memory(err);
    free(samples.sample);
    return status;
}

/* How much of two names is alike, up to a '/'. */
static size_t common_folder(const char *a, const char *b, size_t most)
{
    size_t folder = 0;
    for (size_t i = 0; i < most && a[i] && a[i] == b[i]; i++)
        if (a[i] == '/')
            folder = i + 1;
    return folder;
}

/* Domains are often paths of one folder, which tells nothing in a table. */
static void drop_common_folder(struct training *training, uint32_t n_routers)
{
    size_t length = training->n_domains > 1 ? SIZE_MAX : 0;
    for (uint32_t d = 1; d < training->n_domains; d++)
        length = common_folder(training->domain[0].name, training->domain[d].name, length);
    if (!length)
        return;
    const char *folder = training->domain[0].name;
    for (uint32_t r = 0; r < n_routers; r++)
        for (uint32_t i = 0; i < training->routing[r].n[MOESIM_SUBJECT_DOMAIN]; i++) {
            struct training_subject *subject = &training->routing[r].subject[MOESIM_SUBJECT_DOMAIN][i];
            if (!strncmp(subject->name, folder, length))
                subject->name += length;
        }
    for (uint32_t d = 0; d < training->n_domains; d++)
        training->domain[d].name += length;
}

/* The first workload that has held-out text. */
static uint32_t choose_workload(const struct report_data *data)
{
    for (uint32_t i = 0; i < data->n_runs; i++) /* by workload */
        if (isfinite(data->run[i].value[MOESIM_BITS_PER_BYTE]))
            return data->run[i].workload;
    return 0;
}

enum moesim_status training_load(struct results_store *store, const struct report_data *data, struct training *training,
                                 struct moesim_error *err)
{
    *training = (struct training){.workload = choose_workload(data)};
    enum moesim_status status = training_load_curves(store, data, training, err);
    if (!status)
        status = training_load_domains(store, data, training, err);
    if (!status)
        status = training_load_routing(store, data, training, err);
    if (!status)
        drop_common_folder(training, data->n_routers);
    return status;
}
