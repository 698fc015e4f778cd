/* Probing, opening and checking plugins. */
#include "cli/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <moesim/arena.h>
#include <moesim/param.h>
#include <moesim/router.h>

#include "cli/file.h"
#include "cli/message.h"
#include "cli/process.h"
#include "cli/verbs.h"

#define PROBE_SECONDS 10
/* The child's exit status when it opened the file: a plugin that calls exit() must not be taken for a good one. */
#define PROBE_OPENED 42

static enum moesim_status refuse(const char *path, struct moesim_error *err, const char *format, ...)
    MOESIM_PRINTF(3, 4);

static enum moesim_status refuse(const char *path, struct moesim_error *err, const char *format, ...)
{
    char reason[320];
    va_list list;
    va_start(list, format);
    vsnprintf(reason, sizeof reason, format, list);
    va_end(list);
    return moesim_fail(err, MOESIM_EPLUGIN, "plugin %s: %s", path, reason);
}

static bool is_name(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    return n >= 1 && n <= 64 && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == n;
}

/* What is wrong with a parameter's row, or NULL. */
static const char *row_fault(const struct moesim_param *row, size_t params_size)
{
    static const size_t sizes[] = {sizeof(uint32_t),     sizeof(uint64_t), sizeof(double),      sizeof(bool),
                                   sizeof(const char *), sizeof(uint32_t), sizeof(const char *)};
    if (row->type >= sizeof sizes / sizeof *sizes)
        return "is of a type that this moesim does not know; rebuild it";
    if (row->offset > params_size || params_size - row->offset < sizes[row->type])
        return "lies outside its struct of parameters";
    if (!row->def)
        return "has no default";
    if (row->type == MOESIM_TYPE_CHOICE && !row->choices)
        return "has no words to choose from";
    return NULL;
}

/* The schema must make sense and accept its own defaults. */
static enum moesim_status check_schema(const char *path, const struct moesim_router *router, struct moesim_error *err)
{
    if (router->params && router->param_size < sizeof(struct moesim_param))
        return refuse(path, err, "its parameter rows have %u bytes, %zu are needed; rebuild it", router->param_size,
                      sizeof(struct moesim_param));
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(moesim_router_schema(router), i)); i++) {
        if (!is_name(row->key))
            return refuse(path, err, "its parameter %u needs a name of letters, digits, '_', '.' and '-'", i + 1);
        const char *wrong = row_fault(row, router->params_size);
        if (wrong)
            return refuse(path, err, "its parameter %s %s", row->key, wrong);
    }
    struct moesim_arena *arena = moesim_arena_create(1 << 24);
    void *params = arena ? moesim_alloc(arena, 1, router->params_size) : NULL;
    struct moesim_error why = {"memory is exhausted"};
    enum moesim_status status =
        params ? moesim_params_default(moesim_router_schema(router), 1, params, arena, &why) : MOESIM_ENOMEM;
    moesim_arena_destroy(arena);
    return status ? refuse(path, err, "%s", why.text) : MOESIM_OK;
}

/* abi and struct_size are read before anything else is believed. */
static enum moesim_status check_router(const char *path, const struct moesim_router *router, struct moesim_error *err)
{
    if (!router)
        return refuse(path, err, "its moesim_plugin is NULL");
    if (router->abi != MOESIM_ROUTER_ABI)
        return refuse(path, err, "it was built for router ABI %u, this moesim has ABI %u; rebuild it", router->abi,
                      MOESIM_ROUTER_ABI);
    if (router->struct_size < sizeof *router)
        return refuse(path, err, "its router struct has %u bytes, ABI %u of this moesim needs %zu; rebuild it",
                      router->struct_size, MOESIM_ROUTER_ABI, sizeof *router);
    if (!is_name(router->name))
        return refuse(path, err, "its router needs a name of 1 to 64 letters, digits, '_', '.' and '-'");
    if (!router->summary || !router->route)
        return refuse(path, err, "router '%s' has no %s", router->name, router->route ? "summary" : "route function");
    return check_schema(path, router, err);
}

/* Loading runs code of the plugin: its constructors, and what -ffast-math links, which makes tiny numbers 0. What they
 * print is no result, and the arithmetic of the other runs stays as it was. */
