/*
 * Directions: small studies whose runs must differ the way published systems did. How much they differ is shown beside,
 * since whole training steps and other hardware are not what a layer on H100 takes.
 */
#include <string.h>

#include "sim/experiment/experiment.h"
#include "sim/fidelity/table.h"
#include "sim/study/study.h"

enum { MOST_RUNS = 4 };

/* One study, whose runs are in the order of the published figures. */
static const struct direction {
    const char *study;
    uint32_t metric;
    uint32_t n;
    const char *run[MOST_RUNS];
    double published[MOST_RUNS];
} directions[] = {
    /* Switch Transformer (arXiv:2101.03961), table 1: examples a second of Switch-Base. */
    {.study = "study: capacity\nseeds: 1\nsteps: 1\nmetrics: tokens_per_second\nphase: train\n"
              "workload: {name: gaussian, tokens: 65536}\n"
              "model: {name: switch-base-128, layers: 1}\n"
              "router: {name: switch, capacity_factor: [1.0, 1.25, 2.0]}\n"
              "cluster: {name: h100-dgx, nodes: 4}\npadding: capacity\ndispatch: padded\n",
     .metric = MOESIM_TOKENS_PER_SECOND,
     .n = 3,
     .run = {"Switch, capacity factor 1", "1.25", "2"},
     .published = {1000, 910, 860}},
    /* Expert Choice (arXiv:2202.09368): a step is 20 % shorter than top-2 with capacity factor 2, 64 experts of 8B. */
    {.study = "study: choice\nseeds: 1\nsteps: 1\nmetrics: time_layer\nphase: train\n"
              "workload: {name: gaussian, tokens: 32768}\n"
              "model: {layers: 1, experts: 64, top_k: 2, d_model: 2048, d_ff: 8192, activation: gelu}\n"
              "router: ['softmax-topk:k=2,capacity_factor=2', expert-choice]\n"
              "cluster: {name: h100-dgx, nodes: 4}\npadding: capacity\ndispatch: padded\n",
     .metric = MOESIM_TIME_LAYER,
     .n = 2,
     .run = {"top-2, capacity factor 2", "expert choice"},
     .published = {1, 0.8}},
    /* Loss-free balancing (arXiv:2408.15664), table 2, 1B: MaxVio with the auxiliary loss and with the bias. Here a
     * router that does nothing about its load stands for the former. */
    {.study = "study: bias\nseeds: 1\nsteps: 220\nwarm_up: 200\nmetrics: max_vio\nphase: train\n"
              "workload: {name: lognormal, sigma: 0.4, tokens: 4096}\n"
              "model: {layers: 1, experts: 64, top_k: 6}\n"
              "router: {name: softmax-topk, k: 6, score: sigmoid, gamma: 0.001, bias_update: [none, sign]}\n",
     .metric = MOESIM_MAX_VIO,
     .n = 2,
     .run = {"MaxVio without a bias", "with loss-free bias"},
     .published = {0.72, 0.04}},
    /* LMSYS, SGLang on 96 H100 with DeepSeek-V3: EPLB makes prefill 1.49 times faster. */
    {.study = "study: balance\nseeds: 1\nsteps: 1\nmetrics: tokens_per_second\nphase: eval\n"
              "workload: {name: lognormal, tokens: 32768}\n"
              "model: {name: deepseek-v3, layers: 1}\nrouter: deepseek-v3\n"
              "cluster: {name: h100-dgx, nodes: 4}\ndispatch: normal\n"
              "placement: [contiguous, {name: eplb, from: oracle, redundant: 32}]\n",
     .metric = MOESIM_TOKENS_PER_SECOND,
     .n = 2,
     .run = {"contiguous placement", "EPLB, 32 redundant experts"},
     .published = {1, 1.49}},
};
enum { N_DIRECTIONS = sizeof directions / sizeof *directions };

/* The metric of one point's run. */
static enum moesim_status run_point(const struct moesim_point *point, uint32_t metric, double *value,
                                    struct moesim_error *err)
{
    struct moesim_experiment *experiment;
    struct moesim_outcome outcome;
    enum moesim_status status = moesim_experiment_create(&point, 1, 0, &experiment, err);
    if (status != MOESIM_OK)
        return status;
    while (status == MOESIM_OK && !moesim_experiment_done(experiment))
        status = moesim_experiment_step(experiment, err);
    if (status == MOESIM_OK)
        status = moesim_experiment_finish(experiment, &outcome, err);
    for (uint64_t i = 0; status == MOESIM_OK && i < outcome.n_summaries; i++)
        if (outcome.summary[i].metric == metric && outcome.summary[i].layer == MOESIM_ALL_LAYERS)
            *value = outcome.summary[i].value;
    moesim_experiment_destroy(experiment);
    return status;
}

/* Runs a direction's study into a part of the table, relative to its first run. */
static enum moesim_status add_direction(const struct fidelity_context *c, uint32_t part,
                                        struct moesim_fidelity_table *table, struct moesim_error *err)
{
    const struct direction *d = &directions[part];
    struct moesim_mistakes *mistakes = moesim_alloc(c->arena, 1, sizeof *mistakes);
    const struct moesim_point *const *points;
    uint32_t n = 0;
    if (!mistakes)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the directions");
    struct moesim_study *study = moesim_study_parse("direction", d->study, strlen(d->study), c->arena, mistakes);
    if (!study || !moesim_study_resolve(study, c->registry, &points, &n, mistakes) || n != d->n)
        return moesim_fail(err, MOESIM_EINVAL, "the study of '%s': %s", d->run[0],
                           mistakes->n ? mistakes->item[0].text : "not as many runs as published figures");
    double first = 0;
    for (uint32_t i = 0; i < n; i++) {
        double value = 0;
        enum moesim_status status = run_point(points[i], d->metric, &value, err);
        if (i == 0)
            first = value;
        if (status == MOESIM_OK)
            status = fidelity_add(table, c->arena, part, d->published[i] / d->published[0], value / first, err, "%s",
                                  d->run[i]);
        if (status != MOESIM_OK)
            return status;
    }
    return MOESIM_OK;
}

enum moesim_status fidelity_directions(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                       struct moesim_error *err)
{
#define ORDER .role = MOESIM_DIRECTION, .bound = { {MOESIM_DISORDER, 0, false} }
    static const struct moesim_fidelity_part parts[N_DIRECTIONS] = {
        {.rows = "throughput falls with the capacity factor", ORDER},
        {.rows = "expert choice takes less time than padded top-2", ORDER},
        {.rows = "a loss-free bias lowers MaxVio", ORDER},
        {.rows = "EPLB raises the throughput", ORDER},
    };
#undef ORDER
    table->name = "directions";
    table->title = "Directions";
    table->source = "Switch Transformer, table 1; Expert Choice; loss-free balancing, table 2; LMSYS on DeepSeek-V3";
    table->unit = "relative to the first of each group";
    table->remark = "only the order is promised; MegaScale-MoE's strong scaling of whole iterations is not here, since "
                    "attention and the pipeline are not modelled";
    enum moesim_status status = fidelity_open(table, c->arena, N_DIRECTIONS * MOST_RUNS, parts, N_DIRECTIONS, 0, err);
    for (uint32_t i = 0; i < N_DIRECTIONS && status == MOESIM_OK; i++)
        status = add_direction(c, i, table, err);
    return status;
}
