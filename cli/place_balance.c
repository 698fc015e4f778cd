/* Loads, fan-out and hops of placements. */
#include "cli/place_balance.h"

#include <math.h>
#include <string.h>

#include <moesim/plan.h>

#include "sim/experiment/groups.h"
#include "sim/placement/replica.h"

struct judge {
    const struct place_input *in;
    const struct moesim_cluster *cluster;
    uint32_t n_devices, n_nodes; /* of the cluster, or for loads of an EP group */
    double *device_load;         /* [n_devices] */
    double *node_load;           /* [n_nodes] */
    double *share;               /* [max_replicas] */
    void *balance;               /* scratch of moesim_balance_solve */
    uint32_t *device_stamp;      /* [n_devices] the last token seen, plus 1 */
    uint32_t *node_stamp;        /* [n_nodes] the same */
    uint32_t *home, *was;        /* [n_tokens] device; where its first choice was in the layer before */
    uint32_t group_start[2];
    struct moesim_batch batch;
    struct moesim_plan plan;
};

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory to judge the placement");
}

/* Room for the decisions of a layer. */
static enum moesim_status open_plan(struct judge *j, struct moesim_arena *arena, struct moesim_error *err)
{
    const struct place_input *in = j->in;
    j->home = moesim_alloc(arena, in->n_tokens, sizeof *j->home);
    j->was = moesim_alloc(arena, in->n_tokens, sizeof *j->was);
    if (!j->home || !j->was)
        return no_memory(err);
    moesim_home_devices(j->home, in->n_tokens, j->n_devices);
    j->group_start[1] = in->n_tokens;
    j->batch = (struct moesim_batch){.struct_size = sizeof j->batch,
                                     .n_tokens = in->n_tokens,
                                     .n_experts = in->stats.n_experts,
                                     .n_groups = 1,
                                     .group_start = j->group_start,
                                     .n_devices = j->n_devices,
                                     .device = j->home};
    const uint64_t pairs = (uint64_t)in->n_tokens * in->top_k;
    const enum moesim_status status =
        moesim_plan_init(&j->plan, in->n_tokens, in->stats.n_experts, 1, pairs, 0, arena, err);
    if (status != MOESIM_OK)
        return status;
    moesim_plan_reset(&j->plan, &j->batch);
    return MOESIM_OK;
}

static enum moesim_status open_judge(struct judge *j, const struct moesim_placement *placement,
                                     struct moesim_arena *arena, struct moesim_error *err)
{
    j->n_devices = j->in->trace ? moesim_cluster_devices(j->cluster) : placement->n_devices;
    j->n_nodes = moesim_cluster_node(j->cluster, j->n_devices - 1) + 1;
    j->device_load = moesim_alloc(arena, j->n_devices, sizeof *j->device_load);
    j->node_load = moesim_alloc(arena, j->n_nodes, sizeof *j->node_load);
    j->share = moesim_alloc(arena, placement->max_replicas, sizeof *j->share);
    j->balance = moesim_alloc(arena, moesim_balance_scratch(placement->n_devices), 1);
    j->device_stamp = moesim_alloc(arena, j->n_devices, sizeof *j->device_stamp);
    j->node_stamp = moesim_alloc(arena, j->n_nodes, sizeof *j->node_stamp);
    if (!j->device_load || !j->node_load || !j->share || !j->balance || !j->device_stamp || !j->node_stamp)
        return no_memory(err);
    return j->in->trace ? open_plan(j, arena, err) : MOESIM_OK;
}

static void share_loads(struct judge *j, const struct moesim_placement *p, const double *load)
{
    if (p->choice == MOESIM_LP)
        moesim_balance_solve(p, load, j->share, j->balance);
    for (uint32_t e = 0; e < p->n_experts; e++)
        for (uint32_t r = p->first[e]; r < p->first[e + 1]; r++)
            j->device_load[p->replica[r]] +=
                p->choice == MOESIM_LP ? j->share[r] : load[e] / (p->first[e + 1] - p->first[e]);
}

