/*
 * Replica choice: every policy conserves tokens per expert, and each does what its definition says.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/plan.h>
#include <moesim/router.h>

#include "sim/placement/replica.h"

enum { MAX_DEVICES = 64, N_CHOICES = MOESIM_LP + 1 };

/* A plan of random pairs on a placement of random replicas. */
struct bed {
    struct moesim_arena *arena;
    struct moesim_cluster cluster;
    struct moesim_placement placement;
    struct moesim_balance *shared;
    struct moesim_batch batch;
    struct moesim_plan plan;
    uint32_t *device, group_start[2];
    uint8_t kind[64];
    struct moesim_random random;
    uint64_t drawn;
};

static uint32_t draw(struct bed *b, uint32_t n)
{
    return moesim_random_below(&b->random, b->drawn++, n);
}

static void open_bed(struct bed *b, uint64_t seed, uint32_t nodes, uint32_t devices_per_node, uint32_t ep)
{
    memset(b, 0, sizeof *b);
    b->arena = moesim_arena_create(0);
    b->cluster = (struct moesim_cluster){.name = "bed", .nodes = nodes, .devices_per_node = devices_per_node, .ep = ep};
    b->random = (struct moesim_random){.seed = seed, .stream = MOESIM_STREAM_TEST};
}

static void close_bed(struct bed *b)
{
    moesim_arena_destroy(b->arena);
}

/* One copy of every expert somewhere, the other slots at random. */
static void make_placement(struct bed *b, uint32_t n_experts, uint32_t per_device, uint32_t choice, uint64_t max_pairs)
{
    struct moesim_error err = {""};
    struct moesim_placement *p = &b->placement;
    const uint32_t ep = moesim_cluster_ep(&b->cluster), n_slots = ep * per_device;
    cr_assert_eq(moesim_placement_init(p, n_experts, ep, n_slots, b->arena, &err), MOESIM_OK);
    for (uint32_t d = 0; d <= ep; d++)
        p->device_slot[d] = d * per_device;
    for (uint32_t s = 0; s < n_slots; s++)
        p->expert[s] = s < n_experts ? s : draw(b, n_experts);
    for (uint32_t s = n_slots; s > 1; s--) {
        const uint32_t j = draw(b, s), e = p->expert[s - 1];
        p->expert[s - 1] = p->expert[j];
        p->expert[j] = e;
    }
    moesim_placement_index(p);
    cr_assert_eq(moesim_replica_init(p, choice, 3, &b->cluster, max_pairs, &b->shared, b->arena, &err), MOESIM_OK);
    cr_assert_eq(moesim_replica_set(p, 7, &b->cluster, &err), MOESIM_OK, "%s", err.text);
}

/* Every token has k distinct experts, low numbers more often; some pairs are refused, expert 0 is no FFN. */
static void make_plan(struct bed *b, uint32_t n_experts, uint32_t n_tokens, uint32_t k)
{
    struct moesim_error err;
    const uint32_t devices = moesim_cluster_devices(&b->cluster);
    b->device = moesim_alloc(b->arena, n_tokens, sizeof *b->device);
    b->group_start[1] = n_tokens;
    b->batch = (struct moesim_batch){.struct_size = sizeof b->batch,
                                     .step = 5,
                                     .n_tokens = n_tokens,
                                     .n_experts = n_experts,
                                     .n_groups = 1,
                                     .group_start = b->group_start,
                                     .n_devices = devices,
                                     .device = b->device};
    cr_assert_eq(moesim_plan_init(&b->plan, n_tokens, n_experts, 1, (uint64_t)n_tokens * k, 0, b->arena, &err),
                 MOESIM_OK);
    moesim_plan_reset(&b->plan, &b->batch);
    memset(b->kind, MOESIM_EXPERT_FFN, sizeof b->kind);
    b->kind[0] = MOESIM_EXPERT_ZERO;
    uint32_t n = 0;
    for (uint32_t t = 0; t < n_tokens; t++) {
        b->device[t] = draw(b, devices);
        b->plan.first[t] = n;
        for (uint32_t c = 0, e = 0; c < k && e < n_experts; c++) {
            e += draw(b, n_experts / k);
            b->plan.expert[n] = e++;
            b->plan.fate[n] = draw(b, 10) ? MOESIM_KEPT : MOESIM_OVER_CAPACITY;
            n++;
        }
    }
    b->plan.first[n_tokens] = n;
    b->plan.n_pairs = n;
}

