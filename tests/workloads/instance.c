#include "tests/workloads/instance.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "workloads/table.h"

static char folder[256];

void folder_create(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/moesim-test-XXXXXX", parent && parent[0] ? parent : "/tmp");
    cr_assert(mkdtemp(folder));
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void folder_remove(void)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *folder_path(const char *name)
{
    static char paths[16][512];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

const char *folder_write(const char *name, const void *bytes, size_t n)
{
    const char *path = folder_path(name);
    FILE *file = fopen(path, "wb");
    cr_assert(file);
    cr_assert_eq(fwrite(bytes, 1, n, file), n);
    cr_assert_eq(fclose(file), 0);
    return path;
}

const char *folder_write_gzip(const char *name, const void *bytes, size_t n)
{
    const char *path = folder_path(name);
    gzFile file = gzopen(path, "wb");
    cr_assert(file);
    cr_assert_eq(gzwrite(file, bytes, (unsigned)n), (int)n);
    cr_assert_eq(gzclose(file), Z_OK);
    return path;
}

const char *folder_write_xz(const char *name, const void *bytes, size_t n)
{
    const size_t room = lzma_stream_buffer_bound(n);
    uint8_t *packed = malloc(room);
    size_t size = 0;
    cr_assert(packed);
    cr_assert_eq(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, bytes, n, packed, &size, room), LZMA_OK);
    const char *path = folder_write(name, packed, size);
    free(packed);
    return path;
}

void instance_create(struct instance *instance, const char *name, const char *const *settings)
{
    *instance = (struct instance){.arena = moesim_arena_create(0)};
    cr_assert(instance->arena);
    for (size_t i = 0; workloads_table[i]; i++)
        if (!strcmp(workloads_table[i]->name, name))
            instance->workload = workloads_table[i];
    const struct moesim_workload *workload = instance->workload;
    cr_assert(workload, "no workload %s", name);
    instance->params = moesim_alloc(instance->arena, 1, workload->params_size);
    instance->state = moesim_alloc(instance->arena, 1, workload->state_size);
    const struct moesim_schema schema = moesim_workload_schema(workload);
    cr_assert_eq(moesim_params_default(schema, 2, instance->params, instance->arena, &instance->error), MOESIM_OK, "%s",
                 instance->error.text);
    for (; settings && settings[0]; settings += 2) {
        const struct moesim_param *row = moesim_schema_find(schema, settings[0]);
        cr_assert(row, "%s has no %s", name, settings[0]);
        cr_assert_eq(moesim_param_set(row, settings[1], instance->params, instance->arena, &instance->error), MOESIM_OK,
                     "%s", instance->error.text);
    }
}

struct moesim_workload_env instance_env(uint32_t n_tokens, uint32_t d_model)
{
    return (struct moesim_workload_env){.seed = 4,
                                        .n_layers = 2,
                                        .n_experts = 8,
                                        .n_columns = 8,
                                        .n_tokens = n_tokens,
                                        .d_model = d_model,
                                        .n_devices = 1};
}

enum moesim_status instance_shape(struct instance *instance, const char *name, const char *const *settings,
                                  struct moesim_workload_shape *shape)
{
    *shape = (struct moesim_workload_shape){.struct_size = sizeof *shape};
    instance_create(instance, name, settings);
    return instance->workload->shape(instance->params, shape, &instance->error);
}

enum moesim_status instance_init(struct instance *instance, struct moesim_workload_env env)
{
    env.struct_size = sizeof env;
    env.arena = instance->arena;
    return instance->workload->init(instance->state, instance->params, &env, &instance->error);
}

struct moesim_batch instance_step(struct instance *instance, uint32_t step, uint32_t layer)
{
    struct moesim_batch batch = {.struct_size = sizeof batch, .step = step, .layer = layer};
    cr_assert_eq(instance->workload->step(instance->state, step, layer, &batch, &instance->error), MOESIM_OK, "%s",
                 instance->error.text);
    return batch;
}

void instance_destroy(struct instance *instance)
{
    if (instance->workload->finish)
        instance->workload->finish(instance->state);
    moesim_arena_destroy(instance->arena);
}
