/* moesim new: a folder with a router out of tree that compiles, passes the conformance suite and waits to be changed.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "routers/table.h"
#include "cli/file.h"
#include "cli/message.h"
#include "cli/verbs.h"

#include "README.md.in.h"
#include "meson.build.in.h"
#include "router.c.in.h"

struct new_options {
    bool quiet;
};

static const struct cli_option options[] = {
    CLI_OPTION_WITH(struct new_options, quiet, "quiet", NULL, "do not say what was written", .letter = 'q'),
    CLI_OPTION_END,
};

#define NAME_MAX_LENGTH 48

/* A name that is a word in studies, a file's name and, with '_' for '-', a C identifier. */
static bool is_router_name(const char *name)
{
    if (!islower((unsigned char)name[0]) || strlen(name) > NAME_MAX_LENGTH || strncmp(name, "moesim", 6) == 0)
        return false;
    for (const char *c = name; *c; c++)
        if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && *c != '-')
            return false;
    return true;
}

/* Meson has targets of its own by these names, so that the plugin's cannot be called so. */
static bool is_taken_by_meson(const char *name)
{
    static const char *const targets[] = {"all",        "benchmark", "clean",        "clean-ctlist",  "clean-gcda",
                                          "clean-gcno", "coverage",  "coverage-xml", "coverage-html", "coverage-text",
                                          "dist",       "distcheck", "install",      "phony",         "reconfigure",
                                          "scan-build", "test",      "uninstall"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strcmp(name, targets[i]) == 0)
            return true;
    return false;
}

/* Writes the template with @NAME@ and @IDENT@ filled in. */
static void fill(FILE *out, const char *text, const char *name, const char *identifier)
{
    for (const char *at; (at = strchr(text, '@')); text = at) {
        fwrite(text, 1, (size_t)(at - text), out);
        if (strncmp(at, "@NAME@", 6) == 0) {
            fputs(name, out);
            at += 6;
        } else if (strncmp(at, "@IDENT@", 7) == 0) {
            fputs(identifier, out);
            at += 7;
        } else {
            fputc(*at++, out);
        }
    }
    fputs(text, out);
}

static enum moesim_status write_file(const char *directory, const char *file, const char *text, const char *name,
                                     const char *identifier, struct moesim_error *err)
{
    char path[4096];
    struct file_output output;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, file) >= sizeof path)
        return moesim_fail(err, MOESIM_EINVAL, "%s: the folder's name is too long", directory);
    enum moesim_status status = cli_file_output_open(&output, path, err);
    if (status)
        return status;
    fill(output.stream, text, name, identifier);
    return cli_file_output_close(&output, true, err);
}

static int new_router(const struct cli_call *call)
{
    const struct new_options *o = call->options;
    const char *name = call->args[1], *directory = call->n_args > 2 ? call->args[2] : name;
    if (strcmp(call->args[0], "router") != 0)
        return cli_fail(CLI_USAGE, "new: '%s' cannot be made; moesim new router NAME [DIR]", call->args[0]);
    if (!is_router_name(name))
        return cli_fail(CLI_USAGE,
                        "new: '%s' is no router name: a small letter, then small letters, digits and '-', at most %d, "
                        "not moesim...",
                        name, NAME_MAX_LENGTH);
    for (const struct moesim_router *const *r = routers_table; *r; r++)
        if (strcmp((*r)->name, name) == 0)
            return cli_fail(CLI_USAGE, "new: there is a router %s already; choose another name", name);
    if (is_taken_by_meson(name))
        return cli_fail(CLI_USAGE, "new: meson, which builds the router, keeps the name %s for itself", name);
    if (mkdir(directory, 0777) != 0)
        return cli_fail(errno == EEXIST ? CLI_USAGE : CLI_DISK, "new: %s: %s; name a folder that can be made",
                        directory, strerror(errno));
    /* A suffix, because a router may be named like a word of C. */
    char identifier[NAME_MAX_LENGTH + 8], source[NAME_MAX_LENGTH + 3];
    snprintf(identifier, sizeof identifier, "%s_router", name);
    for (char *c = identifier; *c; c++)
        *c = *c == '-' ? '_' : *c;
    snprintf(source, sizeof source, "%s.c", name);
    struct moesim_error err;
    enum moesim_status status = write_file(directory, source, router_c_in, name, identifier, &err);
    if (!status)
        status = write_file(directory, "meson.build", meson_build_in, name, identifier, &err);
    if (!status)
        status = write_file(directory, "README.md", README_md_in, name, identifier, &err);
    if (status)
        return cli_fail_status(status, &err);
    if (!o->quiet)
        printf("%s/: %s, meson.build, README.md\nnext: cd %s && meson setup build && ninja -C build && meson test -C "
               "build\n",
               directory, source, directory);
    return cli_finish_output(CLI_DONE);
}

static const struct cli_example examples[] = {
    {"moesim new router my-router", "my-router/ with a router that compiles and passes 'moesim check'"},
    {NULL, NULL},
};

const struct cli_verb cli_new = {
    .name = "new",
    .arguments = "router NAME [DIR]",
    .summary = "start a router out of tree: C file, meson.build with its test, README",
    .examples = examples,
    .options = options,
    .options_size = sizeof(struct new_options),
    .min_args = 2,
    .max_args = 3,
    .run = new_router,
};
