/*
 * Which experts a domain's tokens go to: one map of domains by experts a router, on the scale of the load map.
 */
#include <inttypes.h>
#include <math.h>

#include "analysis/figures/heat_scale.h"
#include "analysis/training.h"

#include "specialisation.gp.h"

#define MAX_MAPS 8u
#define MAX_DOMAINS 16u
#define MAX_NAME 130.0
#define ROW_HEIGHT 17.0
#define HEAD_HEIGHT 24.0
#define GAP 22.0
#define SCALE_LEFT 170.0

struct maps {
    uint32_t router[MAX_MAPS], n;
    uint32_t n_left; /* routers without a place */
    uint32_t n_columns, n_domains;
    double left, width; /* of the names beside a row of maps; of one map */
};

static void collect(struct maps *maps, const struct figure_source *source)
{
    double names = 40.0;
    for (uint32_t r = 0; source->training && r < source->data->n_routers; r++) {
        const struct training_routing *routing = &source->training->routing[r];
        const uint32_t n = routing->n_experts ? routing->n[MOESIM_SUBJECT_DOMAIN] : 0;
        if (!n)
            continue;
        if (maps->n == MAX_MAPS) {
            maps->n_left++;
            continue;
        }
        maps->router[maps->n++] = r;
        maps->n_domains = n > maps->n_domains ? n : maps->n_domains;
        for (uint32_t i = 0; i < n && i < MAX_DOMAINS; i++)
            names = fmax(names, figure_text_width(routing->subject[MOESIM_SUBJECT_DOMAIN][i].name, FIGURE_FONT));
    }
    maps->n_domains = maps->n_domains > MAX_DOMAINS ? MAX_DOMAINS : maps->n_domains;
    maps->n_columns = maps->n > 1 ? 2 : 1;
    maps->left = FIGURE_EDGE + fmin(names, MAX_NAME) + 8.0;
    maps->width = (FIGURE_WIDTH - FIGURE_EDGE - maps->left - GAP * (maps->n_columns - 1)) / maps->n_columns;
}

static uint32_t rows_of(const struct training_routing *routing)
{
    const uint32_t n = routing->n[MOESIM_SUBJECT_DOMAIN];
    return n < MAX_DOMAINS ? n : MAX_DOMAINS;
}

/* The largest share over an even one. */
static double strongest(const struct maps *maps, const struct training *training)
{
    double most = 2.0;
    for (uint32_t i = 0; i < maps->n; i++) {
        const struct training_routing *routing = &training->routing[maps->router[i]];
        for (uint32_t d = 0; d < rows_of(routing); d++) {
            const struct training_subject *subject = &routing->subject[MOESIM_SUBJECT_DOMAIN][d];
            for (uint32_t e = 0; e < routing->n_experts && subject->total > 0.0; e++)
                most = fmax(most, subject->assigned[e] * routing->n_experts / subject->total);
        }
    }
    return most;
}

static void put_map(FILE *out, const struct training_routing *routing, double high)
{
    const uint32_t repeat_x = routing->n_experts > 1 ? 1 : 2, repeat_y = rows_of(routing) > 1 ? 1 : 2;
    for (uint32_t row = 0; row < rows_of(routing) * repeat_y; row++) {
        const struct training_subject *subject = &routing->subject[MOESIM_SUBJECT_DOMAIN][row / repeat_y];
        for (uint32_t e = 0; e < routing->n_experts; e++)
            heat_scale_cell(out, subject->assigned[e], subject->total / routing->n_experts, high, repeat_x, e == 0);
        fputc('\n', out);
    }
    fputs("\n\n", out);
}

