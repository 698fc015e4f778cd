/*
 * What a study may name: the routers and workloads that the program was given.
 */
#ifndef MOESIM_SIM_REGISTRY_H
#define MOESIM_SIM_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/router.h>
#include <moesim/workload.h>

/* `spec` is the router's name, or the path a plugin was loaded from as the user wrote it. */
struct moesim_router_entry {
    const char *spec;
    const struct moesim_router *router;
    bool plugin;        /* its hooks run in a worker process only */
    uint64_t file_hash; /* of the plugin's file; 0 for a built-in */
};

/* Reads all numbers of the file into the arena and fills the array but for its key. MOESIM_EIO with the path when the
 * file cannot be read. */
typedef enum moesim_status moesim_array_reader(const char *path, struct moesim_arena *arena,
                                               struct moesim_file_array *array, struct moesim_error *err);

/* The hash of a file's bytes, or of a folder with all in it; false where there is neither. */
typedef bool moesim_path_hasher(const char *path, uint64_t *hash);

struct moesim_registry {
    const struct moesim_router_entry *routers;
    uint32_t n_routers;
    const struct moesim_workload *const *workloads;
    uint32_t n_workloads;
    moesim_array_reader *read_array; /* of files that parameters name; NULL = parameters may name none */
    moesim_path_hasher *hash_path;   /* of what is at a path; NULL = no file is looked at */
    moesim_array_reader *read_loads; /* [experts] or [layers, experts], of a placement's file; NULL as above */
};

const struct moesim_router_entry *moesim_registry_router(const struct moesim_registry *registry, const char *spec);
/* What the parameters of type file name, for env->files: an array for each that names one. The sentence begins with the
 * key. */
MOESIM_MUST_CHECK enum moesim_status moesim_files_read(struct moesim_schema schema, const void *params,
                                                       moesim_array_reader *read, struct moesim_arena *arena,
                                                       const struct moesim_file_array **files, uint32_t *n,
                                                       struct moesim_error *err);

/* The paths that texts of a params struct may mean, one after the other: each text as a whole, then what is between its
 * commas. Begins with zeros but for schema and params. */
struct moesim_path_walk {
    struct moesim_schema schema;
    const void *params;
    uint32_t row;
    const char *rest;
    char path[4096];
};
bool moesim_path_next(struct moesim_path_walk *walk);

const struct moesim_workload *moesim_registry_workload(const struct moesim_registry *registry, const char *name);

#endif
