/*
 * Expert load over time: one strip a router on the least balanced workload, experts across, time downwards, on a scale
 * of powers of two around an even share, so that a collapsed router does not hide the others.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figures/heat_scale.h"

#include "heat.gp.h"

#define MAX_STRIPS 8u
#define HEAD_HEIGHT 22.0
#define LEFT 74.0
#define SCALE_LEFT 150.0 /* beside its title */

/* The counts of one run: [n_windows][n_experts]. */
struct loads {
    double *count;
    uint32_t n_windows, n_experts, first_step, last_step, layer;
};

struct heat {
    uint32_t workload, n;
    uint32_t router[MAX_STRIPS];
    struct loads loads[MAX_STRIPS];
};

static const char sql_loads[] =
    "SELECT l.window, a.key, a.value, l.first_step, l.first_step + l.n_steps - 1, l.layer, "
    "json_array_length(l.assigned), "
    "(SELECT count(DISTINCT window) FROM expert_load WHERE run = l.run) "
    "FROM expert_load l, json_each(l.assigned) a WHERE l.run = CAST(?1 AS INTEGER) "
    "AND l.layer = (SELECT min(layer) FROM expert_load WHERE run = l.run) ORDER BY l.window, a.key";

static bool take_row(struct results_query *query, struct moesim_arena *arena, struct loads *loads, uint32_t *n)
{
    if (!loads->count) {
        const int64_t experts = results_integer(query, 6), windows = results_integer(query, 7);
        if (experts < 1 || windows < 1 || experts > 65536 || windows > 65536)
            return false;
        loads->n_experts = (uint32_t)experts;
        loads->n_windows = (uint32_t)windows;
        loads->count = moesim_alloc(arena, (size_t)experts * (size_t)windows, sizeof *loads->count);
        loads->first_step = (uint32_t)results_integer(query, 3);
        loads->layer = (uint32_t)results_integer(query, 5);
    }
    if (!loads->count || *n >= loads->n_experts * loads->n_windows)
        return false;
    loads->last_step = (uint32_t)results_integer(query, 4);
    const double count = results_number(query, 2);
    loads->count[(*n)++] = isfinite(count) ? count : 0.0;
    return true;
}

/* False when the run has no loads, or not a whole table of them. */
static bool load_run(struct results_store *store, const struct report_data *data, int64_t run, struct loads *loads)
{
    char id[24];
    const char *text[] = {id};
    struct results_query *query;
    bool row = false, good = true;
    uint32_t n = 0;
    *loads = (struct loads){0};
    snprintf(id, sizeof id, "%" PRId64, run);
    if (results_query(store, sql_loads, text, 1, &query, NULL))
        return false;
    while (good && !results_next(query, &row, NULL) && row)
        good = take_row(query, data->arena, loads, &n);
    results_query_close(query);
    return good && n > 0 && n == loads->n_experts * loads->n_windows;
}

/* The baseline and the routers with the worst balance, in the study's order. */
static uint32_t choose(const struct report_data *data, uint32_t workload, bool *chosen)
{
    uint32_t n = 0;
    while (n < MAX_STRIPS && n < data->n_routers) {
        uint32_t worst = UINT32_MAX;
        double most = -INFINITY;
        for (uint32_t r = 0; r < data->n_routers; r++) {
            struct report_cell cell;
            if (chosen[r] || !report_cell(data, MOESIM_MAX_VIO, workload, r, &cell))
                continue;
            const double value = r == data->baseline ? INFINITY : isfinite(cell.mean) ? cell.mean : -1.0;
            if (value > most) {
                most = value;
                worst = r;
            }
        }
        if (worst == UINT32_MAX)
            break;
        chosen[worst] = true;
        n++;
    }
    return n;
}

static void collect(struct heat *heat, const struct report_data *data, struct results_store *store)
{
    bool *chosen = moesim_alloc(data->arena, data->n_routers, sizeof *chosen);
    heat->workload = report_hardest_workload(data);
    if (!chosen)
        return;
    choose(data, heat->workload, chosen);
    for (uint32_t r = 0; r < data->n_routers; r++) {
        const uint32_t cell = heat->workload * data->n_routers + r;
        if (!chosen[r] || data->first[cell] == data->first[cell + 1])
            continue;
        if (load_run(store, data, data->run[data->first[cell]].id, &heat->loads[heat->n]))
            heat->router[heat->n++] = r;
    }
}

static void put_strip(FILE *out, const struct loads *loads, double high)
{
    const uint32_t repeat_x = loads->n_experts > 1 ? 1 : 2, repeat_y = loads->n_windows > 1 ? 1 : 2;
    for (uint32_t row = 0; row < loads->n_windows * repeat_y; row++) {
        const double *count = loads->count + (size_t)(row / repeat_y) * loads->n_experts;
        double sum = 0.0;
        for (uint32_t e = 0; e < loads->n_experts; e++)
            sum += count[e];
        for (uint32_t e = 0; e < loads->n_experts; e++)
            heat_scale_cell(out, count[e], sum / loads->n_experts, high, repeat_x, e == 0);
        fputc('\n', out);
    }
    fputs("\n\n", out);
}

