/*
 * Figures of a trace: worked out by hand, against a slow reference, and on recorded routing of a real model.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"
#include "workloads/trace/measure.h"

TestSuite(trace_measure, .timeout = 120, .init = folder_create, .fini = folder_remove);

static struct trace_measures measure(struct trace *trace)
{
    struct trace_measures m;
    struct moesim_error err = {""};
    cr_assert_eq(trace_measure(trace, &m, &err), MOESIM_OK, "%s", err.text);
    return m;
}

static double value(const struct trace_measures *m, uint32_t layer, enum trace_figure figure)
{
    return m->value[(size_t)layer * TRACE_N_FIGURES + figure];
}

static void expect(double got, double wanted, const char *what)
{
    cr_assert((isnan(got) && isnan(wanted)) || fabs(got - wanted) <= 1e-12 * fmax(1, fabs(wanted)),
              "%s: %.15g, not %.15g", what, got, wanted);
}

static const char *write_text(const char *name, const char *text)
{
    return folder_write(name, text, strlen(text));
}

/* One layer, k = 1, six tokens of experts 0 1 0 0 2 1 of four. Loads 3 2 1 0: mean 1.5, deviation sqrt(5)/2.
 * Lag 1: only tokens 2-3 agree, 1 of 5 pairs. A cache of two: 0 miss, 1 miss, 0 hit, 0 hit, 2 miss, 1 miss. */
Test(trace_measure, by_hand)
{
    const char *text = "{\"num_experts\":4}\n"
                       "{\"layer\":0,\"experts\":[0]}\n{\"layer\":0,\"experts\":[1]}\n{\"layer\":0,\"experts\":[0]}\n"
                       "{\"layer\":0,\"experts\":[0]}\n{\"layer\":0,\"experts\":[2]}\n{\"layer\":0,\"experts\":[1]}\n";
    struct trace *trace = recording_open(write_text("a.jsonl", text), (struct trace_options){.kind = TRACE_ANY});
    struct trace_measures m = measure(trace);
    expect(m.mean[TRACE_LOAD_CV], sqrt(5) / 2 / 1.5, "load_cv");
    expect(m.mean[TRACE_MAX_VIO], 1, "max_vio");
    expect(m.mean[TRACE_LOAD_GINI], 2.0 * (1 * 0 + 2 * 1 + 3 * 2 + 4 * 3) / (4 * 6) - 5.0 / 4, "load_gini");
    expect(m.mean[TRACE_LOAD_ENTROPY], (3 / 6.0 * log(2) + 2 / 6.0 * log(3) + 1 / 6.0 * log(6)) / log(4),
           "load_entropy");
    expect(m.mean[TRACE_DEAD_EXPERTS], 1, "dead_experts");
    expect(m.mean[TRACE_LAG1_OVERLAP], 1 / 5.0, "lag1_overlap");
    expect(m.mean[TRACE_LAG64_OVERLAP], NAN, "lag64_overlap");
    expect(m.mean[TRACE_CACHE_HIT_RATE], 2 / 6.0, "cache_hit_rate");
    expect(m.mean[TRACE_PREDICTABILITY], NAN, "layer_predictability");
    expect(m.mean[TRACE_DIVERGENCE], NAN, "domain_divergence");
    cr_assert_eq(m.cache_experts, 2);
    cr_assert_eq(m.n_warnings, 0);
    trace_measures_free(&m);
    trace_close(trace);
}

/* Layer 1 does what layer 0 did, plus one: the table of the first half knows it, where it has seen the expert. Half of
 * the second half's tokens show expert 3, which the first half has not. */
Test(trace_measure, layers_foretell_the_next)
{
    char text[2048] = "{\"num_experts\":5}\n";
    const uint32_t experts[] = {0, 1, 0, 1, 0, 3, 1, 3};
    for (uint32_t t = 0; t < 8; t++)
        for (uint32_t l = 0; l < 2; l++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "{\"layer\":%u,\"experts\":[%u]}\n", l,
                     experts[t] + l);
    struct trace *trace = recording_open(write_text("a.jsonl", text), (struct trace_options){.kind = TRACE_ANY});
    struct trace_measures m = measure(trace);
    expect(value(&m, 0, TRACE_PREDICTABILITY), NAN, "layer 0");
    expect(value(&m, 1, TRACE_PREDICTABILITY), 0.5, "layer 1");
    trace_measures_free(&m);
    trace_close(trace);
}

/* Loads (1, 1, 0) and (0, 1, 1) of two domains: the mean is (1/4, 1/2, 1/4), each is half a bit away from it. Lags stop
 * at the sequence's end, and so does the cache. */
