/*
 * Forms of dispatch: ports by hand, published closed forms, and random plans against a count from the definitions.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/cost/carried.h"
#include "sim/cost/exchange.h"
#include "sim/cost/overlap.h"
#include "sim/placement/replica.h"

#include "tests/sim/cost/scene.h"

TestSuite(dispatch, .timeout = 60);

#define NONE MOESIM_NO_EXPERT
#define NEAR(value, expected)                                                                                          \
    cr_assert_float_eq(value, expected, 1e-12 + 1e-12 * fabs((double)(expected)), #value " is %.17g", (double)(value))

static void price(struct scene *s, enum moesim_dispatch dispatch)
{
    s->options.dispatch = dispatch;
    scene_price(s, MOESIM_PADDING_NONE, NULL);
}

static void expect_ports(const struct scene *s, const struct moesim_ports *ports)
{
    for (uint32_t d = 0; d < s->work.n_devices; d++) {
        const struct moesim_ports *p = &s->work.port[d], *q = &ports[d];
        cr_expect(p->nvlink_out == q->nvlink_out && p->nvlink_in == q->nvlink_in && p->nic_out == q->nic_out &&
                      p->nic_in == q->nic_in,
                  "device %u: NVLink %lu out %lu in, NIC %lu out %lu in", d, p->nvlink_out, p->nvlink_in, p->nic_out,
                  p->nic_in);
    }
}

/* ---- by hand: two nodes of two devices, one token and two experts each ---- */

/* Token 0 (device 0): experts 2 and 3, both on device 1. Token 1: 4, on device 2, and 6, on 3. Token 2: 5, at home, and
 * 0, on device 0. Token 3: 2 on device 1 and one that is refused. */
static const uint32_t pairs[] = {2, 3, 4, 6, 5, 0, 2, 7};

static void init_pairs(struct scene *s)
{
    const struct moesim_cluster cluster = scene_cluster(2, 2, 0);
    scene_init(s, &cluster, 8, 4, 2, pairs);
    s->plan.fate[7] = MOESIM_OVER_CAPACITY;
    s->plan.weight[7] = 0;
    s->plan.slot[7] = -1;
}

Test(dispatch, flat_by_hand)
{
    struct scene s;
    init_pairs(&s);
    price(&s, MOESIM_DISPATCH_FLAT);
    expect_ports(&s, (struct moesim_ports[]){{1, 0, 0, 1}, {0, 1, 2, 1}, {0, 0, 1, 1}, {0, 0, 1, 1}});
    NEAR(s.cost.bytes_dispatch, 5 * 200);
    scene_finish(&s);
}

/* Token 1 goes once to node 1, to device 3, which keeps it and forwards it to device 2; token 2 to device 0, which is
 * its target; token 3 to device 1, likewise. */
Test(dispatch, normal_by_hand)
{
    struct scene s;
    init_pairs(&s);
    s.cluster.normal_nic_bytes_per_s = 25;
    s.cluster.normal_latency_inter_s = 2;
    price(&s, MOESIM_DISPATCH_NORMAL);
    expect_ports(&s, (struct moesim_ports[]){{1, 0, 0, 1}, {0, 1, 1, 1}, {0, 1, 1, 0}, {1, 0, 1, 1}});
    NEAR(s.cost.bytes_dispatch, 5 * 200);
    NEAR(s.cost.bytes_inter_node, 3 * 600);
    NEAR(s.cost.bytes_intra_node, 2 * 600);
    NEAR(s.cost.time_dispatch_s, 200 / 25. + 2); /* of its own transport */
    NEAR(s.cost.time_combine_s, 400 / 25. + 2);
    const double *traffic = scene_traffic(&s, 4);
    NEAR(traffic[1 * 4 + 3], 200 + 400); /* token 1 there, token 3's answer */
    NEAR(traffic[3 * 4 + 1], 400 + 200);
    NEAR(traffic[3 * 4 + 2], 200);
    scene_finish(&s);
}

