/* moesim trace presets: what was measured on each model, and what the generator's preset yields. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/trace.h"
#include "cli/trace_targets.h"

/* The parameters of a preset as a study gives them. */
static struct source_params params_of(uint32_t preset)
{
    return (struct source_params){.preset = preset,
                                  .sequence = 512,
                                  .vocabulary = 1500,
                                  .zipf = 1,
                                  .effects = {-1, SOURCE_NO_SKEW, -1, -1, -1, -1, -1, -1, -1, -1, -1},
                                  .profile = ""};
}

static enum moesim_status show(uint32_t i, bool json, json_t *all, bool *good, struct moesim_error *err)
{
    const struct calibrated_preset *preset = &calibrated_presets[i];
    const struct source_params params = params_of(i);
    const struct sample_plan plan = {.n_experts = preset->n_experts,
                                     .top_k = preset->top_k,
                                     .n_layers = preset->n_layers,
                                     .sequences_each = TRACE_SAMPLE_SEQUENCES,
                                     .seed = 1};
    double value[CALIBRATED_N_FIGURES];
    const enum moesim_status status = sample_take(&params, &plan, NULL, value, err);
    if (status)
        return status;
    if (json) {
        json_t *object = json_pack("{s:s, s:s, s:o}", "preset", preset->name, "measured_on", preset->origin, "figures",
                                   trace_targets_json(preset->target, preset->n_targets, value));
        *good = json_array_append_new(all, object) == 0;
        return MOESIM_OK;
    }
    const int n = printf("%s (%u experts, %u a token, %u layers):", preset->name, preset->n_experts, preset->top_k,
                         preset->n_layers);
    cli_print_wrapped(stdout, preset->origin, n > 0 ? (size_t)n : 0, 2);
    *good = trace_targets_print(preset->target, preset->n_targets, value);
    puts("");
    fflush(stdout);
    return MOESIM_OK;
}

static int unknown_preset(const char *name)
{
    const char *names[CALIBRATED_N_PRESETS + 1] = {NULL};
    for (uint32_t i = 0; i < CALIBRATED_N_PRESETS; i++)
        names[i] = calibrated_presets[i].name;
    const char *near = cli_nearest(name, names);
    return cli_fail(CLI_USAGE, "trace presets: unknown preset '%s'; %s%s%s", name,
                    near ? "did you mean '" : "'moesim describe workload calibrated' names them", near ? near : "",
                    near ? "'?" : "");
}

int cli_trace_presets(const struct trace_call *o, const char *const *args)
{
    struct moesim_error err;
    enum moesim_status status = MOESIM_OK;
    json_t *all = json_array();
    bool good = all != NULL, found = false;
    for (uint32_t i = 0; good && !status && i < CALIBRATED_N_PRESETS; i++) {
        if (args[0] ? strcmp(args[0], calibrated_presets[i].name) != 0 : calibrated_presets[i].n_targets == 0)
            continue;
        found = true;
        status = show(i, o->json, all, &good, &err);
    }
    char *text = good && !status && found && o->json ? json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    if (text)
        puts(text);
    good &= text || !o->json || !found || status;
    free(text);
    json_decref(all);
    if (status)
        return cli_fail_status(status, &err);
    if (!found)
        return unknown_preset(args[0]);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}
