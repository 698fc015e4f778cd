/*
 * The cost of layers counted by hand, identities of the port bound, and random plans against a slow count.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/placement/replica.h"
#include "tests/sim/cost/scene.h"

TestSuite(cost, .timeout = 60);

#define NONE MOESIM_NO_EXPERT
#define NEAR(value, expected)                                                                                          \
    cr_assert_float_eq(value, expected, 1e-12 + 1e-12 * fabs((double)(expected)), #value " is %.17g", (double)(value))

/* Token t lives on device t, expert e on device e: token 0 crosses NVLink once, token 1 the NIC twice, token 2 once,
 * token 3 stays. Its second pair is refused. */
static const uint32_t four_tokens[] = {0, 1, 2, 3, 2, 0, 3, 1};

static void init_four(struct scene *s, uint32_t ep)
{
    const struct moesim_cluster cluster = scene_cluster(2, 2, ep);
    scene_init(s, &cluster, 4, 4, 2, four_tokens);
    s->plan.fate[7] = MOESIM_OVER_CAPACITY;
    s->plan.weight[7] = 0;
    s->plan.slot[7] = -1;
}

Test(cost, two_nodes_by_hand)
{
    struct scene s;
    init_four(&s, 0);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    const struct moesim_cost *c = &s.cost;
    NEAR(c->bytes_dispatch, 4 * 200);
    NEAR(c->bytes_combine, 4 * 400);
    NEAR(c->bytes_inter_node, 3 * 600);
    NEAR(c->bytes_intra_node, 600);
    NEAR(c->time_dispatch_s, 2 * 200 / 50. + 0.5);
    NEAR(c->time_combine_s, 2 * 400 / 50. + 0.5);
    NEAR(c->time_gate_s, 2 * 100 * 4 / 1e6);
    /* Weights 3*100*10*2 bytes, two rows of (200 + 30) * 4 bytes, two tokens and two rows permuted. */
    NEAR(c->time_compute_s, 0.125 + (6000 + 2 * 920) / 1e5 + 2 * (2 + 2) * 400 / 1e5);
    NEAR(c->time_layer_s, 0.0008 + 8.5 + 0.2354 + 16.5);
    NEAR(c->flop_expert, 7 * 6000);
    NEAR(c->flop_padded, 7 * 6000);
    NEAR(c->flop_router, 2 * 4 * 100 * 4);
    NEAR(c->padding_fraction, 0);
    NEAR(c->device_imbalance, 2 / (7 / 4.));
    NEAR(c->balancedness, 7 / 8.);
    NEAR(c->node_imbalance, 4 / 3.5);
    NEAR(c->device_fanout, 7 / 4.);
    NEAR(c->node_fanout, 5 / 4.);
    const double traffic[16] = {0, 200, 400, 0, 400, 0, 200, 200, 200, 400, 0, 0, 0, 400, 0, 0};
    cr_assert(!s.work.by_node);
    const double *counted = scene_traffic(&s, 4);
    for (int i = 0; i < 16; i++)
        NEAR(counted[i], traffic[i]);
    const struct moesim_ports ports[4] = {{1, 0, 0, 1}, {0, 1, 2, 0}, {0, 0, 1, 1}, {0, 0, 0, 1}};
    cr_assert_arr_eq(s.work.port, ports, sizeof ports);
    scene_finish(&s);
}

Test(cost, compute_bound_and_shared_experts)
{
    struct scene s;
    init_four(&s, 0);
    s.cluster.flop_per_s = 1e4;
    s.model.shared_experts = 2;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    /* Two rows fill one tile of four; so does the one token of the shared experts. */
    const double routed = 0.125 + 4 * 6000 / 1e4 + 2 * (2 + 2) * 400 / 1e5;
    NEAR(s.cost.time_compute_s, routed + 0.125 + 4 * 2 * 6000 / 1e4);
    NEAR(s.cost.flop_expert, 7 * 6000); /* routed pairs only */
    s.cluster.flop_per_s = 1e9;
    s.model.activation = MOESIM_GELU;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    /* Two matrices: 4000 bytes of weights, rows of (200 + 2 * 10) * 4 bytes; shared: two experts, one wide row. */
    NEAR(s.cost.time_compute_s, 0.125 + (4000 + 2 * 880) / 1e5 + 0.032 + 0.125 + (8000 + (200 + 2 * 20) * 4) / 1e5);
    NEAR(s.cost.flop_expert, 7 * 4000);
    scene_finish(&s);
}