/* Two copies for two experts of one device; 16 bytes before each message to an expert, none before those back. */
Test(dispatch, low_latency_by_hand)
{
    struct scene s;
    init_pairs(&s);
    s.cluster.low_latency_nvlink_bytes_per_s = 10;
    s.cluster.low_latency_latency_intra_s = 1;
    price(&s, MOESIM_DISPATCH_LOW_LATENCY);
    expect_ports(&s, (struct moesim_ports[]){{2, 0, 0, 1}, {0, 2, 2, 1}, {0, 0, 1, 1}, {0, 0, 1, 1}});
    NEAR(s.cost.bytes_dispatch, 6 * 216);
    NEAR(s.cost.bytes_combine, 6 * 400);
    NEAR(s.cost.time_dispatch_s, 2 * 216 / 10. + 1);
    NEAR(s.cost.time_combine_s, 2 * 400 / 10. + 1);
    NEAR(s.cost.device_fanout, (1 + 2 + 2 + 1) / 4.); /* of the routing, whatever the form */
    cr_assert_eq(s.work.received[1], 2);
    scene_finish(&s);
}

/* Each token once over the NICs and then to the neighbour on both nodes, experts or not. */
Test(dispatch, all_gather_by_hand)
{
    struct scene s;
    init_pairs(&s);
    price(&s, MOESIM_DISPATCH_ALL_GATHER);
    expect_ports(&s, (struct moesim_ports[]){{2, 2, 1, 1}, {2, 2, 1, 1}, {2, 2, 1, 1}, {2, 2, 1, 1}});
    NEAR(s.cost.bytes_dispatch, 4 * 3 * 200); /* (R - 1) T of every device */
    NEAR(s.cost.time_dispatch_s, 200 / 50. + 0.5);
    scene_finish(&s);
}

/* Three slots for each of eight experts from every device: six to its own, which stay, six to each other device. */
Test(dispatch, padded_by_hand)
{
    struct scene s;
    init_pairs(&s);
    for (uint32_t i = 0; i < 4 * 8; i++)
        s.plan.capacity[i] = 3;
    price(&s, MOESIM_DISPATCH_PADDED);
    expect_ports(&s, (struct moesim_ports[]){{6, 6, 12, 12}, {6, 6, 12, 12}, {6, 6, 12, 12}, {6, 6, 12, 12}});
    NEAR(s.cost.bytes_dispatch, 4 * 3 * 6 * 200);
    for (uint32_t i = 0; i < 8; i++)
        s.plan.capacity[i] = MOESIM_UNLIMITED; /* device 0's group: its two pairs */
    price(&s, MOESIM_DISPATCH_PADDED);
    expect_ports(&s, (struct moesim_ports[]){{2, 6, 0, 12}, {6, 2, 12, 12}, {6, 6, 12, 6}, {6, 6, 12, 6}});
    scene_finish(&s);
}

/* One group over four devices: six slots of each expert come from devices 0 to 3 as 1, 2, 1 and 2, since a slot is
 * whole. */
Test(dispatch, padded_slots_of_a_wide_group)
{
    struct scene s;
    init_pairs(&s);
    static uint32_t whole[] = {0, 4};
    s.batch.n_groups = s.plan.n_groups = 1;
    s.batch.group_start = whole;
    for (uint32_t e = 0; e < 8; e++)
        s.plan.capacity[e] = 6;
    price(&s, MOESIM_DISPATCH_PADDED);
    expect_ports(&s, (struct moesim_ports[]){{2, 4, 4, 6}, {4, 2, 8, 6}, {2, 4, 4, 6}, {4, 2, 8, 6}});
    scene_finish(&s);
}

/* EP groups of three devices on nodes of two: group 0 has node 0 and device 2, group 1 has device 3 and node 2. */
Test(dispatch, groups_across_nodes)
{
    static const uint32_t choice[] = {2, 2, 0, 1, 2, 0};
    const struct moesim_cluster cluster = scene_cluster(3, 2, 3);
    struct scene s;
    scene_init(&s, &cluster, 3, 6, 1, choice);
    price(&s, MOESIM_DISPATCH_NORMAL);
    /* Tokens 0 and 1 to device 2, its node's only one of the group. Token 2 to device 0. Token 3 (device 3, the first
     * of its part) to device 4. Token 4 to device 5 inside the node. Token 5 to device 3. */
    expect_ports(&s, (struct moesim_ports[]){
                         {0, 0, 1, 1}, {0, 0, 1, 0}, {0, 0, 1, 2}, {0, 0, 1, 1}, {1, 0, 0, 1}, {0, 1, 1, 0}});
    scene_finish(&s);
}

