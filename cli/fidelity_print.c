/* The fidelity report in three formats. */
#include "cli/fidelity_print.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/options.h"

static const char *const role_words[] = {
    [MOESIM_CALIBRATED] = "calibrated", [MOESIM_HELD_OUT] = "held out",   [MOESIM_EXACT] = "exact",
    [MOESIM_ABLATION] = "ablation",     [MOESIM_DIRECTION] = "direction",
};
static const char *const verdict_words[] = {
    [MOESIM_HOLDS] = "holds",         [MOESIM_MISSED] = "MISSED",     [MOESIM_KNOWN_FAILURE] = "known failure",
    [MOESIM_HOLDS_NOW] = "HOLDS NOW", [MOESIM_REPORTED] = "reported",
};
static const char *const statistic_words[] = {
    [MOESIM_NO_STATISTIC] = "", [MOESIM_MEAN_ERROR] = "mean", [MOESIM_MEDIAN_ERROR] = "median",
    [MOESIM_P90_ERROR] = "p90", [MOESIM_MAX_ERROR] = "max",   [MOESIM_DISORDER] = "pairs in the wrong order",
};

/* How far a preset may be from what its calibration gives: its figures are rounded. */
#define DRIFT 0.01

static bool has_drifted(const struct moesim_fidelity_constant *c)
{
    return !(fabs(c->preset / c->fitted - 1) <= DRIFT);
}

struct fidelity_tally fidelity_count(const struct moesim_fidelity_table *tables, uint32_t n)
{
    struct fidelity_tally tally = {0};
    for (uint32_t i = 0; i < n; i++) {
        const struct moesim_fidelity_table *t = &tables[i];
        tally.skipped += t->skipped != NULL;
        for (uint32_t p = 0; p < t->n_parts; p++) {
            tally.held += t->part[p].verdict == MOESIM_HOLDS;
            tally.missed += t->part[p].verdict == MOESIM_MISSED || t->part[p].verdict == MOESIM_HOLDS_NOW;
            tally.known += t->part[p].verdict == MOESIM_KNOWN_FAILURE;
        }
        for (uint32_t c = 0; c < t->n_constants; c++)
            tally.drifted += has_drifted(&t->constant[c]);
    }
    return tally;
}

/* ---- text and Markdown ---- */

/* An error as people read it. */
static const char *error_text(const struct moesim_fidelity_table *t, double error, bool with_sign, char text[32])
{
    if (t->absolute)
        snprintf(text, 32, with_sign ? "%+.3g" : "%.3g", error);
    else
        snprintf(text, 32, with_sign ? "%+.1f %%" : "%.1f %%", 100 * error);
    return text;
}

/* What the part promises: "mean <= 5 %, max <= 15 %". */
static const char *promise(const struct moesim_fidelity_table *t, const struct moesim_fidelity_part *part, char *text,
                           size_t size)
{
    size_t n = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < MOESIM_FIDELITY_BOUNDS && n < size; i++) {
        const struct moesim_fidelity_bound *b = &part->bound[i];
        const bool share = !t->absolute && b->statistic != MOESIM_DISORDER;
        if (b->statistic == MOESIM_NO_STATISTIC)
            continue;
        n += (size_t)snprintf(text + n, size - n, "%s%s %s %.4g%s", n ? ", " : "", statistic_words[b->statistic],
                              b->least ? ">=" : "<=", share ? 100 * b->limit : b->limit, share ? " %" : "");
    }
    return text;
}

/* On a page the rows are named in the table; a terminal has no room for that, so there they have numbers. */
static void add_part(struct print_table *out, const struct moesim_fidelity_table *t, uint32_t p, bool page)
{
    const struct moesim_fidelity_part *part = &t->part[p];
    char text[128], error[32];
    if (page)
        print_text(out, part->rows);
    else
        print_number(out, p + 1, NULL);
    print_text(out, role_words[part->role]);
    print_number(out, part->n, NULL);
    for (int s = MOESIM_MEAN_ERROR; s <= MOESIM_MAX_ERROR; s++)
        print_text(out, error_text(t, part->error[s], false, error));
    print_text(out, error_text(t, part->bias, true, error));
    if (page)
        print_text(out, promise(t, part, text, sizeof text));
    print_text(out, verdict_words[part->verdict]);
}

