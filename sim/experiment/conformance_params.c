/*
 * Every documented parameter does something: some other value of it changes a decision, a weight, a capacity, a loss, a
 * gradient or what the host is asked for.
 */
#include <stdio.h>
#include <string.h>

#include "sim/experiment/conformance_suite.h"

#define N_BASES 256u /* settings of the other parameters */
#define N_VALUES 8u  /* values tried against one of them */

/* What became of one parameter. */
struct evidence {
    bool changed;    /* a value that makes a difference was found */
    bool comparable; /* two accepted values were compared */
    bool testable;   /* we can make up values; not so for a file's name */
};

static struct trial_case base_case(uint64_t seed, uint32_t base, struct draw *d)
{
    struct trial_case c = {.seed = seed + base,
                           .n_tokens = 24 + draw_below(d, 100),
                           .n_experts = (base % 4 < 2 ? 8u : 12u) << draw_below(d, 4),
                           .top_k = 2,
                           .n_devices = 1 + draw_below(d, 3),
                           .n_steps = 2};
    c.phase = base % 2 ? MOESIM_EVAL : MOESIM_TRAIN;
    return c;
}

/* Compares the base with one value of the row on top of it. */
static enum moesim_status compare_value(struct suite *suite, const struct trial_case *c, struct settings *s,
                                        const struct moesim_param *row, const char *text, uint64_t base_hash,
                                        struct evidence *evidence, struct moesim_error *err)
{
    char before[512];
    if (moesim_param_format(row, s->params, before, sizeof before) >= sizeof before || strcmp(before, text) == 0)
        return MOESIM_OK;
    const size_t used = strlen(s->text);
    if (!settings_set(s, row, text))
        return MOESIM_OK;
    uint64_t hash;
    enum moesim_status status = trial_run(suite->router, c, s->params, &hash, err);
    if (status == MOESIM_OK) {
        evidence->comparable = true;
        evidence->changed = hash != base_hash;
    } else if (!is_refusal(status) && status != MOESIM_ENOMEM) {
        suite_check(suite, false, c, s->text, "%s", err->text);
    }
    s->text[used] = '\0';
    settings_set(s, row, before);
    s->text[used] = '\0';
    return status == MOESIM_ENOMEM ? status : MOESIM_OK;
}

/* One setting of the other parameters, several values of this one. Base 0 has all defaults. */
static enum moesim_status try_base(struct suite *suite, const struct moesim_param *row, uint32_t base,
                                   struct evidence *evidence, struct moesim_error *err)
{
    struct draw d = draw_start(suite->seed ^ row->offset, base + 1);
    const struct trial_case c = base_case(suite->seed, base, &d);
    struct settings s;
    uint64_t hash;
    enum moesim_status status = settings_init(&s, suite->router, c.top_k, err);
    if (status == MOESIM_OK) {
        if (base > 1)
            settings_draw(&s, suite->router, &c, row, &d);
        status = trial_run(suite->router, &c, s.params, &hash, err);
        char text[VALUE_TEXT];
        for (uint32_t v = 0; v < N_VALUES && status == MOESIM_OK && !evidence->changed; v++) {
            evidence->testable = draw_value(&d, row, s.params, &c, text);
            if (!evidence->testable)
                break;
            status = compare_value(suite, &c, &s, row, text, hash, evidence, err);
        }
    }
    settings_finish(&s);
    return status == MOESIM_ENOMEM ? status : MOESIM_OK; /* a refused base is no base */
}

enum moesim_status suite_parameters(struct suite *suite, struct moesim_error *err)
{
    const struct moesim_schema schema = moesim_router_schema(suite->router);
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)) != NULL; i++) {
        struct evidence evidence = {.testable = true};
        for (uint32_t base = 0; base < N_BASES && evidence.testable && !evidence.changed; base++) {
            const enum moesim_status status = try_base(suite, row, base, &evidence, err);
            if (status != MOESIM_OK)
                return status;
        }
        const struct trial_case c = {.seed = suite->seed};
        if (evidence.testable)
            suite_check(suite, evidence.changed, &c, "",
                        evidence.comparable ? "parameter %s changes nothing in %u settings"
                                            : "parameter %s has no second value that is accepted in %u settings",
                        row->key, N_BASES);
    }
    return MOESIM_OK;
}