/* ---- leaf switches ---- */

/* Four nodes of one device below two leaf switches, two to one: an even all-to-all is bound by the uplinks, of rate 50,
 * over which two devices send four copies; unevenly, the flows share them. */
Test(dispatch, oversubscribed_leaf)
{
    struct moesim_cluster cluster = scene_cluster(4, 1, 0);
    cluster.leaf_nodes = 2;
    cluster.leaf_oversubscription = 2;
    cluster.latency_leaf_s = 0.125;
    uint32_t choice[16];
    for (uint32_t i = 0; i < 16; i++)
        choice[i] = i % 4;
    struct scene s;
    scene_init(&s, &cluster, 4, 16, 1, choice);
    price(&s, MOESIM_DISPATCH_FLAT);
    cr_assert(s.work.leaf[0].up == 4 && s.work.leaf[0].down == 4 && s.work.leaf[1].up == 4);
    NEAR(s.cost.time_dispatch_s, 4 * 200 / 50. + 0.5 + 0.125);
    cr_assert_eq(s.work.exchange.inter.port, MOESIM_LEAF_UP);
    NEAR(s.cost.time_combine_s, 4 * 400 / 50. + 0.5 + 0.125);
    s.cluster.leaf_oversubscription = 1; /* as wide as the NICs: 3 copies a port, and still across leaves */
    price(&s, MOESIM_DISPATCH_FLAT);
    NEAR(s.cost.time_dispatch_s, 3 * 200 / 50. + 0.5 + 0.125);
    scene_finish(&s);
    cluster.leaf_nodes = 0;
    scene_init(&s, &cluster, 4, 16, 1, choice);
    price(&s, MOESIM_DISPATCH_FLAT);
    NEAR(s.cost.time_dispatch_s, 3 * 200 / 50. + 0.5);
    scene_finish(&s);
}

/* Device 0 sends 8 copies to device 1, below its own leaf, device 1 sends 4 to device 2 and device 0 2 to device 3,
 * across the uplink of rate 50 (NICs of 50, two to one: 2 * 50 / 2). Both flows across get 25. Device 0's other flow
 * has 25 left of its NIC. After 2 / 25 the 2 copies are through: 4 - 2 and 8 - 2 are left, and both go on at 50. So
 * t = (2 / 25 + 6 / 50) * 200; no port has more than 10 / 50, which the port bound finds too. With an uplink of 20
 * (five to one): 10 each and 40 for the inner one, which ends at 8 / 40; by then 2 are through, at 2 / 10 = 0.2; then
 * the last 2 at 20: (0.2 + 0.1) * 200. The port bound is 6 / 20. */
Test(dispatch, flows_by_hand)
{
    static const uint32_t choice[] = {1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 2, 2, 2, 2};
    struct moesim_cluster cluster = scene_cluster(4, 1, 0);
    cluster.leaf_nodes = 2;
    cluster.leaf_oversubscription = 5;
    struct scene s;
    scene_init(&s, &cluster, 4, 14, 1, choice);
    for (uint32_t t = 0; t < 14; t++)
        s.device[t] = t >= 10;
    price(&s, MOESIM_DISPATCH_FLAT);
    cr_assert_float_eq(s.cost.time_dispatch_s, 0.3 * 200 + 0.5, 1e-9, "%g", s.cost.time_dispatch_s);
    scene_finish(&s);
}

