/*
 * Placements that do not look at load, and the two views of a placement.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "sim/placement/replica.h"

enum { LAYERS = 4 };

static void place(const char *rule, uint32_t experts, uint32_t devices, uint64_t seed,
                  struct moesim_placement placement[LAYERS], struct moesim_arena *arena)
{
    struct moesim_error err;
    struct moesim_cluster cluster = moesim_cluster_find("h100-dgx")->cluster;
    cluster.devices_per_node = devices;
    const struct moesim_placement_stats stats = {.n_layers = LAYERS, .n_experts = experts};
    for (uint32_t l = 0; l < LAYERS; l++)
        cr_assert_eq(moesim_placement_init(&placement[l], experts, devices, experts, arena, &err), MOESIM_OK);
    cr_assert_eq(moesim_placement_find(rule)->place(NULL, &stats, seed, &cluster, placement, &err), MOESIM_OK);
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t e = 0; e < experts; e++) {
            const struct moesim_placement *p = &placement[l];
            cr_assert_eq(p->first[e + 1] - p->first[e], 1);
            cr_assert_eq(p->replica[p->first[e]], p->primary[e]);
            cr_assert_eq(moesim_replica_pick(p, 1 % devices, 5, e, 7), p->first[e]);
            cr_assert_lt(p->primary[e], devices);
        }
}

Test(fixed, contiguous_and_round_robin)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_placement p[LAYERS];
    const uint32_t contiguous[] = {0, 0, 0, 1, 1, 2, 2, 2, 3, 3}, round_robin[] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1};
    place("contiguous", 10, 4, 1, p, arena);
    cr_assert_arr_eq(p[0].primary, contiguous, sizeof contiguous);
    cr_assert_arr_eq(p[LAYERS - 1].primary, contiguous, sizeof contiguous);
    place("round-robin", 10, 4, 1, p, arena);
    cr_assert_arr_eq(p[0].primary, round_robin, sizeof round_robin);
    const uint32_t slots[] = {0, 4, 8, 1, 5, 9, 2, 6, 3, 7}, first_slot[] = {0, 3, 6, 8, 10};
    cr_assert_arr_eq(p[0].expert, slots, sizeof slots);
    cr_assert_arr_eq(p[0].device_slot, first_slot, sizeof first_slot);
    place("contiguous", 1, 8, 1, p, arena);
    cr_assert_eq(p[0].primary[0], 0);
    moesim_arena_destroy(arena);
}

Test(fixed, random_is_balanced_and_differs_by_seed_and_layer)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_placement p[LAYERS], q[LAYERS];
    for (uint32_t seed = 0; seed < 20; seed++) {
        uint32_t count[7] = {0};
        place("random", 60, 7, seed, p, arena);
        for (uint32_t e = 0; e < 60; e++)
            count[p[2].primary[e]]++;
        for (uint32_t d = 0; d < 7; d++)
            cr_assert(count[d] == 8 || count[d] == 9);
        place("random", 60, 7, seed, q, arena);
        cr_assert_arr_eq(p[1].primary, q[1].primary, 60 * sizeof *p[1].primary);
        cr_assert_arr_neq(p[1].primary, q[2].primary, 60 * sizeof *p[1].primary);
        place("random", 60, 7, seed + 1, q, arena);
        cr_assert_arr_neq(p[1].primary, q[1].primary, 60 * sizeof *p[1].primary);
    }
    moesim_arena_destroy(arena);
}

Test(fixed, by_slot_and_by_expert)
{
    /* Three experts in five slots of two devices: 0 twice on device 0 and once on device 1. */
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_placement p;
    cr_assert_eq(moesim_placement_init(&p, 3, 2, 5, arena, &err), MOESIM_OK);
    const uint32_t expert[] = {0, 2, 0, 1, 0}, device_slot[] = {0, 3, 5};
    memcpy(p.expert, expert, sizeof expert);
    memcpy(p.device_slot, device_slot, sizeof device_slot);
    moesim_placement_index(&p);
    const uint32_t first[] = {0, 3, 4, 5}, replica[] = {0, 0, 1, 1, 0}, primary[] = {0, 1, 0};
    cr_assert_arr_eq(p.first, first, sizeof first);
    cr_assert_arr_eq(p.replica, replica, sizeof replica);
    cr_assert_arr_eq(p.primary, primary, sizeof primary);
    for (uint32_t t = 0; t < 9; t++)
        cr_assert_eq(moesim_replica_pick(&p, t % 2, t, 0, 100 + t), t % 3);
    cr_assert_null(moesim_placement_find("lp"));
    moesim_arena_destroy(arena);
}
