/* moesim check: all mistakes of a study, or the conformance of a router. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/catalogue.h"
#include "cli/isolate.h"
#include "cli/message.h"
#include "cli/study_source.h"
#include "cli/verbs.h"
#include "sim/experiment/conformance.h"
#include "sim/study/study.h"

struct check_options {
    uint32_t shapes;
    double timeout;
    struct cli_list plugin;
    bool json;
};

static const struct check_options defaults = {.shapes = 500};

static const struct cli_option options[] = {
    CLI_OPTION_WITH(struct check_options, shapes, "shapes", "N", "random shapes to try on a router (default 500)",
                    .min = 1, .max = 1e6),
    CLI_OPTION_WITH(struct check_options, timeout, "timeout", "S",
                    "seconds a router may take (default: no limit; 600 for plugins)", .min = 0.001, .max = 1e9),
    CLI_OPTION(struct check_options, plugin, "plugin", "FILE", "a router that the study names"),
    CLI_OPTION(struct check_options, json, "json", NULL, "the conformance result as JSON"),
    CLI_OPTION_END,
};

static int check_study(const char *file, const struct check_options *o)
{
    struct study_source source;
    struct loaded_study loaded = {.arena = NULL};
    struct moesim_error err;
    enum moesim_status status = study_source_open(&source, file, &err);
    if (status)
        return cli_fail_status(status, &err);
    source.plugin = o->plugin;
    int exit = study_load(&source, false, &loaded);
    char safe[512];
    if (!exit)
        printf("%s: no mistakes; %u point%s\n", cli_printable(file, safe, sizeof safe), loaded.n_points,
               loaded.n_points == 1 ? "" : "s");
    study_unload(&loaded);
    study_source_close(&source);
    return exit;
}

static void print_result(const char *name, const struct moesim_conformance *result, bool json)
{
    char safe[512];
    if (json) {
        printf("{\"router\": \"%s\", \"shapes\": %u, \"refused\": %u, \"checks\": %u, \"failed\": %u}\n", name,
               result->n_shapes, result->n_refused, result->n_checks, result->n_failed);
        return;
    }
    for (uint32_t i = 0; i < result->n_failures_kept; i++)
        printf("FAIL  %s\n", cli_printable(result->failure[i], safe, sizeof safe));
    if (result->n_failed > result->n_failures_kept)
        printf("... and %u more\n", result->n_failed - result->n_failures_kept);
    printf("%s: %u shapes (%u refused), %u checks, %u failed\n", name, result->n_shapes, result->n_refused,
           result->n_checks, result->n_failed);
}

static int check_router(const struct cli_call *call, const struct check_options *o)
{
    struct catalogue catalogue;
    const struct moesim_router_entry *entry;
    struct moesim_error err;
    static struct moesim_conformance result;
    if (strchr(call->args[0], ':'))
        return cli_fail(CLI_USAGE, "check: the suite tries a router's parameters itself; name it without '%.200s'",
                        strchr(call->args[0], ':'));
    enum moesim_status status = catalogue_init(&catalogue, &err);
    if (!status)
        status = catalogue_router(&catalogue, call->args[0], call->isolated, &entry, &err);
    int exit = CLI_DONE;
    const double timeout_s = status ? 0 : o->timeout > 0 ? o->timeout : entry->plugin ? PLUGIN_TIMEOUT_S : 0;
    if (!status && !call->isolated) {
        setenv("OMP_WAIT_POLICY", "passive", false); /* four threads, on fewer cores, must not spin */
        exit = isolate_call(call, entry->spec, NULL, timeout_s);
    } else if (!status) {
        status = moesim_conformance_run(entry->router, o->shapes, 1, &result, &err);
        if (!status) {
            print_result(entry->router->name, &result, o->json);
            exit = result.n_failed ? CLI_SOME_FAILED : CLI_DONE;
        }
    }
    catalogue_finish(&catalogue);
    return status ? cli_fail_status(status, &err) : exit;
}

/* A study's file has a suffix or exists; anything else is a router's name. */
static bool is_study(const char *word)
{
    size_t n = strlen(word);
    if (n > 3 && strcmp(word + n - 3, ".so") == 0)
        return false;
    return moesim_study_builtin(word) || (n > 5 && strcmp(word + n - 5, ".yaml") == 0) ||
           (n > 4 && strcmp(word + n - 4, ".yml") == 0) || access(word, F_OK) == 0;
}

static int check(const struct cli_call *call)
{
    const struct check_options *o = call->options;
    if (o->timeout > 0 && is_study(call->args[0]))
        return cli_fail(CLI_USAGE, "check: --timeout is for routers; no router runs while a study is checked");
    return is_study(call->args[0]) ? check_study(call->args[0], o) : check_router(call, o);
}

static const struct cli_example examples[] = {
    {"moesim check study.yaml", "all mistakes at once, each with file, line and column"},
    {"moesim check ./mine.so", "does a router of your own keep the contract's promises?"},
    {NULL, NULL},
};

const struct cli_verb cli_check = {
    .name = "check",
    .arguments = "STUDY.yaml|NAME|FILE.so",
    .summary = "find all mistakes of a study, or try a router's promises",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct check_options),
    .min_args = 1,
    .max_args = 1,
    .run = check,
};
