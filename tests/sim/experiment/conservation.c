/*
 * Nothing is lost or made up on the way, in any layer of any step of a run: what the router kept for an expert is what
 * its copies compute, what one port sends another receives, and every device's part adds up to the whole.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "sim/experiment/experiment.h"
#include "sim/experiment/experiment_state.h"
#include "sim/study/study.h"
#include "tests/sim/registry.h"

TestSuite(conservation, .timeout = 120);

enum { MOST_EXPERTS = 64 };

/* What the router kept, by expert: of those that compute. */
static uint64_t count_kept(const struct moesim_experiment *e, const struct moesim_plan *plan,
                           uint64_t kept[MOST_EXPERTS])
{
    uint64_t n = 0;
    memset(kept, 0, MOST_EXPERTS * sizeof *kept);
    for (uint64_t i = 0; i < plan->n_pairs; i++) {
        if (plan->fate[i] != MOESIM_KEPT ||
            (e->shape.expert_kind && e->shape.expert_kind[plan->expert[i]] != MOESIM_EXPERT_FFN))
            continue;
        kept[plan->expert[i]]++;
        n++;
    }
    return n;
}

/* Rows of an expert's copies in all EP groups. */
static double served(const struct moesim_cost_work *work, const struct moesim_placement *placement, uint32_t expert)
{
    double rows = 0;
    for (uint32_t x = 0; x < work->n_ep_groups; x++)
        for (uint32_t r = placement->first[expert]; r < placement->first[expert + 1]; r++)
            rows += work->rows[(size_t)x * work->n_replicas + r];
    return rows;
}

static void check_ports(const struct moesim_cost_work *work, const char *what)
{
    uint64_t nvlink[2] = {0}, nic[2] = {0}, leaf[2] = {0}, hops = 0;
    for (uint32_t d = 0; d < work->n_devices; d++) {
        nvlink[0] += work->port[d].nvlink_out;
        nvlink[1] += work->port[d].nvlink_in;
        nic[0] += work->port[d].nic_out;
        nic[1] += work->port[d].nic_in;
    }
    for (uint32_t l = 0; l < work->n_leaves; l++) {
        leaf[0] += work->leaf[l].up;
        leaf[1] += work->leaf[l].down;
    }
    cr_assert(nvlink[0] == nvlink[1] && nic[0] == nic[1] && leaf[0] == leaf[1] && leaf[0] <= nic[0], "%s", what);
    for (size_t i = 0; work->hops && i < work->hops->room; i++)
        hops += work->hops->hop[i].copies;
    cr_assert(!work->hops || hops == nvlink[0] + nic[0], "%s", what);
}

static void check_point(const struct moesim_experiment *e, uint32_t i, uint32_t layer, const struct moesim_routed *now)
{
    const struct moesim_cost_work *work = moesim_experiment_work(e, i);
    const struct moesim_placement *placement = &e->pricing[i].placing.placement[layer];
    const char *what = e->pricing[i].point->json;
    uint64_t kept[MOST_EXPERTS], pairs = 0, node_pairs = 0, tokens = 0;
    const uint64_t n = count_kept(e, now->plan, kept);
    for (uint32_t x = 0; x < placement->n_experts; x++)
        cr_assert_eq(served(work, placement, x), (double)kept[x], "expert %u: %s", x, what);
    for (uint32_t d = 0; d < work->n_devices; d++) {
        pairs += work->pairs[d];
        tokens += work->tokens[d];
    }
    for (uint32_t node = 0; node < work->n_nodes; node++)
        node_pairs += work->node_pairs[node];
    cr_assert(pairs == n && node_pairs == n && tokens == now->batch->n_tokens, "%s", what);
    check_ports(work, what);
}

/* All points of a study, step by step, layer by layer; how many layers were looked at. */
static uint32_t run_study(const char *text)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_mistakes mistakes = {0};
    struct moesim_registry registry = registry_of_all();
    const struct moesim_point *const *point;
    uint32_t n, checked = 0;
    struct moesim_study *study = moesim_study_parse("s.yaml", text, strlen(text), arena, &mistakes);
    cr_assert(study && moesim_study_resolve(study, &registry, &point, &n, &mistakes), "%s", mistakes.item[0].text);
    for (uint32_t first = 0, end; first < n; first = end) {
        struct moesim_experiment *e;
        struct moesim_error err;
        for (end = first + 1; end < n && point[end]->route_hash == point[first]->route_hash;)
            end++;
        cr_assert_eq(moesim_experiment_create(point + first, end - first, 0, &e, &err), MOESIM_OK, "%s", err.text);
        for (uint32_t l = 0; !moesim_experiment_done(e); l = (l + 1) % point[first]->model.layers) {
            struct moesim_routed now;
            cr_assert_eq(moesim_experiment_step_layer(e, &now, &err), MOESIM_OK, "%s", err.text);
            for (uint32_t i = 0; i < end - first; i++, checked++)
                check_point(e, i, l, &now);
        }
        moesim_experiment_destroy(e);
    }
    moesim_arena_destroy(arena);
    return checked;
}

#define HEAD                                                                                                           \
    "seeds: 1\nsteps: 6\nwarm_up: 2\nmodel: {experts: 16, top_k: 3, layers: 2, d_model: 16, d_ff: 16}\n"               \
    "workload: {name: lognormal, sigma: 1, tokens: 96}\n"

/* Every placement and every way to choose a copy, while some are made anew. */
Test(conservation, placements_and_copies)
{
    cr_assert_eq(
        run_study(HEAD "router: [softmax-topk, switch]\n"
                       "cluster: {name: h100-dgx, nodes: 2, devices_per_node: 4, ep: [8, 4]}\n"
                       "placement:\n  - contiguous\n  - round-robin\n  - random\n"
                       "  - {name: lpt, redundant: 8, fit_steps: 2, every: 1, replica: [static, local, round-robin, "
                       "random, lp]}\n"
                       "  - {name: eplb, redundant: [0, 8], fit_steps: 2, every: 2}\n"
                       "  - {name: eplb, redundant: 8, from: oracle, replica: [local, lp]}\n"
                       "  - {name: coactivation, fit_steps: 2}\n  - {name: affinity, fit_steps: 2}\n"),
        2 * 2 * 14 * 6 * 2);
}

/* Every form of dispatch, with shared uplinks and EP groups that are no whole nodes; routers that drop, that choose by
 * expert, that take experts which compute nothing. */
Test(conservation, forms_of_dispatch)
{
    cr_assert_eq(run_study(HEAD "router: [softmax-topk, {name: softmax-topk, capacity_factor: 1, overflow: reroute}, "
                                "expert-choice, zero-expert, top-p]\n"
                                "cluster: {name: h100-dgx, nodes: 4, devices_per_node: 3, leaf_nodes: 2, "
                                "leaf_oversubscription: [1, 2], ep: [12, 4]}\n"
                                "dispatch: [flat, normal, low-latency, all-gather, padded]\nchunks: [1, 2]\n"),
                 5 * 2 * 2 * 5 * 2 * 6 * 2);
}
