/*
 * What changing a placement moves, by hand and against a slow count on random placements.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/placement/migration.h"

TestSuite(migration, .timeout = 60);

static struct moesim_arena *arena;
static struct moesim_error err;

static void set_up(void)
{
    arena = moesim_arena_create(0);
}

static void tear_down(void)
{
    moesim_arena_destroy(arena);
}

static struct moesim_cluster machine(uint32_t nodes, uint32_t devices_per_node, uint32_t ep)
{
    struct moesim_cluster c = moesim_cluster_find("h100-dgx")->cluster;
    c.nodes = nodes;
    c.devices_per_node = devices_per_node;
    c.ep = ep;
    return c;
}

/* n_slots physical experts on each of n_devices, as listed. */
static struct moesim_placement placed(uint32_t n_experts, uint32_t n_devices, uint32_t n_slots, const uint32_t *expert)
{
    struct moesim_placement p;
    cr_assert_eq(moesim_placement_init(&p, n_experts, n_devices, n_devices * n_slots, arena, &err), MOESIM_OK);
    for (uint32_t d = 0; d <= n_devices; d++)
        p.device_slot[d] = d * n_slots;
    memcpy(p.expert, expert, (size_t)n_devices * n_slots * sizeof *expert);
    moesim_placement_index(&p);
    return p;
}

/* By hand: two nodes of two devices, two slots each. Devices 0 and 1 exchange experts over NVLink; then devices 0 and 2
 * over their NICs; what a device had already costs nothing. */
Test(migration, by_hand, .init = set_up, .fini = tear_down)
{
    const struct moesim_cluster c = machine(2, 2, 0);
    const struct moesim_placement from = placed(8, 4, 2, (uint32_t[]){0, 1, 2, 3, 4, 5, 6, 7});
    const struct moesim_placement to = placed(8, 4, 2, (uint32_t[]){2, 1, 0, 3, 4, 5, 6, 7});
    struct moesim_migration m;
    cr_assert_eq(moesim_migration_init(&m, &c, arena, &err), MOESIM_OK);
    moesim_migration_add(&m, &from, &from, &c, 1e9);
    cr_assert(m.bytes == 0 && moesim_migration_time(&m, &c) == 0);
    moesim_migration_add(&m, &from, &to, &c, 1e9);
    cr_assert_eq(m.bytes, 2e9);
    cr_assert(m.port[0].nvlink_in == 1e9 && m.port[0].nvlink_out == 1e9 && m.port[1].nvlink_in == 1e9);
    cr_assert(m.port[2].nvlink_in == 0 && m.port[0].nic_out == 0);
    cr_assert_float_eq(moesim_migration_time(&m, &c), 1e9 / c.nvlink_bytes_per_s + c.latency_intra_s, 1e-12);

    const struct moesim_placement far = placed(8, 4, 2, (uint32_t[]){4, 1, 2, 3, 0, 5, 6, 7});
    moesim_migration_reset(&m);
    moesim_migration_add(&m, &from, &far, &c, 1e9);
    cr_assert(m.bytes == 2e9 && m.port[0].nic_in == 1e9 && m.port[0].nic_out == 1e9 && m.port[2].nic_in == 1e9);
    cr_assert_float_eq(moesim_migration_time(&m, &c), 1e9 / c.nic_bytes_per_s + c.latency_inter_s, 1e-12);
}

/* Two EP groups move the same experts, each between its own devices. */
Test(migration, groups_move_alike, .init = set_up, .fini = tear_down)
{
    const struct moesim_cluster c = machine(1, 4, 2);
    const struct moesim_placement from = placed(4, 2, 2, (uint32_t[]){0, 1, 2, 3});
    const struct moesim_placement to = placed(4, 2, 2, (uint32_t[]){0, 2, 1, 3});
    struct moesim_migration m;
    cr_assert_eq(moesim_migration_init(&m, &c, arena, &err), MOESIM_OK);
    moesim_migration_add(&m, &from, &to, &c, 5);
    cr_assert_eq(m.bytes, 20);
    for (int d = 0; d < 4; d++)
        cr_assert(m.port[d].nvlink_in == 5 && m.port[d].nvlink_out == 5);
}

/* Random placements with copies: bytes sent = bytes received = bytes of the experts new to their device, counted
 * anew. */
Test(migration, random_placements, .init = set_up, .fini = tear_down)
{
    enum { EXPERTS = 12, DEVICES = 6, SLOTS = 3 };
    const struct moesim_random random = {.seed = 3, .stream = MOESIM_STREAM_TEST};
    uint64_t next = 0;
    for (int trial = 0; trial < 200; trial++) {
        const struct moesim_cluster c = machine(trial % 2 ? 3 : 6, trial % 2 ? 2 : 1, 0);
        struct moesim_placement p[2];
        for (int i = 0; i < 2; i++) {
            uint32_t slots[DEVICES * SLOTS];
            for (uint32_t s = 0; s < DEVICES * SLOTS; s++) {
                slots[s] = s < EXPERTS ? s : moesim_random_below(&random, next++, EXPERTS);
                const uint32_t j = moesim_random_below(&random, next++, s + 1), moved = slots[j];
                slots[j] = slots[s];
                slots[s] = moved;
            }
            p[i] = placed(EXPERTS, DEVICES, SLOTS, slots);
        }
        double expected = 0, in = 0, out = 0;
        for (uint32_t d = 0; d < DEVICES; d++)
            for (uint32_t e = 0; e < EXPERTS; e++) {
                bool had = false, has = false;
                for (uint32_t s = d * SLOTS; s < (d + 1) * SLOTS; s++) {
                    had |= p[0].expert[s] == e;
                    has |= p[1].expert[s] == e;
                }
                expected += has && !had ? 7 : 0;
            }
        struct moesim_migration m;
        cr_assert_eq(moesim_migration_init(&m, &c, arena, &err), MOESIM_OK);
        moesim_migration_add(&m, &p[0], &p[1], &c, 7);
        for (uint32_t d = 0; d < DEVICES; d++) {
            in += m.port[d].nvlink_in + m.port[d].nic_in;
            out += m.port[d].nvlink_out + m.port[d].nic_out;
        }
        cr_assert(m.bytes == expected && in == expected && out == expected, "%g, %g, %g, not %g", m.bytes, in, out,
                  expected);
    }
}
