/* moesim fidelity: what the cost model predicts for published measurements. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/catalogue.h"
#include "cli/fidelity_print.h"
#include "cli/file.h"
#include "cli/message.h"
#include "cli/verbs.h"

enum { MAX_TABLE_BYTES = 1 << 24 };

struct fidelity_options {
    const char *data, *format;
    bool points, json;
};

static const struct fidelity_options defaults = {.format = "table"};

static const struct cli_option options[] = {
    CLI_OPTION(struct fidelity_options, data, "data", "DIR",
               "folder with the tables that are too large to be carried along: " MOESIM_FIDELITY_EXPERTS
               " and " MOESIM_FIDELITY_COLLECTIVES),
    CLI_OPTION(struct fidelity_options, points, "points", NULL, "every row of those, too"),
    CLI_OPTION_WITH(struct fidelity_options, format, "format", "FORMAT", "table, md or json",
                    .choices = "table|md|json"),
    CLI_OPTION(struct fidelity_options, json, "json", NULL, "the same as --format json"),
    CLI_OPTION_END,
};

/* A table of the folder; NULL when it has no such file. */
static enum moesim_status read_table(const char *folder, const char *name, char **text, struct moesim_error *err)
{
    char path[4096];
    size_t size;
    struct stat found;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return moesim_fail(err, MOESIM_EIO, "--data: the name of the folder is too long");
    if (stat(path, &found) != 0 && errno == ENOENT)
        return MOESIM_OK;
    return cli_file_read(path, MAX_TABLE_BYTES, text, &size, err);
}

static int report(const struct fidelity_options *o, const struct moesim_fidelity_data *data, struct moesim_arena *arena)
{
    const struct moesim_fidelity_table *tables;
    struct catalogue catalogue;
    struct moesim_error err;
    uint32_t n;
    enum moesim_status status = catalogue_init(&catalogue, &err);
    if (status == MOESIM_OK)
        status = moesim_fidelity_run(data, &catalogue.registry, arena, &tables, &n, &err);
    catalogue_finish(&catalogue);
    if (status != MOESIM_OK)
        return cli_fail_status(status, &err);
    if (!fidelity_print(tables, n, o->json ? PRINT_JSON : print_format_of(o->format), o->points))
        return cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    const struct fidelity_tally tally = fidelity_count(tables, n);
    if (tally.skipped && !o->data)
        cli_note("%u tables were skipped; --data DIR reads them", tally.skipped);
    if (tally.missed || tally.drifted)
        return cli_fail(CLI_THRESHOLD, "%u promises are missed and %u constants differ from their calibration",
                        tally.missed, tally.drifted);
    return CLI_DONE;
}

static int fidelity(const struct cli_call *call)
{
    const struct fidelity_options *o = call->options;
    char *experts = NULL, *collectives = NULL;
    struct moesim_error err;
    enum moesim_status status = MOESIM_OK;
    struct stat folder;
    if (o->data && (stat(o->data, &folder) != 0 || !S_ISDIR(folder.st_mode)))
        return cli_fail(CLI_DISK, "--data: %s is no folder that can be read", o->data);
    if (o->data)
        status = read_table(o->data, MOESIM_FIDELITY_EXPERTS, &experts, &err);
    if (o->data && status == MOESIM_OK)
        status = read_table(o->data, MOESIM_FIDELITY_COLLECTIVES, &collectives, &err);
    struct moesim_arena *arena = moesim_arena_create(0);
    int exit;
    if (status != MOESIM_OK)
        exit = cli_fail_status(status, &err);
    else if (!arena)
        exit = cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    else
        exit = report(o, &(struct moesim_fidelity_data){experts, collectives}, arena);
    moesim_arena_destroy(arena);
    free(experts);
    free(collectives);
    return exit;
}

static const struct cli_example examples[] = {
    {"moesim fidelity", "how far the cost model is from published measurements"},
    {"moesim fidelity --data tables --format md", "the page docs/fidelity.md, with the large tables"},
    {NULL, NULL},
};

const struct cli_verb cli_fidelity = {
    .name = "fidelity",
    .arguments = "",
    .summary = "compare the cost model's predictions with published measurements",
    .details = "For each published table: what was calibrated on which rows, the prediction for the rows held out, the "
               "errors, and the failures that are known. Ends with status 5 when a promised bound is missed or a "
               "cluster preset is not what its calibration gives.",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct fidelity_options),
    .run = fidelity,
};
