/*
 * Where bytes go: one map a run of the least balanced workload, sources down and targets across, and below it what
 * every port and uplink carries, on scales that all maps share: bytes, and parts of the busiest port of its kind.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "analysis/figures/figure.h"
#include "analysis/figures/traffic_map.h"

#include "traffic.gp.h"

enum { MAX_MAPS = 4, MAX_PANELS = 2 * MAX_MAPS + 2, SCALE_STEPS = 128 };
#define LEFT 72.0  /* room for the names of ports, right of the edge */
#define RIGHT 40.0 /* and for their bytes */
#define STRIP_ROW 13.0
#define WIDE 420.0 /* a map that is alone */

struct chosen {
    uint32_t run; /* index into the report's */
    struct traffic_map map;
    char label[256];
};

struct layout {
    struct chosen chosen[MAX_MAPS];
    uint32_t n;
    double most_pair, most_port[TRAFFIC_N_LINKS];
    double factor; /* from bytes to `unit` */
    const char *unit;
    struct figure_panel panel[MAX_PANELS];
    double most[MAX_PANELS], tics[MAX_PANELS], cell[MAX_PANELS]; /* cell: what a column of the block spans */
    bool square[MAX_PANELS];
    uint32_t n_panels;
};

/* ---- which runs ---- */

/* Runs of the workload that share the first one's seed, one for each point, but for those that send nothing. */
static uint32_t candidates(const struct report_data *data, uint32_t workload, uint32_t *run)
{
    uint32_t n = 0;
    const uint32_t first = data->first[workload * data->n_routers], end = data->first[(workload + 1) * data->n_routers];
    for (uint32_t i = first; i < end; i++)
        if (data->run[i].seed == data->run[first].seed && data->run[i].value[MOESIM_BYTES_DISPATCH] != 0.0)
            run[n++] = i;
    return n;
}

/* How far the fullest device is above the others; -1 where nobody measured it. */
static double imbalance(const struct report_data *data, uint32_t run)
{
    const double value = data->run[run].value[MOESIM_DEVICE_IMBALANCE];
    return isfinite(value) ? value : -1.0;
}

/* At turn 0 the baseline's first run, then by turns the one with the fullest and with the least full device. */
static uint32_t pick(const struct report_data *data, const uint32_t *run, const bool *kept, uint32_t n, uint32_t turn)
{
    const double sign = turn % 2 ? 1.0 : -1.0;
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (turn == 0 && data->run[run[i]].router == data->baseline)
            return i;
        if (!kept[i] && (best == UINT32_MAX || sign * imbalance(data, run[i]) > sign * imbalance(data, run[best])))
            best = i;
    }
    return turn == 0 ? 0 : best;
}

/* Keeps at most MAX_MAPS of them, in order; how many. */
static uint32_t keep_extremes(const struct report_data *data, uint32_t *run, bool *kept, uint32_t n)
{
    for (uint32_t turn = 0; turn < MAX_MAPS && turn < n; turn++)
        kept[pick(data, run, kept, n, turn)] = true;
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (kept[i])
            run[n_kept++] = run[i];
    return n_kept;
}

/* ---- what they are called ---- */

static const char sql_label[] = "SELECT (SELECT value FROM run_param WHERE run = r.id AND path = 'router'), "
                                "(SELECT value FROM run_param WHERE run = r.id AND path = 'dispatch'), "
                                "(SELECT value FROM run_param WHERE run = r.id AND path = 'placement'), "
                                "(SELECT value FROM run_param WHERE run = r.id AND path = 'cluster') "
                                "FROM run r WHERE r.id = CAST(?1 AS INTEGER)";
enum { N_PARTS = 4 };

static bool read_parts(struct results_store *store, int64_t run, char part[N_PARTS][128])
{
    char text[24];
    const char *id = text;
    struct results_query *query;
    bool row = false;
    snprintf(text, sizeof text, "%" PRId64, run);
    if (results_query(store, sql_label, &id, 1, &query, NULL))
        return false;
    if (!results_next(query, &row, NULL) && row)
        for (uint32_t i = 0; i < N_PARTS; i++)
            snprintf(part[i], sizeof part[i], "%s", results_text(query, i));
    results_query_close(query);
    return row;
}

