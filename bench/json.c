#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <moesim/kernels.h>

#include "analysis/file.h"
#include "bench/ggml.h"
#include "bench/output.h"
#include "bench/peer.h"
#include "cli/provenance.h"
#include "sim/layer/products.h"

#include "version.h"

void output_stamp(const struct bench *bench, char *text, size_t size)
{
    const char *policy = getenv("OMP_WAIT_POLICY"), *spin = getenv("GOMP_SPINCOUNT");
    snprintf(text, size,
             "moesim %s (%s), %s, %s, %s, %d threads (OMP_WAIT_POLICY %s, GOMP_SPINCOUNT %s), routing %s, experts %s, "
             "medians of %u repeats",
             MOESIM_VERSION, MOESIM_REVISION, provenance_compiler(), provenance_cpu(), provenance_blas(),
             omp_get_max_threads(), policy ? policy : "unset", spin ? spin : "unset", moesim_kernel_path(),
             moesim_products_path(moesim_products_find(bench->options.products)), bench->options.repeats);
}

/* null for what is no number. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *numbers(const double *values, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(list, number(values[i]));
    return list;
}

static json_t *ratio_json(const char *against, struct bench_ratio ratio, struct bench_bound bound)
{
    static const char *const verdicts[] = {
        [BENCH_NOT_ASKED] = NULL, [BENCH_HOLDS] = "holds", [BENCH_MISSES] = "misses"};
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:s?, s:o, s:s?}", "against", against, "ratio", number(ratio.counts),
        "by_clock", number(ratio.by_clock), "by_cpu", number(ratio.by_cpu), "low", number(ratio.low), "high",
        number(ratio.high), "asked", bound.value > 0 ? (bound.at_most ? "at most" : "at least") : NULL, "bound",
        bound.value > 0 ? number(bound.value) : json_null(), "verdict", verdicts[bench_judge(bound, ratio.counts)]);
}

static void add_times(json_t *to, const struct bench_times *times, uint32_t n)
{
    json_object_set_new(to, "clock_s", numbers(times->clock_s, n));
    json_object_set_new(to, "cpu_s", numbers(times->cpu_s, n));
}

static json_t *result_json(const struct bench_result *r)
{
    static const char *const senses[] = {
        [BENCH_FASTER] = "their time by ours", [BENCH_COST] = "our time by theirs", [BENCH_SHARE] = "a part of ours"};
    const struct bench_figure *f = &r->figure;
    const double shown = bench_shown(r, &r->ours);
    json_t *result = json_pack("{s:s, s:s, s:s, s:o, s:i, s:i}", "part", f->part, "figure", f->name, "unit", f->unit,
                               "value", number(shown), "repeats", (int)r->n, "quiet", (int)r->n_quiet);
    add_times(result, &r->ours, r->n);
    if (f->bound.value > 0)
        json_object_set_new(result, "holds", json_boolean(bench_judge(f->bound, shown) == BENCH_HOLDS));
    json_t *ratios = json_array();
    if (f->limit != BENCH_NO_LIMIT)
        json_array_append_new(ratios, ratio_json(f->limit == BENCH_PEAK ? "multiply-adds" : "reading",
                                                 bench_limit_ratio(r), f->limit_bound));
    for (uint32_t i = 0; i < f->n_rivals; i++) {
        const struct bench_rival *rival = &f->rival[i];
        json_t *ratio = ratio_json(rival->runner.name, bench_rival_ratio(r, i),
                                   bench_bound_beside(rival->bound, bench_rate(r, &r->rival[i])));
        json_object_set_new(ratio, "sense", json_string(senses[rival->sense]));
        add_times(ratio, &r->rival[i], r->n);
        json_array_append_new(ratios, ratio);
    }
    json_object_set_new(result, "ratios", ratios);
    return result;
}

static json_t *curve_json(const struct bench_curve *curve)
{
    return json_pack("{s:s, s:o, s:o, s:o, s:o}", "axis", curve->axis, "x", numbers(curve->x, curve->n), "cpu_s",
                     numbers(curve->seconds, curve->n), "exponent", number(curve->exponent), "expected",
                     number(curve->expected));
}

enum moesim_status output_json(const struct bench *bench, const char *path, struct moesim_error *err)
{
    char stamp[512], when[24];
    output_stamp(bench, stamp, sizeof stamp);
    json_t *results = json_array(), *curves = json_array();
    for (uint32_t i = 0; i < bench->n_results; i++)
        json_array_append_new(results, result_json(bench->result[i]));
    for (uint32_t i = 0; i < bench->n_curves; i++)
        json_array_append_new(curves, curve_json(&bench->curve[i]));
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:i, s:b, s:s, s:s?, s:o, s:o}", "format", 1, "made",
                             stamp, "version", MOESIM_VERSION, "revision", MOESIM_REVISION, "cpu", provenance_cpu(),
                             "blas", provenance_blas(), "threads", omp_get_max_threads(), "quick",
                             (int)bench->options.quick, "peers", peer_versions(), "ggml",
                             bench->ggml ? ggml_name(bench->ggml) : NULL, "results", results, "curves", curves);
    json_object_set_new(root, "when", json_string(provenance_time(time(NULL), when)));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    const enum moesim_status status =
        text ? file_write(path, text, strlen(text), err) : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    free(text);
    return status;
}
