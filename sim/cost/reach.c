/*
 * What a token reaches are the bits of two words: its devices, its nodes and whether it is served at all. Tokens are
 * counted in all columns of such words at once: bit b of plane l is bit l of the count of bit b. Pairs are counted by
 * entry of a table, which is an expert, or a replica where tokens take turns among several.
 */
#include "sim/cost/reach.h"

#include <string.h>

#include "sim/cost/compute.h"

enum { PLANES = 8, EIGHT = 8, MOST_COUNTED = (1 << PLANES) - EIGHT };
enum { DEVICES, NODES, SERVED = 63 }; /* words, and the bit of the second behind those of nodes */

#define NO_REPLICA UINT32_MAX

/* Whether the home's tokens have one replica of each expert, or take turns among all. */
static bool has_one_replica(const struct moesim_placement *p)
{
    return p->choice == MOESIM_STATIC || p->choice == MOESIM_LOCAL || p->first[p->n_experts] == p->n_experts;
}

static uint32_t n_nodes(const struct moesim_reach *r)
{
    return r->node[r->base + r->ep - 1] - r->node[r->base] + 1;
}

bool moesim_reach_fits(const struct moesim_reach *r)
{
    const uint32_t n_pairs = r->plan->first[r->end] - r->plan->first[r->begin];
    return r->ep <= 64 && n_nodes(r) <= SERVED && n_pairs >= r->placement->n_experts &&
           (r->placement->choice == MOESIM_ROUND_ROBIN || has_one_replica(r->placement));
}

/* An entry of the table that stands for a replica, or for none. */
static void set_entry(const struct moesim_reach *r, struct moesim_cost_part *part, uint32_t entry, uint32_t replica)
{
    part->own_replica[entry] = replica;
    part->own_pairs[entry] = 0;
    part->own_reach[entry] = (moesim_reach_bits){0, 0};
    if (replica == NO_REPLICA)
        return;
    const uint32_t device = r->placement->replica[replica];
    const uint32_t node = r->node[r->base + device] - r->node[r->base];
    part->own_reach[entry] = (moesim_reach_bits){UINT64_C(1) << device, UINT64_C(1) << SERVED | UINT64_C(1) << node};
}

/* The entries are the experts. */
static void list_experts(const struct moesim_reach *r, struct moesim_cost_part *part)
{
    const struct moesim_placement *p = r->placement;
    for (uint32_t e = 0; e < p->n_experts; e++) {
        const uint32_t n = p->first[e + 1] - p->first[e];
        const uint32_t own = n == 1 ? p->first[e] : p->nearest[(size_t)r->local * p->n_experts + e];
        set_entry(r, part, e, moesim_is_ffn(r->expert_kind, e) ? own : NO_REPLICA);
    }
}

/* The entries are the replicas, with one for all experts that are not FFN. */
static void list_replicas(const struct moesim_reach *r, struct moesim_cost_part *part)
{
    const struct moesim_placement *p = r->placement;
    const uint32_t n_replicas = p->first[p->n_experts];
    for (uint32_t i = 0; i < n_replicas; i++)
        set_entry(r, part, i, i);
    set_entry(r, part, n_replicas, NO_REPLICA);
    for (uint32_t e = 0; e < p->n_experts; e++) {
        const uint32_t first = p->first[e], n = p->first[e + 1] - first;
        part->own_turns[e] = moesim_is_ffn(r->expert_kind, e)
                                 ? (struct moesim_turns){n > 1 ? UINT64_MAX / n + 1 : 0, first, n}
                                 : (struct moesim_turns){0, n_replicas, 1};
    }
}

/* How a block is counted: whether all of its pairs are kept on experts that are placed, and whether tokens take turns
 * among replicas. */
struct manner {
    bool plain, turns;
};

/* first + t % n, by the reciprocal (Lemire, Kaser and Kurz, 2019: exact for 32 bits). */
static inline uint32_t in_turn(const struct moesim_turns *turns, uint32_t t)
{
    return turns->first + (uint32_t)((__uint128_t)(turns->inverse * t) * turns->n >> 64);
}

/* What a token reaches; its pairs are counted. */
static inline __attribute__((always_inline)) moesim_reach_bits
reach_of(const struct moesim_reach *r, uint32_t t, const struct moesim_cost_part *part, const struct manner manner)
{
    const struct moesim_plan *plan = r->plan;
    const struct moesim_turns *turns = part->own_turns;
    const moesim_reach_bits *reach = part->own_reach;
    uint32_t *pairs = part->own_pairs;
    moesim_reach_bits bits = {0, 0};
    for (uint32_t i = plan->first[t], end = plan->first[t + 1]; i < end; i++) {
        const uint32_t e = plan->expert[i];
        if (!manner.plain && (plan->fate[i] != MOESIM_KEPT || e >= r->placement->n_experts))
            continue;
        const uint32_t entry = manner.turns ? in_turn(&turns[e], t) : e;
        bits |= reach[entry];
        pairs[entry]++;
    }
    return bits;
}

