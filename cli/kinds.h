/*
 * The kinds of things that have names: what `list` lists and `describe` describes.
 */
#ifndef MOESIM_CLI_KINDS_H
#define MOESIM_CLI_KINDS_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/router.h>

/* One named thing. Texts may be NULL. */
struct kind_item {
    const char *name, *summary, *reference;
    struct moesim_schema schema;
    const void *values; /* of the schema's struct, shown instead of its defaults: presets; or NULL */
    const void *peak;   /* of the same struct, the vendor's figures of a cluster, 0 where there is none; or NULL */
    const char *text;   /* a study's YAML */
    const void *metric; /* struct moesim_metric */
    const char *router; /* SPEC of a model's own router */
    const struct moesim_router *hooks; /* of a router */
};

struct kind {
    const char *singular, *plural, *title;
    bool (*item)(uint32_t i, struct kind_item *item); /* false past the end */
};

extern const struct kind cli_kinds[]; /* ended by singular NULL */

/* By singular or plural; prints "did you mean" and returns NULL when there is none. */
const struct kind *kind_find(const char *word, const char *verb);

#endif
