/*
 * The table: a row for each figure and what it is measured against, at most 100 columns wide.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

enum { NAME_WIDTH = 26 };

/* Three digits where there is room for them. */
static const char *number(double value, char text[16])
{
    const double size = fabs(value);
    if (!isfinite(value))
        snprintf(text, 16, "-");
    else if (size >= 1e5 || (size > 0 && size < 0.001))
        snprintf(text, 16, "%.1e", value);
    else
        snprintf(text, 16, "%.*f", size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3, value);
    return text;
}

static void print_asked(struct bench_bound bound, double value)
{
    static const char *const words[] = {[BENCH_NOT_ASKED] = "", [BENCH_HOLDS] = "ok", [BENCH_MISSES] = "no"};
    const enum bench_verdict verdict = bench_judge(bound, value);
    char asked[24] = "";
    if (bound.value > 0)
        snprintf(asked, sizeof asked, "%s%.4g", bound.at_most ? "<=" : ">=", bound.value);
    printf(" %7s %s\n", asked, words[verdict]);
}

/* A name that is too long has a line of its own. */
static void print_name(const char *name)
{
    if (strlen(name) > NAME_WIDTH)
        printf("%s\n%-*s", name, NAME_WIDTH, "");
    else
        printf("%-*s", NAME_WIDTH, name);
}

static void print_shown(double shown, const char *unit)
{
    char text[16];
    printf(" %8s %-8.8s", number(shown, text), unit);
}

static void print_ratio(const char *beside, struct bench_ratio ratio, struct bench_bound bound)
{
    char clock[16], cpu[16], low[16], high[16], spread[40];
    snprintf(spread, sizeof spread, "%s..%s", number(ratio.low, low), number(ratio.high, high));
    printf(" %-16.16s %6s %6s %13s", beside, number(ratio.by_clock, clock), number(ratio.by_cpu, cpu), spread);
    print_asked(bound, ratio.counts);
}

static void print_heading(struct bench *bench, const char *part)
{
    if (bench->heading && strcmp(bench->heading, part) == 0)
        return;
    printf("%s== %s\n%-*s %8s %-8s %-16s %6s %6s %13s %7s\n", bench->heading ? "\n" : "", part, NAME_WIDTH, "figure",
           "moesim", "", "against", "clock", "CPU", "quartiles", "asked");
    bench->heading = part;
}

static void print_value(const struct bench_figure *figure, double shown)
{
    if (figure->bound.value > 0) {
        printf(" %-16s %6s %6s %13s", "", "", "", "");
        print_asked(figure->bound, shown);
    } else
        puts("");
}

void bench_print_result(struct bench *bench, const struct bench_result *r)
{
    static const char *const limits[] = {[BENCH_PEAK] = "of peak", [BENCH_READ] = "of reading"};
    const struct bench_figure *figure = &r->figure;
    const double shown = bench_shown(r, &r->ours);
    print_heading(bench, figure->part);
    print_name(figure->name);
    print_shown(shown, figure->unit);
    bool first = figure->limit == BENCH_NO_LIMIT;
    if (!first)
        print_ratio(limits[figure->limit], bench_limit_ratio(r), figure->limit_bound);
    else if (figure->bound.value > 0 || !figure->n_rivals) {
        print_value(figure, shown);
        first = false;
    }
    for (uint32_t i = 0; i < figure->n_rivals; i++) {
        const struct bench_rival *rival = &figure->rival[i];
        if (!first) {
            print_name("");
            print_shown(bench_shown(r, &r->rival[i]), rival->sense == BENCH_SHARE ? "" : figure->unit);
        }
        first = false;
        print_ratio(rival->runner.name, bench_rival_ratio(r, i),
                    bench_bound_beside(rival->bound, bench_rate(r, &r->rival[i])));
    }
    fflush(stdout);
}

void bench_print_curve(struct bench *bench, const struct bench_curve *curve)
{
    char name[64], text[32];
    print_heading(bench, "growth");
    snprintf(name, sizeof name, "time by %s", curve->axis);
    print_name(name);
    print_shown(curve->exponent, "exponent");
    snprintf(text, sizeof text, "expected %.4g", curve->expected);
    printf(" %-16s %6s %6s %13s", text, "", "", "");
    print_asked(curve->bound, curve->exponent);
    fflush(stdout);
}
