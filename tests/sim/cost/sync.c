/*
 * Gradient sums counted by hand, and against a sum over the ring's own steps.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/cost/sync.h"
#include "tests/sim/cost/scene.h"

TestSuite(sync, .timeout = 60);

#define NEAR(value, expected)                                                                                          \
    cr_assert_float_eq(value, expected, 1e-12 + 1e-12 * fabs((double)(expected)), #value " is %.17g", (double)(value))

/* Costs.md section 2: ring 2(n - 1)/n S/B, 2(n - 1) steps; tree 2 S/B, 2 log2(n) steps. */
Test(sync, all_reduce_by_hand)
{
    const struct moesim_ring four = {.n = 4, .per_node = 4}, eight = {.n = 8, .per_node = 4, .crosses = true};
    const struct moesim_ring apart = {.n = 3, .per_node = 1, .crosses = true}, alone = {.n = 1, .per_node = 1};
    struct moesim_all_reduce_load l = moesim_all_reduce(MOESIM_RING, &four, 1000);
    cr_assert(l.nvlink_bytes == 1500 && l.nic_bytes == 0 && l.steps == 6);
    l = moesim_all_reduce(MOESIM_TREE, &four, 1000);
    cr_assert(l.nvlink_bytes == 2000 && l.nic_bytes == 0 && l.steps == 4);
    l = moesim_all_reduce(MOESIM_RING, &eight, 1000); /* four rings side by side, each over one NIC of a node */
    cr_assert(l.nvlink_bytes == 1750 * 0.75 && l.nic_bytes == 1750 * 0.25 && l.steps == 14);
    l = moesim_all_reduce(MOESIM_TREE, &eight, 1000);
    cr_assert(l.nvlink_bytes == 1500 && l.nic_bytes == 500 && l.steps == 6);
    l = moesim_all_reduce(MOESIM_RING, &apart, 900);
    cr_assert(l.nvlink_bytes == 0 && l.nic_bytes == 1200 && l.steps == 4);
    l = moesim_all_reduce(MOESIM_TREE, &apart, 900);
    cr_assert(l.nic_bytes == 1800 && l.steps == 4);
    for (int form = MOESIM_RING; form <= MOESIM_TREE; form++) {
        l = moesim_all_reduce((enum moesim_all_reduce_form)form, &alone, 1000);
        cr_assert(l.nvlink_bytes == 0 && l.nic_bytes == 0 && l.steps == 0);
    }

    struct moesim_cluster cluster = scene_cluster(2, 4, 0); /* 1000 B/s and 0.25 s inside, 50 B/s and 0.5 s between */
    l = moesim_all_reduce(MOESIM_RING, &eight, 1000);
    NEAR(moesim_all_reduce_time(&cluster, &l), 14 * 0.5 + 1750 * 0.25 / 50);
    l = moesim_all_reduce(MOESIM_RING, &four, 1000);
    NEAR(moesim_all_reduce_time(&cluster, &l), 6 * 0.25 + 1.5);
    cluster.all_reduce_nvlink_bytes_per_s = 3000;
    cluster.all_reduce_latency_intra_s = 0.125;
    NEAR(moesim_all_reduce_time(&cluster, &l), 6 * 0.125 + 0.5);
}

static const uint32_t four_tokens[] = {0, 1, 2, 3, 2, 0, 3, 1};

static void init_four(struct scene *s, uint32_t ep)
{
    const struct moesim_cluster cluster = scene_cluster(2, 2, ep);
    scene_init(s, &cluster, 4, 4, 2, four_tokens);
    s->model.gradient_bytes = 2;
    s->options.backward = true;
}

/* One EP group: nothing but the gate, 100 x 4 weights, has copies. Then two groups, each expert once a node. */
Test(sync, a_layer_by_hand)
{
    struct scene s;
    init_four(&s, 0);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    const double gate = 6 * 0.5 + 1.5 * 800 / 2 / 50; /* four copies, two rings */
    NEAR(s.cost.time_sync_s, gate);
    s.model.dense_weights = 1200;
    s.cluster.tp = 2; /* two copies of each half of 1200 weights, and of the gate; one on a node */
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, 2 * 0.5 + 1. * (600 + 400) * 2 / 50);
    s.cluster.tp = 1;
    s.model.shared_experts = 1; /* 3000 weights more */
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, 6 * 0.5 + 1.5 * (1200 + 400 + 3000) * 2 / 2 / 50);
    scene_finish(&s);

    init_four(&s, 2);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    const double experts = 2 * 0.5 + 2 * 6000 / 50.; /* two experts a device, 3000 weights each, 2(2 - 1)/2 */
    NEAR(s.cost.time_sync_s, gate + experts);
    s.options.all_reduce = MOESIM_TREE;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, 4 * 0.5 + 2 * 800 / 2 / 50. + 2 * 0.5 + 2 * 2 * 6000 / 50.);
    const uint8_t kind[4] = {MOESIM_EXPERT_ZERO, MOESIM_EXPERT_FFN, MOESIM_EXPERT_ZERO, MOESIM_EXPERT_ZERO};
    s.options.all_reduce = MOESIM_RING;
    scene_price(&s, MOESIM_PADDING_NONE, kind); /* what has no weights is not summed */
    NEAR(s.cost.time_sync_s, gate + 2 * 0.5 + 6000 / 50.);
    s.options.backward = false;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    cr_assert(isnan(s.cost.time_sync_s));
    scene_finish(&s);
}