/* Each by what it does not share with the others, else by its router. */
static void name_maps(struct layout *l, struct results_store *store, const struct report_data *data)
{
    char part[MAX_MAPS][N_PARTS][128] = {0};
    bool differs[N_PARTS] = {false}, any = false;
    for (uint32_t i = 0; i < l->n; i++)
        if (!read_parts(store, data->run[l->chosen[i].run].id, part[i]))
            return;
    for (uint32_t p = 0; p < N_PARTS; p++) {
        for (uint32_t i = 1; i < l->n; i++)
            differs[p] |= strcmp(part[i][p], part[0][p]) != 0;
        any |= differs[p];
    }
    differs[0] |= !any;
    for (uint32_t i = 0; i < l->n; i++) {
        char *label = l->chosen[i].label;
        for (uint32_t p = 0; p < N_PARTS; p++)
            if (differs[p]) {
                const size_t used = strlen(label);
                snprintf(label + used, sizeof l->chosen[i].label - used, "%s%.60s", used ? " \u00b7 " : "", part[i][p]);
            }
    }
}

/* ---- drawing ---- */

static double step_between(double span)
{
    const double steps[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (span / steps[i] <= 8.5)
            return steps[i];
    return ceil(span / 8);
}

static struct figure_panel *add_panel(struct layout *l, struct figure_panel panel, double most, double tics,
                                      double cell, bool square)
{
    l->cell[l->n_panels] = cell;
    l->most[l->n_panels] = most;
    l->tics[l->n_panels] = tics;
    l->square[l->n_panels] = square;
    l->panel[l->n_panels] = panel;
    return &l->panel[l->n_panels++];
}

static void end_block(struct figure *figure)
{
    if (figure->stream[FIGURE_MARKS])
        fputs("\n\n", figure->stream[FIGURE_MARKS]);
}

/* Lines around nodes, where these are not lines themselves. */
static void put_nodes(struct figure *figure, const struct traffic_map *map, const struct figure_panel *panel,
                      bool across)
{
    const double pitch = (panel->right - panel->left) / map->n_ends * map->end_per_node;
    if (map->end_per_node < 2 || pitch < 20.0)
        return;
    for (uint32_t i = map->end_per_node; i < map->n_ends; i += map->end_per_node) {
        const double at = pitch * i / map->end_per_node;
        FIGURE_ROW(figure, FIGURE_POINTS, panel->left + at, panel->top, panel->left + at, panel->bottom);
        if (across)
            FIGURE_ROW(figure, FIGURE_POINTS, panel->left, panel->top + at, panel->right, panel->top + at);
    }
}

static double put_matrix(struct figure *figure, struct layout *l, const struct traffic_map *map, double left,
                         double size, double y)
{
    const char *what = map->by_node ? "node" : "device";
    char text[80];
    const double high = (double)map->n_ends * map->merged - 0.5;
    const struct figure_panel *panel = add_panel(l,
                                                 (struct figure_panel){.left = left,
                                                                       .right = left + size,
                                                                       .top = y,
                                                                       .bottom = y + size,
                                                                       .x_low = -0.5,
                                                                       .x_high = high,
                                                                       .y_low = high,
                                                                       .y_high = -0.5},
                                                 l->most_pair, step_between(high), map->merged, true);
    for (uint32_t i = 0; i < map->n_ends; i++)
        figure_row(figure, FIGURE_MARKS, map->pair + (size_t)i * map->n_ends, map->n_ends);
    end_block(figure);
    put_nodes(figure, map, panel, true);
    if (map->merged > 1)
        snprintf(text, sizeof text, "source %s, %u a row", what, map->merged);
    else
        snprintf(text, sizeof text, "source %s", what);
    figure_text(figure, FIGURE_UPRIGHT, left - 40.0, y + size / 2, FIGURE_SOFT_INK, 0.0, text);
    snprintf(text, sizeof text, "target %s", what);
    figure_text(figure, FIGURE_MIDDLE, left + size / 2, y + size + 26.0, FIGURE_SOFT_INK, 0.0, text);
    return y + size + 40.0;
}

/* A row a kind of port that carries anything, as part of the busiest of its kind in all maps; beside it, the bytes of
 * the busiest here. */
static double put_ports(struct figure *figure, struct layout *l, const struct traffic_map *map, double left,
                        double size, double y)
{
    uint32_t n = 0;
    for (uint32_t link = 0; link < TRAFFIC_N_LINKS; link++) {
        char number[24];
        if (!(l->most_port[link] > 0))
            continue;
        for (uint32_t d = 0; d < map->n_devices; d++)
            map->port[link][d] *= 100 / l->most_port[link];
        figure_row(figure, FIGURE_MARKS, map->port[link], map->n_devices);
        const double middle = y + (n++ + 0.5) * STRIP_ROW;
        figure_text(figure, FIGURE_RIGHT, left - 6.0, middle, FIGURE_SOFT_INK, 0.0, traffic_link_names[link]);
        figure_number(number, traffic_map_most(map, link) * l->most_port[link] / 100 * l->factor);
        figure_text(figure, FIGURE_RIGHT, left + size + RIGHT - 6.0, middle, FIGURE_SOFT_INK, 0.0, number);
    }
    end_block(figure);
    const struct figure_panel *panel = add_panel(l,
                                                 (struct figure_panel){.left = left,
                                                                       .right = left + size,
                                                                       .top = y,
                                                                       .bottom = y + n * STRIP_ROW,
                                                                       .x_low = -0.5,
                                                                       .x_high = map->n_devices - 0.5,
                                                                       .y_low = n - 0.5,
                                                                       .y_high = -0.5},
                                                 100, step_between(map->n_devices), 1, false);
    put_nodes(figure, map, panel, false);
    figure_text(figure, FIGURE_MIDDLE, left + size / 2, panel->bottom + 26.0, FIGURE_SOFT_INK, 0.0, "device");
    return panel->bottom + 44.0;
}

static double put_map(struct figure *figure, struct layout *l, const struct chosen *chosen, double left, double size,
                      double y)
{
    uint32_t link = 0;
    char text[96], number[24];
    const double uneven = traffic_map_unevenness(&chosen->map, &link);
    figure_text(figure, FIGURE_HEAD, left, y + 6.0, FIGURE_INK, 0.88 * (size + RIGHT), chosen->label);
    if (isfinite(uneven)) {
        figure_number(number, uneven);
        snprintf(text, sizeof text, "least even: %s, %s\u00d7 the mean", traffic_link_names[link], number);
        figure_text(figure, FIGURE_LEFT, left, y + 22.0, FIGURE_SOFT_INK, size + RIGHT, text);
    }
    y = put_matrix(figure, l, &chosen->map, left, size, y + 34.0);
    if (!chosen->map.n_devices)
        return y;
    snprintf(text, sizeof text, "max, %s", l->unit);
    figure_text(figure, FIGURE_RIGHT, left + size + RIGHT - 6.0, y - 9.0, FIGURE_SOFT_INK, 0.0, text);
    return put_ports(figure, l, &chosen->map, left, size, y);
}

/* "MB" and the factor to it. */
static const char *byte_unit(double most, double *factor)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    uint32_t i = 0;
    for (*factor = 1; most * *factor >= 1000 && i < 4; i++)
        *factor /= 1000;
    return unit[i];
}

