/*
 * What holds for every router: equal bits on any number of threads, one expert, no capacity, bad rows, no tokens.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include <moesim/hash.h>
#include <moesim/kernels.h>

#include "tests/routers/bed.h"

#include "routers/table.h"

TestSuite(all_routers, .timeout = 60);

static uint64_t hash_plan(const struct moesim_plan *p)
{
    uint64_t h = moesim_hash(MOESIM_HASH_START, p->first, (p->n_tokens + 1) * sizeof *p->first);
    h = moesim_hash(h, p->expert, p->n_pairs * sizeof *p->expert);
    h = moesim_hash(h, p->weight, p->n_pairs * sizeof *p->weight);
    h = moesim_hash(h, p->slot, p->n_pairs * sizeof *p->slot);
    h = moesim_hash(h, p->fate, p->n_pairs * sizeof *p->fate);
    for (uint32_t i = 0; i < p->n_aux; i++)
        h = moesim_hash(h, &p->aux[i].value, sizeof p->aux[i].value);
    h = moesim_hash(h, p->dispatch, (size_t)p->n_tokens * p->n_slots * sizeof *p->dispatch);
    h = moesim_hash(h, p->combine, (size_t)p->n_tokens * p->n_slots * sizeof *p->combine);
    return h;
}

/* Enough tokens for several chunks, and groups that cut across them. */
Test(all_routers, equal_bits_on_any_number_of_threads)
{
    static const char *const specs[] = {
        "softmax-topk",
        "softmax-topk:k=3,capacity_factor=0.8,weight=sum,renorm=after-drop",
        "softmax-topk:k=3,capacity_factor=0.8,priority=choice,score=sigmoid",
        "softmax-topk:k=3,capacity_factor=0.8,priority=bpr,weight=softmax",
        "softmax-topk:k=3,capacity_factor=0.8,priority=prob,overflow=reroute",
        "softmax-topk:k=3,capacity_factor=0.8,priority=random,overflow=reroute",
        "noisy-topk:capacity_factor=1",
        "switch",
        "ntlb:capacity_factor=0.5",
        "ntlb:k=2,capacity_factor=0.8,weight=sum,score=sigmoid",
        "quantile:k=3",
        "expert-choice",
        "random:capacity_factor=1,priority=random",
        "round-robin:capacity_factor=0.5",
        "null",
        "hash:table=balanced,k=2",
        "mod",
        "biased:k=3,capacity_factor=1",
        "bernoulli",
        "top-p",
        "top-p:p=0.7,weight=sum,max_experts=5",
        "relu",
        "zero-expert",
        "zero-expert:k=3,capacity_factor=1,n_null=2,gamma=0.1,gating_residual=true",
        "hierarchical:k=4,capacity_factor=0.8,group_capacity_factor=0.9",
        "dselect-k",
        "sparsemixer:epsilon=0.2",
        "soft",
        "cosine:capacity_factor=0.8",
        "base",
        "expert-threshold:k=3",
        "sinkhorn:k=3,capacity_factor=1",
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        uint64_t expected = 0;
        for (int threads = 1; threads <= 4; threads *= 2) {
            struct bed bed;
            omp_set_num_threads(threads == 4 ? 2 : threads); /* scratch made for fewer threads than run */
            cr_assert_eq(bed_open(&bed, specs[i], 5000, 24, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
            omp_set_num_threads(threads);
            bed_fill(&bed, 1, bed.shape.n_columns, 1);
            bed.columns[100] = NAN;
            bed.batch.n_groups = 3;
            bed.group_start[1] = 1500;
            bed.group_start[2] = 1777;
            bed.group_start[3] = 5000;
            for (int again = 0; again < 2; again++) {
                bed_route(&bed);
                const uint64_t h = hash_plan(&bed.plan);
                cr_assert(threads == 1 && again == 0 ? (expected = h, true) : h == expected, "%s on %d threads",
                          specs[i], threads);
            }
            bed_close(&bed);
        }
    }
}

/* Whether the router's name is one of the words. */
static bool is_among(const struct moesim_router *router, const char *words)
{
    const size_t length = strlen(router->name);
    for (const char *at = words; (at = strstr(at, router->name)) != NULL; at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

Test(all_routers, one_expert_takes_everything)
{
    for (size_t i = 0; routers_table[i]; i++) {
        const struct moesim_router *router = routers_table[i];
        struct bed bed;
        const enum moesim_status status = bed_open(&bed, router->name, 12, 1, MOESIM_TRAIN);
        if (is_among(router, "gshard deepseek-v2 deepseek-v3 moge quantile")) { /* they choose among more experts */
            cr_assert_eq(status, MOESIM_EINVAL, "%s", router->name);
            continue;
        }
        cr_assert_eq(status, MOESIM_OK, "%s", bed.err.text);
        bed_fill(&bed, 2, bed.shape.n_columns, 1);
        bed_route(&bed);
        const bool none = is_among(router, "null soft"), few = is_among(router, "mod");
        /* the logit or its sigmoid as weight; or the one expert shares tokens with experts that cost nothing */
        const bool raw = is_among(router, "mod base sinkhorn relu zero-expert"), any = is_among(router, "relu");
        if (!any)
            cr_assert_eq(bed.plan.n_pairs, none ? 0 : few ? 2 : 12, "%s", router->name);
        for (uint64_t p = 0; p < bed.plan.n_pairs; p++)
            cr_assert(bed.plan.fate[p] == MOESIM_KEPT && (raw || bed.plan.weight[p] == 1), "%s: weight %g",
                      router->name, bed.plan.weight[p]);
        bed_close(&bed);
    }
}

/* int(0.01 * 2 * 40 / 8) = 0 slots: every token is refused, nothing else changes. */
Test(all_routers, a_capacity_that_keeps_nothing)
{
    static const char *const names[] = {"softmax-topk", "noisy-topk", "random", "round-robin"};
    static const char *const more[] = {"", ",overflow=reroute", ",priority=prob", ",priority=bpr", ",priority=random"};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 5; j++) {
            char spec[128];
            struct bed bed;
            if (i >= 2 && j == 1)
                continue; /* nothing to reroute by */
            snprintf(spec, sizeof spec, "%s:k=2,capacity_factor=0.01,capacity_rule=megablocks%s", names[i], more[j]);
            cr_assert_eq(bed_open(&bed, spec, 40, 8, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
            bed_fill(&bed, 2, bed.shape.n_columns, 1);
            bed_route(&bed);
            cr_assert(bed.plan.capacity[0] == 0 && bed.plan.n_pairs == 80 && bed.plan.n_wanted == 80, "%s", spec);
            for (int p = 0; p < 80; p++)
                cr_assert(bed.plan.fate[p] == MOESIM_OVER_CAPACITY && bed.plan.weight[p] == 0 &&
                          bed.plan.slot[p] == -1);
            bed_close(&bed);
        }
}

Test(all_routers, bad_rows_and_empty_batches)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; routers_table[i]; i++) {
        const struct moesim_router *router = routers_table[i];
        const bool looks = router->needs & MOESIM_NEEDS_COLUMNS;
        struct bed bed;
        cr_assert_eq(bed_open(&bed, router->name, 32, 16, MOESIM_EVAL), MOESIM_OK, "%s", bed.err.text);
        bed_fill(&bed, 3, bed.shape.n_columns, 1);
        for (uint32_t t = 0; t < 3; t++)
            for (uint32_t e = 0; e < bed.shape.n_columns; e++)
                bed.columns[(size_t)(t * 7) * bed.batch.stride + e] = odd[t];
        bed_route(&bed);
        cr_assert_eq(bed.plan.n_bad_rows, looks ? 3 : 0, "%s", router->name);
        for (uint32_t t = 0; looks && t < 3; t++)
            for (uint32_t p = bed.plan.first[t * 7]; p < bed.plan.first[t * 7 + 1]; p++)
                cr_assert(bed.plan.fate[p] == MOESIM_BAD_ROW && bed.plan.expert[p] == MOESIM_NO_EXPERT);
        bed_close(&bed);

        cr_assert_eq(bed_open(&bed, router->name, 0, 16, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
        bed_route(&bed);
        cr_assert(bed.plan.n_pairs == 0 && bed.plan.n_wanted == 0);
        bed.batch.n_groups = 0;
        bed_route(&bed);
        bed_close(&bed);
    }
}

/* Infinite logits share the weight, those beside them get none. */
Test(all_routers, infinite_logits)
{
    struct bed bed;
    static const char *const specs[] = {"softmax-topk:k=3", "softmax-topk:k=3,weight=sum",
                                        "softmax-topk:k=3,weight=softmax"};
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(bed_open(&bed, specs[i], 1, 5, MOESIM_TRAIN), MOESIM_OK);
        memcpy(bed.columns, (float[]){1, INFINITY, -INFINITY, INFINITY, NAN}, 5 * sizeof(float));
        bed_route(&bed);
        bed_expect(&bed, 0, 3, (uint32_t[]){1, 3, 0}, NULL, (double[]){.5, .5, 0}, 1e-7);
        bed_close(&bed);
    }
    /* fewer numbers than choices: the rest are missing, not bad rows */
    cr_assert_eq(bed_open(&bed, "softmax-topk:k=3", 1, 3, MOESIM_TRAIN), MOESIM_OK);
    memcpy(bed.columns, (float[]){NAN, 2, -INFINITY}, 3 * sizeof(float));
    bed_route(&bed);
    bed_expect(&bed, 0, 3, (uint32_t[]){1, 2, MOESIM_NO_EXPERT}, (int32_t[]){0, 0, -1}, (double[]){1, 0, 0}, 0);
    cr_assert(bed.plan.fate[2] == MOESIM_BAD_ROW && bed.plan.n_wanted == 2 && bed.plan.n_bad_rows == 0);
    bed_close(&bed);
}
