/*
 * The top of a study: its keys, its plain values and seeds, and in which order the axes turn.
 */
#include "sim/study/resolve.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "sim/study/spec.h"

enum { DEFAULT_SEEDS = 5, MAX_STEPS = 10000000, MAX_MICRO_BATCHES = 65536 };

const struct moesim_param moesim_plain_params[] = {
    MOESIM_CHOICE(
        struct moesim_plain, mode, "route", MOESIM_MODE_CHOICES,
        "route: decisions, metrics, modelled cost; execute: also the real layer, measured; train: a language model "
        "whose gate learns"),
    MOESIM_CHOICE(struct moesim_plain, phase, "train", "train|eval",
                  "noise, jitter, random choices and bias updates belong to training"),
    MOESIM_PARAM(struct moesim_plain, steps, "50", 1, MAX_STEPS, "batches of a run"),
    MOESIM_PARAM(struct moesim_plain, warm_up, "0", 0, MAX_STEPS,
                 "first batches of a run that no figure counts; default: what placements fit their loads on, else 0"),
    MOESIM_PARAM(struct moesim_plain, micro_batches, "1", 1, MAX_MICRO_BATCHES,
                 "batches that form one global batch, after which routers update"),
    MOESIM_CHOICE_IN(struct moesim_plain, options, padding, "none", MOESIM_PADDING_CHOICES,
                     "rows that the expert kernel computes without a token"),
    MOESIM_CHOICE_IN(struct moesim_plain, options, backward, "false", "false|true",
                     "price the backward pass too: twice the forward's arithmetic, the same exchanges"),
    MOESIM_CHOICE_IN(struct moesim_plain, options, sync, "exposed", MOESIM_SYNC_CHOICES,
                     "gradients are summed after the backward pass, or beside its arithmetic"),
    MOESIM_CHOICE_IN(struct moesim_plain, options, all_reduce, "ring", MOESIM_ALL_REDUCE_CHOICES,
                     "how gradients are summed"),
    MOESIM_CHOICE_IN(struct moesim_plain, options, dispatch, "flat", MOESIM_DISPATCH_CHOICES,
                     "how tokens reach their experts: a copy a device, a copy a node that forwards it, a copy an "
                     "expert, all tokens everywhere, or every slot of the capacity"),
    MOESIM_PARAM_IN(struct moesim_plain, options, chunks, "1", 1, 64,
                    "equal parts of a layer whose exchanges and experts overlap; 1 = none"),
    MOESIM_CHOICE(struct moesim_plain, oversize, "flag", MOESIM_OVERSIZE_CHOICES,
                  "a model that a device has no room for: told with the run, or refused before it"),
    MOESIM_PARAM_END,
};

static const char *const other_keys[] = {"study", "seeds", "record", "metrics", "exclude"};

bool moesim_key_known(const char *key, struct moesim_guess *guess)
{
    bool known = false;
    for (uint32_t i = 0; i < MOESIM_N_COMPONENTS; i++) {
        moesim_guess_try(guess, moesim_component_names[i]);
        known |= !strcmp(key, moesim_component_names[i]);
    }
    for (const struct moesim_param *row = moesim_plain_params; row->key; row++) {
        moesim_guess_try(guess, row->key);
        known |= !strcmp(key, row->key);
    }
    for (size_t i = 0; i < sizeof other_keys / sizeof *other_keys; i++) {
        moesim_guess_try(guess, other_keys[i]);
        known |= !strcmp(key, other_keys[i]);
    }
    return known;
}

/* `study` names rows in the store and files of reports. */
static void check_name(struct moesim_resolver *r, const struct moesim_node *node)
{
    const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    if (node->kind != MOESIM_NODE_SCALAR)
        moesim_mistake(r->mistakes, node->line, node->column, "study must be one name");
    else if (!node->text[0] || strlen(node->text) > 64 || node->text[strspn(node->text, allowed)])
        moesim_mistake(r->mistakes, node->line, node->column,
                       "study = '%.70s': a name has 1 to 64 letters, digits, '_', '.' or '-'", node->text);
}