static void *load(const char *path)
{
    fenv_t arithmetic;
    const bool kept = fegetenv(&arithmetic) == 0;
    fflush(stdout);
    const int results = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100);
    if (results >= 0)
        dup2(STDERR_FILENO, STDOUT_FILENO);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    fflush(stdout);
    if (results >= 0) {
        dup2(results, STDOUT_FILENO);
        close(results);
    }
    if (kept)
        fesetenv(&arithmetic);
    return handle;
}

/* Opens in this process. The handle is kept for ever: the registry points into it. */
static enum moesim_status open_here(const char *path, const struct moesim_router **router, struct moesim_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return refuse(path, err, "%s", strerror(errno));
    if (!S_ISREG(info.st_mode))
        return refuse(path, err, "not a regular file");
    char *absolute = realpath(path, NULL); /* a name without '/' would be searched for in the system's folders */
    if (!absolute)
        return refuse(path, err, "%s", strerror(errno));
    void *handle = load(absolute);
    free(absolute);
    if (!handle) {
        const char *why = dlerror();
        return refuse(path, err, "cannot be loaded: %s", why ? why : "unknown reason");
    }
    const struct moesim_router *const *symbol = (const struct moesim_router *const *)dlsym(handle, "moesim_plugin");
    if (!symbol)
        return refuse(path, err,
                      "it exports no 'moesim_plugin' (ABI %u); end the router's file with MOESIM_PLUGIN(router);",
                      MOESIM_ROUTER_ABI);
    *router = *symbol;
    return check_router(path, *router, err);
}

/* What the child wrote before it ended, one line. */
static void read_reason(int fd, char *text, size_t size)
{
    size_t n = 0;
    struct pollfd from = {.fd = fd, .events = POLLIN};
    while (n + 1 < size && poll(&from, 1, PROBE_SECONDS * 1000) > 0) {
        ssize_t got = read(fd, text + n, size - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

static enum moesim_status probe(const char *path, struct moesim_error *err)
{
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return refuse(path, err, "it could not be probed: %s", strerror(errno));
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    char verb[] = "__probe", *name = strdup(path), *argv[] = {verb, name, NULL};
    pid_t pid;
    enum moesim_status status = name ? process_spawn(argv, nothing, out[1], nothing, true, &pid, err) : MOESIM_ENOMEM;
    close(out[1]);
    if (!status) {
        char reason[512], end[96];
        bool late;
        read_reason(out[0], reason, sizeof reason);
        int ended = process_wait(pid, PROBE_SECONDS, &late);
        bool opened = WIFEXITED(ended) && WEXITSTATUS(ended) == PROBE_OPENED;
        if (late)
            status = refuse(path, err, "opening it took more than %d s", PROBE_SECONDS);
        else if (opened)
            status = MOESIM_OK;
        else if (strncmp(reason, "plugin ", 7) == 0)
            status = moesim_fail(err, MOESIM_EPLUGIN, "%s", reason);
        else
            status = refuse(path, err, "opening it in a child process failed: the child %s", process_end(ended, end));
    }
    free(name);
    if (nothing >= 0)
        close(nothing);
    close(out[0]);
    return status;
}

enum moesim_status plugin_load(const char *path, bool probed_here, struct moesim_router_entry *entry,
                               struct moesim_error *err)
{
    enum moesim_status status = probed_here ? MOESIM_OK : probe(path, err);
    if (!status)
        status = open_here(path, &entry->router, err);
    if (!status && !cli_file_hash(path, &entry->file_hash))
        status = refuse(path, err, "%s", strerror(errno));
    entry->plugin = true;
    return status;
}

/* ---- the child ---- */

static int run_probe(const struct cli_call *call)
{
    process_follow_parent();
    const struct moesim_router *router;
    struct moesim_error err;
    enum moesim_status status = open_here(call->args[0], &router, &err);
    if (status)
        puts(err.text);
    return status ? CLI_PLUGIN : PROBE_OPENED;
}

static const struct cli_option options[] = {CLI_OPTION_END};

const struct cli_verb cli_probe = {
    .name = "__probe",
    .arguments = "FILE.so",
    .summary = "opens a plugin where a crash does no harm",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = run_probe,
};
