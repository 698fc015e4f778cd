/*
 * The workloads trace and loads: what was recorded, step by step.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"

TestSuite(trace_workloads, .timeout = 60, .init = folder_create, .fini = folder_remove);

static struct moesim_workload_env env_of(uint32_t layers, uint32_t experts, uint32_t k, uint32_t tokens)
{
    return (struct moesim_workload_env){.n_layers = layers,
                                        .n_experts = experts,
                                        .n_columns = experts,
                                        .top_k = k,
                                        .n_tokens = tokens,
                                        .d_model = 1,
                                        .n_devices = 1,
                                        .seed = 7};
}

Test(trace_workloads, trace_takes_the_next_tokens_and_wraps)
{
    static struct recording r;
    struct instance x;
    const char *sequence_text = "start,len\n0,90\n90,1\n91,109\n";
    char ids[512], sequences[512];
    recording_fill(&r, 1);
    snprintf(ids, sizeof ids, "%s", recording_write_ids(&r, "a.npy"));
    const char *weights = recording_write_weights(&r, "w.npy");
    snprintf(sequences, sizeof sequences, "%s", folder_write("s.csv", sequence_text, strlen(sequence_text)));
    instance_create(&x, "trace", SETTINGS("file", ids, "weights", weights, "sequences", sequences));
    struct moesim_workload_shape shape = {.struct_size = sizeof shape};
    cr_assert_eq(x.workload->shape(x.params, &shape, &x.error), MOESIM_OK, "%s", x.error.text);
    cr_assert(shape.n_layers == 3 && shape.n_experts == 12 && shape.n_tokens == 200 && shape.top_k == 3);
    cr_assert(shape.more_experts && shape.provides == MOESIM_NEEDS_SEQUENCES);
    cr_assert_eq(instance_init(&x, env_of(3, 16, 3, 70)), MOESIM_OK, "%s", x.error.text);
    for (uint32_t step = 0; step < 7; step++)
        for (uint32_t l = 0; l < 3; l++) {
            const struct moesim_batch batch = instance_step(&x, 6 - step, l); /* in any order */
            const struct moesim_decisions *d = batch.decisions;
            cr_assert(batch.n_tokens == 70 && d && !batch.columns && !d->fate && !d->slot);
            for (uint32_t t = 0; t < 70; t++) {
                const uint32_t row = ((6 - step) * 70 + t) % 200;
                cr_assert_eq(d->first[t], 3 * t);
                cr_assert_eq(batch.sequence_id[t], r.sequence[row]);
                cr_assert_arr_eq(d->expert + 3 * t, r.expert[l][row], sizeof r.expert[l][row]);
                cr_assert_arr_eq(d->weight + 3 * t, r.weight[l][row], sizeof r.weight[l][row]);
            }
        }
    instance_destroy(&x);
}

/* Sequences 0 .. 89, 90, 91 .. 199; shuffled, decode and serving against the recording, row by row. */
Test(trace_workloads, trace_in_every_batching)
{
    static struct recording r;
    static const char *const kinds[] = {"shuffled", "decode", "serving"};
    const char *text = "start,len\n0,90\n90,1\n91,109\n";
    char ids[512], sequences[512];
    recording_fill(&r, 1);
    for (uint32_t t = 0; t < RECORDING_TOKENS; t++) /* so that a row can be told by its ids */
        for (uint32_t l = 0; l < RECORDING_LAYERS; l++)
            for (uint32_t i = 0; i < RECORDING_K; i++)
                r.expert[l][t][i] = l == 0 ? t : r.expert[l][t][i];
    snprintf(ids, sizeof ids, "%s", recording_write_ids(&r, "a.npy"));
    snprintf(sequences, sizeof sequences, "%s", folder_write("s.csv", text, strlen(text)));
    for (size_t k = 0; k < 3; k++) {
        struct instance x;
        uint32_t count[RECORDING_TOKENS] = {0}, n = 0, row[60];
        instance_create(&x, "trace", SETTINGS("file", ids, "sequences", sequences, "batching", kinds[k]));
        cr_assert_eq(instance_init(&x, env_of(3, 200, 3, 60)), MOESIM_OK, "%s", x.error.text);
        for (uint32_t step = 0; step < 30; step++)
            for (uint32_t l = 0; l < 3; l++) {
                const struct moesim_batch batch = instance_step(&x, step, l);
                const struct moesim_decisions *d = batch.decisions;
                cr_assert_eq(!batch.padding, k < 2);
                for (uint32_t t = 0; t < 60; t++) {
                    const bool padding = batch.padding && batch.padding[t];
                    cr_assert_eq(d->first[t + 1] - d->first[t], padding ? 0 : 3);
                    if (padding)
                        continue;
                    row[t] = l ? row[t] : d->expert[d->first[t]];
                    cr_assert_arr_eq(d->expert + d->first[t], r.expert[l][row[t]], sizeof r.expert[l][0]);
                    cr_assert_eq(batch.sequence_id[t], row[t] < 90 ? 0 : row[t] < 91 ? 1 : 2);
                    count[row[t]] += l == 0;
                    n += l == 0;
                }
            }
        cr_assert(n > 1000 && n <= 1800, "%u", n);
        for (uint32_t t = 0; k < 2 && t < RECORDING_TOKENS; t++) /* serving begins with prompts only */
            cr_assert(count[t] >= 4 && count[t] <= 14, "%s, row %u: %u times of about 9", kinds[k], t, count[t]);
        instance_destroy(&x);
    }
}