static bool is_served(const struct bed *b, uint32_t pair)
{
    return b->plan.fate[pair] == MOESIM_KEPT && b->kind[b->plan.expert[pair]] == MOESIM_EXPERT_FFN;
}

/* load[x][d]: pairs on device d of EP group x, each checked to be one of its expert's replicas. */
static void count_loads(const struct bed *b, uint32_t load[][MAX_DEVICES])
{
    const struct moesim_placement *p = &b->placement;
    const uint32_t ep = p->n_devices;
    for (uint32_t t = 0; t < b->plan.n_tokens; t++)
        for (uint32_t i = b->plan.first[t]; i < b->plan.first[t + 1]; i++) {
            if (!is_served(b, i))
                continue;
            const uint32_t e = b->plan.expert[i], r = moesim_replica_pick(p, b->device[t] % ep, t, e, i);
            cr_assert(r >= p->first[e] && r < p->first[e + 1]);
            load[b->device[t] / ep][p->replica[r]]++;
        }
}

Test(replica, every_choice_conserves_the_tokens_of_an_expert)
{
    for (uint32_t choice = 0; choice < N_CHOICES; choice++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            struct bed b;
            open_bed(&b, seed, 4, 4, seed % 2 ? 8 : 16);
            make_placement(&b, 20, seed % 2 ? 4 : 2, choice, 900);
            make_plan(&b, 20, 300, 3);
            moesim_replica_prepare(&b.placement, &b.plan, &b.batch, b.kind);
            uint32_t load[2][MAX_DEVICES] = {{0}};
            count_loads(&b, load);
            uint32_t served = 0, counted = 0;
            for (uint32_t i = 0; i < b.plan.n_pairs; i++)
                served += is_served(&b, i);
            for (uint32_t x = 0; x < 2; x++)
                for (uint32_t d = 0; d < 16; d++)
                    counted += load[x][d];
            cr_assert_eq(served, counted);
            close_bed(&b);
        }
}

Test(replica, static_serves_at_home_and_deals_the_rest_fairly)
{
    struct bed b;
    open_bed(&b, 1, 2, 8, 0);
    make_placement(&b, 10, 2, MOESIM_STATIC, 0);
    const struct moesim_placement *p = &b.placement;
    for (uint32_t e = 0; e < 10; e++) {
        uint32_t dealt[32] = {0}, least = UINT32_MAX, most = 0;
        for (uint32_t d = 0; d < 16; d++) {
            const uint32_t r = moesim_replica_pick(p, d, 0, e, 0);
            bool here = false;
            for (uint32_t i = p->first[e]; i < p->first[e + 1]; i++)
                here |= p->replica[i] == d;
            cr_assert(!here || p->replica[r] == d);
            dealt[r - p->first[e]] += !here;
        }
        for (uint32_t i = 0; i < p->first[e + 1] - p->first[e]; i++) {
            least = dealt[i] < least ? dealt[i] : least;
            most = dealt[i] > most ? dealt[i] : most;
        }
        cr_assert_leq(most - least, 1);
    }
    close_bed(&b);
}

