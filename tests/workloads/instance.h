/*
 * What the tests of the workloads share: a temporary folder, and a workload set up as the host does it.
 */
#ifndef MOESIM_TESTS_INSTANCE_H
#define MOESIM_TESTS_INSTANCE_H

#include <stddef.h>

#include <moesim/workload.h>

/* A new folder under $TMPDIR, and the end of it with all that is inside. */
void folder_create(void);
void folder_remove(void);

/* The path of `name` in the folder; the text lives until the 16th next call. */
const char *folder_path(const char *name);

/* Writes a file into the folder and returns its path. */
const char *folder_write(const char *name, const void *bytes, size_t n);
const char *folder_write_gzip(const char *name, const void *bytes, size_t n);
const char *folder_write_xz(const char *name, const void *bytes, size_t n);

struct instance {
    const struct moesim_workload *workload;
    struct moesim_arena *arena;
    void *params, *state;
    struct moesim_error error;
};

/* A workload by name with its parameters: pairs of key and value, ended by NULL. */
void instance_create(struct instance *instance, const char *name, const char *const *settings);
/* The same, and what shape() says of it, whose status is returned. */
enum moesim_status instance_shape(struct instance *instance, const char *name, const char *const *settings,
                                  struct moesim_workload_shape *shape);
/* Two layers of eight experts, for so many tokens. */
struct moesim_workload_env instance_env(uint32_t n_tokens, uint32_t d_model);
enum moesim_status instance_init(struct instance *instance, struct moesim_workload_env env);
struct moesim_batch instance_step(struct instance *instance, uint32_t step, uint32_t layer);
void instance_destroy(struct instance *instance);

#define SETTINGS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