/* Even and uneven traffic never takes less than the port bound, and dispatch and combine take alike. */
Test(dispatch, flows_and_ports)
{
    static uint32_t choice[512 * 4];
    for (uint32_t seed = 0; seed < 10; seed++) {
        struct moesim_cluster cluster = scene_cluster(8, 2, 0);
        cluster.leaf_nodes = 1 + seed % 5;
        cluster.leaf_oversubscription = 1.5 + seed;
        scene_choices(seed, 32, 512, 4, choice);
        for (uint32_t i = 0; seed % 2 && i < 512 * 4; i += 4)
            choice[i] = 0; /* everybody's first choice (a second pair may be the same) */
        struct scene s;
        scene_init(&s, &cluster, 32, 512, 4, choice);
        for (uint32_t form = MOESIM_DISPATCH_FLAT; form <= MOESIM_DISPATCH_ALL_GATHER; form++) {
            price(&s, (enum moesim_dispatch)form);
            const double with_flows = s.work.exchange.inter.s_per_byte;
            double bound = 0;
            const double nic = 50;
            for (uint32_t l = 0; l < s.work.n_leaves; l++) {
                const uint32_t rest = 8 - l * cluster.leaf_nodes;
                const double rate = 2 * nic * fmin(rest, cluster.leaf_nodes) / cluster.leaf_oversubscription;
                bound = fmax(bound, fmax((double)s.work.leaf[l].up, (double)s.work.leaf[l].down) / rate);
            }
            for (uint32_t d = 0; d < 16; d++)
                bound = fmax(bound, fmax((double)s.work.port[d].nic_out, (double)s.work.port[d].nic_in) / nic);
            cr_assert(with_flows >= bound * (1 - 1e-12) && with_flows < 3 * bound, "seed %u, form %u: %g, bound %g",
                      seed, form, with_flows, bound);
        }
        scene_finish(&s);
    }
}

/* ---- what the links of a run carried ---- */

/* Token 0 of device 0 goes to device 1, on its node, token 1 of device 0 to device 2, below the same leaf switch, token
 * 2 of device 3 to device 4, across the spine; twice, in two steps. */
Test(dispatch, carried_by_hand)
{
    static const uint32_t choice[] = {1, 2, 4};
    struct moesim_cluster cluster = scene_cluster(4, 2, 0);
    cluster.leaf_nodes = 2;
    struct scene s;
    struct moesim_carried carried;
    struct moesim_traffic *row;
    struct moesim_error err;
    uint64_t n;
    scene_init(&s, &cluster, 8, 3, 1, choice);
    s.device[1] = 0;
    s.device[2] = 3;
    cr_assert_eq(moesim_carried_init(&carried, &cluster, s.arena, &err), MOESIM_OK);
    for (int step = 0; step < 2; step++) {
        price(&s, MOESIM_DISPATCH_FLAT);
        moesim_carried_add(&carried, &cluster, &s.work);
    }
    cr_assert_eq(moesim_carried_rows(&carried, &cluster, &s.model, &s.options, s.arena, &row, &n, &err), MOESIM_OK);
    const struct moesim_traffic expected[] = {
        {0, 1, 400, MOESIM_LINK_DEVICE},     {0, 2, 400, MOESIM_LINK_DEVICE},     {1, 0, 800, MOESIM_LINK_DEVICE},
        {2, 0, 800, MOESIM_LINK_DEVICE},     {3, 4, 400, MOESIM_LINK_DEVICE},     {4, 3, 800, MOESIM_LINK_DEVICE},
        {0, 0, 400, MOESIM_LINK_NVLINK_OUT}, {0, 0, 800, MOESIM_LINK_NVLINK_IN},  {0, 0, 400, MOESIM_LINK_NIC_OUT},
        {0, 0, 800, MOESIM_LINK_NIC_IN},     {1, 0, 800, MOESIM_LINK_NVLINK_OUT}, {0, 1, 400, MOESIM_LINK_NVLINK_IN},
        {2, 0, 800, MOESIM_LINK_NIC_OUT},    {0, 2, 400, MOESIM_LINK_NIC_IN},     {3, 0, 400, MOESIM_LINK_NIC_OUT},
        {0, 3, 800, MOESIM_LINK_NIC_IN},     {4, 1, 800, MOESIM_LINK_NIC_OUT},    {1, 4, 400, MOESIM_LINK_NIC_IN},
        {0, 0, 400, MOESIM_LINK_LEAF_UP},    {0, 0, 800, MOESIM_LINK_LEAF_DOWN},  {1, 0, 800, MOESIM_LINK_LEAF_UP},
        {0, 1, 400, MOESIM_LINK_LEAF_DOWN},
    };
    cr_assert_eq(n, sizeof expected / sizeof *expected, "%lu", n);
    for (uint64_t i = 0; i < n; i++)
        cr_expect(row[i].source == expected[i].source && row[i].target == expected[i].target &&
                      row[i].bytes == expected[i].bytes && row[i].link == expected[i].link,
                  "row %lu: %u to %u by %u, %g bytes", i, row[i].source, row[i].target, row[i].link, row[i].bytes);
    scene_finish(&s);
}