Test(cost, padding_by_hand)
{
    struct scene s;
    const uint64_t kept[4] = {2, 1, 2, 2};
    const struct moesim_cost_options tile = {.padding = MOESIM_PADDING_TILE},
                                     capacity = {.padding = MOESIM_PADDING_CAPACITY};
    struct moesim_cost flop;
    init_four(&s, 0);
    scene_price(&s, MOESIM_PADDING_TILE, NULL);
    NEAR(s.cost.flop_padded, 4 * 4 * 6000); /* four experts, one tile of four rows each */
    NEAR(s.cost.padding_fraction, 9 / 16.);
    moesim_cost_flop(&s.plan, &s.batch, &s.model, &tile, 4, NULL, kept, &flop);
    NEAR(flop.flop_padded, 16 * 6000);
    cr_assert(isnan(flop.time_layer_s) && isnan(flop.bytes_dispatch) && isnan(flop.device_fanout));

    scene_price(&s, MOESIM_PADDING_CAPACITY, NULL); /* unlimited: as the kept rows */
    NEAR(s.cost.flop_padded, 7 * 6000);
    for (int i = 0; i < 16; i++)
        s.plan.capacity[i] = 2;
    scene_price(&s, MOESIM_PADDING_CAPACITY, NULL);
    NEAR(s.cost.flop_padded, 32 * 6000); /* two slots for each of four groups and four experts */
    NEAR(s.cost.padding_fraction, 25 / 32.);
    NEAR(s.cost.flop_expert, 7 * 6000);
    NEAR(s.cost.time_compute_s, 0.125 + (6000 + 8 * 920) / 1e5 + 2 * (2 + 8) * 400 / 1e5);
    moesim_cost_flop(&s.plan, &s.batch, &s.model, &capacity, 4, NULL, kept, &flop);
    NEAR(flop.flop_padded, 32 * 6000);
    for (int i = 0; i < 4; i++)
        s.plan.capacity[i] = MOESIM_UNLIMITED; /* device 0's group: its kept pairs, 2, instead of 8 slots */
    scene_price(&s, MOESIM_PADDING_CAPACITY, NULL);
    NEAR(s.cost.flop_padded, (24 + 2) * 6000);
    scene_finish(&s);
}

/* With ep = 2 each node holds all experts, two a device, and no token leaves its node. */
Test(cost, expert_parallel_groups)
{
    struct scene s;
    init_four(&s, 2);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    /* Token 0: device 0 twice. Token 1: device 1 twice, local. Token 2 (device 2): experts 2 and 0 on 3 and 2. Token
     * 3: 3. */
    NEAR(s.cost.bytes_inter_node, 0);
    NEAR(s.cost.bytes_dispatch, 200);
    NEAR(s.cost.time_dispatch_s, 200 / 1000. + 0.25);
    NEAR(s.cost.device_fanout, 5 / 4.);
    NEAR(s.cost.device_imbalance, 2 / (7 / 4.));
    cr_assert_eq(s.work.port[2].nvlink_out, 1);
    cr_assert_eq(s.work.port[3].nvlink_in, 1);
    scene_finish(&s);
}

