/*
 * Replica choice: what is worked out once for a placement, and once for a plan.
 */
#include "sim/placement/replica.h"

#include <stdbool.h>
#include <string.h>

#include <moesim/router.h>

static enum moesim_status no_memory(const struct moesim_placement *placement, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory to choose among replicas of %u experts on %u devices",
                       placement->n_experts, placement->n_devices);
}

static struct moesim_balance *create_balance(const struct moesim_placement *placement, uint32_t n_groups,
                                             uint64_t max_pairs, struct moesim_arena *arena)
{
    const size_t groups = n_groups, experts = placement->n_experts, replicas = placement->max_replicas;
    struct moesim_balance *b = moesim_alloc(arena, 1, sizeof *b);
    if (!b)
        return NULL;
    *b = (struct moesim_balance){
        .n_groups = n_groups,
        .n_experts = placement->n_experts,
        .max_replicas = placement->max_replicas,
        .wanted = moesim_alloc(arena, groups * experts, sizeof *b->wanted),
        .quota = moesim_alloc(arena, groups * replicas, sizeof *b->quota),
        .served = moesim_alloc(arena, groups * replicas, sizeof *b->served),
        .demand = moesim_alloc(arena, experts, sizeof *b->demand),
        .share = moesim_alloc(arena, replicas, sizeof *b->share),
        .pair_replica = moesim_alloc(arena, max_pairs, sizeof *b->pair_replica),
        .scratch = moesim_alloc(arena, moesim_balance_scratch(placement->n_devices), 1),
    };
    return b->wanted && b->quota && b->served && b->demand && b->share && b->pair_replica && b->scratch ? b : NULL;
}

enum moesim_status moesim_replica_init(struct moesim_placement *placement, uint32_t choice, uint32_t layer,
                                       const struct moesim_cluster *cluster, uint64_t max_pairs,
                                       struct moesim_balance **shared, struct moesim_arena *arena,
                                       struct moesim_error *err)
{
    const uint32_t n_groups = moesim_cluster_devices(cluster) / placement->n_devices;
    placement->choice = choice;
    placement->random = (struct moesim_random){.stream = MOESIM_STREAM_REPLICA, .layer = layer};
    if (choice == MOESIM_LP && !*shared)
        *shared = create_balance(placement, n_groups, max_pairs, arena);
    if (choice == MOESIM_LP)
        placement->balance = *shared;
    const bool by_source = choice == MOESIM_STATIC || choice == MOESIM_LOCAL;
    if (by_source) {
        const size_t devices = placement->n_devices;
        placement->nearest = moesim_alloc(arena, devices * placement->n_experts, sizeof *placement->nearest);
        placement->shuffled = moesim_alloc(arena, devices, sizeof *placement->shuffled);
    }
    const bool lacks =
        (choice == MOESIM_LP && !placement->balance) || (by_source && (!placement->nearest || !placement->shuffled));
    return lacks ? no_memory(placement, err) : MOESIM_OK;
}

/* ---- once for a placement ---- */

/* The first of e's replicas on the device, or the end of them. */
static uint32_t replica_on(const struct moesim_placement *p, uint32_t device, uint32_t e)
{
    uint32_t r = p->first[e];
    while (r < p->first[e + 1] && p->replica[r] != device)
        r++;
    return r;
}

/* sglang's static choice: the m devices without a copy of the expert are dealt its n replicas, each floor(m / n) times
 * and m mod n of them once more, in a random order: number i of the shuffled devices gets replica offset + i mod n. */
static void deal(struct moesim_placement *p, uint32_t e)
{
    uint32_t *device = p->shuffled;
    const uint32_t n = p->first[e + 1] - p->first[e];
    const uint64_t draws = (uint64_t)e * (p->n_devices + 1);
    const uint32_t offset = moesim_random_below(&p->random, draws, n);
    uint32_t m = 0;
    for (uint32_t d = 0; d < p->n_devices; d++) {
        const uint32_t own = replica_on(p, d, e);
        p->nearest[(size_t)d * p->n_experts + e] = own;
        if (own == p->first[e + 1])
            device[m++] = d;
    }
    for (uint32_t i = m; i > 1; i--) {
        const uint32_t j = moesim_random_below(&p->random, draws + i - 1, i), d = device[i - 1];
        device[i - 1] = device[j];
        device[j] = d;
    }
    for (uint32_t i = 0; i < m; i++)
        p->nearest[(size_t)device[i] * p->n_experts + e] = p->first[e] + (offset + i) % n;
}

/* Of the replicas on the device itself, else in its node, else of all: number device mod n of these n. */
static uint32_t closest(const struct moesim_placement *p, const struct moesim_cluster *cluster, uint32_t device,
                        uint32_t e)
{
    const uint32_t own = replica_on(p, device, e), node = moesim_cluster_node(cluster, device);
    if (own < p->first[e + 1])
        return own;
    uint32_t n = 0;
    for (uint32_t r = p->first[e]; r < p->first[e + 1]; r++)
        n += moesim_cluster_node(cluster, p->replica[r]) == node;
    if (n == 0)
        return p->first[e] + device % (p->first[e + 1] - p->first[e]);
    uint32_t turn = device % n;
    for (uint32_t r = p->first[e];; r++)
        if (moesim_cluster_node(cluster, p->replica[r]) == node && turn-- == 0)
            return r;
}

