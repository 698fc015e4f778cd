/* moesim trace: recorded routing, what it shows and its conversion. */
#include "cli/trace.h"

#include <string.h>

#include "cli/message.h"
#include "cli/verbs.h"
#include "workloads/trace/export.h"

static const struct trace_call defaults = {.kind = NULL};

static const struct cli_option options[] = {
    CLI_OPTION_WITH(struct trace_call, kind, "kind", "K",
                    "what the arrays are: logits, decisions or loads (default: by name, type and dimensions)",
                    .choices = TRACE_KIND_CHOICES),
    CLI_OPTION_WITH(struct trace_call, experts, "experts", "N", "experts (default: the file's, or the largest id + 1)",
                    .min = 1, .max = TRACE_MAX_EXPERTS),
    CLI_OPTION(struct trace_call, weights, "weights", "FILE", "weights of decisions, of the same shape (.npy)"),
    CLI_OPTION(struct trace_call, sequences, "sequences", "FILE",
               "CSV with the columns start and len (tokens): lags never cross a sequence"),
    CLI_OPTION(struct trace_call, domains, "domains", "COLUMN", "the column of --sequences that names domains"),
    CLI_OPTION_WITH(struct trace_call, format, "format", "F",
                    "convert: " TRACE_EXPORT_CHOICES " (default: by OUT's suffix)", .choices = TRACE_EXPORT_CHOICES),
    CLI_OPTION_WITH(struct trace_call, as, "as", "K", "convert: loads = what the decisions come to in each layer",
                    .choices = "loads"),
    CLI_OPTION(struct trace_call, append, "append", NULL, "convert: behind what the trace file OUT holds"),
    CLI_OPTION_WITH(struct trace_call, top_k, "top-k", "K", "fit: experts of a token, which loads do not tell",
                    .min = 1, .max = 65536),
    CLI_OPTION_WITH(struct trace_call, samples, "samples", "N", "fit: samples that may be drawn (default 240)",
                    .min = 1, .max = 1000000),
    CLI_OPTION(struct trace_call, quiet, "quiet", NULL, "fit: no progress"),
    CLI_OPTION(struct trace_call, json, "json", NULL, "info, fit and presets as JSON"),
    CLI_OPTION_END,
};

static const struct {
    const char *name, *wants;
    uint32_t min_args, max_args;
    int (*run)(const struct trace_call *o, const char *const *args);
} actions[] = {{"info", "1 argument is needed: FILE", 1, 1, cli_trace_info},
               {"convert", "2 arguments are needed: IN OUT", 2, 2, cli_trace_convert},
               {"fit", "1 argument is needed: FILE", 1, 1, cli_trace_fit},
               {"presets", "1 argument at most: NAME", 0, 1, cli_trace_presets}};

#define N_ACTIONS (sizeof actions / sizeof *actions)

enum moesim_status cli_trace_open(const struct trace_call *o, const char *path, struct trace **trace,
                                  struct moesim_error *err)
{
    const struct trace_options trace_options = {.kind = trace_kind_of(o->kind),
                                                .n_experts = o->experts,
                                                .weights = o->weights,
                                                .sequences = o->sequences,
                                                .domains = o->domains,
                                                .recover = true};
    if (o->domains && !o->sequences)
        return moesim_fail(err, MOESIM_EINVAL, "--domains names a column of --sequences FILE, which is missing");
    return trace_open(path, &trace_options, trace, err);
}

static int trace(const struct cli_call *call)
{
    const char *names[N_ACTIONS + 1];
    for (uint32_t i = 0; i < N_ACTIONS; i++) {
        names[i] = actions[i].name;
        if (strcmp(call->args[0], actions[i].name) != 0)
            continue;
        const uint32_t n = call->n_args - 1;
        if (n < actions[i].min_args || n > actions[i].max_args)
            return cli_fail(CLI_USAGE, "trace %s: %s", actions[i].name, actions[i].wants);
        const char *const args[] = {n > 0 ? call->args[1] : NULL, n > 1 ? call->args[2] : NULL, NULL};
        return actions[i].run(call->options, args);
    }
    names[N_ACTIONS] = NULL;
    const char *near = cli_nearest(call->args[0], names);
    return cli_fail(CLI_USAGE, "trace: unknown action '%s'; %s%s%s", call->args[0],
                    near ? "did you mean '" : "info, convert, fit or presets", near ? near : "", near ? "'?" : "");
}

static const struct cli_example examples[] = {
    {"moesim trace info topk_ids.npy --sequences sequences.csv",
     "loads, overlap of neighbours, what foretells a layer, in recorded decisions [tokens, layers, k]"},
    {"moesim trace convert topk_ids.npy model.trace --weights topk_weights.npy --sequences sequences.csv",
     "all that is known of them in one file"},
    {"moesim trace convert model.trace load.json", "SGLang's logical_count from decisions"},
    {"moesim trace fit model.trace > fitted.yaml",
     "the generator's parameters for a recording, and how close they come"},
    {"moesim trace presets glm-5.2", "figures measured on the model, and those of the workload calibrated"},
    {NULL, NULL},
};

const struct cli_verb cli_trace = {
    .name = "trace",
    .arguments = "info FILE | convert IN OUT | fit FILE | presets [NAME]",
    .summary = "look at recorded routing, convert it, fit the generator to it",
    .details = "Read are .npy, .npz, safetensors, the JSON, JSON lines and CSV of vLLM, SGLang, Megatron-LM, llama.cpp "
               "and loggers built on them, TensorRT-LLM's folder of expert statistics, the counts of a llama.cpp "
               "importance matrix (GGUF), and moesim's own trace file. What a file is shows in its first bytes; "
               "docs/formats.md has the names that are looked for. Means are over layers.",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct trace_call),
    .min_args = 1,
    .max_args = 3,
    .run = trace,
};