Test(trace_measure, sequences_and_domains)
{
    char text[1024] = "";
    const uint32_t experts[] = {0, 1, 1, 2};
    for (uint32_t t = 0; t < 4; t++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "{\"layer\":0,\"experts\":[%u]}\n", experts[t]);
    char sequences[512];
    snprintf(sequences, sizeof sequences, "%s", write_text("s.csv", "topic,start,len\na,0,2\n\"b\",2,2\n"));
    const struct trace_options options = {.sequences = sequences, .domains = "topic"};
    struct trace *trace = recording_open(write_text("a.jsonl", text), options);
    struct trace_measures m = measure(trace);
    expect(m.mean[TRACE_DIVERGENCE], 0.5, "domain_divergence");
    expect(m.mean[TRACE_LAG1_OVERLAP], 0, "lag1_overlap: tokens 1 and 2 agree, but are of two sequences");
    expect(m.mean[TRACE_CACHE_HIT_RATE], 0, "cache_hit_rate");
    cr_assert(m.n_sequences == 2 && m.n_domains == 2);
    trace_measures_free(&m);
    trace_close(trace);

    trace = recording_open(write_text("l.json", "[[[1,1,0]],[[0,1,1]]]"), (struct trace_options){.kind = TRACE_ANY});
    trace_close(trace);
    trace = recording_open(write_text("l.json", "{\"logical_count\":[[[1,1,0]],[[0,1,1]]]}"),
                           (struct trace_options){.kind = TRACE_ANY});
    m = measure(trace);
    expect(m.mean[TRACE_DIVERGENCE], 0.5, "between steps of loads");
    trace_measures_free(&m);
    trace_close(trace);
}

/* ---- against a slow reference, across the edges of pieces ---- */

static bool shares(const uint32_t *a, uint32_t expert, uint32_t k)
{
    for (uint32_t i = 0; i < k; i++)
        if (a[i] == expert)
            return true;
    return false;
}

static double slow_lag(const struct recording *r, uint32_t layer, uint32_t lag)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t t = lag; t < r->n_tokens; t++) {
        uint32_t both = 0;
        if (r->sequence[t] != r->sequence[t - lag])
            continue;
        for (uint32_t i = 0; i < r->k; i++)
            both += shares(r->expert[layer][t - lag], r->expert[layer][t][i], r->k);
        sum += (double)both / r->k;
        n++;
    }
    return n ? sum / n : NAN;
}

/* The cache as a list of when each expert was used last. */
static double slow_cache(const struct recording *r, uint32_t layer, uint32_t size)
{
    long last[RECORDING_EXPERTS], now = 0;
    uint32_t hits = 0;
    for (uint32_t t = 0; t < r->n_tokens; t++) {
        if (t == 0 || r->sequence[t] != r->sequence[t - 1])
            for (uint32_t e = 0; e < r->n_experts; e++)
                last[e] = -1;
        for (uint32_t i = 0; i < r->k; i++) {
            const uint32_t e = r->expert[layer][t][i];
            uint32_t newer = 0;
            for (uint32_t other = 0; other < r->n_experts; other++)
                newer += last[other] > last[e];
            hits += last[e] >= 0 && newer < size;
            last[e] = now++;
        }
    }
    return (double)hits / (r->n_tokens * r->k);
}

static double slow_prediction(const struct recording *r, uint32_t layer)
{
    double table[RECORDING_EXPERTS][RECORDING_EXPERTS] = {{0}}, sum = 0;
    for (uint32_t t = 0; t < r->n_tokens / 2; t++)
        for (uint32_t i = 0; i < r->k; i++)
            for (uint32_t j = 0; j < r->k; j++)
                table[r->expert[layer - 1][t][i]][r->expert[layer][t][j]]++;
    for (uint32_t e = 0; e < r->n_experts; e++) {
        double row = 0;
        for (uint32_t f = 0; f < r->n_experts; f++)
            row += table[e][f];
        for (uint32_t f = 0; f < r->n_experts && row > 0; f++)
            table[e][f] *= 1 / row;
    }
    for (uint32_t t = r->n_tokens / 2; t < r->n_tokens; t++)
        for (uint32_t j = 0; j < r->k; j++) { /* expert j is predicted when fewer than k others go before it */
            double score[RECORDING_EXPERTS] = {0};
            uint32_t before = 0;
            const uint32_t e = r->expert[layer][t][j];
            for (uint32_t f = 0; f < r->n_experts; f++)
                for (uint32_t i = 0; i < r->k; i++)
                    score[f] += table[r->expert[layer - 1][t][i]][f];
            for (uint32_t f = 0; f < r->n_experts; f++)
                before += score[f] > score[e] || (score[f] == score[e] && f < e);
            sum += before < r->k && score[e] > 0;
        }
    return sum / ((r->n_tokens - r->n_tokens / 2) * r->k);
}

