#include "analysis/figures/heat_scale.h"

#include <math.h>

#define SCALE_STEPS 128
#define HIGHEST 5.0

double heat_scale_high(double most)
{
    return fmin(ceil(log2(most)), HIGHEST);
}

void heat_scale_cell(FILE *out, double load, double share, double high, uint32_t repeat, bool first)
{
    double value = HEAT_SCALE_LOW;
    if (share > 0.0 && load > 0.0)
        value = fmin(fmax(log2(load / share), HEAT_SCALE_LOW), high);
    for (uint32_t i = 0; i < repeat; i++)
        fprintf(out, "%s%.4g", first && i == 0 ? "" : "\t", value);
}

void heat_scale_put(struct figure *figure, struct figure_panel *panel, double left, double y, double high)
{
    static const char *const below[] = {"\u22641/8", "1/4", "1/2"};
    *panel = (struct figure_panel){.left = left,
                                   .right = FIGURE_WIDTH - FIGURE_EDGE - 44.0,
                                   .top = y,
                                   .bottom = y + 10.0,
                                   .x_low = -0.5,
                                   .x_high = SCALE_STEPS - 0.5,
                                   .y_low = 0.5,
                                   .y_high = -0.5};
    for (uint32_t row = 0; figure->stream[FIGURE_MARKS] && row < 2; row++) {
        for (uint32_t i = 0; i < SCALE_STEPS; i++)
            fprintf(figure->stream[FIGURE_MARKS], "%s%.4g", i ? "\t" : "",
                    HEAT_SCALE_LOW + (high - HEAT_SCALE_LOW) * i / (SCALE_STEPS - 1));
        fputc('\n', figure->stream[FIGURE_MARKS]);
    }
    figure_text(figure, FIGURE_LEFT, FIGURE_EDGE, y + 5.0, FIGURE_SOFT_INK, 0.0, "load over an even share");
    for (int power = (int)HEAT_SCALE_LOW; power <= (int)high; power++) {
        char text[24];
        snprintf(text, sizeof text, "%d\u00d7", power >= 0 ? 1 << power : 0);
        figure_text(figure, FIGURE_MIDDLE,
                    panel->left + (panel->right - panel->left) * (power - HEAT_SCALE_LOW) / (high - HEAT_SCALE_LOW),
                    y + 21.0, FIGURE_SOFT_INK, 0.0, power < 0 ? below[power + 3] : text);
    }
}