/* ---- published closed forms ---- */

/* K of E experts without replacement on R devices hit R (1 - C(E - E/R, K) / C(E, K)) of them. */
static double expected_hits(uint32_t experts, uint32_t r, uint32_t k)
{
    double miss = 1;
    for (uint32_t j = 0; j < k; j++)
        miss *= (double)(experts - experts / r - j) / (experts - j);
    return r * (1 - miss);
}

/* HierMoE (arXiv:2508.09591), table II: per cent of the copies that one copy a device saves, E = 256. */
static const struct {
    uint32_t devices, saved[4]; /* K = 2, 4, 6, 8 */
} duplication[] = {{32, {2, 4, 7, 9}}, {16, {3, 9, 14, 18}}, {8, {6, 17, 27, 34}}, {4, {12, 32, 46, 55}}};

Test(dispatch, duplication_table)
{
    enum { T = 8192, E = 256 };
    static uint32_t choice[T * 8];
    for (size_t i = 0; i < sizeof duplication / sizeof *duplication; i++)
        for (uint32_t c = 0; c < 4; c++) {
            const uint32_t k = 2 * (c + 1), r = duplication[i].devices;
            const struct moesim_cluster cluster = scene_cluster(1, r, 0);
            struct scene s;
            scene_choices(c, E, T, k, choice);
            scene_init(&s, &cluster, E, T, k, choice);
            price(&s, MOESIM_DISPATCH_FLAT);
            const double counted = 100 * (1 - s.cost.device_fanout / k),
                         expected = 100 * (1 - expected_hits(E, r, k) / k);
            cr_assert_float_eq(counted, duplication[i].saved[c], 1.5, "R %u, K %u: %g", r, k, counted);
            cr_assert_float_eq(counted, expected, 100 * 5 / sqrt(T) / k, "R %u, K %u: %g", r, k, counted);
            /* Without deduplication every pair is a copy; those of the token's own device stay. */
            const double straight = (double)T * k * (r - 1) / r;
            price(&s, MOESIM_DISPATCH_LOW_LATENCY);
            cr_assert_float_eq(s.cost.bytes_dispatch / 216, straight, 5 * sqrt(straight));
            scene_finish(&s);
        }
}

/* DeepEP's normal kernels (EP 8 to 32, 256 experts, top 8 of at most four nodes, so nothing is limited): distinct
 * devices and nodes of a token, and with them what passes the ports. */
Test(dispatch, deepep_normal)
{
    enum { T = 256, E = 256, K = 8 };
    static const struct {
        uint32_t nodes;
        double devices, reached;
    } rows[] = {{1, 5.2947, 1}, {2, 6.5233, 1.9930}, {4, 7.2668, 3.6142}};
    static uint32_t choice[T * 32 * K];
    for (size_t i = 0; i < 3; i++) {
        const uint32_t n = rows[i].nodes, r = 8 * n;
        cr_assert_float_eq(expected_hits(E, r, K), rows[i].devices, 5e-5);
        cr_assert_float_eq(expected_hits(E, n, K), rows[i].reached, 5e-5);
        const struct moesim_cluster cluster = scene_cluster(n, 8, 0);
        struct scene s;
        scene_choices(9, E, T * r, K, choice);
        scene_init(&s, &cluster, E, T * r, K, choice);
        price(&s, MOESIM_DISPATCH_NORMAL);
        const double tokens = T * r;
        cr_assert_float_eq(s.cost.device_fanout, rows[i].devices, 5 / sqrt(tokens));
        cr_assert_float_eq(s.cost.node_fanout, rows[i].reached, 5 / sqrt(tokens));
        /* Copies between nodes: to those of the reached that are not the token's own, nodes (n - 1) / n. Inside them:
         * the reached devices but those that get the copy anyway. */
        uint64_t inter = 0, intra = 0;
        for (uint32_t d = 0; d < r; d++) {
            inter += s.work.port[d].nic_out;
            intra += s.work.port[d].nvlink_out;
        }
        cr_assert_float_eq((double)inter / tokens, rows[i].reached * (n - 1) / n, 5 / sqrt(tokens));
        /* A reached node's forwarder is a target as often as any of its eight devices. */
        cr_assert_float_eq((double)intra / tokens, rows[i].devices * 7 / 8, 5 / sqrt(tokens));
        scene_finish(&s);
    }
}

