/*
 * The list of placement rules: a new one is a file and a line here.
 */
#include <string.h>

#include "sim/placement/rules.h"

const struct moesim_placement_rule *const moesim_placement_rules[] = {
    &moesim_place_contiguous,
    &moesim_place_round_robin,
    &moesim_place_random,
    NULL,
};

const struct moesim_placement_rule *moesim_placement_find(const char *name)
{
    for (uint32_t i = 0; moesim_placement_rules[i]; i++)
        if (strcmp(moesim_placement_rules[i]->name, name) == 0)
            return moesim_placement_rules[i];
    return NULL;
}