static void put_scale(struct figure *figure, struct layout *l, const char *title, double most, double factor,
                      double left, double y)
{
    const double right = left + FIGURE_WIDTH / 2 - FIGURE_EDGE - 24.0;
    double value[SCALE_STEPS];
    char number[24];
    for (uint32_t i = 0; i < SCALE_STEPS; i++)
        value[i] = most * i / (SCALE_STEPS - 1);
    for (int row = 0; row < 2; row++)
        figure_row(figure, FIGURE_MARKS, value, SCALE_STEPS);
    end_block(figure);
    add_panel(l,
              (struct figure_panel){.left = left,
                                    .right = right,
                                    .top = y + 16.0,
                                    .bottom = y + 26.0,
                                    .x_low = -0.5,
                                    .x_high = SCALE_STEPS - 0.5,
                                    .y_low = 1.5,
                                    .y_high = -0.5},
              most, 0, 1, false);
    figure_text(figure, FIGURE_LEFT, left, y + 5.0, FIGURE_SOFT_INK, 0.0, title);
    figure_text(figure, FIGURE_LEFT, left, y + 37.0, FIGURE_SOFT_INK, 0.0, "0");
    figure_number(number, most * factor / 2);
    figure_text(figure, FIGURE_MIDDLE, (left + right) / 2, y + 37.0, FIGURE_SOFT_INK, 0.0, number);
    figure_number(number, most * factor);
    figure_text(figure, FIGURE_RIGHT, right, y + 37.0, FIGURE_SOFT_INK, 0.0, number);
}

static void put_scales(struct figure *figure, struct layout *l, double y)
{
    char text[96];
    double factor;
    const char *unit = byte_unit(l->most_pair, &factor);
    const char *ends = l->chosen[0].map.by_node ? "node" : "device";
    snprintf(text, sizeof text, "from %s to %s, %s", ends, ends, unit);
    put_scale(figure, l, text, l->most_pair, factor, FIGURE_EDGE, y);
    if (l->unit)
        put_scale(figure, l, "port over the busiest of its kind, %", 100, 1, FIGURE_WIDTH / 2 + 10.0, y);
}