/* Bytes of a token as DeepEP counts them: 7392 and 14336 of the normal kernels, 7408 to an expert of the low-latency
 * ones. */
Test(dispatch, bytes_of_a_copy)
{
    const struct moesim_model *v3 = &moesim_model_find("deepseek-v3")->model;
    cr_assert_eq(moesim_dispatch_bytes(v3, MOESIM_DISPATCH_NORMAL), 7392);
    cr_assert_eq(moesim_dispatch_bytes(v3, MOESIM_DISPATCH_LOW_LATENCY), 7408);
    cr_assert_eq(moesim_combine_bytes(v3), 14336);
}

/* An even all-to-all bound by the NICs: algorithm bandwidth NIC n / (n - 1), bus bandwidth NIC (R - 1) / (g (n - 1))
 * (nccl-tests, issues 130 and 267), exactly, for each shape. */
Test(dispatch, algorithm_bandwidth)
{
    static uint32_t choice[64 * 64];
    for (uint32_t n = 2; n <= 8; n *= 2)
        for (uint32_t g = 1; g <= 8; g *= 2) {
            const uint32_t r = n * g;
            struct moesim_cluster cluster = scene_cluster(n, g, 0);
            cluster.nvlink_bytes_per_s = 1e9;
            cluster.latency_inter_s = 0;
            for (uint32_t t = 0; t < r * r; t++)
                choice[t] = t % r;
            struct scene s;
            scene_init(&s, &cluster, r, r * r, 1, choice);
            price(&s, MOESIM_DISPATCH_FLAT);
            const double algbw = r * 200 / s.cost.time_dispatch_s;
            NEAR(algbw, 50. * n / (n - 1));
            NEAR(algbw * (r - 1) / r, 50. * (r - 1) / (g * (n - 1)));
            scene_finish(&s);
        }
}

/* ---- random plans against the definitions ---- */

struct counts {
    struct moesim_ports port[16];
};

static void add(const struct scene *s, struct counts *c, uint32_t from, uint32_t to)
{
    if (from == to)
        return;
    if (moesim_cluster_node(&s->cluster, from) == moesim_cluster_node(&s->cluster, to)) {
        c->port[from].nvlink_out++;
        c->port[to].nvlink_in++;
    } else {
        c->port[from].nic_out++;
        c->port[to].nic_in++;
    }
}

static bool serves(const struct scene *s, uint32_t t, uint32_t pair, uint32_t d)
{
    const uint32_t ep = moesim_cluster_ep(&s->cluster), home = s->device[t];
    return s->plan.fate[pair] == MOESIM_KEPT &&
           home / ep * ep +
                   s->placement.replica[moesim_replica_pick(&s->placement, home % ep, t, s->plan.expert[pair], pair)] ==
               d;
}

/* Every device in turn, by node: the group's devices of the node, the one of the token's own number among them. */
static void count_by_definition(const struct scene *s, enum moesim_dispatch form, struct counts *c)
{
    const uint32_t ep = moesim_cluster_ep(&s->cluster), g = s->cluster.devices_per_node;
    memset(c, 0, sizeof *c);
    for (uint32_t t = 0; t < s->batch.n_tokens; t++) {
        const uint32_t home = s->device[t], base = home / ep * ep;
        const uint32_t own_first = home / g * g > base ? home / g * g : base;
        for (uint32_t node = 0; node < s->cluster.nodes; node++) {
            uint32_t member[16], n = 0, reached[16], n_reached = 0;
            for (uint32_t d = node * g; d < (node + 1) * g; d++)
                if (d >= base && d < base + ep)
                    member[n++] = d;
            for (uint32_t i = 0; i < n; i++) {
                uint32_t hits = 0;
                for (uint32_t p = s->plan.first[t]; p < s->plan.first[t + 1]; p++)
                    hits += serves(s, t, p, member[i]);
                for (uint32_t h = 0; form == MOESIM_DISPATCH_LOW_LATENCY && h < hits; h++)
                    add(s, c, home, member[i]);
                if (form == MOESIM_DISPATCH_FLAT && hits)
                    add(s, c, home, member[i]);
                if (hits || form == MOESIM_DISPATCH_ALL_GATHER)
                    reached[n_reached++] = member[i];
            }
            if (!n_reached || form == MOESIM_DISPATCH_FLAT || form == MOESIM_DISPATCH_LOW_LATENCY)
                continue;
            const uint32_t forwarder = member[(home - own_first) % n];
            add(s, c, home, forwarder);
            for (uint32_t i = 0; i < n_reached; i++)
                add(s, c, forwarder, reached[i]);
        }
    }
}