Test(replica, local_prefers_device_then_node)
{
    /* Two nodes of two devices; expert 0 on devices 0 and 3, expert 1 on device 1 alone, expert 2 on 2 and 2. */
    struct bed b;
    struct moesim_error err;
    open_bed(&b, 1, 2, 2, 0);
    struct moesim_placement *p = &b.placement;
    cr_assert_eq(moesim_placement_init(p, 3, 4, 5, b.arena, &err), MOESIM_OK);
    const uint32_t slot[] = {0, 1, 2, 4, 5}, expert[] = {0, 1, 2, 2, 0};
    memcpy(p->device_slot, slot, sizeof slot);
    memcpy(p->expert, expert, sizeof expert);
    moesim_placement_index(p);
    cr_assert_eq(moesim_replica_init(p, MOESIM_LOCAL, 0, &b.cluster, 0, &b.shared, b.arena, &err), MOESIM_OK);
    cr_assert_eq(moesim_replica_set(p, 1, &b.cluster, &err), MOESIM_OK);
    const uint32_t of_expert_0[] = {0, 0, 3, 3}; /* devices 1 and 2 find it in their node */
    for (uint32_t d = 0; d < 4; d++) {
        cr_assert_eq(p->replica[moesim_replica_pick(p, d, 9, 0, 9)], of_expert_0[d]);
        cr_assert_eq(p->replica[moesim_replica_pick(p, d, 9, 1, 9)], 1);
        /* Devices 0 and 1 have no copy in their node: device mod 2. */
        cr_assert_eq(moesim_replica_pick(p, d, 9, 2, 9), p->first[2] + (d < 2 ? d % 2 : d == 3));
    }
    b.cluster.devices_per_node = 3;
    b.cluster.nodes = 4;
    cr_assert_eq(moesim_replica_set(p, 1, &b.cluster, &err), MOESIM_EINVAL); /* 4 devices on nodes of 3 */
    close_bed(&b);
}

Test(replica, random_is_even_and_a_function_of_seed_and_step)
{
    struct bed b;
    open_bed(&b, 2, 1, 4, 0);
    make_placement(&b, 2, 4, MOESIM_RANDOM, 0);
    make_plan(&b, 2, 4, 1);
    const struct moesim_placement *p = &b.placement;
    const uint32_t e = p->first[1] > p->first[2] - p->first[1] ? 0 : 1, n = p->first[e + 1] - p->first[e];
    uint32_t count[16] = {0}, other_step = 0;
    uint32_t before[4096];
    for (uint32_t t = 0; t < 4096; t++)
        count[(before[t] = moesim_replica_pick(p, 0, t, e, 0)) - p->first[e]]++;
    for (uint32_t r = 0; r < n; r++) /* within five standard deviations of the binomial */
        cr_assert_leq(fabs(count[r] - 4096.0 / n), 5 * sqrt(4096.0 / n));
    b.batch.step = 6;
    moesim_replica_prepare(&b.placement, &b.plan, &b.batch, NULL);
    for (uint32_t t = 0; t < 4096; t++)
        other_step += moesim_replica_pick(p, 0, t, e, 0) != before[t];
    cr_assert_gt(other_step, 1000);
    close_bed(&b);
}

/* The least possible maximum of the device loads is max over sets S of devices of (demand that only S can serve) / |S|
 * (Hall's condition for fractional assignment); by all subsets. */
static double least_maximum(const struct moesim_placement *p, const double *demand)
{
    double bound = 0;
    for (uint32_t set = 1; set < 1u << p->n_devices; set++) {
        double inside = 0;
        for (uint32_t e = 0; e < p->n_experts; e++) {
            bool confined = true;
            for (uint32_t r = p->first[e]; r < p->first[e + 1]; r++)
                confined &= set >> p->replica[r] & 1;
            inside += confined ? demand[e] : 0;
        }
        bound = fmax(bound, inside / __builtin_popcount(set));
    }
    return bound;
}