Test(cost, one_device_and_no_tokens)
{
    struct scene s;
    const struct moesim_cluster one = scene_cluster(1, 1, 0);
    scene_init(&s, &one, 4, 4, 2, four_tokens);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    cr_assert(s.cost.time_dispatch_s == 0 && s.cost.time_combine_s == 0 && s.cost.bytes_dispatch == 0);
    cr_assert(s.cost.time_compute_s > 0 && s.cost.device_fanout == 1 && s.cost.device_imbalance == 1);
    scene_finish(&s);

    const uint32_t two_of_four[] = {0, 2, 2, 0}; /* the weights of idle experts are not read */
    scene_init(&s, &one, 4, 4, 1, two_of_four);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_compute_s, 0.125 + (2 * 6000 + 4 * 920) / 1e5 + 2 * (4 + 4) * 400 / 1e5);
    scene_finish(&s);

    const struct moesim_cluster four = scene_cluster(2, 2, 0);
    const uint32_t nothing[] = {NONE};
    for (uint32_t n = 0; n < 2; n++) { /* no token; one token with no expert */
        scene_init(&s, &four, 4, n, 1, nothing);
        for (int p = MOESIM_PADDING_NONE; p <= MOESIM_PADDING_TILE; p++) {
            scene_price(&s, (enum moesim_padding)p, NULL);
            cr_assert(isnan(s.cost.device_imbalance) && isnan(s.cost.balancedness) && isnan(s.cost.node_fanout));
            cr_assert(isnan(s.cost.padding_fraction) && s.cost.time_compute_s == 0 && s.cost.time_dispatch_s == 0 &&
                      s.cost.flop_padded == 0);
        }
        scene_finish(&s);
    }
}

Test(cost, soft_plans_are_refused)
{
    struct scene s;
    struct moesim_error err;
    const struct moesim_cost_options options = {0};
    init_four(&s, 0);
    s.plan.n_slots = 4;
    cr_assert_eq(moesim_cost_layer(&s.plan, &s.batch, &s.placement, &s.cluster, &s.model, &options, NULL, &s.work,
                                   &s.cost, &err),
                 MOESIM_EINVAL);
    scene_finish(&s);
}

/* A uniform all-to-all bound by the NICs has algbw = NIC n / (n - 1) (nccl-tests issue 130), here n = 3 nodes of 2. */
Test(cost, uniform_all_to_all)
{
    enum { R = 6, N = 3 };
    uint32_t expert[R * R];
    for (uint32_t t = 0; t < R * R; t++)
        expert[t] = t % R;
    struct moesim_cluster cluster = scene_cluster(N, R / N, 0);
    cluster.nvlink_bytes_per_s = 1e9;
    cluster.latency_inter_s = 0;
    struct scene s;
    scene_init(&s, &cluster, R, R * R, 1, expert);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(R * 200 / s.cost.time_dispatch_s, 50. * N / (N - 1));
    for (uint32_t d = 0; d < R; d++) {
        cr_assert_eq(s.work.port[d].nic_out, R - R / N);
        cr_assert_eq(s.work.port[d].nvlink_in, R / N - 1);
    }
    scene_finish(&s);
}

/* 2 * 16384 * 6 * 4096 * 14336 = 11.54 TFLOP for a Mixtral layer of 16384 tokens. */
Test(cost, mixtral_flop)
{
    enum { T = 16384 };
    static uint32_t expert[2 * T];
    for (uint32_t t = 0; t < T; t++) {
        expert[2 * t] = t % 8;
        expert[2 * t + 1] = (t + 1) % 8;
    }
    const struct moesim_cluster cluster = moesim_cluster_find("h100-dgx")->cluster;
    struct scene s;
    scene_init(&s, &cluster, 8, T, 2, expert);
    s.model = moesim_model_find("mixtral-8x7b")->model;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.flop_expert, 2. * 16384 * 6 * 4096 * 14336);
    cr_assert_float_eq(s.cost.flop_expert, 11.54e12, 0.005e12);
    /* Measured with TensorRT-LLM on H100, balanced, EP 8: 1846 us of expert kernel (aiconfigurator). */
    cr_assert_float_eq(s.cost.time_compute_s, 1846e-6, 0.15 * 1846e-6, "%g", s.cost.time_compute_s);
    scene_finish(&s);
}

/* K of E experts without replacement on R devices hit R (1 - C(E - E/R, K) / C(E, K)) of them. HierMoE, table II: 9 %
 * of the copies are saved at E 256, K 8, R 32 and 34 % at R 8. */