/* "4  below 16 MiB: max <= 10 % is promised; NCCL changes its protocol ..." */
static void name_parts(const struct moesim_fidelity_table *t)
{
    for (uint32_t p = 0; p < t->n_parts; p++) {
        const struct moesim_fidelity_part *part = &t->part[p];
        char text[128], line[1024];
        promise(t, part, text, sizeof text);
        snprintf(line, sizeof line, "%s%s%s%s%s%s", part->rows, *text ? ": " : "", text, *text ? " is promised" : "",
                 part->known ? "; " : "", part->known ? part->known : "");
        printf("%u  ", p + 1);
        cli_print_wrapped(stdout, line, 3, 3);
    }
}

static bool print_parts(const struct moesim_fidelity_table *t, bool page)
{
    struct print_column head[10];
    uint32_t n = 0;
    head[n++] = (struct print_column){.title = page ? "rows" : "#"};
    head[n++] = (struct print_column){.title = "role"};
    static const char *const numbers[] = {"n", "mean", "median", "p90", "max", "bias"};
    for (uint32_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        head[n++] = (struct print_column){.title = numbers[i], .right = true};
    if (page)
        head[n++] = (struct print_column){.title = "promised"};
    head[n++] = (struct print_column){.title = "verdict"};
    struct print_table *out = print_table_create(head, n);
    for (uint32_t p = 0; out && p < t->n_parts; p++)
        add_part(out, t, p, page);
    const bool good = out && print_table(out, page ? PRINT_MARKDOWN : PRINT_TABLE);
    print_table_destroy(out);
    if (!page) {
        puts("");
        name_parts(t);
    }
    for (uint32_t p = 0; page && p < t->n_parts; p++)
        if (t->part[p].known)
            printf("\n%s: %s.\n", t->part[p].rows, t->part[p].known);
    return good;
}

static bool print_constants(const struct moesim_fidelity_table *t, enum print_format format)
{
    static const struct print_column head[] = {{.title = "constant"},
                                               {.title = "unit"},
                                               {.title = "fitted", .right = true},
                                               {.title = "preset", .right = true},
                                               {.title = ""}};
    struct print_table *out = t->n_constants ? print_table_create(head, 5) : NULL;
    for (uint32_t i = 0; out && i < t->n_constants; i++) {
        const struct moesim_fidelity_constant *c = &t->constant[i];
        char fitted[32], preset[32];
        snprintf(fitted, sizeof fitted, "%.4g", c->fitted);
        snprintf(preset, sizeof preset, "%.4g", c->preset);
        print_text(out, c->key);
        print_text(out, c->unit);
        print_text(out, fitted);
        print_text(out, preset);
        print_text(out, has_drifted(c) ? "NOT THE SAME" : "the same");
    }
    const bool good = !t->n_constants || (out && print_table(out, format));
    print_table_destroy(out);
    if (t->n_constants)
        puts("");
    return good;
}

static bool print_points(const struct moesim_fidelity_table *t, bool page)
{
    const struct print_column head[] = {{.title = "row"},
                                        {.title = page ? "role" : "#"},
                                        {.title = "published", .right = true},
                                        {.title = "predicted", .right = true},
                                        {.title = "error", .right = true}};
    struct print_table *out = print_table_create(head, 5);
    for (uint32_t i = 0; out && i < t->n_points; i++) {
        const struct moesim_fidelity_point *p = &t->point[i];
        char published[32], predicted[32], error[32];
        snprintf(published, sizeof published, "%.4g", p->published);
        snprintf(predicted, sizeof predicted, "%.4g", p->predicted);
        print_text(out, p->row);
        if (page)
            print_text(out, role_words[t->part[p->part].role]);
        else
            print_number(out, p->part + 1, NULL);
        print_text(out, published);
        print_text(out, predicted);
        print_text(out, error_text(t, moesim_fidelity_error(t, p), true, error));
    }
    const bool good = out && print_table(out, page ? PRINT_MARKDOWN : PRINT_TABLE);
    print_table_destroy(out);
    return good;
}

/* A paragraph on a page, wrapped lines on a terminal. */
static void print_line(const char *what, const char *text, bool page)
{
    char line[1024];
    if (!*text)
        return;
    snprintf(line, sizeof line, "%s: %s.", what, text);
    if (page)
        puts(line);
    else
        cli_print_wrapped(stdout, line, 0, 2);
}

static bool print_one(const struct moesim_fidelity_table *t, enum print_format format, bool points)
{
    const bool page = format == PRINT_MARKDOWN;
    printf("%s%s (`%s`)\n\n", page ? "## " : "", t->title, t->name);
    print_line("Source", t->source, page);
    print_line(page ? "\nCluster preset" : "Cluster preset", t->preset, page);
    print_line(page ? "\nCalibrated" : "Calibrated", t->calibration, page);
    print_line(page ? "\nUnit" : "Unit", t->unit, page);
    print_line(page ? "\nRemark" : "Remark", t->remark, page);
    puts("");
    if (t->skipped) {
        printf("Skipped: %s.\n\n", t->skipped);
        return true;
    }
    bool good = print_constants(t, format) && print_parts(t, page);
    if (points || !t->long_table) {
        puts("");
        good = good && print_points(t, page);
    }
    puts("");
    return good;
}

static void print_tally(const struct fidelity_tally *tally, bool page)
{
    char line[256];
    snprintf(line, sizeof line,
             "%u promises hold, %u are missed, %u failures are known, %u constants of presets differ from their "
             "calibration, %u tables were skipped.",
             tally->held, tally->missed, tally->known, tally->drifted, tally->skipped);
    if (page)
        puts(line);
    else
        cli_print_wrapped(stdout, line, 0, 0);
}

/* ---- JSON ---- */

static json_t *part_json(const struct moesim_fidelity_part *part)
{
    json_t *bounds = json_array();
    for (uint32_t i = 0; i < MOESIM_FIDELITY_BOUNDS; i++)
        if (part->bound[i].statistic != MOESIM_NO_STATISTIC)
            json_array_append_new(
                bounds, json_pack("{s:s, s:s, s:f}", "statistic", statistic_words[part->bound[i].statistic], "is",
                                  part->bound[i].least ? "at least" : "at most", "limit", part->bound[i].limit));
    return json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:o, s:s, s:s?}", "rows", part->rows, "role",
                     role_words[part->role], "n", (json_int_t)part->n, "mean", part->error[MOESIM_MEAN_ERROR], "median",
                     part->error[MOESIM_MEDIAN_ERROR], "p90", part->error[MOESIM_P90_ERROR], "max",
                     part->error[MOESIM_MAX_ERROR], "bias", part->bias, "promised", bounds, "verdict",
                     verdict_words[part->verdict], "known", part->known);
}