Test(trace_measure, agrees_with_a_slow_reference)
{
    static struct recording r;
    char sequences[512];
    snprintf(sequences, sizeof sequences, "%s", write_text("s.csv", "start,len\n0,90\n90,1\n91,109\n"));
    for (uint64_t seed = 0; seed < 20; seed++) {
        recording_fill(&r, seed);
        struct trace *trace = recording_open(recording_write_ids(&r, "a.npy"),
                                             (struct trace_options){.sequences = sequences, .n_experts = 12});
        struct trace_measures m = measure(trace);
        for (uint32_t l = 0; l < r.n_layers; l++) {
            expect(value(&m, l, TRACE_LAG1_OVERLAP), slow_lag(&r, l, 1), "lag1_overlap");
            expect(value(&m, l, TRACE_LAG64_OVERLAP), slow_lag(&r, l, 64), "lag64_overlap");
            expect(value(&m, l, TRACE_CACHE_HIT_RATE), slow_cache(&r, l, 6), "cache_hit_rate");
            if (l > 0)
                expect(value(&m, l, TRACE_PREDICTABILITY), slow_prediction(&r, l), "layer_predictability");
        }
        trace_measures_free(&m);
        trace_close(trace);
    }
}

/* A long trace goes through several pieces; every token repeats the one before it but for the first of each sequence.
 */
Test(trace_measure, pieces_join)
{
    enum { TOKENS = 20000, SEQUENCE = 5000 };
    static uint8_t ids[TOKENS], bytes[TOKENS + 512];
    char sequences[512];
    for (uint32_t t = 0; t < TOKENS; t++)
        ids[t] = (uint8_t)(t / SEQUENCE);
    snprintf(sequences, sizeof sequences, "%s",
             write_text("s.csv", "start,len\n0,5000\n5000,5000\n10000,5000\n15000,5000\n"));
    const char *path = folder_write("a.npy", bytes, compose_npy(bytes, "|u1", "(20000, 1, 1)", ids, sizeof ids));
    struct trace *trace = recording_open(path, (struct trace_options){.sequences = sequences});
    struct trace_measures m = measure(trace);
    expect(m.mean[TRACE_LAG1_OVERLAP], 1, "lag1_overlap");
    expect(m.mean[TRACE_LAG64_OVERLAP], 1, "lag64_overlap");
    expect(m.mean[TRACE_CACHE_HIT_RATE], 1 - 4.0 / TOKENS, "cache_hit_rate");
    cr_assert_eq(m.n_warnings, 1);
    cr_assert(strstr(m.warning[0], "20000 tokens are in constant runs, the longest of 5000 from token 0 on"), "%s",
              m.warning[0]);
    trace_measures_free(&m);
    trace_close(trace);
}

/* ---- warnings ---- */

static void expect_warning(struct trace_options options, const char *path, const char *says)
{
    struct trace *trace = recording_open(path, options);
    struct trace_measures m = measure(trace);
    bool found = false;
    for (uint32_t i = 0; i < m.n_warnings; i++)
        found |= strstr(m.warning[i], says) != NULL;
    cr_assert(found, "'%s' is not among %u warnings, %s", says, m.n_warnings, m.n_warnings ? m.warning[0] : "");
    trace_measures_free(&m);
    trace_close(trace);
}

Test(trace_measure, warns_of_recordings_that_went_wrong)
{
    static struct recording r;
    const struct trace_options any = {.kind = TRACE_ANY};
    recording_fill(&r, 1);
    for (uint32_t t = 60; t < 100; t++) /* profiling */
        for (uint32_t l = 0; l < r.n_layers; l++)
            memcpy(r.expert[l][t], r.expert[l][59], sizeof r.expert[l][t]);
    expect_warning(
        any, recording_write_ids(&r, "a.npy"),
        "41 tokens are in constant runs, the longest of 41 from token 59 on: the same experts in every layer, as "
        "profiling leaves");
    recording_fill(&r, 1);
    for (uint32_t t = 1; t < 40; t++) /* warm-up */
        for (uint32_t l = 0; l < r.n_layers; l++)
            memcpy(r.expert[l][t], r.expert[l][0], sizeof r.expert[l][t]);
    expect_warning(any, recording_write_ids(&r, "a.npy"),
                   "40 from token 0 on: the same experts in every layer, as warm-up");
    recording_fill(&r, 1);
    memset(r.expert[1], 0, sizeof r.expert[1]);
    expect_warning(any, recording_write_ids(&r, "a.npy"), "1 layer (layer 1 first) name expert 0 only");
    expect_warning(any, recording_write_ids(&r, "a.npy"),
                   "200 times a token names an expert twice in a layer, first token 0");
    memset(r.expert, 0, sizeof r.expert);
    struct trace *trace = recording_open(recording_write_ids(&r, "a.npy"), any);
    cr_assert(trace_shape(trace)->all_zero);
    trace_close(trace);
    expect_warning(any, recording_write_ids(&r, "a.npy"), "all ids are 0: the recorder captured nothing");
    expect_warning(any, write_text("p.json", "{\"physical_to_logical_map\":[[0,1,1]]}"), "is a placement");
    expect_warning(any,
                   write_text("i.jsonl",
                              "{\"req_id\":\"a\",\"layer\":0,\"experts\":[1]}\n{\"req_id\":\"b\",\"layer\":0,"
                              "\"experts\":[0]}\n{\"req_id\":\"a\",\"layer\":0,\"experts\":[1]}\n"),
                   "sequences are interleaved");
    const float logits[] = {1, 2, NAN, NAN};
    uint8_t bytes[512];
    expect_warning(any, folder_write("l.npy", bytes, compose_npy(bytes, "<f4", "(2, 2)", logits, sizeof logits)),
                   "1 rows have no finite number");
}

