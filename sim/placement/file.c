/*
 * file: a plan as `moesim place` writes it, {"layers": [{"devices": [[expert, ...], ...]}]}, experts in slot order. A
 * plan of one layer serves all layers.
 */
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sim/placement/rules.h"

#define MOST_BYTES (64 << 20)

struct file_params {
    const char *path;
    uint32_t replica;
};

static const struct moesim_param file_schema[] = {
    MOESIM_PARAM(struct file_params, path, "", 0, 0, "the plan's file; its path alone is such a placement too"),
    MOESIM_CHOICE(struct file_params, replica, "round-robin", MOESIM_REPLICA_CHOICES, MOESIM_REPLICA_HELP),
    MOESIM_PARAM_END,
};

/* ---- reading ---- */

static enum moesim_status open_plan(const char *path, FILE **in, struct moesim_error *err)
{
    struct stat info;
    if (!*path)
        return moesim_fail(err, MOESIM_EINVAL, "path is not given; write file:path=plan.json");
    if (stat(path, &info) != 0)
        return moesim_fail(err, MOESIM_EIO, "%.200s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size > MOST_BYTES)
        return moesim_fail(err, MOESIM_EIO, "%.200s: not a regular file of at most %d MiB", path, MOST_BYTES >> 20);
    *in = fopen(path, "rbe");
    return *in ? MOESIM_OK : moesim_fail(err, MOESIM_EIO, "%.200s: %s", path, strerror(errno));
}

/* Whether it is lists of devices with lists of numbers all the way down. */
static bool is_plan(const json_t *layers)
{
    size_t l, d, i;
    const json_t *layer, *device, *expert;
    if (!json_is_array(layers) || json_array_size(layers) == 0)
        return false;
    json_array_foreach(layers, l, layer)
    {
        const json_t *devices = json_object_get(layer, "devices");
        if (!json_is_array(devices) || json_array_size(devices) == 0)
            return false;
        json_array_foreach(devices, d, device)
        {
            if (!json_is_array(device))
                return false;
            json_array_foreach(device, i,
                               expert) if (!json_is_integer(expert) || json_integer_value(expert) < 0) return false;
        }
    }
    return true;
}

/* The plan at `path`, to be given back by json_decref. */
static enum moesim_status read_plan(const char *path, json_t **plan, struct moesim_error *err)
{
    FILE *in;
    enum moesim_status status = open_plan(path, &in, err);
    if (status != MOESIM_OK)
        return status;
    json_error_t where;
    *plan = json_loadf(in, JSON_REJECT_DUPLICATES, &where);
    fclose(in);
    if (!*plan)
        return moesim_fail(err, MOESIM_EIO, "%.200s:%d:%d: %s", path, where.line, where.column, where.text);
    if (is_plan(json_object_get(*plan, "layers")))
        return MOESIM_OK;
    json_decref(*plan);
    return moesim_fail(err, MOESIM_EIO,
                       "%.200s is no plan; it should be {\"layers\": [{\"devices\": [[expert, ...], ...]}]}", path);
}

/* ---- what it holds ---- */

static const json_t *devices_of(const json_t *plan, size_t layer)
{
    const json_t *layers = json_object_get(plan, "layers");
    const size_t n = json_array_size(layers);
    return json_object_get(json_array_get(layers, n == 1 ? 0 : layer), "devices");
}

static size_t slots_of(const json_t *devices)
{
    size_t n = 0, d;
    const json_t *device;
    json_array_foreach(devices, d, device) n += json_array_size(device);
    return n;
}

/* One more than the greatest expert of a layer. */
static json_int_t experts_of(const json_t *devices)
{
    json_int_t most = 0;
    size_t d, i;
    const json_t *device, *expert;
    json_array_foreach(devices, d, device) json_array_foreach(device, i, expert) if (json_integer_value(expert) >= most)
        most = json_integer_value(expert) + 1;
    return most;
}

static uint32_t file_room(const void *params, uint32_t n_experts)
{
    const struct file_params *p = params;
    json_t *plan;
    size_t room = n_experts;
    if (read_plan(p->path, &plan, NULL) != MOESIM_OK) /* placing says why */
        return n_experts;
    for (size_t l = 0; l < json_array_size(json_object_get(plan, "layers")); l++)
        room = slots_of(devices_of(plan, l)) > room ? slots_of(devices_of(plan, l)) : room;
    json_decref(plan);
    return room < UINT32_MAX ? (uint32_t)room : n_experts;
}

/* ---- placing ---- */

static enum moesim_status place_layer(const char *path, const json_t *plan, size_t layer, size_t n_layers,
                                      struct moesim_placement *placement, struct moesim_error *err)
{
    const json_t *devices = devices_of(plan, layer);
    const size_t n_devices = json_array_size(devices), n_slots = slots_of(devices);
    const size_t in_file = json_array_size(json_object_get(plan, "layers"));
    const json_int_t n_experts = experts_of(devices);
    if ((in_file > 1 && in_file != n_layers) || n_devices != placement->n_devices || n_experts != placement->n_experts)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "%.200s is for another model or cluster: layer %zu of its %zu has %lld experts on %zu devices "
            "of an EP group, and %zu layers of %u on %u are needed",
            path, layer, in_file, (long long)n_experts, n_devices, n_layers, placement->n_experts,
            placement->n_devices);
    if (n_slots > placement->max_replicas)
        return moesim_fail(err, MOESIM_EIO, "%.200s grew while it was read", path);
    memset(placement->first, 0, ((size_t)placement->n_experts + 1) * sizeof *placement->first);
    uint32_t slot = 0;
    for (uint32_t d = 0; d < placement->n_devices; d++) {
        const json_t *device = json_array_get(devices, d);
        placement->device_slot[d] = slot;
        for (size_t i = 0; i < json_array_size(device); i++) {
            placement->expert[slot] = (uint32_t)json_integer_value(json_array_get(device, i));
            placement->first[placement->expert[slot++]]++;
        }
    }
    placement->device_slot[placement->n_devices] = slot;
    for (uint32_t e = 0; e < placement->n_experts; e++)
        if (placement->first[e] == 0)
            return moesim_fail(err, MOESIM_EINVAL, "%.200s: layer %zu has expert %u on no device", path, layer, e);
    moesim_placement_index(placement);
    return MOESIM_OK;
}

static enum moesim_status file_place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                     const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                     struct moesim_error *err)
{
    (void)seed, (void)cluster;
    const struct file_params *p = params;
    json_t *plan;
    enum moesim_status status = read_plan(p->path, &plan, err);
    if (status != MOESIM_OK)
        return status;
    for (uint32_t l = 0; l < stats->n_layers && status == MOESIM_OK; l++)
        status = place_layer(p->path, plan, l, stats->n_layers, &placement[l], err);
    json_decref(plan);
    return status;
}

const struct moesim_placement_rule moesim_place_file = {
    .name = "file",
    .summary = "the plan that `moesim place` wrote into a file; its path alone stands for it",
    .reference = "docs/formats.md",
    .params = file_schema,
    .params_size = sizeof(struct file_params),
    .room = file_room,
    .place = file_place,
};
