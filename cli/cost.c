/* moesim cost: the price of one MoE layer on a cluster. */
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cost_print.h"
#include "cli/isolate.h"
#include "cli/message.h"
#include "cli/provenance.h"
#include "cli/study_source.h"
#include "cli/verbs.h"
#include "sim/experiment/experiment.h"
#include "sim/study/spec.h"
#include "workloads/trace/trace.h"

struct cost_options {
    const char *cluster, *model, *router, *loads, *trace, *placement, *dispatch, *padding, *sync, *all_reduce;
    uint32_t tokens, layer, ep, chunks, threads;
    uint64_t seed;
    bool backward, json;
};

static const struct cost_options defaults = {.placement = "contiguous",
                                             .dispatch = "flat",
                                             .padding = "none",
                                             .sync = "exposed",
                                             .all_reduce = "ring",
                                             .chunks = 1,
                                             .seed = 1};

#define DEFAULT_TOKENS 4096

static const struct cli_option options[] = {
    CLI_OPTION(struct cost_options, cluster, "cluster", "SPEC", "name:key=value,... or a cluster text; required"),
    CLI_OPTION(struct cost_options, model, "model", "SPEC", "name:key=value,...: sizes, dtypes, router; required"),
    CLI_OPTION_WITH(struct cost_options, tokens, "tokens", "T",
                    "tokens of each device (default 4096, with --trace all of the file); a shorter trace is repeated",
                    .min = 1, .max = 1 << 26),
    CLI_OPTION_WITH(struct cost_options, ep, "ep", "N",
                    "devices that share one set of experts (default: the cluster's, else all); a preset without nodes= "
                    "gets as many nodes as it takes",
                    .min = 1, .max = MOESIM_MAX_DEVICES),
    CLI_OPTION(struct cost_options, router, "router", "SPEC",
               "name:key=value,... or ./plugin.so (default: the model's own; replay with --trace)"),
    CLI_OPTION(struct cost_options, loads, "loads", "FILE",
               "tokens drawn by these loads, [experts] or [layers, experts] in any format of moesim trace"),
    CLI_OPTION(struct cost_options, trace, "trace", "FILE",
               "the decisions recorded here, [tokens, layers, choices] in any format of moesim trace"),
    CLI_OPTION_WITH(struct cost_options, layer, "layer", "N",
                    "which layer of that file, counted from 0 (of loads, among those that have any; default 0)",
                    .max = TRACE_MAX_LAYERS - 1),
    CLI_OPTION(
        struct cost_options, placement, "placement", "SPEC",
        "name:key=value,... or a plan's path (default contiguous); one that looks at loads sees the layer's own"),
    CLI_OPTION_WITH(struct cost_options, dispatch, "dispatch", "FORM",
                    "normal: a copy a node, forwarded inside; low-latency: a copy an expert; flat (default): a copy a "
                    "device; all-gather; padded: every slot of the capacity",
                    .choices = MOESIM_DISPATCH_CHOICES),
    CLI_OPTION_WITH(struct cost_options, padding, "padding", "P", "rows the experts compute without a token",
                    .choices = MOESIM_PADDING_CHOICES),
    CLI_OPTION_WITH(struct cost_options, chunks, "chunks", "N",
                    "parts whose exchanges and experts overlap (default 1: none)", .min = 1, .max = 64),
    CLI_OPTION(struct cost_options, backward, "backward", NULL, "the backward pass and the sum of gradients too"),
    CLI_OPTION_WITH(struct cost_options, sync, "sync", "S",
                    "that sum: exposed (default), or overlapped with the backward arithmetic",
                    .choices = MOESIM_SYNC_CHOICES),
    CLI_OPTION_WITH(struct cost_options, all_reduce, "all-reduce", "FORM", "how it goes round: ring (default) or tree",
                    .choices = MOESIM_ALL_REDUCE_CHOICES),
    CLI_OPTION_WITH(struct cost_options, seed, "seed", "N", "of what is drawn (default 1)", .max = 9007199254740992.0),
    CLI_OPTION_WITH(struct cost_options, threads, "threads", "N", "threads (default: the cores, or OMP_NUM_THREADS)",
                    .min = 1, .max = 1024),
    CLI_OPTION(struct cost_options, json, "json", NULL, "metrics by name, seconds and bytes"),
    CLI_OPTION_END,
};

