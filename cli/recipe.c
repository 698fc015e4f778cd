/* A preset as a SPEC. */
#include "cli/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>

#include "routers/table.h"

static const struct moesim_router *softmax_topk(void)
{
    for (const struct moesim_router *const *r = routers_table; *r; r++)
        if (strcmp((*r)->name, "softmax-topk") == 0)
            return *r;
    return NULL;
}

/* Whether every parameter is one of `base`, and the functions are the family's. */
static bool is_point(const struct moesim_router *router, const struct moesim_router *base)
{
    const struct moesim_param *row;
    bool point = router->route == moesim_choice_route && router->route == base->route && router != base;
    for (uint32_t i = 0; point && (row = moesim_schema_row(moesim_router_schema(router), i)); i++)
        point = moesim_schema_find(moesim_router_schema(base), row->key) != NULL;
    return point;
}

char *recipe_of(const struct moesim_router *router)
{
    const struct moesim_router *base = softmax_topk();
    char *text = NULL;
    size_t size;
    FILE *out = router && base && is_point(router, base) ? open_memstream(&text, &size) : NULL;
    if (!out)
        return NULL;
    fputs(base->name, out);
    char separator = ':';
    const struct moesim_param *row, *own;
    for (uint32_t i = 0; (row = moesim_schema_row(moesim_router_schema(base), i)); i++) {
        own = moesim_schema_find(moesim_router_schema(router), row->key);
        if (!own || strcmp(own->def, row->def) == 0)
            continue;
        fprintf(out, "%c%s=%s", separator, row->key, own->def);
        separator = ',';
    }
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
