/*
 * What pricing takes, counted instead of timed: memory does not grow with the groups that pass by, and copies are
 * looked at once for each pair of devices that a home uses, never for each pair that there could be.
 */
#include <criterion/criterion.h>

#include "tests/sim/cost/scene.h"

TestSuite(growth, .timeout = 60);

enum { EP = 64, TOKENS = 16, K = 8, EXPERTS = 256 };

struct growth {
    uint64_t n_hops, n_pairs;
    size_t bytes, bytes_of_first; /* of the arena, at the end and after the first group */
    struct moesim_fanout fanout;
};

/* 16 tokens a device, one EP group of 64 after the other; every group routes alike. */
static struct growth price_groups(uint32_t n_groups, enum moesim_dispatch form)
{
    static uint32_t expert[EP * TOKENS * K];
    const struct moesim_cluster one = scene_cluster(EP / 8, 8, EP), all = scene_cluster(n_groups * EP / 8, 8, EP);
    const struct moesim_cost_options options = {.dispatch = form};
    struct moesim_cost_work work;
    struct moesim_error err;
    struct scene s;
    struct growth g = {0};
    scene_choices(5, EXPERTS, EP * TOKENS, K, expert);
    scene_init(&s, &one, EXPERTS, EP * TOKENS, K, expert);
    s.batch.n_devices = moesim_cluster_devices(&all);
    const size_t before = moesim_arena_used(s.arena);
    cr_assert_eq(moesim_cost_work_init(&work, &all, &s.placement, MOESIM_WITHOUT_HOPS, s.arena, &err), MOESIM_OK);
    moesim_cost_begin(&work);
    for (uint32_t x = 0; x < n_groups; x++) {
        for (uint32_t t = 0; t < EP * TOKENS; t++)
            s.device[t] = x * EP + t / TOKENS;
        cr_assert_eq(moesim_cost_add(&s.plan, &s.batch, &s.placement, &all, &options, NULL, &work, &err), MOESIM_OK);
        g.bytes_of_first = x ? g.bytes_of_first : moesim_arena_used(s.arena) - before;
        g.n_pairs += s.plan.n_pairs;
    }
    cr_assert_eq(moesim_cost_end(&s.placement, &all, &s.model, &options, NULL, &work, &s.cost, &err), MOESIM_OK);
    g.n_hops = work.n_hops;
    g.bytes = moesim_arena_used(s.arena) - before;
    g.fanout = work.fanout;
    uint64_t sent = 0, received = 0, served = 0;
    for (uint32_t d = 0; d < work.n_devices; d++) {
        sent += work.port[d].nvlink_out + work.port[d].nic_out;
        received += work.port[d].nvlink_in + work.port[d].nic_in;
        served += work.pairs[d];
    }
    cr_assert(sent == received && served == g.n_pairs, "nothing is lost on the way");
    scene_finish(&s);
    return g;
}

/* 512 and 4096 devices: eight times the work and the counts of devices, and not a byte more for a group. */
Test(growth, groups_stream_by)
{
    for (uint32_t form = MOESIM_DISPATCH_FLAT; form <= MOESIM_DISPATCH_LOW_LATENCY; form++) {
        const struct growth one = price_groups(1, form), small = price_groups(8, form), large = price_groups(64, form);
        cr_expect_eq(small.bytes, small.bytes_of_first);
        cr_expect_eq(large.bytes, large.bytes_of_first);
        cr_expect_leq(large.bytes, 64 * one.bytes);
        cr_expect_eq(small.n_hops, 8 * one.n_hops);
        cr_expect_eq(large.n_hops, 64 * one.n_hops);
        cr_expect_eq(large.fanout.devices, 64 * one.fanout.devices);
        cr_expect_eq(large.n_pairs, 64 * one.n_pairs);
        cr_expect_leq(one.n_hops, one.n_pairs + EP * EP / 8); /* one pair of devices a decision, one copy a node */
    }
}

/* Devices that used no pair cost none: one token a device on 256 to 4096 devices of one EP group, of which each reaches
 * two others at most by a forwarder. */
Test(growth, unused_pairs_cost_nothing)
{
    for (uint32_t devices = 256; devices <= 4096; devices *= 4) {
        const struct moesim_cluster cluster = scene_cluster(devices / 8, 8, 0);
        uint32_t *expert = malloc(devices * sizeof *expert);
        struct scene s;
        for (uint32_t t = 0; t < devices; t++)
            expert[t] = (t * 37 + 11) % devices;
        scene_init(&s, &cluster, devices, devices, 1, expert);
        for (uint32_t form = MOESIM_DISPATCH_FLAT; form <= MOESIM_DISPATCH_LOW_LATENCY; form++) {
            s.options.dispatch = form;
            scene_price(&s, MOESIM_PADDING_NONE, NULL);
            cr_expect_leq(s.work.n_hops, 2 * devices);
            cr_expect_leq(s.work.hops->n, 2 * devices);
        }
        scene_finish(&s);
        free(expert);
    }
}