/* ---- as a study of one step ---- */

/* The layer as a study, which the engine resolves, checks and routes like any other. */
static const char frame[] = "study: cost\nworkload: gaussian\nrouter: softmax-topk\n";

struct request {
    const struct cost_options *o;
    struct moesim_arena *arena;
    struct study_source source;
};

static bool is_given(const char *spec, const char *key, struct moesim_arena *arena)
{
    struct moesim_spec cut;
    struct moesim_error ignored;
    bool given = false;
    if (!moesim_cluster_is_text(spec) && moesim_spec_cut(spec, arena, &cut, &ignored) == MOESIM_OK)
        for (uint32_t i = 0; i < cut.n_pairs; i++)
            given |= !strcmp(cut.pairs[i].key, key);
    return given;
}

/* "key=VALUE" with VALUE as a quoted YAML scalar, which JSON's strings are. */
static bool set(struct request *r, const char *key, const char *value)
{
    json_t *string = json_string(value);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    char *text = quoted ? moesim_alloc(r->arena, strlen(key) + strlen(quoted) + 2, 1) : NULL;
    if (text) {
        sprintf(text, "%s=%s", key, quoted);
        r->source.set.item[r->source.set.n++] = text;
    }
    free(quoted);
    json_decref(string);
    return text != NULL;
}

static bool set_number(struct request *r, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return set(r, key, text);
}

/* A SPEC with one key more. */
static char *with_key(struct request *r, const char *spec, const char *key, const char *value)
{
    const size_t size = strlen(spec) + strlen(key) + strlen(value) + 3;
    char *text = moesim_alloc(r->arena, size, 1);
    if (text)
        snprintf(text, size, "%s%c%s=%s", spec, strchr(spec, ':') ? ',' : ':', key, value);
    return text;
}

