/* moesim trace fit: the parameters of the workload calibrated that behave like a recording. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "cli/trace.h"
#include "cli/trace_targets.h"
#include "workloads/calibrated/fit_trace.h"

enum { DEFAULT_SAMPLES = 240 };

static bool tell(void *progress, uint32_t done, uint32_t of, double miss)
{
    (void)done, (void)of, (void)miss;
    progress_add(progress, false);
    progress_draw(progress);
    return stop_signal() == 0;
}

/* ---- the study fragment ---- */

static double effect_of(const struct fit_trace_result *r, uint32_t i)
{
    double value;
    memcpy(&value, (const char *)&r->params.effects + fit_fields[i].offset, sizeof value);
    return value;
}

static void print_fragment(const struct fit_trace_result *r)
{
    const struct source_params *p = &r->params;
    printf("workload:\n  - name: calibrated\n    preset: none\n    sequence: %u\n    domains: %u\n    vocabulary: %u\n"
           "    zipf: %.4g\n",
           p->sequence, p->domains, p->vocabulary, p->zipf);
    for (uint32_t i = 0; i < FIT_N_FREE; i++)
        printf("    %s: %.4g%s\n", fit_fields[i].key, effect_of(r, i), r->is_known[i] ? "" : "  # not known");
    printf("    profile: \"%s\"\nmodel: {layers: %u, experts: %u, top_k: %u}\n", p->profile, r->n_layers, r->n_experts,
           r->top_k);
}

static bool print_json(const struct trace *trace, const struct fit_trace_result *r, bool stopped)
{
    const struct source_params *p = &r->params;
    json_t *root = json_pack("{s:s, s:b, s:{s:i, s:i, s:i}}", "file", trace_path(trace), "stopped", stopped, "model",
                             "layers", (int)r->n_layers, "experts", (int)r->n_experts, "top_k", (int)r->top_k);
    json_t *workload = json_pack("{s:s, s:s, s:i, s:i, s:i, s:f, s:s}", "name", "calibrated", "preset", "none",
                                 "sequence", (int)p->sequence, "domains", (int)p->domains, "vocabulary",
                                 (int)p->vocabulary, "zipf", p->zipf, "profile", p->profile);
    json_t *unknown = json_array();
    for (uint32_t i = 0; i < FIT_N_FREE; i++) {
        json_object_set_new(workload, fit_fields[i].key, json_real(effect_of(r, i)));
        if (!r->is_known[i])
            json_array_append_new(unknown, json_string(fit_fields[i].key));
    }
    json_object_set_new(root, "workload", workload);
    json_object_set_new(root, "not_known", unknown);
    json_object_set_new(root, "figures", trace_targets_json(r->target, r->n_targets, r->got));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(root);
    return text != NULL;
}

static bool print(const struct trace_call *o, const struct trace *trace, const struct fit_trace_result *r, bool stopped)
{
    if (o->json)
        return print_json(trace, r, stopped);
    char path[512];
    printf("# %s, fitted by moesim trace fit\n", cli_printable(trace_path(trace), path, sizeof path));
    trace_targets_comment(r->target, r->n_targets, r->got);
    print_fragment(r);
    return true;
}

/* Samples in all: those of the start, and of the search. */
static uint32_t samples_of(const struct trace_call *o)
{
    return o->samples ? o->samples : DEFAULT_SAMPLES;
}

int cli_trace_fit(const struct trace_call *o, const char *const *args)
{
    struct trace *trace;
    struct fit_trace_result result = {.profile = NULL};
    struct moesim_error err;
    struct progress progress;
    const struct fit_trace_options options = {
        .top_k = o->top_k, .n_samples = samples_of(o), .seed = 1, .progress = tell, .context = &progress};
    bool good = true;
    enum moesim_status status = cli_trace_open(o, args[0], &trace, &err);
    if (status)
        return cli_fail_status(status, &err);
    stop_watch();
    progress_start(&progress, samples_of(o), o->quiet);
    status = fit_trace(trace, &options, &result, &err);
    progress_clear(&progress);
    const bool stopped = status == MOESIM_ESTOP;
    if (!status || stopped)
        good = print(o, trace, &result, stopped);
    fit_trace_free(&result);
    trace_close(trace);
    if (stopped)
        cli_note("%s; this is the best so far", err.text);
    if (stopped)
        return stop_exit();
    if (status)
        return cli_fail_status(status, &err);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}
