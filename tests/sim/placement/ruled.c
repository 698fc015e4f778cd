/*
 * Applies a rule by its SPEC.
 */
#include "tests/sim/placement/ruled.h"

#include <criterion/criterion.h>
#include <math.h>

#include "sim/study/study.h"

enum moesim_status ruled_place(struct ruled *r, const char *spec, const struct moesim_placement_stats *stats,
                               uint32_t nodes, uint32_t devices_per_node)
{
    char name[64];
    r->arena = moesim_arena_create(0);
    r->err.text[0] = '\0';
    const struct moesim_cluster cluster = {.name = "test", .nodes = nodes, .devices_per_node = devices_per_node};
    cr_assert_eq(moesim_spec_name(spec, name, &r->err), MOESIM_OK);
    const struct moesim_placement_rule *rule = moesim_placement_find(name);
    cr_assert_not_null(rule, "%s", name);
    const struct moesim_schema schema = {rule->params, sizeof(struct moesim_param)};
    void *params = moesim_alloc(r->arena, 1, rule->params_size);
    cr_assert_eq(moesim_params_default(schema, 2, params, r->arena, &r->err), MOESIM_OK);
    cr_assert_eq(moesim_spec_params(spec, schema, params, r->arena, &r->err), MOESIM_OK, "%s", r->err.text);
    cr_assert_eq(moesim_placements_create(rule, params, stats->n_layers, stats->n_experts, &cluster, 0, r->arena,
                                          &r->placement, &r->err),
                 MOESIM_OK);
    return moesim_place(rule, params, stats, 1, &cluster, r->placement, &r->err);
}

void ruled_close(struct ruled *r)
{
    moesim_arena_destroy(r->arena);
}

static void expect_whole(const struct moesim_placement *p)
{
    const uint32_t per_device = p->device_slot[p->n_devices] / p->n_devices;
    for (uint32_t d = 0; d <= p->n_devices; d++)
        cr_assert_eq(p->device_slot[d], d * per_device);
    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t found = 0;
        for (uint32_t d = 0; d < p->n_devices; d++)
            for (uint32_t s = p->device_slot[d]; s < p->device_slot[d + 1]; s++)
                if (p->expert[s] == e)
                    cr_assert_eq(p->replica[p->first[e] + found++], d);
        cr_assert(found > 0 && found == p->first[e + 1] - p->first[e]);
        cr_assert_eq(p->primary[e], p->replica[p->first[e]]);
    }
}

void ruled_layer(struct ruled *r, const char *spec, const double *load, uint32_t n_experts, uint32_t nodes,
                 uint32_t devices_per_node)
{
    double *loads = (double *)load; /* rules only read it */
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = n_experts, .load = loads};
    cr_assert_eq(ruled_place(r, spec, &stats, nodes, devices_per_node), MOESIM_OK, "%s: %s", spec, r->err.text);
    expect_whole(&r->placement[0]);
}

double ruled_most(const struct moesim_placement *p, const double *load)
{
    double most = 0;
    for (uint32_t d = 0; d < p->n_devices; d++) {
        double sum = 0;
        for (uint32_t s = p->device_slot[d]; s < p->device_slot[d + 1]; s++)
            sum += load[p->expert[s]] / (p->first[p->expert[s] + 1] - p->first[p->expert[s]]);
        most = fmax(most, sum);
    }
    return most;
}
