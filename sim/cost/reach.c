/*
 * A token's devices are the bits of a word, and tokens by device are counted in all columns of such words at once: bit
 * d of plane l is bit l of device d's count. Pairs are counted by expert, of which replicas and devices follow.
 */
#include "sim/cost/reach.h"

#include <string.h>

#include "sim/cost/compute.h"

enum { PLANES = 8, EIGHT = 8, MOST_COUNTED = (1 << PLANES) - EIGHT };

static bool has_one_replica(const struct moesim_placement *p)
{
    return p->choice == MOESIM_STATIC || p->choice == MOESIM_LOCAL || p->first[p->n_experts] == p->n_experts;
}

bool moesim_reach_fits(const struct moesim_reach *r)
{
    const uint32_t n_pairs = r->plan->first[r->end] - r->plan->first[r->begin];
    return r->ep <= 64 && n_pairs >= r->placement->n_experts && has_one_replica(r->placement);
}

/* Each expert's device as a bit, none for one that is not FFN; its pairs are set to 0. */
static void look_up(const struct moesim_reach *r, struct moesim_cost_part *part)
{
    const struct moesim_placement *p = r->placement;
    for (uint32_t e = 0; e < p->n_experts; e++) {
        const uint32_t first = p->first[e];
        const uint32_t replica = p->first[e + 1] - first == 1 ? first : p->nearest[(size_t)r->local * p->n_experts + e];
        part->own_replica[e] = replica;
        part->own_bit[e] = moesim_is_ffn(r->expert_kind, e) ? UINT64_C(1) << p->replica[replica] : 0;
    }
    memset(part->own_pairs, 0, p->n_experts * sizeof *part->own_pairs);
}

/* The nodes of the EP group. */
struct nodes {
    uint32_t n, node[64], reach[64];
    uint64_t devices[64];
};

static void find_nodes(const struct moesim_reach *r, struct nodes *nodes)
{
    nodes->n = 0;
    for (uint32_t d = 0; d < r->ep; d++) {
        const uint32_t node = r->node[r->base + d];
        if (d == 0 || nodes->node[nodes->n - 1] != node) {
            nodes->node[nodes->n] = node;
            nodes->reach[nodes->n] = 0;
            nodes->devices[nodes->n++] = 0;
        }
        nodes->devices[nodes->n - 1] |= UINT64_C(1) << d;
    }
}

/* The devices of a token; its pairs are counted. */
static inline uint64_t devices_of(const struct moesim_plan *plan, uint32_t t, uint32_t n_experts, const uint64_t *bit,
                                  uint32_t *pairs)
{
    uint64_t devices = 0;
    for (uint32_t i = plan->first[t], end = plan->first[t + 1]; i < end; i++) {
        const uint32_t e = plan->expert[i];
        if (plan->fate[i] != MOESIM_KEPT || e >= n_experts)
            continue;
        devices |= bit[e];
        pairs[e]++;
    }
    return devices;
}

/* a + b + c bit by bit: the lower bit of each sum goes to `sum`, the upper is returned. */
static inline uint64_t add_three(uint64_t a, uint64_t b, uint64_t c, uint64_t *sum)
{
    const uint64_t differ = a ^ b;
    *sum = differ ^ c;
    return (a & b) | (differ & c);
}

/* Adds a word to the planes from l on. */
static inline void add_word(uint64_t plane[PLANES], int l, uint64_t word)
{
    for (; word != 0; l++) {
        const uint64_t both = plane[l] & word;
        plane[l] ^= word;
        word = both;
    }
}

static inline void add_eight(uint64_t plane[PLANES], const uint64_t w[EIGHT])
{
    uint64_t two[4], four[2];
    for (int i = 0; i < 4; i++)
        two[i] = add_three(plane[0], w[2 * i], w[2 * i + 1], &plane[0]);
    for (int i = 0; i < 2; i++)
        four[i] = add_three(plane[1], two[2 * i], two[2 * i + 1], &plane[1]);
    add_word(plane, 3, add_three(plane[2], four[0], four[1], &plane[2]));
}

/* Tokens [begin, end), no more than MOST_COUNTED. */
static uint32_t count_block(const struct moesim_reach *r, uint32_t begin, uint32_t end, struct moesim_cost_part *part,
                            struct nodes *nodes)
{
    const uint32_t n_experts = r->placement->n_experts;
    const uint64_t *bit = part->own_bit;
    uint32_t *pairs = part->own_pairs, served = 0;
    uint64_t plane[PLANES] = {0};
    for (uint32_t t = begin; t < end; t += EIGHT) {
        uint64_t devices[EIGHT] = {0};
        for (uint32_t i = 0; i < EIGHT && t + i < end; i++)
            devices[i] = devices_of(r->plan, t + i, n_experts, bit, pairs);
        add_eight(plane, devices);
        for (int i = 0; i < EIGHT; i++)
            served += devices[i] != 0;
        for (uint32_t n = 0; n < nodes->n; n++)
            for (int i = 0; i < EIGHT; i++)
                nodes->reach[n] += (devices[i] & nodes->devices[n]) != 0;
    }
    for (uint32_t d = 0; d < r->ep; d++)
        for (int l = 0; l < PLANES; l++)
            part->reach[r->base + d] += (uint32_t)(plane[l] >> d & 1) << l;
    return served;
}

uint32_t moesim_reach_count(const struct moesim_reach *r, struct moesim_cost_part *part, uint64_t *rows,
                            uint32_t *n_touched)
{
    const struct moesim_placement *p = r->placement;
    struct nodes nodes;
    uint32_t served = 0;
    look_up(r, part);
    find_nodes(r, &nodes);
    for (uint32_t t = r->begin, end; t < r->end; t = end) {
        end = r->end - t < MOST_COUNTED ? r->end : t + MOST_COUNTED;
        served += count_block(r, t, end, part, &nodes);
    }
    for (uint32_t i = 0; i < nodes.n; i++)
        part->node_reach[nodes.node[i]] += nodes.reach[i];
    for (uint32_t e = 0; e < p->n_experts; e++)
        if (part->own_bit[e]) {
            rows[part->own_replica[e]] += part->own_pairs[e];
            part->sent[r->base + p->replica[part->own_replica[e]]] += part->own_pairs[e];
        }
    *n_touched = 0;
    for (uint32_t d = r->base; d < r->base + r->ep; d++)
        if (part->reach[d])
            part->touched[(*n_touched)++] = d;
    return served;
}
