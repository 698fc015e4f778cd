/*
 * A whole experiment by hand: eight tokens, four experts, two choices each, on two nodes of two devices. The decisions
 * are those of the 8 x 4 matrix of the field's known answers: [0,1][1,0][0,3][0,1][0,2][2,1][0,3][1,3].
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>

#include "sim/experiment/experiment.h"
#include "sim/layer/products.h"

TestSuite(experiment, .timeout = 60);

enum { TOKENS = 8, EXPERTS = 4, CHOICES = 2, LAYERS = 2, STEPS = 3 };

static const uint32_t decisions[TOKENS][CHOICES] = {{0, 1}, {1, 0}, {0, 3}, {0, 1}, {0, 2}, {2, 1}, {0, 3}, {1, 3}};
/* The gate's columns make those choices; every row is a permutation of (3, 2, 1, 0) by rank. */
static float columns[TOKENS][EXPERTS];

/* ---- a workload of those columns, and a router that notes what it is told ---- */

static enum moesim_status fixed_init(void *state, const void *params, const struct moesim_workload_env *env,
                                     struct moesim_error *err)
{
    (void)state, (void)params, (void)env, (void)err;
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < CHOICES; c++)
            columns[t][decisions[t][c]] = (float)(3 - c);
    return MOESIM_OK;
}

static enum moesim_status fixed_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                     struct moesim_error *err)
{
    (void)state, (void)step, (void)layer, (void)err;
    batch->columns = &columns[0][0];
    batch->stride = EXPERTS;
    return MOESIM_OK;
}

static const struct moesim_workload fixed = {MOESIM_WORKLOAD_HEAD, .provides = MOESIM_NEEDS_COLUMNS, .name = "fixed",
                                             .init = fixed_init, .step = fixed_step};

struct witness_params {
    double capacity; /* slots of every expert; 0 = dropless */
    bool break_word;
};

static struct {
    uint32_t updates, routes, finishes, groups;
    uint64_t assigned, kept, tokens;
    double mean_assigned;
} seen;

struct witness {
    struct witness_params p;
};

static enum moesim_status witness_init(void *state, const void *params, const struct moesim_env *env,
                                       struct moesim_error *err)
{
    (void)env, (void)err;
    ((struct witness *)state)->p = *(const struct witness_params *)params;
    return MOESIM_OK;
}

static enum moesim_status witness_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                        struct moesim_error *err)
{
    (void)err;
    const struct witness *w = state;
    uint32_t used[EXPERTS] = {0}, slots = w->p.capacity > 0 ? (uint32_t)w->p.capacity : MOESIM_UNLIMITED;
    for (uint32_t g = 0; g < batch->n_groups * EXPERTS; g++)
        plan->capacity[g] = slots;
    for (uint32_t t = 0; t < TOKENS; t++) {
        plan->first[t] = t * CHOICES;
        for (uint32_t c = 0; c < CHOICES; c++) {
            const uint32_t i = t * CHOICES + c, e = decisions[t][c];
            const bool full = used[e] >= slots;
            plan->expert[i] = e;
            plan->fate[i] = full ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
            plan->slot[i] = full ? -1 : (int32_t)used[e]++;
            plan->weight[i] = full ? 0 : 0.5f;
        }
    }
    plan->first[TOKENS] = TOKENS * CHOICES;
    plan->n_pairs = plan->n_wanted = TOKENS * CHOICES;
    moesim_plan_add_aux(plan, "one", 0.25);
    moesim_plan_add_aux(plan, "two", 0.5);
    if (w->p.break_word)
        plan->expert[5] = EXPERTS;
    seen.routes++;
    seen.groups = batch->n_groups;
    return MOESIM_OK;
}

static enum moesim_status witness_update(void *state, const struct moesim_feedback *f, struct moesim_error *err)
{
    (void)state, (void)err;
    seen.updates++;
    seen.assigned = f->assigned[0];
    seen.kept = f->kept[0];
    seen.tokens = f->n_tokens;
    seen.mean_assigned = f->mean_assigned[1];
    return MOESIM_OK;
}

static void witness_finish(void *state)
{
    (void)state;
    seen.finishes++;
}

static enum moesim_status witness_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                        struct moesim_error *err)
{
    (void)params, (void)env, (void)err;
    shape->group = MOESIM_GROUP_BATCH;
    return MOESIM_OK;
}