/* What leaves is what arrives, in all and port by port: a device's ports carry its rows and columns of the traffic. */
static void check_conservation(struct scene *s)
{
    const uint32_t devices = s->work.n_devices;
    const double *traffic = scene_traffic(s, devices);
    const double there = moesim_dispatch_bytes(&s->model, (enum moesim_dispatch)s->options.dispatch), back = 400;
    double sent = 0, received = 0;
    for (uint32_t d = 0; d < devices; d++) {
        const struct moesim_ports *p = &s->work.port[d];
        double out = 0, in = 0;
        for (uint32_t i = 0; i < devices; i++) {
            out += traffic[d * devices + i];
            in += traffic[i * devices + d];
        }
        NEAR(out, (double)(p->nvlink_out + p->nic_out) * there + (double)(p->nvlink_in + p->nic_in) * back);
        NEAR(in, (double)(p->nvlink_in + p->nic_in) * there + (double)(p->nvlink_out + p->nic_out) * back);
        sent += out;
        received += in;
    }
    NEAR(sent, received);
    NEAR(sent, s->cost.bytes_dispatch + s->cost.bytes_combine);
    NEAR(sent, s->cost.bytes_intra_node + s->cost.bytes_inter_node);
}

/* The same plan counted by one thread and by several, with traffic and without. */
static void check_threads(struct scene *s, const struct counts *counted)
{
    struct moesim_cost_work parallel;
    struct moesim_cost cost;
    struct moesim_error err;
    const int threads = omp_get_max_threads();
    omp_set_num_threads(5);
    cr_assert_eq(moesim_cost_work_init(&parallel, &s->cluster, &s->placement, MOESIM_WITHOUT_HOPS, s->arena, &err),
                 MOESIM_OK);
    cr_assert(parallel.n_parts == 5 && !parallel.hops);
    cr_assert_eq(moesim_cost_layer(&s->plan, &s->batch, &s->placement, &s->cluster, &s->model, &s->options, NULL,
                                   &parallel, &cost, &err),
                 MOESIM_OK);
    omp_set_num_threads(threads);
    cr_assert_eq(memcmp(&cost, &s->cost, sizeof cost), 0);
    cr_assert_eq(memcmp(parallel.port, counted->port, parallel.n_devices * sizeof *parallel.port), 0);
}

Test(dispatch, random_plans)
{
    enum { MOST_TOKENS = 6000 };
    static uint32_t choice[MOST_TOKENS * 8];
    static struct counts counted;
    for (uint32_t seed = 0; seed < 60; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST, .step = 2};
        const uint32_t nodes = 1 + moesim_random_below(&random, 0, 4),
                       per_node = 1 + moesim_random_below(&random, 1, 4);
        const uint32_t devices = nodes * per_node, wanted_ep = 1 + moesim_random_below(&random, 2, devices);
        const uint32_t e = 1 + moesim_random_below(&random, 3, 16), most_k = e < 8 ? e : 8;
        const uint32_t k = 1 + moesim_random_below(&random, 4, most_k);
        const uint32_t t = seed % 10 ? moesim_random_below(&random, 5, 60) : MOST_TOKENS;
        const struct moesim_cluster cluster = scene_cluster(nodes, per_node, devices % wanted_ep ? 0 : wanted_ep);
        struct scene s;
        scene_choices(seed, e, t, k, choice);
        scene_init(&s, &cluster, e, t, k, choice);
        for (uint64_t i = 0; i < s.plan.n_pairs; i++)
            s.plan.fate[i] = moesim_random_below(&random, 100 + i, 4) == 0 ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
        for (uint32_t form = MOESIM_DISPATCH_FLAT; form <= MOESIM_DISPATCH_ALL_GATHER; form++) {
            price(&s, (enum moesim_dispatch)form);
            count_by_definition(&s, (enum moesim_dispatch)form, &counted);
            cr_assert_eq(memcmp(s.work.port, counted.port, devices * sizeof *counted.port), 0, "seed %u, form %u", seed,
                         form);
            check_conservation(&s);
            if (t > 0 && s.cost.device_fanout > 0) /* NaN compares unequal */
                check_threads(&s, &counted);
        }
        for (size_t i = 0; i < (size_t)s.plan.n_groups * e; i++)
            s.plan.capacity[i] = moesim_random_below(&random, 9000 + i, 3) ? 4 : MOESIM_UNLIMITED;
        price(&s, MOESIM_DISPATCH_PADDED);
        check_conservation(&s);
        scene_finish(&s);
    }
}

