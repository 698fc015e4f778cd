/*
 * The list of placement rules: a new one is a file and a line here.
 */
#include <stdbool.h>
#include <string.h>

#include "sim/placement/rules.h"

const struct moesim_placement_rule *const moesim_placement_rules[] = {
    &moesim_place_contiguous, &moesim_place_round_robin,
    &moesim_place_random,     &moesim_place_lpt,
    &moesim_place_eplb,       &moesim_place_coactivation,
    &moesim_place_affinity,   &moesim_place_optimal,
    &moesim_place_file,       NULL,
};

static bool is_plan(const char *name)
{
    const size_t n = strlen(name);
    return strchr(name, '/') || (n > 5 && strcmp(name + n - 5, ".json") == 0);
}

const struct moesim_placement_rule *moesim_placement_find(const char *name)
{
    if (is_plan(name))
        return &moesim_place_file;
    for (uint32_t i = 0; moesim_placement_rules[i]; i++)
        if (strcmp(moesim_placement_rules[i]->name, name) == 0)
            return moesim_placement_rules[i];
    return NULL;
}

enum moesim_status moesim_placement_named(const struct moesim_placement_rule *rule, const char *name, void *params,
                                          struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_schema schema = {rule->params, sizeof *rule->params};
    return is_plan(name) ? moesim_param_set(moesim_schema_find(schema, "path"), name, params, arena, err) : MOESIM_OK;
}