void moesim_keys_check(struct moesim_resolver *r)
{
    for (const struct moesim_node *node = r->root->first; node; node = node->next) {
        struct moesim_guess guess = moesim_guess_of(node->key);
        if (!moesim_key_known(node->key, &guess))
            moesim_mistake(r->mistakes, node->key_line, node->key_column, "unknown key '%.60s'%s", node->key,
                           moesim_guess_text(&guess));
        if (!strcmp(node->key, "study"))
            check_name(r, node);
    }
    static const char *const needed[] = {"workload", "router"};
    for (size_t i = 0; i < 2; i++)
        if (!moesim_node_find(r->root, needed[i]))
            moesim_mistake(r->mistakes, r->root->line, r->root->column, "the study lacks '%s'", needed[i]);
    static const struct {
        const char *key, *other, *wanted;
    } idle[] = {
        {"placement", "cluster", "a cluster"},
        {"dispatch", "cluster", "a cluster"},
        {"chunks", "cluster", "a cluster"},
        {"oversize", "cluster", "a cluster"},
        {"train", "mode", "mode: train"},
        {"sync", "backward", "backward: true"},
        {"all_reduce", "backward", "backward: true"},
    };
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        const struct moesim_node *node = moesim_node_find(r->root, idle[i].key);
        if (node && !moesim_node_find(r->root, idle[i].other))
            moesim_mistake(r->mistakes, node->key_line, node->key_column, "%s has no use without %s", idle[i].key,
                           idle[i].wanted);
    }
}

/* The value's row in a zeroed struct moesim_plain, as text parses; a wrong one is noted. */
static bool parse_plain(struct moesim_resolver *r, const struct moesim_param *row, const char *text,
                        const struct moesim_node *node, uint32_t *value)
{
    struct moesim_plain plain;
    struct moesim_error err;
    struct moesim_guess guess;
    memset(&plain, 0, sizeof plain);
    if (moesim_value_set(row, text, &plain, r->arena, &err) != MOESIM_OK) {
        moesim_mistake(r->mistakes, node->line, node->column, "%s%s", err.text, moesim_choice_guess(row, text, &guess));
        return false;
    }
    memcpy(value, (const char *)&plain + row->offset, sizeof *value);
    return true;
}

/* One or more values; wrong ones are noted, and without a right one the default keeps the other checks going. */
static bool read_plain(struct moesim_resolver *r, uint32_t i, struct moesim_axes *axes)
{
    const struct moesim_param *row = &moesim_plain_params[i];
    const struct moesim_node *node = moesim_node_find(r->root, row->key), default_node = {.line = 0};
    const bool list = node && node->kind == MOESIM_NODE_SEQUENCE;
    uint32_t n = 0, *values = moesim_mistake_alloc(r->mistakes, r->arena, list ? node->n + 1 : 1, sizeof *values);
    if (!values)
        return false;
    if (node && node->kind == MOESIM_NODE_MAPPING)
        moesim_mistake(r->mistakes, node->line, node->column, "%s must be a value or a list of values", row->key);
    else if (list && !node->n)
        moesim_mistake(r->mistakes, node->line, node->column, "%s is an empty list", row->key);
    else
        for (const struct moesim_node *item = list ? node->first : node; item; item = list ? item->next : NULL) {
            if (item->kind != MOESIM_NODE_SCALAR)
                moesim_mistake(r->mistakes, item->line, item->column, "%s: a list holds values only", row->key);
            else
                n += parse_plain(r, row, item->text, item, &values[n]);
        }
    if (n == 0 && row->offset == offsetof(struct moesim_plain, warm_up)) /* what placements fit on is not counted */
        values[n++] = axes->fit_steps;
    if (n == 0)
        n = parse_plain(r, row, row->def, &default_node, &values[0]);
    axes->n_plain[i] = n;
    axes->plain[i] = values;
    return n > 0;
}

struct seed_fields {
    uint64_t seed;
    uint32_t seeds;
};

static void read_seed_list(struct moesim_resolver *r, const struct moesim_node *list, struct moesim_axes *axes)
{
    const struct moesim_param row = MOESIM_PARAM(struct seed_fields, seed, "1", 0, 9007199254740992.0, "a seed");
    for (const struct moesim_node *item = list->first; item; item = item->next) {
        struct seed_fields fields = {0};
        struct moesim_error err;
        if (item->kind != MOESIM_NODE_SCALAR) {
            moesim_mistake(r->mistakes, item->line, item->column, "seeds: a list holds numbers only");
        } else if (moesim_value_set(&row, item->text, &fields, r->arena, &err) != MOESIM_OK) {
            moesim_mistake(r->mistakes, item->line, item->column, "%s", err.text);
        } else if (axes->n_seeds == MOESIM_MAX_POINTS) {
            moesim_mistake(r->mistakes, item->line, item->column, "more than %d seeds", MOESIM_MAX_POINTS);
            return;
        } else {
            axes->seeds[axes->n_seeds++] = fields.seed;
        }
    }
}