/* ---- a layer in batches, and in chunks ---- */

/* One EP group after the other gives the figures of all at once. */
Test(dispatch, group_by_group)
{
    enum { T = 240, K = 3, E = 12 };
    static uint32_t choice[T * K];
    const struct moesim_cluster cluster = scene_cluster(4, 3, 4);
    struct scene s;
    scene_choices(1, E, T, K, choice);
    scene_init(&s, &cluster, E, T, K, choice);
    for (uint32_t form = MOESIM_DISPATCH_FLAT; form <= MOESIM_DISPATCH_PADDED; form++) {
        struct moesim_cost cost;
        struct moesim_error err;
        price(&s, (enum moesim_dispatch)form);
        moesim_cost_begin(&s.work);
        for (uint32_t group = 0; group < 3; group++) {
            static uint32_t part[T / 3 * K];
            struct scene one;
            memcpy(part, choice + group * T / 3 * K, sizeof part);
            struct moesim_cluster four = scene_cluster(4, 1, 0); /* for the devices of one group */
            scene_init(&one, &four, E, T / 3, K, part);
            one.batch.n_devices = 12;
            for (uint32_t t = 0; t < T / 3; t++)
                one.device[t] += 4 * group;
            cr_assert_eq(
                moesim_cost_add(&one.plan, &one.batch, &s.placement, &s.cluster, &s.options, NULL, &s.work, &err),
                MOESIM_OK);
            scene_finish(&one);
        }
        cr_assert_eq(moesim_cost_end(&s.placement, &s.cluster, &s.model, &s.options, NULL, &s.work, &cost, &err),
                     MOESIM_OK);
        cr_assert_eq(memcmp(&cost, &s.cost, sizeof cost), 0, "form %u", form);
    }
    scene_finish(&s);
}

/* Start-ups are paid per chunk, weights are read per chunk, and exchanges hide behind experts or the other way round.
 */
Test(dispatch, overlap_by_hand)
{
    NEAR(moesim_overlap_time(1, 3, 10, 5), 18);
    NEAR(moesim_overlap_time(4, 3, 10, 5), 3 + 3 * 10 + 10 + 5); /* experts are never idle in between */
    NEAR(moesim_overlap_time(4, 3, 7, 5), 3 + 3 * 8 + 7 + 5);

    struct scene s;
    init_pairs(&s);
    price(&s, MOESIM_DISPATCH_FLAT);
    const struct moesim_cost whole = s.cost;
    s.options.chunks = 2;
    price(&s, MOESIM_DISPATCH_FLAT);
    NEAR(s.cost.time_dispatch_s, whole.time_dispatch_s + 0.5);
    NEAR(s.cost.time_combine_s, whole.time_combine_s + 0.5);
    /* Device 1 has two experts with a row and two with another: their weights twice, one more launch. */
    NEAR(s.cost.time_compute_s, whole.time_compute_s + 0.125 + 2 * 6000 / 1e5);
    const double d = s.cost.time_dispatch_s / 2, e = s.cost.time_compute_s / 2, c = s.cost.time_combine_s / 2;
    NEAR(s.cost.time_layer_s, whole.time_gate_s + moesim_overlap_time(2, d, e, c));
    cr_assert(s.cost.bytes_dispatch == whole.bytes_dispatch && s.cost.flop_padded == whole.flop_padded);
    s.options.backward = true;
    price(&s, MOESIM_DISPATCH_FLAT);
    NEAR(s.cost.time_dispatch_s, 4 * d);
    scene_finish(&s);
}
