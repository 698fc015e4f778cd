/* moesim place: experts to devices, from loads or a trace, written as a plan. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/file.h"
#include "cli/message.h"
#include "cli/place_balance.h"
#include "cli/place_input.h"
#include "cli/place_write.h"
#include "cli/print_table.h"
#include "cli/stop.h"
#include "cli/verbs.h"
#include "sim/study/spec.h"
#include "sim/study/study.h"

struct place_options {
    const char *loads, *trace, *cluster, *placement, *format, *output;
    uint32_t experts, first_layer;
    uint64_t seed;
    bool json;
};

#define OF_THE_FILE UINT32_MAX

static const struct place_options defaults = {.format = "moesim", .first_layer = OF_THE_FILE, .seed = 1};

static const struct cli_option options[] = {
    CLI_OPTION(struct place_options, loads, "loads", "FILE",
               "pairs of each expert, [experts] or [layers, experts]: .npy, SGLang's JSON, ... (moesim trace --help)"),
    CLI_OPTION(struct place_options, trace, "trace", "FILE",
               "decisions instead, [tokens, layers, choices] expert ids by rank, in any format of moesim trace"),
    CLI_OPTION_WITH(struct place_options, experts, "experts", "N",
                    "experts of the trace (default: the file's, else the greatest id and one)", .min = 1, .max = 65536),
    CLI_OPTION(struct place_options, cluster, "cluster", "SPEC", "name:key=value,... or a cluster text; required"),
    CLI_OPTION(struct place_options, placement, "placement", "SPEC", "name:key=value,... or a plan's path; required"),
    CLI_OPTION_WITH(struct place_options, format, "format", "F", "of the plan: moesim (default), vllm-ascend or trtllm",
                    .choices = PLAN_FORMATS),
    CLI_OPTION_WITH(struct place_options, first_layer, "first-layer", "N",
                    "number of the first layer, in formats that number layers (default: trtllm the file's, else 0)",
                    .max = 65535),
    CLI_OPTION_WITH(struct place_options, output, "output", "FILE",
                    "write the plan here, and its balance on stdout (default: the plan on stdout)", .letter = 'o'),
    CLI_OPTION_WITH(struct place_options, seed, "seed", "N", "of random placements and replica choices (default 1)",
                    .max = 9007199254740992.0),
    CLI_OPTION(struct place_options, json, "json", NULL, "with -o: the balance as a JSON array"),
    CLI_OPTION_END,
};

struct placing {
    const struct place_options *o;
    struct moesim_arena *arena;
    struct moesim_cluster cluster;
    const struct moesim_placement_rule *rule;
    void *params;
    struct place_input input;
    struct moesim_placement *placement;     /* [n_layers] */
    struct place_figures *before, *figures; /* [n_layers] of contiguous, of `placement` */
};

/* ---- computing ---- */

static bool is_given(const char *spec, const char *key, struct moesim_arena *arena)
{
    struct moesim_spec cut;
    struct moesim_error ignored;
    bool given = false;
    if (moesim_spec_cut(spec, arena, &cut, &ignored) == MOESIM_OK)
        for (uint32_t i = 0; i < cut.n_pairs; i++)
            given |= !strcmp(cut.pairs[i].key, key);
    return given;
}

static enum moesim_status read_specs(struct placing *p, struct moesim_error *err)
{
    enum moesim_status status = moesim_spec_cluster(p->o->cluster, p->arena, &p->cluster, err);
    if (status == MOESIM_OK)
        status = moesim_cluster_check_shape(&p->cluster, err); /* nothing is priced here */
    if (status == MOESIM_OK)
        status = moesim_spec_placement(p->o->placement, p->arena, &p->rule, &p->params, err);
    static const char *const of_runs[] = {"from", "fit_steps", "every", "window"};
    for (size_t i = 0; i < sizeof of_runs / sizeof *of_runs && status == MOESIM_OK; i++)
        if (is_given(p->o->placement, of_runs[i], p->arena))
            return moesim_fail(err, MOESIM_EINVAL,
                               "placement.%s is for runs; here the loads are those of --loads or --trace", of_runs[i]);
    return status;
}

