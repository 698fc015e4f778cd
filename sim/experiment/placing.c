/*
 * The placement of one point while its run goes on. Statistics are gathered over the steps that the next placement
 * looks at, and forgotten when it is made.
 */
#include "sim/experiment/placing.h"

#include <assert.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/placement/replica.h"

/* ---- set-up ---- */

static bool can_change(const struct moesim_placing *p)
{
    return p->fit && (p->source == MOESIM_FROM_WARM_UP || p->fit->every > 0);
}

static enum moesim_status create_placements(struct moesim_placement **placement, const struct moesim_point *point,
                                            uint32_t n_experts, uint64_t max_pairs, struct moesim_arena *arena,
                                            struct moesim_error *err)
{
    return moesim_placements_create(point->placement, point->placement_params, point->model.layers, n_experts,
                                    &point->cluster, max_pairs, arena, placement, err);
}

static enum moesim_status place(struct moesim_placing *p, const struct moesim_placement_stats *stats,
                                struct moesim_placement *placement, struct moesim_error *err)
{
    const struct moesim_point *point = p->point;
    const enum moesim_status status =
        moesim_place(point->placement, point->placement_params, stats, point->seed, &point->cluster, placement, err);
    if (status != MOESIM_OK)
        moesim_error_prefix(err, "placement %s", point->placement_spec);
    return status;
}

/* The loads of the file, whose one row stands for all layers and which knows the model's experts only; or even ones. */
static void first_loads(struct moesim_placing *p)
{
    const struct moesim_file_array *file = p->source == MOESIM_FROM_FILE ? &p->point->placement_loads : NULL;
    const size_t n = p->stats.n_experts, width = p->point->model.experts;
    for (size_t l = 0; p->stats.load && l < p->n_layers; l++)
        for (size_t e = 0; e < n; e++) {
            const size_t row = file && file->n_dimensions == 2 ? l * width : 0;
            p->stats.load[l * n + e] = !file ? 1 : e < width ? (double)file->values[row + e] : 0;
        }
}

static void forget(struct moesim_placing *p)
{
    const size_t n = p->stats.n_experts, square = n * n;
    if (p->stats.load)
        memset(p->stats.load, 0, p->n_layers * n * sizeof(double));
    if (p->stats.together)
        memset(p->stats.together, 0, p->n_layers * square * sizeof(double));
    if (p->stats.next)
        memset(p->stats.next, 0, (p->n_layers - 1) * square * sizeof(double));
}

/* The next placement is made before step `at`, from the `window` steps before it. */
static void plan_placement(struct moesim_placing *p, uint32_t at, uint32_t window)
{
    p->place_at = at;
    p->gather_from = at - window;
    forget(p);
}

static void plan_first(struct moesim_placing *p)
{
    const uint32_t start = p->point->warm_up, every = p->fit->every;
    if (p->source == MOESIM_FROM_WARM_UP)
        plan_placement(p, start, p->fit->fit_steps);
    else if (every)
        plan_placement(p, start + every, moesim_placement_window(p->fit));
}

/* Experts that are placed. Zero-computation experts behind the FFN ones are computed where the token is. */
static uint32_t placed_experts(uint32_t n_experts, const uint8_t *expert_kind)
{
    while (expert_kind && n_experts > 1 && expert_kind[n_experts - 1] != MOESIM_EXPERT_FFN)
        n_experts--;
    return n_experts;
}

enum moesim_status moesim_placing_init(struct moesim_placing *placing, const struct moesim_point *point,
                                       uint32_t n_experts, const uint8_t *expert_kind, uint64_t max_pairs,
                                       struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_placement_rule *rule = point->placement;
    *placing = (struct moesim_placing){.point = point,
                                       .fit = moesim_placement_fit(rule, point->placement_params),
                                       .n_layers = point->model.layers,
                                       .expert_kind = expert_kind,
                                       .gather_from = UINT32_MAX,
                                       .place_at = UINT32_MAX};
    if (placing->fit)
        placing->source = moesim_placement_source(placing->fit);
    n_experts = placed_experts(n_experts, expert_kind);
    enum moesim_status status = create_placements(&placing->placement, point, n_experts, max_pairs, arena, err);
    if (status == MOESIM_OK)
        status = moesim_placement_stats_init(&placing->stats, rule->wants, point->model.layers, n_experts, arena, err);
    if (status == MOESIM_OK && can_change(placing)) {
        status = create_placements(&placing->before, point, n_experts, max_pairs, arena, err);
        if (status == MOESIM_OK)
            status = moesim_migration_init(&placing->migration, &point->cluster, arena, err);
    }
    if (status == MOESIM_OK && rule->wants & MOESIM_WANTS_NEXT &&
        !(placing->choice = moesim_alloc(arena, point->n_tokens, sizeof *placing->choice)))
        status = moesim_fail(err, MOESIM_ENOMEM, "no memory for the choices of %u tokens", point->n_tokens);
    if (status != MOESIM_OK)
        return status;
    placing->stats.n_groups = point->model.n_groups;
    first_loads(placing);
    status = place(placing, &placing->stats, placing->placement, err);
    if (status == MOESIM_OK && can_change(placing))
        plan_first(placing);
    return status;
}

/* ---- between steps ---- */

static void swap_placements(struct moesim_placing *p)
{
    struct moesim_placement *old = p->placement;
    p->placement = p->before;
    p->before = old;
}

