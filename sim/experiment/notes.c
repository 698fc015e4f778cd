/*
 * From one routed layer to the metrics of its step.
 */
#include <math.h>
#include <string.h>

#include "sim/experiment/experiment_state.h"

void experiment_note(struct moesim_experiment *e, uint32_t metric, uint32_t layer, double value)
{
    for (uint32_t i = 0; i < e->n_points; i++)
        moesim_tally_set(&e->pricing[i].tally, metric, layer, e->step, value);
}

/* Whether any point asks for the metric, so that dear ones are computed on demand. */
static bool wanted(const struct moesim_experiment *e, uint32_t metric)
{
    bool any = false;
    for (uint32_t i = 0; i < e->n_points; i++)
        any |= e->pricing[i].point->measure[metric];
    return any;
}

static void note_loads(struct moesim_experiment *e, const struct moesim_survey_result *found, uint32_t l)
{
    const uint32_t n = e->shape.n_experts;
    struct experiment_layer *layer = &e->layer[l];
    double *swap = layer->previous_load;
    layer->previous_load = layer->load;
    layer->load = swap;
    for (uint32_t i = 0; i < n; i++) {
        layer->load[i] = (double)found->assigned[i];
        layer->batch_assigned[i] += found->assigned[i];
        layer->batch_kept[i] += found->kept[i];
    }
    for (uint32_t i = 0; i < e->n_points; i++)
        moesim_tally_loads(&e->pricing[i].tally, l, e->step, found->assigned, found->kept);
    if (wanted(e, MOESIM_LOAD_CV))
        experiment_note(e, MOESIM_LOAD_CV, l, moesim_load_cv(layer->load, n));
    if (wanted(e, MOESIM_MAX_VIO))
        experiment_note(e, MOESIM_MAX_VIO, l, moesim_max_vio(layer->load, n));
    if (wanted(e, MOESIM_LOAD_ENTROPY))
        experiment_note(e, MOESIM_LOAD_ENTROPY, l, moesim_load_entropy(layer->load, n));
    if (wanted(e, MOESIM_LOAD_GINI))
        experiment_note(e, MOESIM_LOAD_GINI, l, moesim_load_gini(layer->load, n, e->gini_scratch));
    if (e->step > 0 && wanted(e, MOESIM_LOAD_CHURN))
        experiment_note(e, MOESIM_LOAD_CHURN, l, moesim_load_churn(layer->load, layer->previous_load, n));
}

static void note_drops(struct moesim_experiment *e, const struct moesim_survey_result *found, uint32_t l)
{
    const struct moesim_plan *plan = &e->plan;
    if (plan->n_wanted > 0)
        experiment_note(e, MOESIM_DROPPED_FRACTION, l, 1 - (double)found->n_kept / (double)plan->n_wanted);
    if (found->n_tokens > 0 && plan->n_slots == 0) {
        experiment_note(e, MOESIM_DROPPED_TOKENS, l, 1 - (double)found->n_served / (double)found->n_tokens);
        experiment_note(e, MOESIM_EXPERTS_PER_TOKEN, l, (double)found->n_kept / (double)found->n_tokens);
    }
    experiment_note(e, MOESIM_BAD_ROWS, l, plan->n_bad_rows);
}

uint32_t experiment_survey_wants(const struct moesim_experiment *e)
{
    const bool confidence = wanted(e, MOESIM_ROUTER_ENTROPY) || wanted(e, MOESIM_ROUTER_Z);
    return (confidence ? MOESIM_SURVEY_CONFIDENCE : 0u) | (wanted(e, MOESIM_LAG1_OVERLAP) ? MOESIM_SURVEY_LAG1 : 0u) |
           (wanted(e, MOESIM_LAG64_OVERLAP) ? MOESIM_SURVEY_LAG64 : 0u);
}

void experiment_note_routing(struct moesim_experiment *e, uint32_t l)
{
    const struct moesim_survey_result *found = &e->found;
    note_loads(e, found, l);
    note_drops(e, found, l);
    if (e->plan.n_aux > 0)
        experiment_note(e, MOESIM_AUX_LOSS, l, moesim_plan_aux_loss(&e->plan));
    experiment_note(e, MOESIM_ROUTER_ENTROPY, l, found->confidence.entropy);
    experiment_note(e, MOESIM_ROUTER_Z, l, found->confidence.z);
    experiment_note(e, MOESIM_LAG1_OVERLAP, l, found->lag1_overlap);
    experiment_note(e, MOESIM_LAG64_OVERLAP, l, found->lag64_overlap);
}

/* Seconds of a batch in one layer: its own, and its part of summing the gradients. */
static double batch_time(const struct moesim_cost *c, uint32_t micro_batches)
{
    return c->time_layer_s + (isnan(c->time_sync_s) ? 0 : c->time_sync_s / micro_batches);
}