/* Places by a rule and judges the result. */
static enum moesim_status place_and_judge(struct placing *p, const struct moesim_placement_rule *rule,
                                          const void *params, struct moesim_placement **placement,
                                          struct place_figures *figures, struct moesim_error *err)
{
    const struct moesim_placement_stats *stats = &p->input.stats;
    const uint64_t pairs = (uint64_t)p->input.n_tokens * p->input.top_k;
    enum moesim_status status = moesim_placements_create(rule, params, stats->n_layers, stats->n_experts, &p->cluster,
                                                         pairs, p->arena, placement, err);
    if (status == MOESIM_OK)
        status = moesim_place(rule, params, stats, p->o->seed, &p->cluster, *placement, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "placement %s", rule->name);
        return status;
    }
    return place_judge(&p->input, &p->cluster, *placement, p->arena, figures, err);
}

static enum moesim_status compute(struct placing *p, struct moesim_error *err)
{
    enum moesim_status status = read_specs(p, err);
    if (status == MOESIM_OK)
        status = place_input_read(&p->input, p->o->loads, p->o->trace, p->o->experts, p->rule, p->arena, err);
    if (status != MOESIM_OK)
        return status;
    const uint32_t n_layers = p->input.stats.n_layers;
    p->before = moesim_alloc(p->arena, n_layers, sizeof *p->before);
    p->figures = moesim_alloc(p->arena, n_layers, sizeof *p->figures);
    if (!p->before || !p->figures)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    struct moesim_placement *contiguous;
    status = place_and_judge(p, p->rule, p->params, &p->placement, p->figures, err);
    if (status == MOESIM_OK)
        status = place_and_judge(p, moesim_placement_find("contiguous"), NULL, &contiguous, p->before, err);
    if (status == MOESIM_OK)
        status = plan_format_check(plan_format_find(p->o->format), p->placement, n_layers, err);
    return status;
}

/* ---- telling ---- */

static uint32_t first_layer(const struct placing *p)
{
    if (p->o->first_layer != OF_THE_FILE)
        return p->o->first_layer;
    return plan_format_find(p->o->format)->counts_dense ? p->input.first_layer : 0;
}

/* The figures that are told, contiguous's beside each. */
static const struct {
    const char *name;
    size_t offset;
} told[] = {
    {"device_imbalance", offsetof(struct place_figures, device_imbalance)},
    {"node_imbalance", offsetof(struct place_figures, node_imbalance)},
    {"device_fanout", offsetof(struct place_figures, device_fanout)},
    {"node_fanout", offsetof(struct place_figures, node_fanout)},
    {"hops", offsetof(struct place_figures, hops)},
};
enum { N_TOLD = sizeof told / sizeof *told };

static double figure(const struct place_figures *figures, size_t which)
{
    double value;
    memcpy(&value, (const char *)figures + told[which].offset, sizeof value);
    return value;
}

/* Mean over the layers that have it; NaN where none does. */
static double mean_figure(const struct place_figures *figures, uint32_t n_layers, size_t which)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t l = 0; l < n_layers; l++)
        if (!isnan(figure(&figures[l], which))) {
            sum += figure(&figures[l], which);
            n++;
        }
    return n ? sum / n : (double)NAN;
}

static void tell_number(struct print_table *table, double value)
{
    char text[32] = "-";
    if (!isnan(value))
        snprintf(text, sizeof text, "%.3f", value);
    print_number(table, value, text);
}

static void tell_row(struct print_table *table, const struct placing *p, uint32_t layer)
{
    const uint32_t n_layers = p->input.stats.n_layers;
    const bool all = layer == n_layers;
    if (all)
        print_text(table, "mean");
    else
        print_number(table, layer + first_layer(p), NULL);
    for (size_t i = 0; i < N_TOLD; i++) {
        if (isnan(mean_figure(p->figures, n_layers, i)))
            continue;
        tell_number(table, all ? mean_figure(p->before, n_layers, i) : figure(&p->before[layer], i));
        tell_number(table, all ? mean_figure(p->figures, n_layers, i) : figure(&p->figures[layer], i));
    }
}

static bool tell_table(const struct placing *p)
{
    const uint32_t n_layers = p->input.stats.n_layers;
    struct print_column columns[1 + 2 * N_TOLD] = {{.title = "layer"}};
    char before[N_TOLD][48];
    uint32_t n = 1;
    for (size_t i = 0; i < N_TOLD; i++) {
        if (isnan(mean_figure(p->figures, n_layers, i)))
            continue;
        snprintf(before[i], sizeof before[i], "%s_before", told[i].name);
        columns[n++] = (struct print_column){.title = before[i], .right = true};
        columns[n++] = (struct print_column){.title = told[i].name, .right = true};
    }
    struct print_table *table = print_table_create(columns, n);
    for (uint32_t l = 0; table && l <= n_layers; l++)
        tell_row(table, p, l);
    const bool good = table && print_table(table, p->o->json ? PRINT_JSON : PRINT_TABLE);
    print_table_destroy(table);
    return good;
}

