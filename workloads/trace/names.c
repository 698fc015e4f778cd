/*
 * A table of names.
 */
#include "workloads/trace/names.h"

#include <stdlib.h>

static struct name *find_name(const struct names *names, uint64_t hash)
{
    uint32_t at = (uint32_t)(hash ^ hash >> 32) & (names->room - 1);
    while (names->slot[at].used && names->slot[at].hash != hash)
        at = (at + 1) & (names->room - 1);
    return &names->slot[at];
}

static bool grow_names(struct names *names)
{
    struct names wider = {.room = names->room ? 2 * names->room : 256};
    wider.slot = calloc(wider.room, sizeof *wider.slot);
    if (!wider.slot)
        return false;
    for (uint32_t i = 0; i < names->room; i++)
        if (names->slot[i].used)
            *find_name(&wider, names->slot[i].hash) = names->slot[i];
    wider.n = names->n;
    free(names->slot);
    *names = wider;
    return true;
}

enum moesim_status names_number(struct names *names, uint64_t hash, uint32_t *number, struct moesim_error *err)
{
    if (2 * names->n >= names->room && !grow_names(names))
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted while a trace is read");
    struct name *name = find_name(names, hash);
    if (!name->used)
        *name = (struct name){hash, names->n++, true};
    *number = name->number;
    return MOESIM_OK;
}

void names_free(struct names *names)
{
    free(names->slot);
    *names = (struct names){0};
}