Test(cost, expected_devices)
{
    enum { T = 8192, E = 256, K = 8 };
    static uint32_t expert[T * K];
    scene_choices(7, E, T, K, expert);
    const struct {
        uint32_t nodes, devices;
        double duplicates;
    } cases[] = {{4, 32, 0.092}, {1, 8, 0.338}};
    for (size_t i = 0; i < 2; i++) {
        const uint32_t r = cases[i].devices;
        double miss = 1;
        for (uint32_t j = 0; j < K; j++)
            miss *= (double)(E - E / r - j) / (E - j);
        const struct moesim_cluster cluster = scene_cluster(cases[i].nodes, r / cases[i].nodes, 0);
        struct scene s;
        scene_init(&s, &cluster, E, T, K, expert);
        scene_price(&s, MOESIM_PADDING_NONE, NULL);
        cr_assert_float_eq(1 - r * (1 - miss) / K, cases[i].duplicates, 0.0005);
        /* The standard deviation of one token's count is below 1. */
        cr_assert_float_eq(s.cost.device_fanout, r * (1 - miss), 5 / sqrt(T), "%g", s.cost.device_fanout);
        scene_finish(&s);
    }
}

/* ---- random plans against a count over all (token, device) ---- */

static void check_against_count(struct scene *s, const uint8_t *kind)
{
    const uint32_t devices = s->work.n_devices, ep = moesim_cluster_ep(&s->cluster);
    uint64_t sent = 0, received = 0, reached = 0, nodes_reached = 0, tokens = 0;
    static uint64_t nic_in[64], nvlink_out[64];
    memset(nic_in, 0, sizeof nic_in);
    memset(nvlink_out, 0, sizeof nvlink_out);
    for (uint32_t t = 0; t < s->batch.n_tokens; t++) {
        uint32_t hit = 0, last_node = UINT32_MAX;
        for (uint32_t d = 0; d < devices; d++) {
            bool here = false;
            for (uint32_t i = s->plan.first[t]; i < s->plan.first[t + 1]; i++) {
                const uint32_t e = s->plan.expert[i];
                if (s->plan.fate[i] == MOESIM_KEPT && kind[e] == MOESIM_EXPERT_FFN)
                    here |= s->device[t] / ep * ep +
                                s->placement.replica[moesim_replica_pick(&s->placement, s->device[t] % ep, t, e, i)] ==
                            d;
            }
            if (!here)
                continue;
            hit++;
            nodes_reached += moesim_cluster_node(&s->cluster, d) != last_node;
            last_node = moesim_cluster_node(&s->cluster, d);
            const bool same = last_node == moesim_cluster_node(&s->cluster, s->device[t]);
            nic_in[d] += !same;
            nvlink_out[s->device[t]] += same && d != s->device[t];
        }
        reached += hit;
        tokens += hit > 0;
    }
    for (uint32_t d = 0; d < devices; d++) {
        cr_assert_eq(s->work.port[d].nic_in, nic_in[d]);
        cr_assert_eq(s->work.port[d].nvlink_out, nvlink_out[d]);
        sent += s->work.port[d].nic_out + s->work.port[d].nvlink_out;
        received += s->work.port[d].nic_in + s->work.port[d].nvlink_in;
    }
    cr_assert_eq(sent, received);
    NEAR(s->cost.bytes_dispatch, 200. * (double)sent);
    NEAR(s->cost.bytes_intra_node + s->cost.bytes_inter_node, 600. * (double)sent);
    if (tokens) {
        NEAR(s->cost.device_fanout, (double)reached / (double)tokens);
        NEAR(s->cost.node_fanout, (double)nodes_reached / (double)tokens);
    }
    double traffic = 0;
    const double *counted = scene_traffic(s, devices);
    for (size_t i = 0; i < (size_t)devices * devices; i++)
        traffic += counted[i];
    NEAR(traffic, s->cost.bytes_dispatch + s->cost.bytes_combine);
}

/* Up to three replicas of an expert, on devices of their own choosing. */
static void add_replicas(struct scene *s, const struct moesim_random *random)
{
    static const uint32_t replicas[4] = {1, 2, 1, 3}; /* the scene has room for two an expert */
    uint32_t n = 0;
    for (uint32_t e = 0; e < s->placement.n_experts; e++) {
        s->placement.first[e] = n;
        for (uint32_t r = 0; r < replicas[e % 4]; r++, n++)
            s->placement.replica[n] = moesim_random_below(random, 1000 + n, s->placement.n_devices);
    }
    s->placement.first[s->placement.n_experts] = n;
}

