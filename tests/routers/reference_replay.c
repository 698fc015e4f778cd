/*
 * Reference of replay without a file: the first k recorded experts of each token with their recorded weights, and of an
 * expert's pairs in token order as many as it has slots in the group. What concerns files is in tests/routers/replay.c.
 */
#include "tests/routers/expected.h"
#include "tests/routers/reference_routers.h"

static void refuse_past_capacity(struct expected *x)
{
    for (uint32_t g = 0; g < x->batch->n_groups; g++) {
        const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
        const uint32_t slots = slots_per_expert(x, n_tokens_of(x, first, last), count(x, "k"));
        for (uint32_t e = 0; e < x->n_experts; e++)
            x->capacity[g * x->n_experts + e] = slots;
        for (uint32_t t = first; t < last; t++)
            for (uint32_t c = 0; c < x->n[t]; c++) {
                struct expected_pair *p = pair_of(x, t, c);
                if (p->fate != MOESIM_KEPT || (uint32_t)p->slot < slots)
                    continue;
                p->fate = MOESIM_OVER_CAPACITY;
                p->slot = -1;
                p->weight = 0;
            }
    }
}

void reference_replay(struct expected *x)
{
    const struct moesim_decisions *d = x->batch->decisions;
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t i = d->first[t]; i < d->first[t + 1] && !is_padding(x, t); i++)
            if (i - d->first[t] < count(x, "k"))
                want(x, t, d->expert[i], 0)->weight = (double)d->weight[i];
    seat(x);
    refuse_past_capacity(x);
}