static void put_arrays(struct figure *figure, const struct layout *l)
{
    FILE *out = figure->stream[FIGURE_SETTINGS];
    static const char *const name[] = {"MOST", "TICS", "CELL", "SQUARE"};
    for (uint32_t a = 0; out && a < 4; a++) {
        fprintf(out, "array %s[%u] = [", name[a], l->n_panels);
        for (uint32_t p = 0; p < l->n_panels; p++)
            fprintf(out, "%s%#.9g", p ? ", " : "",
                    (const double[]){l->most[p], l->tics[p], l->cell[p], l->square[p]}[a]);
        fputs("]\n", out);
    }
}

static double put_maps(struct figure *figure, struct layout *l, double y)
{
    const double size = l->n == 1 ? WIDE : (FIGURE_WIDTH - 2 * FIGURE_EDGE) / 2 - LEFT - RIGHT;
    double lowest = y;
    for (uint32_t i = 0; i < l->n; i++) {
        const double left = FIGURE_EDGE + LEFT + (i % 2) * (LEFT + size + RIGHT);
        const double bottom = put_map(figure, l, &l->chosen[i], left, size, y);
        lowest = fmax(lowest, bottom);
        if (i % 2)
            y = lowest;
    }
    return lowest;
}

static void draw(struct figure *figure, const struct report_data *data, struct layout *l, uint32_t workload)
{
    char name[300], subtitle[500];
    figure_clean(name, sizeof name, data->workload[workload], FIGURE_FONT, 300.0);
    snprintf(subtitle, sizeof subtitle, "workload %s \u00b7 seed %" PRId64 " \u00b7 modelled, mean of a layer and step",
             name, data->run[l->chosen[0].run].seed);
    figure_begin(figure, traffic_gp, "Bytes between devices, and through their ports", subtitle);
    double y = put_maps(figure, l, FIGURE_TOP - 4.0);
    put_scales(figure, l, y);
    FIGURE_ROW(figure, FIGURE_POINTS, NAN, NAN, NAN, NAN);
    figure_panels(figure, l->panel, l->n_panels);
    put_arrays(figure, l);
    figure_caption(
        figure, data,
        "Bytes of dispatch and combine from source to target%s%s. White is nothing. One seed of the workload "
        "with the worst balance%s.",
        l->chosen[0].map.end_per_node ? ", with lines between nodes" : "",
        l->unit ? "; below, what passes each device's ports and the uplinks of its leaf switch" : "",
        l->n == MAX_MAPS ? ", for the baseline and the runs with the most and the least uneven devices" : "");
    figure_end(figure, y + 52.0);
}

/* Reads what the runs sent; those with other ends than the first would need a scale of their own. */
static void read_maps(struct layout *l, struct results_store *store, const struct report_data *data,
                      const uint32_t *run, uint32_t n)
{
    double most = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct chosen *chosen = &l->chosen[l->n];
        chosen->run = run[i];
        if (!traffic_map_read(store, data, data->run[run[i]].id, &chosen->map) ||
            (l->n && chosen->map.by_node != l->chosen[0].map.by_node))
            continue;
        l->most_pair = fmax(l->most_pair, chosen->map.most_pair);
        for (uint32_t link = 0; link < TRAFFIC_N_LINKS; link++) {
            l->most_port[link] = fmax(l->most_port[link], traffic_map_most(&chosen->map, link));
            most = fmax(most, l->most_port[link]);
        }
        l->n++;
    }
    l->unit = most > 0 ? byte_unit(most, &l->factor) : NULL;
}

void figure_traffic(struct figure *figure, const struct figure_source *source, struct results_store *store)
{
    const struct report_data *data = source->data;
    const uint32_t workload = report_hardest_workload(data);
    struct layout *l = moesim_alloc(data->arena, 1, sizeof *l);
    uint32_t *run = moesim_alloc(data->arena, data->n_runs, sizeof *run);
    bool *kept = moesim_alloc(data->arena, data->n_runs, sizeof *kept);
    figure->id = "traffic";
    if (!l || !run || !kept) {
        figure->failed = true;
        return;
    }
    const uint32_t n = candidates(data, workload, run);
    read_maps(l, store, data, run, keep_extremes(data, run, kept, n));
    if (l->n == 0) {
        snprintf(figure->title, sizeof figure->title, "Bytes between devices, and through their ports");
        figure->no_data = "No run recorded traffic: give the study a cluster and add 'record: [traffic]'.";
        return;
    }
    name_maps(l, store, data);
    draw(figure, data, l, workload);
}