enum moesim_status moesim_replica_set(struct moesim_placement *p, uint64_t seed, const struct moesim_cluster *cluster,
                                      struct moesim_error *err)
{
    const uint32_t ep = p->n_devices, node = cluster->devices_per_node;
    p->random.seed = seed;
    p->random.step = 0;
    if (p->choice == MOESIM_LOCAL && ep % node && node % ep)
        return moesim_fail(err, MOESIM_EINVAL,
                           "replica = local needs EP groups of whole nodes or of equal parts of a node, not ep = %u on "
                           "nodes of %u devices",
                           ep, node);
    for (uint32_t e = 0; e < p->n_experts; e++) {
        if (p->first[e + 1] - p->first[e] == 1)
            continue;
        if (p->choice == MOESIM_STATIC)
            deal(p, e);
        for (uint32_t d = 0; p->choice == MOESIM_LOCAL && d < ep; d++)
            p->nearest[(size_t)d * p->n_experts + e] = closest(p, cluster, d, e);
    }
    return MOESIM_OK;
}

/* ---- once for a plan: lp ---- */

static bool is_served(const struct moesim_plan *plan, const uint8_t *expert_kind, uint32_t pair)
{
    return plan->fate[pair] == MOESIM_KEPT && (!expert_kind || expert_kind[plan->expert[pair]] == MOESIM_EXPERT_FFN);
}

static void count_wanted(struct moesim_balance *b, uint32_t ep, const struct moesim_plan *plan,
                         const struct moesim_batch *batch, const uint8_t *expert_kind)
{
    memset(b->wanted, 0, (size_t)b->n_groups * b->n_experts * sizeof *b->wanted);
    for (uint32_t t = 0; t < plan->n_tokens; t++) {
        uint32_t *wanted = b->wanted + (size_t)(batch->device[t] / ep) * b->n_experts;
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            if (is_served(plan, expert_kind, i))
                wanted[plan->expert[i]]++;
    }
}

/* Whole numbers near the shares, with the expert's tokens as their sum: the largest remainders are rounded up. */
static void round_shares(const double *share, uint32_t n, uint32_t tokens, uint32_t *quota)
{
    uint32_t given = 0;
    for (uint32_t r = 0; r < n; r++)
        given += quota[r] = (uint32_t)share[r] < tokens - given ? (uint32_t)share[r] : tokens - given;
    while (given < tokens) {
        uint32_t largest = 0;
        for (uint32_t r = 1; r < n; r++)
            if (share[r] - quota[r] > share[largest] - quota[largest])
                largest = r;
        quota[largest]++;
        given++;
    }
}

/* How many tokens each replica of the group shall serve. */
static void set_quotas(const struct moesim_placement *p, uint32_t group)
{
    struct moesim_balance *b = p->balance;
    const uint32_t *wanted = b->wanted + (size_t)group * b->n_experts;
    uint32_t *quota = b->quota + (size_t)group * b->max_replicas;
    for (uint32_t e = 0; e < p->n_experts; e++)
        b->demand[e] = wanted[e];
    moesim_balance_solve(p, b->demand, b->share, b->scratch);
    for (uint32_t e = 0; e < p->n_experts; e++) {
        const uint32_t first = p->first[e];
        round_shares(b->share + first, p->first[e + 1] - first, wanted[e], quota + first);
    }
}

/* The replica that is furthest behind its part of the n tokens so far, so that quotas are spread over the tokens. */
static uint32_t furthest_behind(const uint32_t *quota, const uint32_t *served, uint32_t n, uint32_t tokens)
{
    uint64_t so_far = 1;
    for (uint32_t r = 0; r < n; r++)
        so_far += served[r];
    uint32_t furthest = 0;
    int64_t most = INT64_MIN;
    for (uint32_t r = 0; r < n; r++) {
        const int64_t behind = (int64_t)(quota[r] * so_far) - (int64_t)((uint64_t)served[r] * tokens);
        if (served[r] < quota[r] && behind > most) {
            most = behind;
            furthest = r;
        }
    }
    return furthest;
}

static void serve_pairs(const struct moesim_placement *p, const struct moesim_plan *plan,
                        const struct moesim_batch *batch, const uint8_t *expert_kind)
{
    struct moesim_balance *b = p->balance;
    memset(b->served, 0, (size_t)b->n_groups * b->max_replicas * sizeof *b->served);
    for (uint32_t t = 0; t < plan->n_tokens; t++) {
        const size_t group = batch->device[t] / p->n_devices;
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const uint32_t e = plan->expert[i];
            if (!is_served(plan, expert_kind, i) || p->first[e + 1] - p->first[e] == 1)
                continue;
            const size_t at = group * b->max_replicas + p->first[e];
            const uint32_t r = furthest_behind(b->quota + at, b->served + at, p->first[e + 1] - p->first[e],
                                               b->wanted[group * b->n_experts + e]);
            b->served[at + r]++;
            b->pair_replica[i] = p->first[e] + r;
        }
    }
}

void moesim_replica_prepare(struct moesim_placement *placement, const struct moesim_plan *plan,
                            const struct moesim_batch *batch, const uint8_t *expert_kind)
{
    placement->random.step = batch->step;
    const bool replicated = placement->first[placement->n_experts] > placement->n_experts;
    if (placement->choice != MOESIM_LP || !replicated || plan->n_slots)
        return;
    count_wanted(placement->balance, placement->n_devices, plan, batch, expert_kind);
    for (uint32_t g = 0; g < placement->balance->n_groups; g++)
        set_quotas(placement, g);
    serve_pairs(placement, plan, batch, expert_kind);
}