static int compare_seeds(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* A seed that stands twice would be one run counted as two. */
static void check_seeds(struct moesim_resolver *r, const struct moesim_node *node, const struct moesim_axes *axes)
{
    uint64_t *sorted = moesim_mistake_alloc(r->mistakes, r->arena, axes->n_seeds, sizeof *sorted);
    if (!sorted)
        return;
    memcpy(sorted, axes->seeds, axes->n_seeds * sizeof *sorted);
    qsort(sorted, axes->n_seeds, sizeof *sorted, compare_seeds);
    for (uint32_t i = 1; i < axes->n_seeds; i++)
        if (sorted[i] == sorted[i - 1])
            moesim_mistake(r->mistakes, node->line, node->column, "seeds: %llu stands in the list twice",
                           (unsigned long long)sorted[i]);
}

/* A count n means the seeds 1 .. n, so that a larger count keeps the runs of a smaller one. */
static bool read_seeds(struct moesim_resolver *r, struct moesim_axes *axes)
{
    const struct moesim_param row =
        MOESIM_PARAM(struct seed_fields, seeds, "5", 1, MOESIM_MAX_POINTS, "number of seeds");
    const struct moesim_node *node = moesim_node_find(r->root, "seeds");
    struct seed_fields fields = {.seeds = DEFAULT_SEEDS};
    struct moesim_error err;
    const uint32_t room = node && node->kind == MOESIM_NODE_SEQUENCE ? node->n : MOESIM_MAX_POINTS;
    if (!(axes->seeds = moesim_mistake_alloc(r->mistakes, r->arena, room + 1, sizeof *axes->seeds)))
        return false;
    if (node && node->kind == MOESIM_NODE_SEQUENCE && node->n) {
        read_seed_list(r, node, axes);
        check_seeds(r, node, axes);
    } else if (node && node->kind != MOESIM_NODE_SCALAR) {
        moesim_mistake(r->mistakes, node->line, node->column, "seeds must be a number of seeds or a list of them");
    } else if (node && moesim_value_set(&row, node->text, &fields, r->arena, &err) != MOESIM_OK) {
        moesim_mistake(r->mistakes, node->line, node->column, "%s", err.text);
    }
    for (uint32_t i = 0; !axes->n_seeds && i < fields.seeds; i++)
        axes->seeds[i] = i + 1;
    if (!axes->n_seeds)
        axes->n_seeds = fields.seeds;
    return true;
}

/* Axes in the order of their keys in the file; those it does not name have one value and turn last. */
static void order_axes(struct moesim_resolver *r, struct moesim_axes *axes)
{
    bool placed[MOESIM_N_AXES] = {false};
    uint32_t n = 0;
    for (const struct moesim_node *node = r->root->first; node; node = node->next) {
        for (uint32_t a = 0; a < MOESIM_N_AXES; a++) {
            const char *key =
                a < MOESIM_N_COMPONENTS ? moesim_component_names[a] : moesim_plain_params[a - MOESIM_N_COMPONENTS].key;
            if (!placed[a] && !strcmp(node->key, key)) {
                placed[a] = true;
                axes->order[n++] = a;
            }
        }
    }
    for (uint32_t a = 0; a < MOESIM_N_AXES; a++)
        if (!placed[a])
            axes->order[n++] = a;
}

/* The most steps that a placement of the study fits its loads on. */
static uint32_t most_fit_steps(const struct moesim_choices *placements)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < placements->n; i++) {
        const struct moesim_choice *c = &placements->item[i];
        const struct moesim_placement_fit *fit = c->known ? moesim_placement_fit(c->placement, c->params) : NULL;
        if (fit && moesim_placement_source(fit) == MOESIM_FROM_WARM_UP && fit->fit_steps > most)
            most = fit->fit_steps;
    }
    return most;
}

bool moesim_axes_read(struct moesim_resolver *r, struct moesim_axes *axes)
{
    memset(axes, 0, sizeof *axes);
    bool formed = true;
    double n = 1; /* no product of list lengths overflows it */
    for (uint32_t c = 0; c < MOESIM_N_COMPONENTS; c++) {
        axes->components[c] = moesim_choices_resolve(r, (enum moesim_component)c);
        if (!axes->components[c].n) {
            /* Not named, or nothing of it understood: one cell without it, for the checks of the rest. */
            axes->components[c].item = moesim_mistake_alloc(r->mistakes, r->arena, 1, sizeof *axes->components[c].item);
            axes->components[c].n = axes->components[c].item != NULL;
        }
        n *= axes->components[c].n;
    }
    axes->fit_steps = most_fit_steps(&axes->components[MOESIM_PLACEMENT]);
    for (uint32_t i = 0; i < MOESIM_N_PLAIN; i++) {
        formed = read_plain(r, i, axes) && formed;
        n *= axes->n_plain[i];
    }
    formed = read_seeds(r, axes) && formed;
    order_axes(r, axes);
    if (n * axes->n_seeds > MOESIM_MAX_POINTS) {
        moesim_mistake(r->mistakes, r->root->line, r->root->column,
                       "the lists multiply to %.0f points; at most %d are allowed", n * axes->n_seeds,
                       MOESIM_MAX_POINTS);
        return false;
    }
    axes->n_cells = (uint64_t)n;
    return formed && n >= 1;
}