static void note_cost(struct moesim_tally *tally, uint32_t l, uint32_t step, uint32_t tokens, uint32_t micro_batches,
                      const struct moesim_cost *c)
{
    const double batch_s = batch_time(c, micro_batches);
    const struct {
        uint32_t metric;
        double value;
    } notes[] = {
        {MOESIM_DEVICE_IMBALANCE, c->device_imbalance},
        {MOESIM_NODE_IMBALANCE, c->node_imbalance},
        {MOESIM_BALANCEDNESS, c->balancedness},
        {MOESIM_DEVICE_FANOUT, c->device_fanout},
        {MOESIM_NODE_FANOUT, c->node_fanout},
        {MOESIM_BYTES_DISPATCH, c->bytes_dispatch},
        {MOESIM_BYTES_COMBINE, c->bytes_combine},
        {MOESIM_BYTES_INTER_NODE, c->bytes_inter_node},
        {MOESIM_BYTES_INTRA_NODE, c->bytes_intra_node},
        {MOESIM_TIME_GATE, c->time_gate_s},
        {MOESIM_TIME_DISPATCH, c->time_dispatch_s},
        {MOESIM_TIME_COMPUTE, c->time_compute_s},
        {MOESIM_TIME_COMBINE, c->time_combine_s},
        {MOESIM_TIME_LAYER, c->time_layer_s},
        {MOESIM_TIME_SYNC, c->time_sync_s},
        {MOESIM_TOKENS_PER_SECOND, batch_s > 0 ? tokens / batch_s : NAN},
    };
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        moesim_tally_set(tally, notes[i].metric, l, step, notes[i].value);
}

/* Adds the layer priced last to the devices' memory; with the last layer, notes the fullest. */
static void note_memory(struct moesim_experiment *e, struct experiment_pricing *pricing, uint32_t l)
{
    const struct moesim_point *p = pricing->point;
    const struct moesim_cost_work *work = &pricing->work;
    if (l == 0)
        memset(pricing->memory, 0, work->n_devices * sizeof *pricing->memory);
    moesim_memory_add_weights(&pricing->placing.placement[l], &p->cluster, &p->model, &p->options, e->shape.n_columns,
                              e->shape.expert_kind, pricing->memory);
    for (uint32_t d = 0; d < work->n_devices; d++)
        moesim_memory_add_tokens(&p->model, &p->options, (double)work->tokens[d], (double)work->received[d],
                                 work->experts[d].rows, &pricing->memory[d]);
    if (l + 1 < e->n_layers)
        return;
    const struct moesim_memory *fullest = &pricing->memory[moesim_memory_fullest(pricing->memory, work->n_devices)];
    moesim_tally_set(&pricing->tally, MOESIM_DEVICE_MEMORY, 0, e->step, moesim_memory_total(fullest));
    if (moesim_memory_total(fullest) > moesim_memory_total(&pricing->fullest))
        pricing->fullest = *fullest;
}

enum moesim_status experiment_place(struct moesim_experiment *e, struct moesim_error *err)
{
    for (uint32_t i = 0; i < e->n_points; i++) {
        struct experiment_pricing *pricing = &e->pricing[i];
        const struct moesim_migration *m = &pricing->placing.migration;
        bool moved;
        if (!pricing->point->has_cluster)
            continue;
        const enum moesim_status status = moesim_placing_begin(&pricing->placing, e->step, &moved, err);
        if (status != MOESIM_OK)
            return status;
        if (!moved)
            continue;
        moesim_tally_set(&pricing->tally, MOESIM_BYTES_MIGRATION, 0, e->step, m->bytes);
        moesim_tally_set(&pricing->tally, MOESIM_TIME_MIGRATION, 0, e->step,
                         moesim_migration_time(m, &pricing->point->cluster));
    }
    return MOESIM_OK;
}

enum moesim_status experiment_price(struct moesim_experiment *e, const struct moesim_batch *batch, uint32_t l,
                                    struct moesim_error *err)
{
    for (uint32_t i = 0; i < e->n_points; i++) {
        struct experiment_pricing *pricing = &e->pricing[i];
        const struct moesim_point *p = pricing->point;
        struct moesim_cost cost;
        if (p->has_cluster) {
            enum moesim_status status =
                moesim_placing_layer(&pricing->placing, e->step, l, &e->plan, batch, e->found.kept, err);
            if (status != MOESIM_OK)
                return status;
            status = moesim_cost_layer(&e->plan, batch, &pricing->placing.placement[l], &p->cluster, &p->model,
                                       &p->options, e->shape.expert_kind, &pricing->work, &cost, err);
            if (status != MOESIM_OK)
                return status;
            note_cost(&pricing->tally, l, e->step, e->found.n_tokens, p->micro_batches, &cost);
            note_memory(e, pricing, l);
            pricing->layers_s = (l ? pricing->layers_s : 0) + batch_time(&cost, p->micro_batches);
        } else {
            moesim_cost_flop(&e->plan, batch, &p->model, &p->options, 1, e->shape.expert_kind, e->found.kept, &cost);
        }
        moesim_tally_set(&pricing->tally, MOESIM_FLOP_EXPERT, l, e->step, cost.flop_expert);
        moesim_tally_set(&pricing->tally, MOESIM_FLOP_PADDED, l, e->step, cost.flop_padded);
        moesim_tally_set(&pricing->tally, MOESIM_FLOP_ROUTER, l, e->step, cost.flop_router);
        moesim_tally_set(&pricing->tally, MOESIM_PADDING_FRACTION, l, e->step, cost.padding_fraction);
        if (pricing->traffic && e->step >= p->warm_up)
            moesim_carried_add(pricing->traffic, &p->cluster, &pricing->work);
    }
    return MOESIM_OK;
}