static const struct moesim_router witness = {
    MOESIM_ROUTER_HEAD,       .name = "witness",       .state_size = sizeof(struct witness),
    .shape = witness_shape,   .init = witness_init,    .route = witness_route,
    .update = witness_update, .finish = witness_finish};

static const struct moesim_router_entry entry = {.spec = "witness", .router = &witness};

static struct moesim_point point(const struct witness_params *params)
{
    struct moesim_point p = {.mode = MOESIM_MODE_ROUTE,
                             .seed = 1,
                             .steps = STEPS,
                             .micro_batches = 1,
                             .router = &entry,
                             .router_params = params,
                             .router_spec = "witness",
                             .workload = &fixed,
                             .workload_spec = "fixed",
                             .n_tokens = TOKENS,
                             .model = {.layers = LAYERS,
                                       .experts = EXPERTS,
                                       .top_k = CHOICES,
                                       .d_model = 16,
                                       .d_ff = 32,
                                       .activation = MOESIM_SWIGLU,
                                       .weight_bytes = 2,
                                       .dispatch_bytes = 2,
                                       .combine_bytes = 2}};
    for (int m = 0; m < MOESIM_N_METRICS; m++)
        p.measure[m] = true;
    return p;
}

static void put_on_cluster(struct moesim_point *p, uint32_t nodes, uint32_t devices)
{
    p->has_cluster = true;
    p->cluster = moesim_cluster_find("h100-dgx")->cluster;
    p->cluster.nodes = nodes;
    p->cluster.devices_per_node = devices;
    p->cluster.ep = 0;
    p->placement = moesim_placement_find("contiguous");
    p->placement_spec = "contiguous";
    p->record_traffic = true;
}

static double value(const struct moesim_outcome *o, uint32_t metric, int32_t layer)
{
    for (uint64_t i = 0; i < o->n_summaries; i++)
        if (o->summary[i].metric == metric && o->summary[i].layer == layer)
            return o->summary[i].value;
    return NAN;
}

