/* Machine, program and files. */
#include "cli/provenance.h"

#include <cblas.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <jansson.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/file.h"
#include "cli/message.h"

const char *provenance_compiler(void)
{
#ifdef __clang__
    return __VERSION__; /* has its name in it */
#else
    return "gcc " __VERSION__;
#endif
}

const char *provenance_cpu(void)
{
    static char name[128];
    FILE *info = *name ? NULL : fopen("/proc/cpuinfo", "re");
    char line[512];
    while (info && fgets(line, sizeof line, info)) {
        const char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            snprintf(name, sizeof name, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (info)
        fclose(info);
    return *name ? name : "unknown";
}

const char *provenance_blas(void)
{
    static char text[160];
    if (!*text) {
        char config[96]; /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." */
        snprintf(config, sizeof config, "%s", openblas_get_config());
        char *second = strchr(config, ' ');
        char *end = second ? strchr(second + 1, ' ') : NULL;
        if (end)
            *end = '\0';
        snprintf(text, sizeof text, "%s %s", config, openblas_get_corename());
    }
    return text;
}

const char *provenance_blas_file(void)
{
    Dl_info info;
    void *address;
    void (*sgemm)(void) = (void (*)(void))cblas_sgemm;
    memcpy(&address, &sgemm, sizeof address);
    return dladdr(address, &info) && info.dli_fname ? info.dli_fname : "unknown";
}

const char *provenance_time(time_t when, char text[24])
{
    struct tm utc;
    if (!gmtime_r(&when, &utc) || strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        text[0] = '\0';
    return text;
}

uint32_t provenance_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (uint32_t)n : 1;
}

uint32_t provenance_threads(void)
{
    int n = omp_get_max_threads();
    return n > 0 ? (uint32_t)n : 1;
}

/* ---- files ---- */

struct provenance_files {
    json_t *known; /* path -> hash, or null where there is no such file */
};

struct provenance_files *provenance_files_create(void)
{
    struct provenance_files *files = calloc(1, sizeof *files);
    if (files && !(files->known = json_object())) {
        free(files);
        return NULL;
    }
    return files;
}

void provenance_files_destroy(struct provenance_files *files)
{
    if (!files)
        return;
    json_decref(files->known);
    free(files);
}

static void add_hash(json_t *to, const char *path, uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    json_object_set_new(to, path, json_string(text));
}

static void add_file(struct provenance_files *files, json_t *to, const char *path)
{
    json_t *known = json_object_get(files->known, path);
    if (!known) {
        struct stat info;
        uint64_t hash;
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && cli_file_hash(path, &hash))
            add_hash(files->known, path, hash);
        else
            json_object_set_new(files->known, path, json_null());
        known = json_object_get(files->known, path);
    }
    if (json_is_string(known))
        json_object_set(to, path, known);
}

static void add_params(struct provenance_files *files, json_t *to, struct moesim_schema schema, const void *params)
{
    struct moesim_path_walk walk = {.schema = schema, .params = params};
    while (moesim_path_next(&walk))
        add_file(files, to, walk.path);
}

char *provenance_files_json(struct provenance_files *files, const struct study_source *source,
                            const struct moesim_point *point)
{
    json_t *to = json_object();
    if (!to)
        return NULL;
    if (!source->builtin)
        add_file(files, to, source->name);
    if (point->router->plugin)
        add_hash(to, point->router->spec, point->router->file_hash);
    add_params(files, to, moesim_router_schema(point->router->router), point->router_params);
    add_params(files, to, moesim_workload_schema(point->workload), point->workload_params);
    if (point->has_cluster)
        add_params(files, to, (struct moesim_schema){point->placement->params, sizeof(struct moesim_param)},
                   point->placement_params);
    char *text = json_dumps(to, JSON_COMPACT);
    json_decref(to);
    return text;
}