/* a + b + c bit by bit: the lower bit of each sum goes to `sum`, the upper is returned. */
static inline moesim_reach_bits add_three(moesim_reach_bits a, moesim_reach_bits b, moesim_reach_bits c,
                                          moesim_reach_bits *sum)
{
    const moesim_reach_bits differ = a ^ b;
    *sum = differ ^ c;
    return (a & b) | (differ & c);
}

static inline void add_eight(moesim_reach_bits plane[PLANES], const moesim_reach_bits w[EIGHT])
{
    moesim_reach_bits two[4], four[2];
    for (int i = 0; i < 4; i++)
        two[i] = add_three(plane[0], w[2 * i], w[2 * i + 1], &plane[0]);
    for (int i = 0; i < 2; i++)
        four[i] = add_three(plane[1], two[2 * i], two[2 * i + 1], &plane[1]);
    moesim_reach_bits eight = add_three(plane[2], four[0], four[1], &plane[2]);
    for (int l = 3; l < PLANES; l++) {
        const moesim_reach_bits both = plane[l] & eight;
        plane[l] ^= eight;
        eight = both;
    }
}

/* Tokens [begin, end), no more than MOST_COUNTED. */
static inline __attribute__((always_inline)) void count_in_manner(const struct moesim_reach *r, uint32_t begin,
                                                                  uint32_t end, const struct moesim_cost_part *part,
                                                                  moesim_reach_bits plane[PLANES],
                                                                  const struct manner manner)
{
    uint32_t t = begin;
    for (; t + EIGHT <= end; t += EIGHT) {
        moesim_reach_bits reach[EIGHT];
        for (uint32_t i = 0; i < EIGHT; i++)
            reach[i] = reach_of(r, t + i, part, manner);
        add_eight(plane, reach);
    }
    moesim_reach_bits rest[EIGHT] = {{0, 0}};
    for (uint32_t i = 0; t + i < end; i++)
        rest[i] = reach_of(r, t + i, part, manner);
    add_eight(plane, rest);
}

static uint32_t count_of(const moesim_reach_bits plane[PLANES], int word, uint32_t bit)
{
    uint32_t count = 0;
    for (int l = 0; l < PLANES; l++)
        count += (uint32_t)(plane[l][word] >> bit & 1) << l;
    return count;
}

/* Tokens [begin, end), no more than MOST_COUNTED; returns how many are served. */
static uint32_t count_block(const struct moesim_reach *r, uint32_t begin, uint32_t end, struct moesim_cost_part *part,
                            bool turns)
{
    const bool plain = r->plan->n_experts == r->placement->n_experts && moesim_plan_all_kept(r->plan, begin, end);
    moesim_reach_bits plane[PLANES] = {{0, 0}};
    if (plain && !turns)
        count_in_manner(r, begin, end, part, plane, (struct manner){true, false});
    else if (plain)
        count_in_manner(r, begin, end, part, plane, (struct manner){true, true});
    else if (!turns)
        count_in_manner(r, begin, end, part, plane, (struct manner){false, false});
    else
        count_in_manner(r, begin, end, part, plane, (struct manner){false, true});
    for (uint32_t d = 0; d < r->ep; d++)
        part->reach[r->base + d] += count_of(plane, DEVICES, d);
    for (uint32_t n = 0, first = r->node[r->base]; n < n_nodes(r); n++)
        part->node_reach[first + n] += count_of(plane, NODES, n);
    return count_of(plane, NODES, SERVED);
}

uint32_t moesim_reach_count(const struct moesim_reach *r, struct moesim_cost_part *part, uint64_t *rows,
                            uint32_t *n_touched)
{
    const struct moesim_placement *p = r->placement;
    const bool turns = !has_one_replica(p);
    const uint32_t n_entries = turns ? p->first[p->n_experts] : p->n_experts;
    uint32_t served = 0;
    if (turns)
        list_replicas(r, part);
    else
        list_experts(r, part);
    for (uint32_t t = r->begin, end; t < r->end; t = end) {
        end = r->end - t < MOST_COUNTED ? r->end : t + MOST_COUNTED;
        served += count_block(r, t, end, part, turns);
    }
    for (uint32_t i = 0; i < n_entries; i++)
        if (part->own_replica[i] != NO_REPLICA) {
            rows[part->own_replica[i]] += part->own_pairs[i];
            part->sent[r->base + p->replica[part->own_replica[i]]] += part->own_pairs[i];
        }
    *n_touched = 0;
    for (uint32_t d = r->base; d < r->base + r->ep; d++)
        if (part->reach[d])
            part->touched[(*n_touched)++] = d;
    return served;
}
