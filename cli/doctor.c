/* moesim doctor: what this machine has, and what would change results or speed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moesim/kernels.h>

#include "cli/message.h"
#include "cli/print_table.h"
#include "cli/provenance.h"
#include "cli/verbs.h"
#include "sim/layer/products.h"
#include "version.h"
#include "workloads/corpus.h"

struct doctor_options {
    bool json;
};

static const struct cli_option options[] = {
    CLI_OPTION(struct doctor_options, json, "json", NULL, "as a JSON array"),
    CLI_OPTION_END,
};

static void add(struct print_table *table, const char *item, const char *state, const char *value, const char *advice)
{
    print_text(table, item);
    print_text(table, state);
    char text[8192];
    if (*advice)
        snprintf(text, sizeof text, "%s: %s", value, advice);
    else
        snprintf(text, sizeof text, "%s", value);
    print_text(table, text);
}

/* Looks along PATH, as a shell does; false when there is no such program. */
static bool find_program(const char *name, char *path, size_t size)
{
    const char *folders = getenv("PATH");
    while (folders && *folders) {
        size_t n = strcspn(folders, ":");
        snprintf(path, size, "%.*s/%s", (int)n, folders, name);
        if (n && access(path, X_OK) == 0)
            return true;
        folders += n + (folders[n] == ':');
    }
    return false;
}

static void check_gnuplot(struct print_table *table)
{
    char path[4096];
    if (find_program("gnuplot", path, sizeof path))
        add(table, "gnuplot", "ok", path, "");
    else
        add(table, "gnuplot", "missing", "not found", "reports have tables only; apt-get install gnuplot-nox");
}

static void check_blas(struct print_table *table)
{
    const char *file = provenance_blas_file();
    bool good = strstr(file, "openblas") != NULL;
    add(table, "BLAS", good ? "ok" : "wrong", provenance_blas(), "");
    add(table, "cblas_sgemm from", good ? "ok" : "wrong", file,
        good ? "" : "this is not OpenBLAS; mode execute is many times slower");
}

static void check_variables(struct print_table *table)
{
    static const struct {
        const char *name, *advice;
    } known[] = {
        {"OPENBLAS_CORETYPE", "forces BLAS kernels; a wrong one is slow or crashes"},
        {"OPENBLAS_NUM_THREADS", "not used: BLAS runs one thread inside ours"},
        {"OMP_NUM_THREADS", "the default of --threads"},
        {"OMP_WAIT_POLICY", "passive costs speed unless the machine is shared"},
        {"OMP_PROC_BIND", "binds threads to cores; with --jobs they may share one"},
        {"OMP_DYNAMIC", "may take threads away"},
        {"LD_PRELOAD", "changes which functions run"},
        {"LD_LIBRARY_PATH", "changes which libraries are found"},
        {"NO_COLOR", "no colour"},
    };
    bool any = false;
    for (uint32_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *value = getenv(known[i].name);
        if (value && *value) {
            char text[512];
            add(table, known[i].name, i == 0 ? "warning" : "set", cli_printable(value, text, sizeof text),
                known[i].advice);
            any = true;
        }
    }
    if (!any)
        add(table, "environment", "ok", "no variable that matters is set", "");
}

static void check_text(struct print_table *table)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct corpus corpus;
    struct moesim_error err;
    char text[1024];
    if (!arena || corpus_read(&(struct corpus_choice){.files = ""}, arena, &corpus, &err)) {
        add(table, "real text", "missing", "none", arena ? err.text : "memory is exhausted");
    } else {
        corpus_describe(&corpus, text, sizeof text);
        add(table, "real text", *corpus.missing ? "warning" : "ok", text, "");
    }
    moesim_arena_destroy(arena);
}

static void check_writable(struct print_table *table)
{
    char folder[4096];
    bool known = getcwd(folder, sizeof folder) != NULL;
    bool good = known && access(".", W_OK) == 0;
    add(table, "this folder", good ? "ok" : "warning", known ? folder : "unknown",
        good ? "" : "cannot be written; use --db and -o");
}

static int doctor(const struct cli_call *call)
{
    const struct doctor_options *o = call->options;
    static const struct print_column head[] = {{.title = "item"}, {.title = "state"}, {.title = "value", .wrap = true}};
    struct print_table *table = print_table_create(head, 3);
    char cores[64];
    if (table) {
        snprintf(cores, sizeof cores, "%u usable core%s", provenance_cores(), provenance_cores() == 1 ? "" : "s");
        add(table, "moesim", "ok", MOESIM_VERSION " (" MOESIM_REVISION ")", "");
        add(table, "compiler", "ok", provenance_compiler(), "");
        add(table, "processor", "ok", provenance_cpu(), "");
        add(table, "threads", "ok", cores, "");
        add(table, "routing kernels", "ok", moesim_kernel_path(), "");
        add(table, "expert kernels", "ok", moesim_products_path(moesim_products_find(NULL)), "");
        check_blas(table);
        check_gnuplot(table);
        check_text(table);
        check_writable(table);
        check_variables(table);
    }
    bool good = table && print_table(table, o->json ? PRINT_JSON : PRINT_TABLE);
    print_table_destroy(table);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}

static const struct cli_example examples[] = {
    {"moesim doctor", "is everything here that reports and fast runs need?"},
    {NULL, NULL},
};

const struct cli_verb cli_doctor = {
    .name = "doctor",
    .arguments = "",
    .summary = "show what this machine has: gnuplot, BLAS, threads, variables, text",
    .examples = examples,
    .options = options,
    .options_size = sizeof(struct doctor_options),
    .run = doctor,
};
