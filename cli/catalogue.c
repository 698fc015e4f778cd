/* The registry that the engine is given. */
#include "cli/catalogue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/file.h"
#include "cli/message.h"
#include "cli/plugin.h"
#include "routers/table.h"
#include "sim/study/study.h"
#include "workloads/npy.h"
#include "workloads/table.h"
#include "workloads/trace/trace.h"

static bool make_room(struct catalogue *catalogue, uint32_t n)
{
    if (n <= catalogue->room)
        return true;
    uint32_t room = n + 8;
    struct moesim_router_entry *more = realloc(catalogue->entry, room * sizeof *more);
    if (!more)
        return false;
    catalogue->entry = more;
    catalogue->room = room;
    catalogue->registry.routers = more;
    return true;
}

enum moesim_status catalogue_init(struct catalogue *catalogue, struct moesim_error *err)
{
    *catalogue = (struct catalogue){.room = 0};
    uint32_t n = 0;
    while (routers_table[n])
        n++;
    if (!make_room(catalogue, n))
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    for (uint32_t i = 0; i < n; i++)
        catalogue->entry[i] = (struct moesim_router_entry){.spec = routers_table[i]->name, .router = routers_table[i]};
    catalogue->registry.n_routers = n;
    catalogue->registry.workloads = workloads_table;
    catalogue->registry.read_array = npy_read_array;
    catalogue->registry.read_loads = trace_read_loads;
    catalogue->registry.hash_path = cli_path_hash;
    while (workloads_table[catalogue->registry.n_workloads])
        catalogue->registry.n_workloads++;
    return MOESIM_OK;
}

void catalogue_finish(struct catalogue *catalogue)
{
    for (uint32_t i = 0; i < catalogue->registry.n_routers; i++)
        if (catalogue->entry[i].plugin)
            free((char *)catalogue->entry[i].spec);
    free(catalogue->entry);
    *catalogue = (struct catalogue){.room = 0};
}

static const struct moesim_router_entry *find(const struct catalogue *catalogue, const char *spec)
{
    for (uint32_t i = 0; i < catalogue->registry.n_routers; i++)
        if (strcmp(catalogue->entry[i].spec, spec) == 0)
            return &catalogue->entry[i];
    return NULL;
}

enum moesim_status catalogue_add(struct catalogue *catalogue, const char *path, bool by_name, bool isolated,
                                 struct moesim_error *err)
{
    if (!by_name && find(catalogue, path))
        return MOESIM_OK;
    struct moesim_router_entry entry = {.spec = NULL};
    enum moesim_status status = plugin_load(path, isolated, &entry, err);
    if (status)
        return status;
    const char *spec = by_name ? entry.router->name : path;
    if (find(catalogue, spec))
        return moesim_fail(err, MOESIM_EPLUGIN,
                           "plugin %s: a router named '%s' exists already; use 'router: %s' to name it by path", path,
                           spec, path);
    entry.spec = strdup(spec);
    if (!entry.spec || !make_room(catalogue, catalogue->registry.n_routers + 1))
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    catalogue->entry[catalogue->registry.n_routers++] = entry;
    return MOESIM_OK;
}

enum moesim_status catalogue_router(struct catalogue *catalogue, const char *spec, bool isolated,
                                    const struct moesim_router_entry **entry, struct moesim_error *err)
{
    char name[4096];
    enum moesim_status status = MOESIM_OK;
    if (moesim_spec_is_path(spec)) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(spec, ":"), spec);
        status = catalogue_add(catalogue, name, false, isolated, err);
    } else {
        status = moesim_spec_name(spec, name, err);
    }
    if (status)
        return status;
    *entry = find(catalogue, name);
    if (*entry)
        return MOESIM_OK;
    const char *names[256], *near;
    uint32_t n = 0;
    for (; n < 255 && n < catalogue->registry.n_routers; n++)
        names[n] = catalogue->entry[n].spec;
    names[n] = NULL;
    near = cli_nearest(name, names);
    return moesim_fail(err, MOESIM_EINVAL, "unknown router '%s'%s%s%s", name,
                       near ? "; did you mean '" : "; 'moesim list routers' names them", near ? near : "",
                       near ? "'?" : "");
}
