/*
 * Random settings of a router's parameters, drawn from its own schema.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/experiment/conformance_suite.h"

struct draw draw_start(uint64_t seed, uint32_t step)
{
    return (struct draw){.random = {.seed = seed, .stream = MOESIM_STREAM_TEST, .step = step}};
}

uint32_t draw_below(struct draw *d, uint32_t n)
{
    return moesim_random_below(&d->random, d->next++, n);
}

bool draw_coin(struct draw *d)
{
    return draw_below(d, 2) == 1;
}

double draw_uniform(struct draw *d)
{
    return (double)moesim_random_uniform(&d->random, d->next++);
}

double draw_log(struct draw *d, double lo, double hi)
{
    return lo * pow(hi / lo, draw_uniform(d));
}

enum moesim_status settings_init(struct settings *s, const struct moesim_router *router, uint32_t top_k,
                                 struct moesim_error *err)
{
    *s = (struct settings){.arena = moesim_arena_create(0)};
    s->params = s->arena ? moesim_alloc(s->arena, 1, router->params_size) : NULL;
    if (!s->params)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the parameters of router %s", router->name);
    return moesim_params_default(moesim_router_schema(router), top_k, s->params, s->arena, err);
}

void settings_finish(struct settings *s)
{
    moesim_arena_destroy(s->arena);
}

bool settings_set(struct settings *s, const struct moesim_param *row, const char *text)
{
    if (moesim_param_set(row, text, s->params, s->arena, NULL) != MOESIM_OK)
        return false;
    const size_t used = strlen(s->text);
    snprintf(s->text + used, sizeof s->text - used, "%s%s=%s", used ? "," : "", row->key, text);
    return true;
}

/* ---- values ---- */

static double number_of(const struct moesim_param *row, const void *params)
{
    const void *field = (const char *)params + row->offset;
    switch (row->type) {
    case MOESIM_TYPE_UINT:
        return *(const uint32_t *)field;
    case MOESIM_TYPE_SIZE:
        return (double)*(const uint64_t *)field;
    default:
        return *(const double *)field;
    }
}

/* The largest value that is tried: bounds that only keep nonsense out would ask for all memory and time. Whole numbers
 * go as far as leaves 2^20 cells for one array of (token, expert, number), or to 16. */
static double largest(const struct moesim_param *row, const struct trial_case *c)
{
    const double cells = fmax(1, (double)c->n_tokens * c->n_experts);
    return fmin(row->max, row->type == MOESIM_TYPE_REAL ? 1e6 : fmax(16, 0x1p20 / cells));
}

/* Near the present value, between 0 and 1, or at a bound: where formulas change their course. */
static double draw_number(struct draw *d, const struct moesim_param *row, double now, const struct trial_case *c)
{
    switch (draw_below(d, 8)) {
    case 0:
        return row->min;
    case 1:
        return largest(row, c);
    case 2:
        return now * 2;
    case 3:
        return now / 2;
    case 4:
        return now - 1;
    case 5:
        return draw_log(d, 0.01, 1);
    default:
        return now + 1 + draw_below(d, 8);
    }
}

static void number_text(const struct moesim_param *row, double value, char text[VALUE_TEXT])
{
    value = fmin(fmax(value, row->min), row->max);
    if (row->type == MOESIM_TYPE_REAL)
        snprintf(text, VALUE_TEXT, "%.9g", value);
    else
        snprintf(text, VALUE_TEXT, "%.0f", ceil(value));
}

static void draw_choice(struct draw *d, const char *choices, char text[VALUE_TEXT])
{
    uint32_t n = 1;
    for (const char *c = choices; *c; c++)
        n += *c == '|';
    for (uint32_t i = draw_below(d, n); i > 0; i--)
        choices = strchr(choices, '|') + 1;
    snprintf(text, VALUE_TEXT, "%.*s", (int)strcspn(choices, "|"), choices);
}

static void draw_group(struct draw *d, char text[VALUE_TEXT])
{
    static const char *const groups[] = {"device", "batch", "sequence"};
    const uint32_t i = draw_below(d, 4);
    if (i < 3)
        snprintf(text, VALUE_TEXT, "%s", groups[i]);
    else
        snprintf(text, VALUE_TEXT, "%u", 1 + draw_below(d, 40));
}

/* Mostly 1, else one of the numbers that divide n. */
static uint32_t draw_divisor(struct draw *d, uint32_t n)
{
    uint32_t divisor = draw_coin(d) ? 1 : (uint32_t)draw_log(d, 1, n + 0.999);
    while (n % divisor != 0)
        divisor--;
    return divisor;
}

/* One or two losses joined by '+', sometimes with a factor; or none. */
static void draw_losses(struct draw *d, char text[VALUE_TEXT])
{
    static const char *const often[] = {"none", "square", "importance", "gshard", "switch", "z", "global-batch"};
    static const char *const picky[] = {"load", "device", "communication", "sequence"}; /* ask for other settings */
    const uint32_t i = draw_below(d, 7);
    if (draw_below(d, 8) == 0) {
        snprintf(text, VALUE_TEXT, "%s", picky[draw_below(d, 4)]);
        return;
    }
    snprintf(text, VALUE_TEXT, "%s%s", i == 0 || draw_coin(d) ? "" : "0.5*", often[i]);
    if (i > 0 && draw_coin(d))
        snprintf(text + strlen(text), VALUE_TEXT - strlen(text), "+%s", often[1 + i % 6]);
}

bool draw_value(struct draw *d, const struct moesim_param *row, const void *params, const struct trial_case *c,
                char text[VALUE_TEXT])
{
    switch ((enum moesim_param_type)row->type) {
    case MOESIM_TYPE_TEXT:
        if (strcmp(row->key, "group") == 0)
            draw_group(d, text);
        else if (strcmp(row->key, "aux_form") == 0)
            draw_losses(d, text);
        else
            return false;
        return true;
    case MOESIM_TYPE_FILE: /* trial_init makes up its numbers */
        snprintf(text, VALUE_TEXT, "%s", draw_coin(d) ? "trial.npy" : "");
        return true;
    case MOESIM_TYPE_CHOICE:
        draw_choice(d, row->choices, text);
        return true;
    case MOESIM_TYPE_BOOL:
        snprintf(text, VALUE_TEXT, "%s", draw_coin(d) ? "true" : "false");
        return true;
    default:
        if (strcmp(row->key, "k") == 0)
            number_text(row, floor(draw_log(d, 1, c->n_experts + 0.999)), text);
        else if (strcmp(row->key, "n_groups") == 0)
            number_text(row, draw_divisor(d, c->n_experts), text);
        else if (strcmp(row->key, "topk_groups") == 0) /* more than 1 only where there are groups */
            number_text(row, draw_below(d, 4) ? draw_below(d, 2) : 2 + draw_below(d, 3), text);
        else if (strcmp(row->key, "capacity_factor") == 0)
            number_text(row, draw_below(d, 4) ? draw_log(d, 0.01, c->n_experts + 0.01) : 0, text);
        else
            number_text(row, draw_number(d, row, number_of(row, params), c), text);
        return true;
    }
}

void settings_draw(struct settings *s, const struct moesim_router *router, const struct trial_case *c,
                   const struct moesim_param *except, struct draw *d)
{
    const struct moesim_schema schema = moesim_router_schema(router);
    const struct moesim_param *row;
    char text[VALUE_TEXT];
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)) != NULL; i++)
        if (row != except && draw_coin(d) && draw_value(d, row, s->params, c, text))
            settings_set(s, row, text);
}