static void run(const struct moesim_point *const *points, uint32_t n, struct moesim_experiment **e,
                struct moesim_outcome *outcomes)
{
    struct moesim_error err;
    seen.updates = seen.routes = seen.finishes = 0;
    cr_assert_eq(moesim_experiment_create(points, n, 0, e, &err), MOESIM_OK, "%s", err.text);
    while (!moesim_experiment_done(*e))
        cr_assert_eq(moesim_experiment_step(*e, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(moesim_experiment_finish(*e, outcomes, &err), MOESIM_OK, "%s", err.text);
}

Test(experiment, load_and_drop_metrics_by_hand)
{
    const struct witness_params params = {.capacity = 4};
    const struct moesim_point p = point(&params);
    const struct moesim_point *points[] = {&p};
    struct moesim_experiment *e;
    struct moesim_outcome o;
    run(points, 1, &e, &o);
    for (int32_t l = -1; l < LAYERS; l++) {
        /* assigned (6, 5, 2, 3): mean 4, variance 10 / 4; sorted 2 3 5 6: Gini (2 * 47 - 5 * 16) / (4 * 16) */
        cr_assert_float_eq(value(&o, MOESIM_LOAD_CV, l), sqrt(2.5) / 4, 1e-12);
        cr_assert_float_eq(value(&o, MOESIM_MAX_VIO, l), 0.5, 1e-12);
        cr_assert_float_eq(value(&o, MOESIM_LOAD_GINI, l), 14.0 / 64, 1e-12);
        const double h =
            -(6. / 16 * log(6. / 16) + 5. / 16 * log(5. / 16) + 2. / 16 * log(2. / 16) + 3. / 16 * log(3. / 16));
        cr_assert_float_eq(value(&o, MOESIM_LOAD_ENTROPY, l), h / log(4), 1e-12);
        /* kept (4, 4, 2, 3); tokens 4, 6 and 7 lose one of two experts, none loses both */
        cr_assert_float_eq(value(&o, MOESIM_DROPPED_FRACTION, l), 3.0 / 16, 1e-12);
        cr_assert_float_eq(value(&o, MOESIM_DROPPED_TOKENS, l), 0, 1e-12);
        cr_assert_float_eq(value(&o, MOESIM_EXPERTS_PER_TOKEN, l), 13.0 / 8, 1e-12);
        cr_assert_eq(value(&o, MOESIM_DEAD_EXPERTS, l), 0);
        cr_assert_eq(value(&o, MOESIM_LOAD_CHURN, l), 0);
        cr_assert_eq(value(&o, MOESIM_BAD_ROWS, l), 0);
        cr_assert_float_eq(value(&o, MOESIM_AUX_LOSS, l), 0.75, 1e-12);
        /* shared with the token before: 2 1 1 1 1 0 1 of 2 */
        cr_assert_float_eq(value(&o, MOESIM_LAG1_OVERLAP, l), 7.0 / 14, 1e-12);
        cr_assert(isnan(value(&o, MOESIM_LAG64_OVERLAP, l)), "no 64 tokens apart");
        cr_assert(isnan(value(&o, MOESIM_TIME_LAYER, l)), "no cluster, no modelled time");
        cr_assert(isnan(value(&o, MOESIM_CPU_TIME_LAYER, l)), "not executed");
        cr_assert(value(&o, MOESIM_CPU_TIME_ROUTE, l) >= 0);
        cr_assert_eq(value(&o, MOESIM_FLOP_EXPERT, l), 13.0 * 6 * 16 * 32);
        cr_assert_eq(value(&o, MOESIM_FLOP_ROUTER, l), 2.0 * 8 * 16 * 4);
        /* p = softmax of (3, 2, 0, 0) in some order in every row */
        const double z = exp(3) + exp(2) + 2;
        cr_assert_float_eq(value(&o, MOESIM_ROUTER_Z, l), log(z) * log(z), 1e-5);
        cr_assert_float_eq(value(&o, MOESIM_ROUTER_ENTROPY, l), log(z) - (3 * exp(3) + 2 * exp(2)) / z, 1e-5);
    }
    moesim_experiment_destroy(e);
    cr_assert_eq(seen.finishes, LAYERS);
}

Test(experiment, updates_follow_the_global_batch)
{
    const struct witness_params params = {.capacity = 4};
    struct moesim_point p = point(&params);
    const struct moesim_point *points[] = {&p};
    struct moesim_experiment *e;
    struct moesim_outcome o;
    p.steps = 5;
    p.micro_batches = 2; /* two whole global batches and half a third */
    run(points, 1, &e, &o);
    cr_assert_eq(seen.routes, 5 * LAYERS);
    cr_assert_eq(seen.updates, 2 * LAYERS);
    cr_assert_eq(seen.assigned, 12);
    cr_assert_eq(seen.kept, 8);
    cr_assert_eq(seen.tokens, 16);
    cr_assert_eq(seen.mean_assigned, 10.0);
    moesim_experiment_destroy(e);

    p.phase = MOESIM_EVAL;
    run(points, 1, &e, &o);
    cr_assert_eq(seen.updates, 0, "evaluation never counts");
    moesim_experiment_destroy(e);
}

Test(experiment, points_are_routed_once_and_priced_apart)
{
    const struct witness_params params = {.capacity = 0};
    struct moesim_point a = point(&params), b = point(&params), c = point(&params);
    put_on_cluster(&a, 2, 2);
    put_on_cluster(&b, 1, 4);
    c.options.padding = MOESIM_PADDING_NONE;
    const struct moesim_point *points[] = {&a, &b, &c};
    struct moesim_experiment *e;
    struct moesim_outcome o[3];
    run(points, 3, &e, o);
    cr_assert_eq(seen.routes, STEPS * LAYERS, "once for all three");
    for (int i = 0; i < 3; i++)
        cr_assert_float_eq(value(&o[i], MOESIM_LOAD_CV, -1), sqrt(2.5) / 4, 1e-12);
    /* device loads 6 5 2 3; nodes 11 and 5 */
    cr_assert_float_eq(value(&o[0], MOESIM_DEVICE_IMBALANCE, -1), 1.5, 1e-12);
    cr_assert_float_eq(value(&o[0], MOESIM_BALANCEDNESS, -1), 2.0 / 3, 1e-12);
    cr_assert_float_eq(value(&o[0], MOESIM_NODE_IMBALANCE, -1), 11.0 / 8, 1e-12);
    cr_assert_float_eq(value(&o[0], MOESIM_DEVICE_FANOUT, -1), 2, 1e-12);
    /* both nodes: tokens 2, 4, 5, 6, 7; one node: 0, 1, 3 */
    cr_assert_float_eq(value(&o[0], MOESIM_NODE_FANOUT, -1), 13.0 / 8, 1e-12);
    cr_assert_float_eq(value(&o[1], MOESIM_NODE_FANOUT, -1), 1, 1e-12);
    /* homes 0 0 1 1 2 2 3 3: copies that leave home: 1 1 2 1 1 1 1 1 */
    cr_assert_eq(value(&o[0], MOESIM_BYTES_DISPATCH, -1), 9 * 32);
    cr_assert_eq(value(&o[0], MOESIM_BYTES_COMBINE, -1), 9 * 32);
    /* between nodes: token 2 to 3; 4 to 0; 5 to 1; 6 to 0; 7 to 1: five copies, there and back */
    cr_assert_eq(value(&o[0], MOESIM_BYTES_INTER_NODE, -1), 5 * 64);
    cr_assert_eq(value(&o[0], MOESIM_BYTES_INTRA_NODE, -1), 4 * 64);
    cr_assert_eq(value(&o[1], MOESIM_BYTES_INTER_NODE, -1), 0);
    cr_assert_eq(value(&o[1], MOESIM_BYTES_INTRA_NODE, -1), 9 * 64);
    cr_assert(isnan(value(&o[2], MOESIM_BYTES_DISPATCH, -1)));
    double bytes[MOESIM_N_LINKS] = {0};
    for (uint64_t i = 0; i < o[0].n_traffic; i++)
        bytes[o[0].traffic[i].link] += o[0].traffic[i].bytes;
    cr_assert_eq(bytes[MOESIM_LINK_DEVICE], 9 * 64.0 * STEPS * LAYERS);
    /* The same again by port: what leaves one device's enters another's. */
    cr_assert_eq(bytes[MOESIM_LINK_NVLINK_OUT], 4 * 64.0 * STEPS * LAYERS);
    cr_assert_eq(bytes[MOESIM_LINK_NVLINK_IN], 4 * 64.0 * STEPS * LAYERS);
    cr_assert_eq(bytes[MOESIM_LINK_NIC_OUT], 5 * 64.0 * STEPS * LAYERS);
    cr_assert_eq(bytes[MOESIM_LINK_NIC_IN], 5 * 64.0 * STEPS * LAYERS);
    cr_assert_eq(bytes[MOESIM_LINK_NODE] + bytes[MOESIM_LINK_LEAF_UP], 0);
    for (int i = 0; i < 2; i++) {
        const double layer = value(&o[i], MOESIM_TIME_LAYER, -1);
        cr_assert_float_eq(layer,
                           value(&o[i], MOESIM_TIME_GATE, -1) + value(&o[i], MOESIM_TIME_DISPATCH, -1) +
                               value(&o[i], MOESIM_TIME_COMPUTE, -1) + value(&o[i], MOESIM_TIME_COMBINE, -1),
                           1e-12 * layer);
        cr_assert_float_eq(value(&o[i], MOESIM_TOKENS_PER_SECOND, -1), TOKENS / layer, 1e-6 * TOKENS / layer);
    }
    cr_assert_gt(value(&o[0], MOESIM_TIME_DISPATCH, -1), value(&o[1], MOESIM_TIME_DISPATCH, -1));
    moesim_experiment_destroy(e);
}

/* One expert of 3 x 16 x 32 weights on each of four devices, in both layers. Device 0 computes six rows and has two of
 * the tokens, of which it receives six distinct ones. */
Test(experiment, memory_of_a_device)
{
    const struct witness_params params = {.capacity = 0};
    struct moesim_point roomy = point(&params);
    put_on_cluster(&roomy, 2, 2);
    struct moesim_point tight = roomy, training = roomy;
    tight.cluster.memory_bytes = 8000;
    training.options.backward = true;
    training.model.gradient_bytes = 4;
    training.model.optimizer_bytes = 12;
    const struct moesim_point *points[] = {&roomy, &tight, &training};
    struct moesim_experiment *e;
    struct moesim_outcome o[3];
    run(points, 3, &e, o);
    const double weights = 2 * 1536, activations = (2 * 16 + 6 * (2 * 16 + 3 * 32)) * 2, buffers = 6 * (32 + 32);
    cr_assert_eq(value(&o[0], MOESIM_DEVICE_MEMORY, -1), 2 * weights + activations + buffers);
    cr_assert_eq(value(&o[1], MOESIM_DEVICE_MEMORY, -1), 2 * weights + activations + buffers);
    cr_assert_str_empty(o[0].note);
    cr_assert_str_eq(o[1].note, "does not fit: the fullest device needs 8.128e-06 GB and has 8e-06 GB (weights "
                                "6.14e-06, gradients 0, optimizer 0, activations 1.6e-06, buffers 3.84e-07 GB)");
    /* Both layers' activations are kept; the gate's 64 weights are on all four devices, in bytes of no size. */
    cr_assert_eq(value(&o[2], MOESIM_DEVICE_MEMORY, -1),
                 (2 + 4 + 12) * weights + 2 * 64 * (4 + 12 / 4) + 2 * activations + buffers);
    cr_assert(isnan(value(&o[0], MOESIM_TIME_SYNC, -1)));
    const double sync = 6 * 4.1e-6 + 1.5 * 64 * 4 / 2 / roomy.cluster.nic_bytes_per_s,
                 layer = value(&o[2], MOESIM_TIME_LAYER, -1);
    cr_assert_float_eq(value(&o[2], MOESIM_TIME_SYNC, -1), sync, 1e-9 * sync);
    cr_assert_float_eq(value(&o[2], MOESIM_TOKENS_PER_SECOND, -1), TOKENS / (layer + sync), 1e-6 * TOKENS / layer);
    moesim_experiment_destroy(e);
}

Test(experiment, the_layer_runs_when_executed)
{
    const struct witness_params params = {.capacity = 4};
    struct moesim_point p = point(&params);
    p.mode = MOESIM_MODE_EXECUTE;
    const struct moesim_point *points[] = {&p};
    struct moesim_experiment *e;
    struct moesim_outcome o;
    run(points, 1, &e, &o);
    cr_assert_gt(value(&o, MOESIM_CPU_TIME_LAYER, -1), 0);
    cr_assert_gt(value(&o, MOESIM_CPU_FLOP_RATE, -1), 0);
    cr_assert(strstr(o.kernel_path, moesim_products_path(moesim_products_find(NULL))));
    moesim_experiment_destroy(e);
}

Test(experiment, a_broken_word_names_the_router)
{
    const struct witness_params params = {.break_word = true};
    const struct moesim_point p = point(&params);
    const struct moesim_point *points[] = {&p};
    struct moesim_experiment *e;
    struct moesim_error err;
    cr_assert_eq(moesim_experiment_create(points, 1, 0, &e, &err), MOESIM_OK);
    cr_assert_eq(moesim_experiment_step(e, &err), MOESIM_EBROKEN);
    cr_assert(strstr(err.text, "witness"), "%s", err.text);
    moesim_experiment_destroy(e);
}

Test(experiment, an_allowance_of_memory_is_kept)
{
    const struct witness_params params = {.capacity = 4};
    const struct moesim_point p = point(&params);
    const struct moesim_point *points[] = {&p};
    struct moesim_experiment *e;
    struct moesim_error err;
    cr_assert_eq(moesim_experiment_create(points, 1, 4096, &e, &err), MOESIM_ENOMEM);
    cr_assert_null(e);
    cr_assert_eq(moesim_experiment_create(points, 1, 2 * moesim_experiment_memory(&p) + 65536, &e, &err), MOESIM_OK,
                 "%s", err.text);
    moesim_experiment_destroy(e);
}

/* One layer at a time it is the same run, and each plan can be looked at before the next. */
Test(experiment, layer_by_layer)
{
    const struct witness_params params = {.capacity = 4};
    const struct moesim_point p = point(&params);
    const struct moesim_point *points[] = {&p};
    struct moesim_experiment *whole, *e;
    struct moesim_outcome a, b;
    struct moesim_error err;
    struct moesim_routed routed;
    run(points, 1, &whole, &a);
    cr_assert_eq(moesim_experiment_create(points, 1, 0, &e, &err), MOESIM_OK);
    for (uint32_t i = 0; i < p.steps * LAYERS; i++) {
        cr_assert_eq(moesim_experiment_steps_done(e), i / LAYERS);
        cr_assert_eq(moesim_experiment_step_layer(e, &routed, &err), MOESIM_OK, "%s", err.text);
        cr_assert(routed.batch->step == i / LAYERS && routed.batch->layer == i % LAYERS);
        cr_assert_eq(routed.plan->n_tokens, routed.batch->n_tokens);
    }
    cr_assert(moesim_experiment_done(e));
    cr_assert_eq(moesim_experiment_finish(e, &b, &err), MOESIM_OK);
    cr_assert_eq(a.n_summaries, b.n_summaries);
    for (uint64_t i = 0; i < a.n_summaries; i++)
        if (moesim_metrics[a.summary[i].metric].kind != MOESIM_MEASURED)
            cr_assert_eq(a.summary[i].value, b.summary[i].value, "%s", moesim_metrics[a.summary[i].metric].name);
    moesim_experiment_destroy(whole);
    moesim_experiment_destroy(e);
}