/* Rows 10 .. 39 and 60 .. 69 are math; the step is the whole of what is left, in order. */
Test(trace_workloads, trace_of_one_domain)
{
    static struct recording r;
    const char *text = "start,len,topic\n0,10,\"news, old\"\n10,30,math\n40,20,code\n60,10,math\n70,130,code\n";
    char ids[512], sequences[512];
    recording_fill(&r, 1);
    snprintf(ids, sizeof ids, "%s", recording_write_ids(&r, "a.npy"));
    snprintf(sequences, sizeof sequences, "%s", folder_write("s.csv", text, strlen(text)));
    struct instance x;
    const char *const *settings = SETTINGS("file", ids, "sequences", sequences, "domains", "topic", "only", "math");
    instance_create(&x, "trace", settings);
    struct moesim_workload_shape shape = {.struct_size = sizeof shape};
    cr_assert_eq(x.workload->shape(x.params, &shape, &x.error), MOESIM_OK, "%s", x.error.text);
    cr_assert_eq(shape.n_tokens, 40);
    cr_assert_eq(instance_init(&x, env_of(3, 12, 3, 40)), MOESIM_OK, "%s", x.error.text);
    struct moesim_batch batch = instance_step(&x, 3, 2);
    for (uint32_t t = 0; t < 40; t++) {
        const uint32_t row = t < 30 ? 10 + t : 30 + t;
        cr_assert_arr_eq(batch.decisions->expert + 3 * t, r.expert[2][row], sizeof r.expert[2][row]);
        cr_assert(batch.domain[t] == 1 && batch.sequence_id[t] == (t < 30 ? 1 : 3));
    }
    instance_destroy(&x);

    const struct {
        const char *const *settings;
        const char *says;
    } bad[] = {
        {SETTINGS("file", ids, "only", "math"), "has no domains; a column of a CSV of sequences can name them"},
        {SETTINGS("file", ids, "domains", "topic"), "domains names a column of sequences=FILE.csv"},
        {SETTINGS("file", ids, "sequences", sequences, "domains", "topic", "only", "maths"), "is labelled 'maths'"},
        {SETTINGS("file", ids, "sequences", sequences, "domains", "subject", "only", "x"), "no column 'subject'"},
        {SETTINGS("file", ids, "batching", "decode"), "does not say where sequences begin"},
        {SETTINGS("file", ids, "batching", "decode", "chunk", "3"), "chunk has no effect without batching=serving"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        instance_create(&x, "trace", bad[i].settings);
        cr_assert_eq(x.workload->shape(x.params, &shape, &x.error), MOESIM_EINVAL, "%s", bad[i].says);
        cr_assert(strstr(x.error.text, bad[i].says), "%s", x.error.text);
        moesim_arena_destroy(x.arena);
    }
}

/* A step longer than the recording holds it more than once. */
Test(trace_workloads, trace_repeats_a_short_recording)
{
    struct instance x;
    const char *text = "{\"layer\":0,\"experts\":[1]}\n{\"layer\":0,\"experts\":[0,2]}\n{\"layer\":0,\"experts\":[]}\n";
    instance_create(&x, "trace", SETTINGS("file", folder_write("a.jsonl", text, strlen(text))));
    cr_assert_eq(instance_init(&x, env_of(1, 3, 2, 8)), MOESIM_OK, "%s", x.error.text);
    const struct moesim_batch batch = instance_step(&x, 1, 0); /* from token 8 % 3 = 2 on */
    const uint32_t first[] = {0, 0, 1, 3, 3, 4, 6, 6, 7}, expert[] = {1, 0, 2, 1, 0, 2, 1};
    cr_assert_arr_eq(batch.decisions->first, first, sizeof first);
    cr_assert_arr_eq(batch.decisions->expert, expert, sizeof expert);
    instance_destroy(&x);
}

Test(trace_workloads, trace_refuses_what_does_not_fit)
{
    static struct recording r;
    recording_fill(&r, 1);
    char ids[512];
    snprintf(ids, sizeof ids, "%s", recording_write_ids(&r, "a.npy"));
    const struct {
        const char *path, *says;
        uint32_t layers, experts, tokens;
        enum moesim_status status;
    } cases[] = {
        {"", "trace needs a file", 3, 12, 10, MOESIM_EINVAL},
        {ids, "has 3 layers, the study wants 4", 4, 12, 10, MOESIM_EINVAL},
        {ids, "names 12 experts, the study has 11", 3, 11, 10, MOESIM_EINVAL},
        {ids, "are too many: set tokens", 3, 12, UINT32_MAX, MOESIM_EINVAL},
        {folder_write("l.json", "[1,2]", 5), "holds loads, not decisions: use loads:file=", 1, 2, 1, MOESIM_EINVAL},
        {folder_write("z.json", "[[[0,0]],[[0,0]]]", 17), "all ids are 0", 1, 2, 1, MOESIM_EIO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance x;
        instance_create(&x, "trace", SETTINGS("file", cases[i].path));
        cr_assert_eq(instance_init(&x, env_of(cases[i].layers, cases[i].experts, 2, cases[i].tokens)), cases[i].status,
                     "%s", cases[i].says);
        cr_assert(strstr(x.error.text, cases[i].says), "%s", x.error.text);
        moesim_arena_destroy(x.arena);
    }
}

/* ---- loads ---- */

/* Both begin at a later layer; loads do not count those without any. */
Test(trace_workloads, first_layer)
{
    struct instance x;
    const char *rows = "{\"layer\":0,\"experts\":[1]}\n{\"layer\":1,\"experts\":[2]}\n";
    const char *counts = "[[0,0,0],[1,0,0],[0,0,0],[0,0,1]]";
    const char *path = folder_write("a.jsonl", rows, strlen(rows)), *wrong[] = {"2", "trace", "2", "loads"};
    char trace[256], loads[256];
    snprintf(trace, sizeof trace, "%s", path);
    snprintf(loads, sizeof loads, "%s", folder_write("l.json", counts, strlen(counts)));
    instance_create(&x, "trace", SETTINGS("file", trace, "first_layer", "1"));
    cr_assert_eq(instance_init(&x, env_of(1, 3, 1, 1)), MOESIM_OK, "%s", x.error.text);
    cr_assert_eq(instance_step(&x, 0, 0).decisions->expert[0], 2);
    instance_destroy(&x);
    instance_create(&x, "trace", SETTINGS("file", trace, "first_layer", "1"));
    cr_assert_eq(instance_init(&x, env_of(2, 3, 1, 1)), MOESIM_EINVAL);
    cr_assert(strstr(x.error.text, "has 1 layer, the study wants 2"), "%s", x.error.text);
    moesim_arena_destroy(x.arena);
    instance_create(&x, "loads", SETTINGS("file", loads, "first_layer", "1"));
    struct moesim_workload_shape shape = {.struct_size = sizeof shape};
    cr_assert_eq(x.workload->shape(x.params, &shape, &x.error), MOESIM_OK);
    cr_assert_eq(shape.n_layers, 1);
    cr_assert_eq(instance_init(&x, env_of(1, 3, 1, 1)), MOESIM_OK, "%s", x.error.text);
    const struct moesim_batch batch = instance_step(&x, 0, 0);
    cr_assert(batch.columns[2] > batch.columns[0] && batch.columns[2] > batch.columns[1]);
    instance_destroy(&x);
    for (int i = 0; i < 2; i++) {
        instance_create(&x, wrong[2 * i + 1], SETTINGS("file", i ? loads : trace, "first_layer", wrong[2 * i]));
        cr_assert_eq(instance_init(&x, env_of(1, 3, 1, 1)), MOESIM_EINVAL);
        cr_assert(strstr(x.error.text, "has 2 layers") && strstr(x.error.text, "first_layer = 2"), "%s", x.error.text);
        moesim_arena_destroy(x.arena);
    }
}

/* Counts the k largest columns of each token. */
static void count_choices(const struct moesim_batch *batch, uint32_t k, double *count)
{
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const float *row = batch->columns + (size_t)t * batch->stride;
        for (uint32_t e = 0; e < batch->n_experts; e++) {
            uint32_t larger = 0;
            for (uint32_t other = 0; other < batch->n_experts; other++)
                larger += row[other] > row[e] || (row[other] == row[e] && other < e);
            count[e] += larger < k;
        }
    }
}

/* 40000 draws: a count of n p has deviation sqrt(n p (1 - p)) <= 100; five of them, and 0.4 % for what Pareto sampling
 * is off. */
Test(trace_workloads, loads_come_out_as_they_were_recorded)
{
    enum { TOKENS = 40000, K = 3, EXPERTS = 8 };
    const double load[EXPERTS] = {30, 0, 10, 5, 20, 1, 25, 9};
    const char *text = "[[30,0,10,5,20,1,25,9],[1,1,1,1,1,1,1,1]]";
    struct instance x;
    instance_create(&x, "loads", SETTINGS("file", folder_write("l.json", text, strlen(text))));
    cr_assert_eq(instance_init(&x, env_of(2, EXPERTS, K, TOKENS)), MOESIM_OK, "%s", x.error.text);
    struct moesim_batch batch = instance_step(&x, 0, 0);
    batch.n_experts = EXPERTS;
    double count[EXPERTS] = {0}, even[EXPERTS] = {0};
    count_choices(&batch, K, count);
    cr_assert_eq(count[1], 0, "an expert without load");
    for (uint32_t e = 0; e < EXPERTS; e++) {
        const double wanted = TOKENS * K * load[e] / 100;
        cr_assert(fabs(count[e] - wanted) < 500 + 0.004 * TOKENS, "expert %u: %g, not %g", e, count[e], wanted);
    }
    batch = instance_step(&x, 1, 1);
    batch.n_experts = EXPERTS;
    count_choices(&batch, K, even);
    for (uint32_t e = 0; e < EXPERTS; e++)
        cr_assert(fabs(even[e] - TOKENS * K / 8.0) < 500, "expert %u: %g", e, even[e]);
    instance_destroy(&x);
}

/* An expert that would need more than one place a token gets one, the rest is shared. */
Test(trace_workloads, loads_above_one_place_a_token_are_held)
{
    enum { TOKENS = 20000 };
    const char *text = "[98,1,1]";
    struct instance x;
    instance_create(&x, "loads", SETTINGS("file", folder_write("l.json", text, strlen(text))));
    cr_assert_eq(instance_init(&x, env_of(1, 3, 2, TOKENS)), MOESIM_OK, "%s", x.error.text);
    struct moesim_batch batch = instance_step(&x, 0, 0);
    batch.n_experts = 3;
    double count[3] = {0};
    count_choices(&batch, 2, count);
    cr_assert(count[0] > 0.998 * TOKENS && fabs(count[1] - TOKENS / 2.0) < 500, "%g %g", count[0], count[1]);
    instance_destroy(&x);
}

Test(trace_workloads, loads_by_step_and_without_dense_layers)
{
    const char *text = "{\"logical_count\":[[[0,0],[9,1]],[[0,0],[1,9]]]}";
    const char *path = folder_write("l.json", text, strlen(text));
    struct instance x;
    instance_create(&x, "loads", SETTINGS("file", path, "each_step", "true"));
    struct moesim_workload_shape shape = {.struct_size = sizeof shape};
    cr_assert_eq(x.workload->shape(x.params, &shape, &x.error), MOESIM_OK);
    cr_assert(shape.n_layers == 1 && shape.n_experts == 2, "layer 0 is dense");
    cr_assert_eq(instance_init(&x, env_of(1, 2, 1, 1000)), MOESIM_OK, "%s", x.error.text);
    for (uint32_t step = 0; step < 4; step++) {
        struct moesim_batch batch = instance_step(&x, step, 0);
        double count[2] = {0};
        batch.n_experts = 2;
        count_choices(&batch, 1, count);
        cr_assert(count[step % 2] > 850, "step %u: %g", step, count[step % 2]);
    }
    instance_destroy(&x);
    instance_create(&x, "loads", SETTINGS("file", path));
    cr_assert_eq(instance_init(&x, env_of(2, 2, 1, 10)), MOESIM_EINVAL);
    cr_assert(strstr(x.error.text, "has 1 layer with a load, the study wants 2"), "%s", x.error.text);
    moesim_arena_destroy(x.arena);
    instance_create(&x, "loads", SETTINGS("file", folder_write("z.json", "[[0,0]]", 7)));
    cr_assert_eq(instance_init(&x, env_of(1, 2, 1, 10)), MOESIM_EIO);
    cr_assert(strstr(x.error.text, "no layer has any load"), "%s", x.error.text);
    moesim_arena_destroy(x.arena);
}

/* The same bits on any number of threads, whatever else was drawn before. */
Test(trace_workloads, loads_are_a_pure_function_of_the_step)
{
    struct instance x, y;
    const char *path = folder_write("l.json", "[3,1,2,7]", 9);
    instance_create(&x, "loads", SETTINGS("file", path));
    instance_create(&y, "loads", SETTINGS("file", path));
    cr_assert_eq(instance_init(&x, env_of(1, 4, 2, 900)), MOESIM_OK);
    cr_assert_eq(instance_init(&y, env_of(1, 4, 2, 900)), MOESIM_OK);
    instance_step(&y, 3, 0);
    const struct moesim_batch a = instance_step(&x, 5, 0), b = instance_step(&y, 5, 0);
    cr_assert_arr_eq(a.columns, b.columns, 900 * 4 * sizeof(float));
    instance_destroy(&x);
    instance_destroy(&y);
}