/* The cluster with its EP degree, and its devices. A preset grows to hold an EP group. */
static enum moesim_status set_cluster(struct request *r, uint32_t *n_devices, struct moesim_error *err)
{
    const struct cost_options *o = r->o;
    struct moesim_cluster cluster;
    const enum moesim_status status = moesim_spec_cluster(o->cluster, r->arena, &cluster, err);
    if (status != MOESIM_OK)
        return status;
    bool memory = set(r, "cluster", o->cluster);
    if (o->ep) {
        memory = memory && set_number(r, "cluster.ep", o->ep);
        if (o->ep > moesim_cluster_devices(&cluster) && o->ep % cluster.devices_per_node == 0 &&
            !moesim_cluster_is_text(o->cluster) && !is_given(o->cluster, "nodes", r->arena)) {
            cluster.nodes = o->ep / cluster.devices_per_node;
            memory = memory && set_number(r, "cluster.nodes", cluster.nodes);
        }
    }
    *n_devices = moesim_cluster_devices(&cluster);
    return memory ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

/* A placement that looks at loads sees those of the layer itself; one that looks from layer to layer, a warm-up's. */
static enum moesim_status set_placement(struct request *r, struct moesim_error *err)
{
    const char *spec = r->o->placement;
    const struct moesim_placement_rule *rule;
    void *params;
    uint32_t steps = 1;
    const enum moesim_status status = moesim_spec_placement(spec, r->arena, &rule, &params, err);
    if (status != MOESIM_OK)
        return status;
    const struct moesim_placement_fit *fit = moesim_placement_fit(rule, params);
    if (fit && !is_given(spec, "from", r->arena) && !(rule->wants & MOESIM_WANTS_NEXT))
        spec = with_key(r, spec, "from", "oracle");
    else if (fit && moesim_placement_source(fit) == MOESIM_FROM_WARM_UP)
        steps += fit->fit_steps;
    const bool memory = spec && set(r, "placement", spec) && set_number(r, "steps", steps);
    return memory ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

/* What is routed: recorded decisions, tokens drawn by recorded loads, or normal gate columns. */
static bool set_workload(struct request *r, uint32_t n_devices)
{
    const struct cost_options *o = r->o;
    const char *file = o->trace ? o->trace : o->loads;
    const uint64_t tokens = o->tokens ? o->tokens : o->trace ? 0 : DEFAULT_TOKENS;
    r->source.workload.item[r->source.workload.n++] = o->trace ? "trace" : o->loads ? "loads" : "gaussian";
    if ((file && !set(r, "workload.file", file)) || (o->layer && !set_number(r, "workload.first_layer", o->layer)))
        return false;
    return !tokens || set_number(r, "workload.tokens", tokens * n_devices);
}

/* The model, and its router or another. */
static enum moesim_status set_routing(struct request *r, uint32_t n_devices, struct moesim_error *err)
{
    const struct cost_options *o = r->o;
    char name[64];
    const enum moesim_status status = moesim_spec_name(o->model, name, err);
    if (status != MOESIM_OK)
        return status;
    const struct moesim_model_preset *preset = moesim_model_find(name);
    const char *router = o->trace ? "replay" : preset && preset->router ? preset->router : "softmax-topk";
    r->source.router.item[r->source.router.n++] = o->router ? o->router : router;
    bool memory = set_workload(r, n_devices) && set(r, "model", o->model);
    if (!is_given(o->model, "layers", r->arena))
        memory = memory && set_number(r, "model.layers", 1);
    return memory ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

static enum moesim_status make_study(struct request *r, struct moesim_error *err)
{
    const struct cost_options *o = r->o;
    char seeds[32];
    uint32_t n_devices;
    r->source.name = "cost";
    r->source.text = strdup(frame);
    r->source.size = sizeof frame - 1;
    if (!r->source.text)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    enum moesim_status status = set_cluster(r, &n_devices, err);
    if (status == MOESIM_OK)
        status = set_placement(r, err);
    if (status == MOESIM_OK)
        status = set_routing(r, n_devices, err);
    if (status != MOESIM_OK)
        return status;
    snprintf(seeds, sizeof seeds, "seeds=[%llu]", (unsigned long long)o->seed);
    char *list = moesim_strdup(r->arena, seeds);
    bool memory = list && set(r, "dispatch", o->dispatch) && set(r, "padding", o->padding) &&
                  set_number(r, "chunks", o->chunks) && set(r, "backward", o->backward ? "true" : "false") &&
                  set(r, "sync", o->sync) && set(r, "all_reduce", o->all_reduce);
    r->source.set.item[r->source.set.n++] = list;
    return memory ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

/* ---- pricing ---- */

static void read_metrics(const struct moesim_outcome *outcome, struct cost_result *result)
{
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        result->metric[m] = (double)NAN;
    for (uint64_t i = 0; i < outcome->n_summaries; i++)
        if (outcome->summary[i].layer == (int32_t)result->layer)
            result->metric[outcome->summary[i].metric] = outcome->summary[i].mean;
}

static int price(const struct moesim_point *point, const char *trace, bool json)
{
    struct moesim_experiment *experiment;
    struct moesim_outcome outcome;
    struct moesim_error err;
    enum moesim_status status = moesim_experiment_create(&point, 1, 0, &experiment, &err);
    if (status != MOESIM_OK)
        return cli_fail_status(status, &err);
    while (status == MOESIM_OK && !moesim_experiment_done(experiment))
        status = moesim_experiment_step(experiment, &err);
    if (status == MOESIM_OK)
        status = moesim_experiment_finish(experiment, &outcome, &err);
    int exit = CLI_DONE;
    if (status != MOESIM_OK) {
        exit = cli_fail_status(status, &err);
    } else {
        struct cost_result result = {
            .point = point, .layer = point->model.layers - 1, .work = moesim_experiment_work(experiment, 0)};
        read_metrics(&outcome, &result);
        if (outcome.note && *outcome.note)
            cli_note("%s", outcome.note);
        if (trace && point->n_tokens > point->workload_shape.n_tokens)
            cli_note("the %u tokens of %s are repeated to make %u", point->workload_shape.n_tokens, trace,
                     point->n_tokens);
        if (!(json ? cost_print_json(&result) : cost_print(&result)))
            exit = cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    }
    moesim_experiment_destroy(experiment);
    return exit;
}

static int cost_with(struct request *r, bool isolated)
{
    struct loaded_study loaded;
    struct moesim_error err;
    const enum moesim_status status = make_study(r, &err);
    if (status != MOESIM_OK)
        return cli_fail_status(status, &err);
    omp_set_num_threads((int)(r->o->threads ? r->o->threads : provenance_threads()));
    int exit = study_load(&r->source, isolated, &loaded);
    if (!exit)
        exit = price(loaded.points[0], r->o->trace, r->o->json);
    study_unload(&loaded);
    return exit;
}

static int cost(const struct cli_call *call)
{
    const struct cost_options *o = call->options;
    if (!o->cluster)
        return cli_fail(CLI_USAGE, "cost: --cluster SPEC is missing; 'moesim list clusters' names them");
    if (!o->model)
        return cli_fail(CLI_USAGE, "cost: --model SPEC is missing; 'moesim list models' names them");
    if (o->loads && o->trace)
        return cli_fail(CLI_USAGE, "cost: give --loads FILE or --trace FILE, not both");
    if (o->layer && !o->loads && !o->trace)
        return cli_fail(CLI_USAGE, "cost: --layer is for --loads and --trace");
    if (!o->backward && (strcmp(o->sync, defaults.sync) != 0 || strcmp(o->all_reduce, defaults.all_reduce) != 0))
        return cli_fail(CLI_USAGE, "cost: --sync and --all-reduce are for --backward");
    if (o->router && moesim_spec_is_path(o->router) && !call->isolated)
        return isolate_call(call, o->router, NULL, PLUGIN_TIMEOUT_S);
    struct request r = {.o = o, .arena = moesim_arena_create(0)};
    const int exit = r.arena ? cost_with(&r, call->isolated) : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    study_source_close(&r.source);
    moesim_arena_destroy(r.arena);
    return exit;
}

static const struct cli_example examples[] = {
    {"moesim cost --cluster h100-dgx --model deepseek-v3 --ep 64 --tokens 128 --dispatch low-latency",
     "one layer of DeepSeek-V3 on 8 nodes, decoding"},
    {"moesim cost --cluster 'node:4 gpu:8 nvlink:200e9 nic:50e9 flop:800e12 hbm:3e12' --model mixtral-8x7b --json",
     "on a machine of your own"},
    {"moesim cost --cluster h100-dgx:nodes=4 --model deepseek-v3 --dispatch normal --chunks 2",
     "one copy a node, half of the exchanges behind the experts"},
    {"moesim cost --cluster h100-dgx --model olmoe-1b-7b --trace topk_ids.npy --layer 3 --placement lpt",
     "what a model's recorded decisions cost; --loads FILE for recorded loads"},
    {NULL, NULL},
};

const struct cli_verb cli_cost = {
    .name = "cost",
    .arguments = "",
    .summary = "price one MoE layer on a cluster: dispatch, experts, combine, ports",
    .details = "All times and bytes are modelled (docs/cost-model.md). Bytes of an exchange are those that leave a "
               "device, of a port those of dispatch and combine together. Logical bandwidth counts what a token's own "
               "device and node get too, as DeepEP prints it; physical bandwidth is that of the busiest port.",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct cost_options),
    .min_args = 0,
    .max_args = 0,
    .run = cost,
};
