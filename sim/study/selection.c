/*
 * `record` and `metrics`: what is kept beyond summaries, and what is computed at all.
 */
#include "sim/study/resolve.h"

#include <string.h>

/* Marks the metric, or says why not; `extra` are further words that may stand in the list. */
static bool mark_metric(struct moesim_resolver *r, const struct moesim_node *item, const char *list_name,
                        const char *const *extra, bool *marks)
{
    const int metric = moesim_metric_find(item->text);
    if (metric >= 0 && metric < MOESIM_BENCH_CLOCK) { /* the last ones are no study's */
        marks[metric] = true;
        return true;
    }
    struct moesim_guess guess = moesim_guess_of(item->text);
    for (; extra && *extra; extra++)
        moesim_guess_try(&guess, *extra);
    for (int i = 0; i < MOESIM_BENCH_CLOCK; i++)
        moesim_guess_try(&guess, moesim_metrics[i].name);
    moesim_mistake(r->mistakes, item->line, item->column, "%s: unknown metric '%.60s'%s", list_name, item->text,
                   moesim_guess_text(&guess));
    return false;
}

/* The scalars of a key that holds one word or a list; the first, to go on with `next`. */
static const struct moesim_node *first_word(struct moesim_resolver *r, const char *key)
{
    const struct moesim_node *node = moesim_node_find(r->root, key);
    if (!node || node->kind == MOESIM_NODE_SCALAR)
        return node;
    const struct moesim_node *bad = node->kind == MOESIM_NODE_MAPPING ? node : NULL;
    for (const struct moesim_node *item = node->first; item && !bad; item = item->next)
        if (item->kind != MOESIM_NODE_SCALAR)
            bad = item;
    if (bad)
        moesim_mistake(r->mistakes, bad->line, bad->column, "%s must be a list of names", key);
    else if (!node->n)
        moesim_mistake(r->mistakes, node->line, node->column, "%s is an empty list", key);
    return bad ? NULL : node->first;
}

/* The next word of the list that `word` stands in; a single word has none, whatever key follows it. */
static const struct moesim_node *next_word(const struct moesim_node *word)
{
    return word->key ? NULL : word->next;
}

static void read_record(struct moesim_resolver *r, struct moesim_selection *selection)
{
    static const char *const extra[] = {"expert_load", "traffic", NULL};
    for (const struct moesim_node *item = first_word(r, "record"); item; item = next_word(item)) {
        if (!strcmp(item->text, "expert_load")) {
            selection->expert_load = true;
        } else if (!strcmp(item->text, "traffic")) {
            selection->traffic = true;
            if (!moesim_node_find(r->root, "cluster"))
                moesim_mistake(r->mistakes, item->line, item->column, "record: there is no traffic without a cluster");
        } else if (mark_metric(r, item, "record", extra, selection->record) &&
                   !selection->measure[moesim_metric_find(item->text)]) {
            moesim_mistake(r->mistakes, item->line, item->column, "record: '%.60s' is left out by metrics", item->text);
        }
    }
}

void moesim_selection_read(struct moesim_resolver *r, struct moesim_selection *selection)
{
    memset(selection, 0, sizeof *selection);
    const bool narrowed = moesim_node_find(r->root, "metrics") != NULL;
    for (int i = 0; i < MOESIM_BENCH_CLOCK; i++)
        selection->measure[i] = !narrowed;
    for (const struct moesim_node *item = first_word(r, "metrics"); item; item = next_word(item))
        mark_metric(r, item, "metrics", NULL, selection->measure);
    read_record(r, selection);
}