Test(sync, nothing_to_sum)
{
    struct scene s;
    const struct moesim_cluster one = scene_cluster(1, 1, 0);
    scene_init(&s, &one, 4, 4, 2, four_tokens);
    s.model.gradient_bytes = 2;
    s.options.backward = true;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    cr_assert_eq(s.cost.time_sync_s, 0);
    scene_finish(&s);
}

/* A hot copy beside the first on another device is summed; one on the same device is not sent. */
Test(sync, hot_copies)
{
    struct scene s;
    init_four(&s, 0);
    const uint32_t first[] = {0, 2, 3, 4, 5};
    memcpy(s.placement.first, first, sizeof first);
    const double gate = 6 * 0.5 + 1.5 * 800 / 2 / 50;
    const uint32_t beside[] = {0, 1, 1, 2, 3}, same[] = {0, 0, 1, 2, 3}, far[] = {0, 3, 1, 2, 3};
    memcpy(s.placement.replica, same, sizeof same);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, gate);
    cr_assert_eq(moesim_expert_devices(&s.placement, 0), 1);
    memcpy(s.placement.replica, beside, sizeof beside);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, gate + 2 * 0.25 + 6000 / 1000.);
    cr_assert_eq(moesim_expert_devices(&s.placement, 0), 2);
    memcpy(s.placement.replica, far, sizeof far);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, gate + 2 * 0.5 + 6000 / 50.);
    scene_finish(&s);
}

/* Overlapped: what outlasts the arithmetic of the backward pass. */
Test(sync, overlapped)
{
    struct scene s;
    init_four(&s, 2);
    s.options.backward = false;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    const double forward = s.cost.time_compute_s;
    s.options.backward = true;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    const double exposed = s.cost.time_sync_s, backward = s.cost.time_compute_s - forward;
    cr_assert(backward > 0 && exposed > backward);
    s.options.sync = MOESIM_SYNC_OVERLAPPED;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_sync_s, exposed - backward);
    s.cluster.nic_bytes_per_s = s.cluster.nvlink_bytes_per_s = 1e12;
    s.cluster.latency_intra_s = s.cluster.latency_inter_s = 0;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    cr_assert_eq(s.cost.time_sync_s, 0);
    scene_finish(&s);
}

/* Random placements against a count of each expert's holders by node over all devices. */
static double slow_experts(const struct scene *s, double expert_bytes)
{
    double longest = 0;
    const uint32_t devices = s->work.n_devices, ep = moesim_cluster_ep(&s->cluster), nodes = s->cluster.nodes;
    for (uint32_t d = 0; d < devices; d++) {
        double nvlink = 0, nic = 0, steps = 0;
        for (uint32_t e = 0; e < s->placement.n_experts; e++) {
            uint32_t on_node[8] = {0}, n = 0, n_nodes = 0, least = UINT32_MAX;
            bool mine = false;
            for (uint32_t o = 0; o < devices; o++) {
                bool holds = false;
                for (uint32_t r = s->placement.first[e]; r < s->placement.first[e + 1]; r++)
                    holds |= s->placement.replica[r] == o % ep;
                n += holds;
                on_node[moesim_cluster_node(&s->cluster, o)] += holds;
                mine |= holds && o == d;
            }
            for (uint32_t i = 0; i < nodes; i++) {
                n_nodes += on_node[i] > 0;
                least = on_node[i] && on_node[i] < least ? on_node[i] : least;
            }
            if (!mine || n < 2)
                continue;
            const double sent = 2. * (n - 1) / n * expert_bytes;
            nic += n_nodes > 1 ? sent / least : 0;
            nvlink += n_nodes > 1 ? sent - sent / least : sent;
            steps = fmax(steps, 2. * (n - 1));
        }
        double t = nvlink > 0 ? steps * 0.25 + nvlink / 1000 : 0;
        t = fmax(t, nic > 0 ? steps * 0.5 + nic / 50 : 0);
        longest = fmax(longest, t);
    }
    return longest;
}

Test(sync, random_placements)
{
    for (uint32_t seed = 0; seed < 200; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        const uint32_t nodes = 1 + moesim_random_below(&random, 0, 4), per = 1 + moesim_random_below(&random, 1, 4);
        const uint32_t devices = nodes * per, wanted = 1 + moesim_random_below(&random, 2, devices);
        const struct moesim_cluster cluster = scene_cluster(nodes, per, devices % wanted ? 0 : wanted);
        const uint32_t experts = 1 + moesim_random_below(&random, 3, 8), none = MOESIM_NO_EXPERT;
        struct scene s;
        scene_init(&s, &cluster, experts, 1, 1, &none);
        uint32_t n = 0;
        for (uint32_t e = 0; e < experts; e++) {
            s.placement.first[e] = n;
            for (uint32_t r = 0; r < 1 + e % 3 && n < 2 * experts; r++, n++)
                s.placement.replica[n] = moesim_random_below(&random, 100 + n, s.placement.n_devices);
        }
        s.placement.first[experts] = n;
        s.model.gradient_bytes = 2;
        const double dense = moesim_sync_time(&s.placement, &s.cluster, &s.model, 0, MOESIM_RING, NULL, &s.work);
        cr_assert_float_eq(dense, slow_experts(&s, 6000), 1e-9 * dense, "seed %u: %g, %g", seed, dense,
                           slow_experts(&s, 6000));
        scene_finish(&s);
    }
}