static json_t *table_json(const struct moesim_fidelity_table *t)
{
    json_t *constants = json_array(), *parts = json_array(), *points = json_array();
    for (uint32_t i = 0; i < t->n_constants; i++)
        json_array_append_new(constants,
                              json_pack("{s:s, s:s, s:f, s:f}", "key", t->constant[i].key, "unit", t->constant[i].unit,
                                        "fitted", t->constant[i].fitted, "preset", t->constant[i].preset));
    for (uint32_t i = 0; i < t->n_parts; i++)
        json_array_append_new(parts, part_json(&t->part[i]));
    for (uint32_t i = 0; i < t->n_points; i++) {
        const struct moesim_fidelity_point *p = &t->point[i];
        json_array_append_new(points, json_pack("{s:s, s:s, s:f, s:f, s:f}", "row", p->row, "rows",
                                                t->part[p->part].rows, "published", p->published, "predicted",
                                                p->predicted, "error", moesim_fidelity_error(t, p)));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s?, s:o, s:o, s:o}", "table", t->name, "title", t->title,
                     "source", t->source, "preset", t->preset, "calibration", t->calibration, "unit", t->unit,
                     "absolute", t->absolute, "skipped", t->skipped, "constants", constants, "parts", parts, "points",
                     points);
}

static bool print_json(const struct moesim_fidelity_table *tables, uint32_t n)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(all, table_json(&tables[i]));
    const bool good =
        json_array_size(all) == n && json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0;
    puts("");
    json_decref(all);
    return good;
}

bool fidelity_print(const struct moesim_fidelity_table *tables, uint32_t n, enum print_format format, bool points)
{
    const struct fidelity_tally tally = fidelity_count(tables, n);
    bool good = true;
    if (format == PRINT_JSON)
        return print_json(tables, n);
    if (format == PRINT_MARKDOWN) {
        puts(
            "# Fidelity\n\n"
            "Made by `moesim fidelity --format md --data DIR`. Published measurements against what the program's cost "
            "path predicts for\nthem, with the cluster presets that `run` and `cost` use. Each transport of a preset "
            "was calibrated once, on the rows\nnamed below; *held out* rows were not looked at. Errors are predicted / "
            "published - 1 without sign, bias is their mean with\nsign. A *known failure* is a promise that the model "
            "does not keep, and why. Formulae: [cost-model.md](cost-model.md).\n");
        print_tally(&tally, true);
        puts("");
    }
    for (uint32_t i = 0; i < n && good; i++)
        good = print_one(&tables[i], format, points);
    if (format == PRINT_TABLE)
        print_tally(&tally, false);
    return good;
}