/* One line of what the plan is worth, for those who read the plan itself on stdout. */
static void tell_line(const struct placing *p)
{
    const uint32_t n_layers = p->input.stats.n_layers;
    char text[512];
    size_t n = 0;
    for (size_t i = 0; i < N_TOLD; i++) {
        const double before = mean_figure(p->before, n_layers, i), after = mean_figure(p->figures, n_layers, i);
        if (!isnan(after))
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %.3f -> %.3f", n ? ", " : "", told[i].name, before,
                                  after);
    }
    cli_note("contiguous -> %s, mean of %u layer%s: %s", p->rule->name, n_layers, n_layers > 1 ? "s" : "", text);
}

/* ---- the verb ---- */

static enum moesim_status write_plan(const struct placing *p, struct moesim_error *err)
{
    struct file_output output;
    stop_watch(); /* a temporary file must not stay behind */
    enum moesim_status status = cli_file_output_open(&output, p->o->output, err);
    if (status != MOESIM_OK)
        return status;
    plan_format_find(p->o->format)->write(output.stream, p->placement, p->input.stats.n_layers, first_layer(p));
    return cli_file_output_close(&output, true, err);
}

static int place_with(struct placing *p)
{
    struct moesim_error err;
    enum moesim_status status = compute(p, &err);
    if (status == MOESIM_OK)
        status = write_plan(p, &err);
    if (status != MOESIM_OK)
        return cli_fail_status(status, &err);
    if (!p->o->output)
        tell_line(p);
    else if (!tell_table(p))
        return cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    return CLI_DONE;
}

/* What is missing or contradicts itself, before anything is read. */
static int check_options(const struct place_options *o)
{
    if (!o->loads == !o->trace)
        return cli_fail(CLI_USAGE, "place: give --loads FILE or --trace FILE%s", o->loads ? ", not both" : "");
    if (!o->cluster)
        return cli_fail(CLI_USAGE, "place: --cluster SPEC is missing; 'moesim list clusters' names them");
    if (!o->placement)
        return cli_fail(CLI_USAGE, "place: --placement SPEC is missing; 'moesim list placements' names them");
    if (o->experts && !o->trace)
        return cli_fail(CLI_USAGE, "place: --experts is for --trace; loads have a number for every expert");
    if (o->first_layer != OF_THE_FILE && !strcmp(o->format, "moesim"))
        return cli_fail(CLI_USAGE, "place: --first-layer is for formats that number layers; moesim's does not");
    if (o->json && !o->output)
        return cli_fail(CLI_USAGE, "place: --json is the balance's form, which needs -o FILE for the plan");
    if (o->output && !*o->output)
        return cli_fail(CLI_USAGE, "place: -o needs a file's name");
    if (o->output && cli_file_same(o->loads ? o->loads : o->trace, o->output))
        return cli_fail(CLI_USAGE, "place: -o %s would replace what is read", o->output);
    return CLI_DONE;
}

static int place(const struct cli_call *call)
{
    const struct place_options *o = call->options;
    const int mistake = check_options(o);
    if (mistake)
        return mistake;
    struct placing p = {.o = o, .arena = moesim_arena_create(0)};
    const int exit = p.arena ? place_with(&p) : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    place_input_close(&p.input);
    moesim_arena_destroy(p.arena);
    return exit;
}

static const struct cli_example examples[] = {
    {"moesim place --loads loads.npy --cluster h100-dgx:nodes=4 --placement eplb:redundant=32 -o plan.json",
     "DeepSeek's load balancer for 32 devices; a study takes it as placement: plan.json"},
    {"moesim place --loads loads.npy --cluster h100-dgx --placement lpt --format trtllm -o moe_load_balancer.yaml",
     "for TensorRT-LLM; --format vllm-ascend for vllm-ascend"},
    {"moesim place --trace topk_ids.npy --cluster h100-dgx --placement coactivation",
     "by which experts tokens use together"},
    {NULL, NULL},
};

const struct cli_verb cli_place = {
    .name = "place",
    .arguments = "",
    .summary = "compute a placement from loads or a trace and write it as a plan",
    .details =
        "The balance is that of the loads (or decisions) themselves, beside contiguous's: device_imbalance and "
        "node_imbalance are max / mean of the load; for a trace, device_fanout and node_fanout are the devices and "
        "nodes that serve a token, hops the share of tokens whose first choice is on another device than in the "
        "layer before.",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct place_options),
    .min_args = 0,
    .max_args = 0,
    .run = place,
};