Test(cost, random_plans)
{
    for (uint32_t seed = 0; seed < 200; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST, .step = 1};
        const uint32_t nodes = 1 + moesim_random_below(&random, 0, 4),
                       per_node = 1 + moesim_random_below(&random, 1, 4);
        const uint32_t devices = nodes * per_node, wanted_ep = 1 + moesim_random_below(&random, 2, devices);
        const uint32_t e = 1 + moesim_random_below(&random, 3, 16), k = 1 + moesim_random_below(&random, 4, e);
        const uint32_t t = moesim_random_below(&random, 5, 60);
        const struct moesim_cluster cluster = scene_cluster(nodes, per_node, devices % wanted_ep ? 0 : wanted_ep);
        uint32_t expert[60 * 16];
        uint8_t kind[16] = {0};
        scene_choices(seed, e, t, k, expert);
        struct scene s;
        scene_init(&s, &cluster, e, t, k, expert);
        if (seed % 2)
            add_replicas(&s, &random);
        for (uint32_t i = 0; i < e; i++)
            kind[i] = moesim_random_below(&random, 50 + i, 8) == 0 ? MOESIM_EXPERT_ZERO : MOESIM_EXPERT_FFN;
        for (uint64_t i = 0; i < s.plan.n_pairs; i++)
            s.plan.fate[i] =
                seed % 3 && moesim_random_below(&random, 100 + i, 4) == 0 ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
        for (uint64_t i = 0; i < (uint64_t)s.plan.n_groups * e; i++)
            s.plan.capacity[i] = i % 3 ? 5 : MOESIM_UNLIMITED;
        for (int p = MOESIM_PADDING_NONE; p <= MOESIM_PADDING_TILE; p++) {
            scene_price(&s, (enum moesim_padding)p, kind);
            check_against_count(&s, kind);
            double rows = 0;
            for (uint32_t d = 0; d < devices; d++)
                rows += s.work.experts[d].rows;
            cr_assert_float_eq(rows * 6000, s.cost.flop_padded, 1e-6 * rows * 6000);
            cr_assert(s.cost.flop_padded >= s.cost.flop_expert || p == MOESIM_PADDING_CAPACITY);
        }
        scene_finish(&s);
    }
}

/* One group over two EP groups of unequal share: its slots follow its tokens. */
Test(cost, capacity_of_a_shared_group)
{
    const uint32_t expert[] = {0, 0, 0, 0};
    const struct moesim_cluster cluster = scene_cluster(1, 2, 1);
    struct scene s;
    scene_init(&s, &cluster, 1, 4, 1, expert);
    s.batch.n_groups = s.plan.n_groups = 1;
    s.group_start[1] = 4;
    s.device[1] = s.device[2] = s.device[3] = 1;
    s.plan.capacity[0] = 8;
    scene_price(&s, MOESIM_PADDING_CAPACITY, NULL);
    NEAR(s.cost.flop_padded, 8 * 6000);
    NEAR(s.work.experts[0].rows, 2);
    NEAR(s.work.experts[1].rows, 6);
    scene_finish(&s);
}

/* Past 128 devices the traffic is kept by node, what stays inside a node on the diagonal. */
Test(cost, traffic_by_node)
{
    enum { D = 132, T = 264 };
    static uint32_t expert[T * 4];
    scene_choices(3, D, T, 4, expert);
    const struct moesim_cluster cluster = scene_cluster(33, 4, 0);
    struct scene s;
    scene_init(&s, &cluster, D, T, 4, expert);
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    cr_assert(s.work.by_node);
    double inside = 0, all = 0;
    const double *counted = scene_traffic(&s, 33);
    for (uint32_t i = 0; i < 33; i++)
        for (uint32_t j = 0; j < 33; j++) {
            all += counted[i * 33 + j];
            inside += i == j ? counted[i * 33 + j] : 0;
        }
    NEAR(inside, s.cost.bytes_intra_node);
    NEAR(all - inside, s.cost.bytes_inter_node);
    scene_finish(&s);
}