enum moesim_status moesim_placing_begin(struct moesim_placing *p, uint32_t step, bool *moved, struct moesim_error *err)
{
    *moved = false;
    if (step != p->place_at)
        return MOESIM_OK;
    const enum moesim_status status = place(p, &p->stats, p->before, err);
    if (status != MOESIM_OK)
        return status;
    swap_placements(p);
    *moved = !(p->source == MOESIM_FROM_WARM_UP && step == p->point->warm_up); /* the first one is no move */
    if (*moved) {
        const double expert_bytes = moesim_model_expert_bytes(&p->point->model);
        moesim_migration_reset(&p->migration);
        for (uint32_t l = 0; l < p->n_layers; l++)
            moesim_migration_add(&p->migration, &p->before[l], &p->placement[l], &p->point->cluster, expert_bytes);
    }
    p->place_at = p->gather_from = UINT32_MAX;
    if (p->fit->every > 0)
        plan_placement(p, step + p->fit->every, moesim_placement_window(p->fit));
    return MOESIM_OK;
}

/* ---- statistics ---- */

static bool has_load(const struct moesim_placing *p, const struct moesim_plan *plan, uint32_t pair)
{
    return plan->fate[pair] == MOESIM_KEPT &&
           (!p->expert_kind || p->expert_kind[plan->expert[pair]] == MOESIM_EXPERT_FFN);
}

static void add_together(const struct moesim_placing *p, const struct moesim_plan *plan, double *together)
{
    const size_t n = p->stats.n_experts;
    for (uint32_t t = 0; t < plan->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            for (uint32_t j = plan->first[t]; j < plan->first[t + 1] && has_load(p, plan, i); j++)
                if (j != i && has_load(p, plan, j))
                    together[plan->expert[i] * n + plan->expert[j]]++;
}

/* The token's first choice that is served, or MOESIM_NO_EXPERT. */
static uint32_t first_choice(const struct moesim_placing *p, const struct moesim_plan *plan, uint32_t t)
{
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
        if (has_load(p, plan, i))
            return plan->expert[i];
    return MOESIM_NO_EXPERT;
}

static void add_next(const struct moesim_placing *p, const struct moesim_plan *plan, uint32_t layer)
{
    const size_t n = p->stats.n_experts;
    double *next = layer > 0 ? p->stats.next + (layer - 1) * n * n : NULL;
    for (uint32_t t = 0; t < plan->n_tokens; t++) {
        const uint32_t now = first_choice(p, plan, t);
        if (next && now != MOESIM_NO_EXPERT && p->choice[t] != MOESIM_NO_EXPERT)
            next[p->choice[t] * n + now]++;
        p->choice[t] = now;
    }
}

static void gather(struct moesim_placing *p, uint32_t layer, const struct moesim_plan *plan, const uint64_t *kept)
{
    const size_t n = p->stats.n_experts;
    for (uint32_t e = 0; p->stats.load && e < n; e++)
        if (!p->expert_kind || p->expert_kind[e] == MOESIM_EXPERT_FFN)
            p->stats.load[layer * n + e] += (double)kept[e];
    if (p->stats.together)
        add_together(p, plan, p->stats.together + layer * n * n);
    if (p->stats.next)
        add_next(p, plan, layer);
}

/* Places the layer by the loads of this very step. */
static enum moesim_status place_by_oracle(struct moesim_placing *p, uint32_t layer, const struct moesim_plan *plan,
                                          const uint64_t *kept, struct moesim_error *err)
{
    if (layer == 0)
        forget(p);
    gather(p, layer, plan, kept);
    const size_t n = p->stats.n_experts;
    const struct moesim_placement_stats own = {
        .n_layers = 1,
        .n_experts = p->stats.n_experts,
        .n_groups = p->stats.n_groups,
        .load = p->stats.load ? p->stats.load + layer * n : NULL,
        .together = p->stats.together ? p->stats.together + layer * n * n : NULL,
    };
    return place(p, &own, &p->placement[layer], err);
}

enum moesim_status moesim_placing_layer(struct moesim_placing *p, uint32_t step, uint32_t layer,
                                        const struct moesim_plan *plan, const struct moesim_batch *batch,
                                        const uint64_t *kept, struct moesim_error *err)
{
    if (step >= p->gather_from)
        gather(p, layer, plan, kept);
    if (p->fit && p->source == MOESIM_FROM_ORACLE) {
        const enum moesim_status status = place_by_oracle(p, layer, plan, kept, err);
        if (status != MOESIM_OK)
            return status;
    }
    moesim_replica_prepare(&p->placement[layer], plan, batch, p->expert_kind);
    return MOESIM_OK;
}

uint64_t moesim_placing_bytes(const struct moesim_point *point, uint32_t n_experts)
{
    const uint64_t n = n_experts, layers = point->model.layers;
    const uint32_t wants = point->placement->wants;
    uint64_t doubles = wants & MOESIM_WANTS_LOAD ? layers * n : 0;
    doubles += wants & MOESIM_WANTS_TOGETHER ? layers * n * n : 0;
    doubles += wants & MOESIM_WANTS_NEXT ? layers * n * n : 0;
    const uint32_t choice = moesim_placement_choice(point->placement, point->placement_params);
    const uint64_t room = moesim_placement_room(point->placement, point->placement_params, n_experts);
    const uint64_t ep = moesim_cluster_ep(&point->cluster);
    uint64_t of_layer = 2 * room + 2 * n + ep;
    if (choice == MOESIM_STATIC || choice == MOESIM_LOCAL)
        of_layer += ep * n;
    const uint64_t shared = choice == MOESIM_LP ? (uint64_t)point->n_tokens * point->model.top_k : 0;
    return doubles * sizeof(double) + 2 * (layers * of_layer + shared) * sizeof(uint32_t);
}
