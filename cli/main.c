/* moesim: the table of verbs and their dispatch. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/isolate.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/process.h"
#include "cli/verbs.h"
#include "version.h"

const struct cli_verb *const cli_verbs[] = {
    &cli_run,     &cli_route,  &cli_cost,   &cli_place, &cli_trace,    &cli_list,   &cli_describe, &cli_check,
    &cli_compare, &cli_report, &cli_export, &cli_new,   &cli_fidelity, &cli_doctor, NULL,
};
const struct cli_verb *const cli_hidden_verbs[] = {&cli_worker, &cli_probe, &cli_docs, &cli_complete, NULL};

const struct cli_verb *cli_verb_find(const char *name)
{
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        if (strcmp((*v)->name, name) == 0)
            return *v;
    for (const struct cli_verb *const *v = cli_hidden_verbs; *v; v++)
        if (strcmp((*v)->name, name) == 0)
            return *v;
    return NULL;
}

static int unknown_verb(const char *word)
{
    const char *names[sizeof cli_verbs / sizeof *cli_verbs];
    uint32_t n = 0;
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        names[n++] = (*v)->name;
    names[n] = NULL;
    const char *near = cli_nearest(word, names);
    if (near)
        return cli_fail(CLI_USAGE, "unknown verb '%s'; did you mean '%s'?", word, near);
    return cli_fail(CLI_USAGE, "unknown verb '%s'; 'moesim --help' lists the verbs", word);
}

/* `moesim help`, `moesim help VERB`, `moesim --version`; -1 for anything else. */
static int about(int argc, char **argv)
{
    if (argc == 0 || strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0 ||
        (argc == 1 && strcmp(argv[0], "help") == 0)) {
        cli_print_overview(argc ? stdout : stderr);
        return argc ? CLI_DONE : CLI_USAGE;
    }
    if (strcmp(argv[0], "--version") == 0) {
        printf("moesim %s (%s)\n", MOESIM_VERSION, MOESIM_REVISION);
        return CLI_DONE;
    }
    if (strcmp(argv[0], "help") == 0) {
        const struct cli_verb *verb = cli_verb_find(argv[1]);
        if (!verb)
            return unknown_verb(argv[1]);
        cli_print_help(verb, stdout);
        return CLI_DONE;
    }
    return -1;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a reader that leaves must not cut a run short */
    argc--;
    argv++;
    bool isolated = argc > 0 && strcmp(argv[0], "__isolated") == 0;
    argc -= isolated;
    argv += isolated;
    if (isolated)
        process_follow_parent();
    int exit = about(argc, argv);
    if (exit < 0) {
        const struct cli_verb *verb = cli_verb_find(argv[0]);
        if (verb)
            exit = cli_verb_call(verb, argc, argv, isolated);
        else if (argv[0][0] == '-')
            exit = cli_fail(CLI_USAGE, "unknown option '%s'; usage: moesim VERB [options]", argv[0]);
        else
            exit = unknown_verb(argv[0]);
    }
    return isolated ? ISOLATED_EXIT + cli_finish_output(exit) : cli_finish_output(exit);
}