static double solve_maximum(struct bed *b, const double *demand)
{
    const struct moesim_placement *p = &b->placement;
    double share[256], load[MAX_DEVICES] = {0}, most = 0;
    moesim_balance_solve(p, demand, share, moesim_alloc(b->arena, moesim_balance_scratch(p->n_devices), 1));
    for (uint32_t e = 0; e < p->n_experts; e++) {
        double sum = 0;
        for (uint32_t r = p->first[e]; r < p->first[e + 1]; r++) {
            cr_assert_geq(share[r], 0);
            sum += share[r];
            load[p->replica[r]] += share[r];
        }
        cr_assert_leq(fabs(sum - demand[e]), 1e-9 * (demand[e] + 1));
    }
    for (uint32_t d = 0; d < p->n_devices; d++)
        most = fmax(most, load[d]);
    return most;
}

Test(replica, lp_reaches_the_least_maximum)
{
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct bed b;
        open_bed(&b, seed, 1, 2 + (uint32_t)(seed % 7), 0);
        const uint32_t n_devices = b.cluster.devices_per_node, n_experts = n_devices * 2;
        make_placement(&b, n_experts, 2 + (uint32_t)(seed % 4), MOESIM_LP, 0);
        double demand[16];
        for (uint32_t e = 0; e < n_experts; e++)
            demand[e] = draw(&b, 4) ? draw(&b, 1000) : 0;
        const double bound = least_maximum(&b.placement, demand), most = solve_maximum(&b, demand);
        cr_assert(most >= bound * (1 - 1e-9) && most <= bound * (1 + 2e-6), "seed %lu: %g against %g", seed, most,
                  bound);
        close_bed(&b);
    }
}

/* A chain of 32 devices, where expert e is on devices e and e + 1 and all load is at one end: water has to flow through
 * every link. The last expert is on the last device alone. */
Test(replica, lp_balances_along_a_chain)
{
    struct bed b;
    struct moesim_error err;
    open_bed(&b, 0, 1, 32, 0);
    struct moesim_placement *p = &b.placement;
    cr_assert_eq(moesim_placement_init(p, 31, 32, 62, b.arena, &err), MOESIM_OK);
    uint32_t n = 0;
    for (uint32_t d = 0; d < 32; d++) {
        p->device_slot[d] = n;
        if (d > 0)
            p->expert[n++] = d - 1;
        if (d < 31)
            p->expert[n++] = d;
    }
    p->device_slot[32] = n;
    moesim_placement_index(p);
    double demand[31];
    for (uint32_t e = 0; e < 31; e++)
        demand[e] = 33;
    demand[0] = 34;
    cr_assert_leq(fabs(solve_maximum(&b, demand) - 32), 1e-4); /* 1024 tokens over 32 devices */
    for (uint32_t e = 0; e < 31; e++)
        demand[e] = e ? 0 : 100;
    cr_assert_leq(fabs(solve_maximum(&b, demand) - 50), 1e-4);
    close_bed(&b);
}

Test(replica, lp_serves_whole_tokens_near_the_optimum)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct bed b;
        open_bed(&b, seed, 2, 8, 8);
        make_placement(&b, 16, 4, MOESIM_LP, 3000);
        make_plan(&b, 16, 1000, 3);
        moesim_replica_prepare(&b.placement, &b.plan, &b.batch, b.kind);
        uint32_t load[2][MAX_DEVICES] = {{0}};
        count_loads(&b, load);
        for (uint32_t x = 0; x < 2; x++) {
            double demand[16] = {0}, most = 0;
            for (uint32_t t = 0; t < b.plan.n_tokens; t++)
                for (uint32_t i = b.plan.first[t]; i < b.plan.first[t + 1]; i++)
                    demand[b.plan.expert[i]] += b.device[t] / 8 == x && is_served(&b, i);
            for (uint32_t d = 0; d < 8; d++)
                most = fmax(most, load[x][d]);
            /* Rounding adds less than one token for each replica on the device. */
            cr_assert_leq(most, least_maximum(&b.placement, demand) * (1 + 2e-6) + 4);
        }
        close_bed(&b);
    }
}
