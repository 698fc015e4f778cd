#include "analysis/figures/curves.h"

#include <math.h>

#define KEY_PITCH 17.0
#define KEY_MARK 18.0
#define KEY_GAP 20.0
#define TIC_ROOM_X 44.0 /* pixels that a tic's label may need */
#define TIC_ROOM_Y 24.0
#define KEY_COLUMNS 4u /* at most */
#define KEY_MANY 8u    /* names from which on a long one is cut, so that two stand beside each other */

bool curves_begin(struct curves *curves, struct figure *figure, const struct report_data *data)
{
    *curves = (struct curves){.figure = figure, .data = data, .band = data->n_seeds > 1};
    curves->colour = moesim_alloc(data->arena, (size_t)data->n_routers * CURVES_MAX_PANELS, sizeof *curves->colour);
    figure->failed |= !curves->colour;
    return curves->colour;
}

void curves_panel(struct curves *curves, struct figure_panel panel)
{
    curves->first[curves->n_panels] = curves->n_lines;
    curves->panel[curves->n_panels++] = panel;
    curves->first[curves->n_panels] = curves->n_lines;
}

void curves_line(struct curves *curves, uint32_t router, const struct curves_point *point, uint32_t n)
{
    struct figure *figure = curves->figure;
    if (!n)
        return;
    const uint32_t p = curves->n_panels - 1;
    const double foot = curves->log[p] ? curves->panel[p].y_low : -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        curves->footed |= point[i].low < foot;
        FIGURE_ROW(figure, FIGURE_MARKS, point[i].x, fmax(point[i].mean, foot), fmax(point[i].low, foot),
                   fmax(point[i].high, foot));
    }
    if (figure->stream[FIGURE_MARKS])
        fputs("\n\n", figure->stream[FIGURE_MARKS]); /* the line ends here */
    FIGURE_ROW(figure, FIGURE_POINTS, curves->n_panels, point[n - 1].x, fmax(point[n - 1].mean, foot),
               figure_colour(curves->data, router));
    curves->colour[curves->n_lines++] = figure_colour(curves->data, router);
    curves->first[curves->n_panels] = curves->n_lines;
}

/* Widths of the key's columns when it has that many; returns their sum, without the gap behind the last. */
static double key_widths(const struct report_data *data, const uint32_t *router, uint32_t n, uint32_t n_columns,
                         double limit, double width[KEY_COLUMNS])
{
    const uint32_t n_rows = (n + n_columns - 1) / n_columns;
    double sum = -KEY_GAP;
    for (uint32_t c = 0; c < n_columns; c++) {
        width[c] = 0.0;
        for (uint32_t i = c * n_rows; i < n && i < (c + 1) * n_rows; i++)
            width[c] = fmax(width[c], KEY_MARK + 9.0 + figure_text_width(data->router[router[i]], FIGURE_FONT));
        width[c] = fmin(width[c], limit);
        sum += width[c] + KEY_GAP;
    }
    return sum;
}

double curves_key(const struct curves *curves, const bool *shown, double left, double top, double room)
{
    const struct report_data *data = curves->data;
    double width[KEY_COLUMNS] = {0};
    uint32_t *router = moesim_alloc(data->arena, data->n_routers, sizeof *router), n = 0, n_columns = KEY_COLUMNS;
    curves->figure->failed |= !router;
    for (uint32_t r = 0; router && r < data->n_routers; r++)
        if (shown[r])
            router[n++] = r;
    const double limit = n > KEY_MANY ? (room - KEY_GAP) / 2.0 : room;
    while (n_columns > 1 && key_widths(data, router, n, n_columns, limit, width) > room)
        n_columns--;
    const uint32_t n_rows = (n + n_columns - 1) / n_columns;
    if (curves->figure->stream[FIGURE_POINTS])
        fputs("\n\n", curves->figure->stream[FIGURE_POINTS]); /* behind the ends of lines */
    double x = left;
    for (uint32_t i = 0; i < n; i++) {
        const double y = top + (i % n_rows + 0.5) * KEY_PITCH;
        x += i && i % n_rows == 0 ? width[i / n_rows - 1] + KEY_GAP : 0.0;
        FIGURE_ROW(curves->figure, FIGURE_POINTS, x, y, x + KEY_MARK, y, figure_colour(data, router[i]));
        figure_text(curves->figure, FIGURE_LEFT, x + KEY_MARK + 8.0, y, FIGURE_INK,
                    fmin(left + room - x, limit) - KEY_MARK - 8.0, data->router[router[i]]);
    }
    return n_rows * KEY_PITCH;
}

/* A round step that leaves each label `room` of `length` pixels. */
static double tic_step(double low, double high, double length, double room)
{
    const double least = (high - low) * room / length, power = pow(10.0, floor(log10(least)));
    return least <= power         ? power
           : least <= 2.0 * power ? 2.0 * power
           : least <= 5.0 * power ? 5.0 * power
                                  : 10.0 * power;
}

static void put_array(FILE *out, const char *name, const double *value, uint32_t n)
{
    fprintf(out, "array %s[%u] = [", name, n);
    for (uint32_t i = 0; i < n; i++)
        fprintf(out, "%s%#.9g", i ? ", " : "", value[i]);
    fputs("]\n", out);
}

void curves_end(struct curves *curves)
{
    double x_tic[CURVES_MAX_PANELS], y_tic[CURVES_MAX_PANELS], first[CURVES_MAX_PANELS], last[CURVES_MAX_PANELS];
    double bare[CURVES_MAX_PANELS], log[CURVES_MAX_PANELS];
    FILE *out = curves->figure->stream[FIGURE_SETTINGS];
    for (uint32_t p = 0; p < curves->n_panels; p++) {
        const struct figure_panel *panel = &curves->panel[p];
        x_tic[p] = tic_step(panel->x_low, panel->x_high, panel->right - panel->left, TIC_ROOM_X);
        y_tic[p] = tic_step(panel->y_low, panel->y_high, panel->bottom - panel->top, TIC_ROOM_Y);
        first[p] = curves->first[p];
        bare[p] = curves->bare[p];
        log[p] = curves->log[p];
        last[p] = curves->first[p + 1] - 1.0;
    }
    figure_panels(curves->figure, curves->panel, curves->n_panels);
    figure_set(curves->figure, "BAND", curves->band);
    if (!out)
        return;
    put_array(out, "X_TIC", x_tic, curves->n_panels);
    put_array(out, "Y_TIC", y_tic, curves->n_panels);
    put_array(out, "BARE", bare, curves->n_panels);
    put_array(out, "LOG", log, curves->n_panels);
    put_array(out, "FIRST", first, curves->n_panels);
    put_array(out, "LAST", last, curves->n_panels);
    fprintf(out, "array COLOUR[%u] = [", curves->n_lines);
    for (uint32_t i = 0; i < curves->n_lines; i++)
        fprintf(out, "%s%u", i ? ", " : "", curves->colour[i]);
    fputs("]\n", out);
}
