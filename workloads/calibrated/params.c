/*
 * What is given, what is the preset's, and what cannot be.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/calibrated/source.h"

/* ---- parameters ---- */

static double given(double value, double preset)
{
    return value >= 0 ? value : preset;
}

struct effects source_effects(const struct source_params *params)
{
    const struct effects *p = &params->effects, *preset = &calibrated_presets[params->preset].effects;
    return (struct effects){
        .popularity = given(p->popularity, preset->popularity),
        .popularity_skew = p->popularity_skew == SOURCE_NO_SKEW ? preset->popularity_skew : p->popularity_skew,
        .domain_effect = given(p->domain_effect, preset->domain_effect),
        .domain_tail = given(p->domain_tail, preset->domain_tail),
        .sequence_effect = given(p->sequence_effect, preset->sequence_effect),
        .slow_effect = given(p->slow_effect, preset->slow_effect),
        .slow_rho = given(p->slow_rho, preset->slow_rho),
        .fast_effect = given(p->fast_effect, preset->fast_effect),
        .fast_rho = given(p->fast_rho, preset->fast_rho),
        .token_effect = given(p->token_effect, preset->token_effect),
        .token_echo = given(p->token_echo, preset->token_echo),
    };
}

uint32_t source_domains(const struct source_params *params)
{
    return params->domains ? params->domains : calibrated_presets[params->preset].n_domains;
}

enum moesim_status source_check(const struct source_params *params, struct moesim_error *err)
{
    const struct effects *p = &params->effects;
    const struct {
        const char *key;
        double value;
    } rows[] = {{"popularity", p->popularity},     {"domain_effect", p->domain_effect},
                {"domain_tail", p->domain_tail},   {"sequence_effect", p->sequence_effect},
                {"slow_effect", p->slow_effect},   {"slow_rho", p->slow_rho},
                {"fast_effect", p->fast_effect},   {"fast_rho", p->fast_rho},
                {"token_effect", p->token_effect}, {"token_echo", p->token_echo}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].value < 0 && rows[i].value != -1)
            return moesim_fail(err, MOESIM_EINVAL, "%s = %g: at least 0, or -1 for the preset's", rows[i].key,
                               rows[i].value);
    if (p->popularity_skew < -EFFECTS_MOST_SKEW && p->popularity_skew != SOURCE_NO_SKEW)
        return moesim_fail(err, MOESIM_EINVAL, "popularity_skew = %g: from %g to %g, or %g for the preset's",
                           p->popularity_skew, -EFFECTS_MOST_SKEW, EFFECTS_MOST_SKEW, SOURCE_NO_SKEW);
    return MOESIM_OK;
}

/* ---- profile ---- */

/* Number `i` of the text; false past the last. */
static bool next_number(const char **text, double *number)
{
    char *end;
    *text += strspn(*text, " \t\n");
    if (!**text)
        return false;
    *number = strtod(*text, &end);
    if (end == *text || (*end && !strchr(" \t\n", *end)))
        *number = NAN;
    *text = end;
    return true;
}

enum moesim_status source_profile(const struct source_params *params, double *number, uint32_t *n,
                                  struct moesim_error *err)
{
    const char *text = *params->profile ? params->profile : calibrated_presets[params->preset].profile;
    double x;
    *n = 0;
    if (strcmp(text, "flat") == 0)
        return MOESIM_OK;
    while (next_number(&text, &x)) {
        if (!(x > 0 && x <= 1e6))
            return moesim_fail(err, MOESIM_EINVAL,
                               "profile: number %u is not above 0: numbers with blanks between, or flat", *n + 1);
        if (*n == PROFILE_MOST)
            return moesim_fail(err, MOESIM_EINVAL, "profile: more than %d numbers", PROFILE_MOST);
        if (number)
            number[*n] = x;
        ++*n;
    }
    return MOESIM_OK;
}

enum moesim_status source_shape(const struct source_params *params, struct moesim_workload_shape *shape,
                                struct moesim_error *err)
{
    const struct calibrated_preset *preset = &calibrated_presets[params->preset];
    uint32_t n;
    shape->n_layers = preset->n_layers;
    shape->n_experts = preset->n_experts;
    shape->top_k = preset->top_k;
    shape->any_model = true;
    shape->vocabulary = params->vocabulary;
    shape->n_domains = source_domains(params);
    const enum moesim_status status = source_check(params, err);
    return status ? status : source_profile(params, NULL, &n, err);
}
