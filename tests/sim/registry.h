/*
 * All routers and workloads of the program, as a study may name them.
 */
#ifndef MOESIM_TESTS_REGISTRY_H
#define MOESIM_TESTS_REGISTRY_H

#include "routers/table.h"
#include "sim/study/registry.h"
#include "workloads/table.h"

static inline struct moesim_registry registry_of_all(void)
{
    static struct moesim_router_entry entries[64];
    struct moesim_registry registry = {.routers = entries, .workloads = workloads_table};
    for (; routers_table[registry.n_routers]; registry.n_routers++)
        entries[registry.n_routers] = (struct moesim_router_entry){.spec = routers_table[registry.n_routers]->name,
                                                                   .router = routers_table[registry.n_routers]};
    while (workloads_table[registry.n_workloads])
        registry.n_workloads++;
    return registry;
}

#endif