/* The busiest cell over an even share, and how many experts got nothing at all. */
static double busiest(const struct loads *loads, uint32_t *idle)
{
    double most = 0.0;
    *idle = 0;
    for (uint32_t e = 0; e < loads->n_experts; e++) {
        double total = 0.0;
        for (uint32_t w = 0; w < loads->n_windows; w++)
            total += loads->count[(size_t)w * loads->n_experts + e];
        *idle += total == 0.0;
    }
    for (uint32_t w = 0; w < loads->n_windows; w++) {
        const double *count = loads->count + (size_t)w * loads->n_experts;
        double sum = 0.0, top = 0.0;
        for (uint32_t e = 0; e < loads->n_experts; e++) {
            sum += count[e];
            top = fmax(top, count[e]);
        }
        if (sum > 0.0)
            most = fmax(most, top * loads->n_experts / sum);
    }
    return most;
}

static void put_repeats(struct figure *figure, const struct heat *heat)
{
    FILE *out = figure->stream[FIGURE_SETTINGS];
    for (uint32_t axis = 0; out && axis < 2; axis++) {
        fprintf(out, "array REPEAT_%c[%u] = [", axis ? 'Y' : 'X', heat->n + 1);
        for (uint32_t i = 0; i < heat->n; i++)
            fprintf(out, "%d, ", (axis ? heat->loads[i].n_windows : heat->loads[i].n_experts) > 1 ? 1 : 2);
        fprintf(out, "%d]\n", axis ? 2 : 1);
    }
}

static double put_strips(struct figure *figure, const struct figure_source *source, const struct heat *heat,
                         struct figure_panel *panel, double y, double high)
{
    const double height = heat->n == 1 ? 150.0 : heat->n <= 4 ? 64.0 : 44.0;
    for (uint32_t i = 0; i < heat->n; i++) {
        const struct loads *loads = &heat->loads[i];
        uint32_t idle;
        char text[96], number[24];
        const double most = busiest(loads, &idle);
        figure_number(number, most);
        snprintf(text, sizeof text, "busiest %s\u00d7", number);
        if (idle)
            snprintf(text, sizeof text, "busiest %s\u00d7, %u of %u never used", number, idle, loads->n_experts);
        figure_text(figure, FIGURE_LEFT, LEFT, y + 10.0, FIGURE_INK, 320.0, source->data->router[heat->router[i]]);
        figure_text(figure, FIGURE_RIGHT, FIGURE_WIDTH - FIGURE_EDGE, y + 10.0, FIGURE_SOFT_INK, 0.0, text);
        y += HEAD_HEIGHT;
        panel[i] = (struct figure_panel){.left = LEFT,
                                         .right = FIGURE_WIDTH - FIGURE_EDGE,
                                         .top = y,
                                         .bottom = y + height,
                                         .x_low = -0.5,
                                         .x_high = loads->n_experts - 0.5,
                                         .y_low = loads->n_windows - 0.5,
                                         .y_high = -0.5};
        snprintf(text, sizeof text, "step %u", loads->first_step);
        figure_text(figure, FIGURE_RIGHT, LEFT - 8.0, y + 6.0, FIGURE_SOFT_INK, 0.0, text);
        snprintf(text, sizeof text, "%u", loads->last_step);
        if (loads->last_step > loads->first_step)
            figure_text(figure, FIGURE_RIGHT, LEFT - 8.0, y + height - 6.0, FIGURE_SOFT_INK, 0.0, text);
        if (figure->stream[FIGURE_MARKS])
            put_strip(figure->stream[FIGURE_MARKS], loads, high);
        y += height + 8.0;
    }
    return y;
}

void figure_heat(struct figure *figure, const struct figure_source *source, struct results_store *store)
{
    const struct report_data *data = source->data;
    figure->id = "expert-load";
    struct heat heat = {0};
    collect(&heat, data, store);
    if (heat.n == 0) {
        snprintf(figure->title, sizeof figure->title, "Expert load over time");
        figure->no_data = "No run recorded the load of its experts: add 'record: [expert_load]' to the study.";
        return;
    }
    double most = 2.0;
    for (uint32_t i = 0; i < heat.n; i++) {
        uint32_t idle;
        most = fmax(most, busiest(&heat.loads[i], &idle));
    }
    const double high = heat_scale_high(most);
    char workload[300], subtitle[500];
    figure_clean(workload, sizeof workload, data->workload[heat.workload], FIGURE_FONT, 330.0);
    snprintf(subtitle, sizeof subtitle, "workload %s \u00b7 seed %" PRId64 " \u00b7 layer %u", workload,
             data->run[data->first[heat.workload * data->n_routers + heat.router[0]]].seed, heat.loads[0].layer);
    figure_begin(figure, heat_gp, "Expert load over time, before capacity", subtitle);
    struct figure_panel panel[MAX_STRIPS + 1];
    double y = put_strips(figure, source, &heat, panel, FIGURE_TOP - 6.0, high);
    y += 42.0;
    figure_text(figure, FIGURE_MIDDLE, (LEFT + FIGURE_WIDTH - FIGURE_EDGE) / 2, y - 10.0, FIGURE_SOFT_INK, 0.0,
                "expert");
    heat_scale_put(figure, &panel[heat.n], LEFT + SCALE_LEFT, y + 10.0, high);
    figure_panels(figure, panel, heat.n + 1);
    put_repeats(figure, &heat);
    figure_set(figure, "LOAD_LOW", HEAT_SCALE_LOW);
    figure_set(figure, "LOAD_HIGH", high);
    figure_caption(
        figure, data,
        "Pairs that each expert was given, over an even share, in windows of steps from top to bottom%s; one seed "
        "and layer of the workload with the worst balance.",
        heat.n < data->n_routers ? ", for the baseline and the routers with the worst balance" : "");
    figure_end(figure, y + 48.0);
}