/* What a layer's tokens reach, summed over them. */
struct reach {
    uint64_t tokens, devices, nodes, hops;
};

/* Where the token's choices go; its first one's device is where it is for the next layer. */
static void serve_token(struct judge *j, const struct moesim_placement *p, uint32_t t, struct reach *reach)
{
    const uint32_t ep = p->n_devices, source = j->home[t] % ep;
    bool served = false;
    for (uint32_t i = j->plan.first[t]; i < j->plan.first[t + 1]; i++) {
        if (j->plan.fate[i] != MOESIM_KEPT)
            continue;
        const uint32_t r = moesim_replica_pick(p, source, t, j->plan.expert[i], i);
        const uint32_t device = j->home[t] - source + p->replica[r], node = moesim_cluster_node(j->cluster, device);
        j->device_load[device]++;
        reach->devices += j->device_stamp[device] != t + 1;
        reach->nodes += j->node_stamp[node] != t + 1;
        j->device_stamp[device] = j->node_stamp[node] = t + 1;
        if (served)
            continue;
        served = true;
        reach->hops += j->was[t] != device;
        j->was[t] = device;
    }
    reach->tokens += served;
}

/* Loads, fan-out, hops of a layer's decisions. */
static enum moesim_status serve_decisions(struct judge *j, struct moesim_placement *p, uint32_t layer,
                                          struct place_figures *figures, struct moesim_error *err)
{
    struct trace_pairs pairs = {.first = j->plan.first, .expert = j->plan.expert, .fate = j->plan.fate};
    const enum moesim_status status = place_input_layer(j->in, layer, &pairs, err);
    if (status != MOESIM_OK)
        return status;
    struct reach reach = {0};
    j->plan.n_pairs = j->plan.first[j->in->n_tokens];
    j->batch.layer = layer;
    moesim_replica_prepare(p, &j->plan, &j->batch, NULL);
    memset(j->device_stamp, 0, j->n_devices * sizeof *j->device_stamp);
    memset(j->node_stamp, 0, j->n_nodes * sizeof *j->node_stamp);
    for (uint32_t t = 0; t < j->in->n_tokens; t++)
        serve_token(j, p, t, &reach);
    figures->device_fanout = (double)reach.devices / (double)reach.tokens;
    figures->node_fanout = (double)reach.nodes / (double)reach.tokens;
    if (layer > 0)
        figures->hops = (double)reach.hops / (double)reach.tokens;
    return MOESIM_OK;
}

static double imbalance(const double *load, uint32_t n)
{
    double most = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        most = load[i] > most ? load[i] : most;
        sum += load[i];
    }
    return most * n / sum;
}

static enum moesim_status judge_layer(struct judge *j, struct moesim_placement *p, uint32_t layer,
                                      struct place_figures *figures, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    const double none = (double)NAN;
    *figures = (struct place_figures){.device_fanout = none, .node_fanout = none, .hops = none};
    memset(j->device_load, 0, j->n_devices * sizeof *j->device_load);
    memset(j->node_load, 0, j->n_nodes * sizeof *j->node_load);
    if (j->in->trace)
        status = serve_decisions(j, p, layer, figures, err);
    else
        share_loads(j, p, j->in->stats.load + (size_t)layer * p->n_experts);
    for (uint32_t d = 0; d < j->n_devices; d++)
        j->node_load[moesim_cluster_node(j->cluster, d)] += j->device_load[d];
    figures->device_imbalance = imbalance(j->device_load, j->n_devices);
    figures->node_imbalance = imbalance(j->node_load, j->n_nodes);
    return status;
}

enum moesim_status place_judge(const struct place_input *input, const struct moesim_cluster *cluster,
                               struct moesim_placement *placement, struct moesim_arena *arena,
                               struct place_figures *figures, struct moesim_error *err)
{
    struct judge j = {.in = input, .cluster = cluster};
    enum moesim_status status = open_judge(&j, placement, arena, err);
    for (uint32_t l = 0; l < input->stats.n_layers && status == MOESIM_OK; l++)
        status = judge_layer(&j, &placement[l], l, &figures[l], err);
    return status;
}