/* Draws the maps row by row; returns the height of their end. */
static double put_maps(struct figure *figure, const struct figure_source *source, const struct maps *maps,
                       struct figure_panel *panel, double high)
{
    const double height = maps->n_domains * ROW_HEIGHT, pitch = HEAD_HEIGHT + height + 12.0;
    for (uint32_t i = 0; i < maps->n; i++) {
        const struct training_routing *routing = &source->training->routing[maps->router[i]];
        const double left = maps->left + i % maps->n_columns * (maps->width + GAP);
        const double top = FIGURE_TOP + i / maps->n_columns * pitch + HEAD_HEIGHT - 8.0;
        panel[i] = (struct figure_panel){.left = left,
                                         .right = left + maps->width,
                                         .top = top,
                                         .bottom = top + rows_of(routing) * ROW_HEIGHT,
                                         .x_low = -0.5,
                                         .x_high = routing->n_experts - 0.5,
                                         .y_low = rows_of(routing) - 0.5,
                                         .y_high = -0.5};
        figure_text(figure, FIGURE_LEFT, left, top - 11.0, FIGURE_INK, maps->width,
                    source->data->router[maps->router[i]]);
        for (uint32_t d = 0; d < rows_of(routing) && i % maps->n_columns == 0; d++)
            figure_text(figure, FIGURE_RIGHT, maps->left - 8.0, top + (d + 0.5) * ROW_HEIGHT, FIGURE_SOFT_INK, MAX_NAME,
                        routing->subject[MOESIM_SUBJECT_DOMAIN][d].name);
        if (figure->stream[FIGURE_MARKS])
            put_map(figure->stream[FIGURE_MARKS], routing, high);
    }
    return FIGURE_TOP + (maps->n + maps->n_columns - 1) / maps->n_columns * pitch;
}

/* Which maps have numbers below them: the last of each column. */
static double tic_of(const struct maps *maps, uint32_t i, uint32_t n_experts)
{
    return i >= maps->n || i + maps->n_columns < maps->n ? 0.0 : n_experts <= 10 ? 1.0 : ceil(n_experts / 40.0) * 5.0;
}

static void put_settings(struct figure *figure, const struct maps *maps, const struct training *training)
{
    static const char *const name[] = {"REPEAT_X", "REPEAT_Y", "X_TIC"};
    FILE *out = figure->stream[FIGURE_SETTINGS];
    for (uint32_t which = 0; out && which < 3; which++) {
        fprintf(out, "array %s[%u] = [", name[which], maps->n + 1);
        for (uint32_t i = 0; i < maps->n; i++) {
            const struct training_routing *routing = &training->routing[maps->router[i]];
            const double repeat = (which ? rows_of(routing) : routing->n_experts) > 1 ? 1.0 : 2.0;
            fprintf(out, "%#g, ", which == 2 ? tic_of(maps, i, routing->n_experts) : repeat);
        }
        fprintf(out, "%#g]\n", which == 0 ? 1.0 : which == 1 ? 2.0 : 0.0);
    }
}

void figure_specialisation(struct figure *figure, const struct figure_source *source)
{
    const struct report_data *data = source->data;
    struct maps maps = {0};
    figure->id = "specialisation";
    collect(&maps, source);
    if (maps.n == 0) {
        snprintf(figure->title, sizeof figure->title, "Specialisation by domain");
        figure->no_data = "No routing by domain is stored: it comes with the last validation of 'mode: train'.";
        return;
    }
    const struct training_routing *first = &source->training->routing[maps.router[0]];
    char subtitle[500], workload[300] = "", left[64] = "";
    if (data->n_workloads > 1)
        figure_clean(workload, sizeof workload, data->workload[source->training->workload], FIGURE_FONT, 200.0);
    if (maps.n_left)
        snprintf(left, sizeof left, " \u00b7 first %u of %u routers", maps.n, maps.n + maps.n_left);
    snprintf(subtitle, sizeof subtitle, "%s%sseed %" PRId64 " \u00b7 layer %u, the last with experts%s", workload,
             *workload ? " \u00b7 " : "", first->seed, first->layer, left);
    figure_begin(figure, specialisation_gp, "Specialisation by domain, at the last validation", subtitle);
    struct figure_panel panel[MAX_MAPS + 1];
    const double high = heat_scale_high(strongest(&maps, source->training));
    const double y = put_maps(figure, source, &maps, panel, high) + 26.0;
    for (uint32_t i = maps.n - maps.n_columns; i < maps.n; i++)
        figure_text(figure, FIGURE_MIDDLE, (panel[i].left + panel[i].right) / 2, panel[i].bottom + 34.0,
                    FIGURE_SOFT_INK, 0.0, "expert");
    heat_scale_put(figure, &panel[maps.n], FIGURE_EDGE + SCALE_LEFT, y + 20.0, high);
    figure_panels(figure, panel, maps.n + 1);
    put_settings(figure, &maps, source->training);
    figure_set(figure, "LOAD_LOW", HEAT_SCALE_LOW);
    figure_set(figure, "LOAD_HIGH", high);
    figure_caption(figure, data,
                   "The share of a domain's held-out tokens that each expert takes, over an even share: a row of one "
                   "colour means that the router does not tell the domain apart. Layer %u, before capacity; expert ids "
                   "of two routers have nothing in common.",
                   first->layer);
    figure_end(figure, y + 58.0);
}