/* softmax(1, 3) has entropy ln(1 + e^2) - 2 e^2 / (1 + e^2); its log-sum-exp is 1 + ln(1 + e^2). */
Test(trace_measure, logits)
{
    const float logits[] = {1, 3, 3, 1};
    uint8_t bytes[512];
    struct trace *trace =
        recording_open(folder_write("l.npy", bytes, compose_npy(bytes, "<f4", "(2, 2)", logits, sizeof logits)),
                       (struct trace_options){.kind = TRACE_ANY});
    struct trace_measures m = measure(trace);
    const double e2 = exp(2), lse = 1 + log1p(e2);
    cr_assert_float_eq(m.mean[TRACE_ROUTER_ENTROPY], log1p(e2) - 2 * e2 / (1 + e2), 1e-6);
    cr_assert_float_eq(m.mean[TRACE_ROUTER_Z], lse * lse, 1e-5);
    expect(m.mean[TRACE_LOAD_CV], NAN, "logits have no loads");
    trace_measures_free(&m);
    trace_close(trace);
}

/* gpt-oss-20b, 63,015 decoded tokens in 174 sequences (recorded by A. Priyanshu, Apache-2.0): means over
 * the 24 layers. The recording is no part of the project: MOESIM_TEST_TRACES names the folder it is in. */
Test(trace_measure, gpt_oss_20b)
{
    const char *folder = getenv("MOESIM_TEST_TRACES");
    if (!folder || !*folder)
        cr_skip_test("MOESIM_TEST_TRACES is not set: no recording of a real model to measure");
    char ids[512], sequences[512];
    snprintf(ids, sizeof ids, "%s/gptoss20b/topk_ids_u8.npy", folder);
    snprintf(sequences, sizeof sequences, "%s/gptoss20b/seq_index.csv", folder);
    struct trace *trace = recording_open(ids, (struct trace_options){.sequences = sequences});
    struct trace_measures m = measure(trace);
    cr_assert_float_eq(m.mean[TRACE_LOAD_CV], 0.7235, 5e-5);
    cr_assert_float_eq(m.mean[TRACE_MAX_VIO], 1.605, 5e-4);
    cr_assert_float_eq(m.mean[TRACE_LOAD_GINI], 0.4057, 5e-5);
    cr_assert_float_eq(m.mean[TRACE_LAG1_OVERLAP], 0.4374, 5e-5);
    cr_assert_float_eq(m.mean[TRACE_LAG64_OVERLAP], 0.3213, 5e-5);
    cr_assert_float_eq(m.mean[TRACE_CACHE_HIT_RATE], 0.622, 5e-4); /* C = 8 */
    cr_assert_float_eq(m.mean[TRACE_PREDICTABILITY], 0.567, 5e-4);
    cr_assert_float_eq(value(&m, 0, TRACE_LAG1_OVERLAP), 0.194, 5e-4);
    const double cv[] = {0.44, 0.53, 0.66, 0.71, 0.66, 0.60, 0.58, 0.61, 0.64, 0.68, 0.84, 0.88,
                         0.88, 0.90, 0.82, 0.68, 0.82, 0.79, 0.69, 0.69, 0.62, 0.79, 0.83, 1.00};
    for (uint32_t l = 0; l < 24; l++)
        cr_assert_float_eq(value(&m, l, TRACE_LOAD_CV), cv[l], 0.0051, "layer %u: %g", l, value(&m, l, TRACE_LOAD_CV));
    cr_assert_eq(m.n_sequences, 174);
    cr_assert_eq(m.n_warnings, 0, "%s", m.warning[0]);
    trace_measures_free(&m);
    trace_close(trace);
}
