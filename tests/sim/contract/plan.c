/*
 * The plan: memory, counts, the experts' view, and each broken promise one by one.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/plan.h>

TestSuite(plan, .timeout = 60);

/* Two groups of three tokens, four experts, two slots each:
 *   group 0: token 0 -> 0, 1;  token 1 -> 0, 2;  token 2 -> 0 (over capacity), 3
 *   group 1: token 3 bad;      token 4 -> 0 (rerouted), 1;  token 5 padding */
struct fixture {
    struct moesim_arena *arena;
    struct moesim_plan plan;
    struct moesim_batch batch;
    void *scratch;
    struct moesim_error err;
};
static struct fixture f;
static const uint32_t group_start[] = {0, 3, 6};
static const uint8_t padding[] = {0, 0, 0, 0, 0, 1};

static void fill(void)
{
    static const uint32_t first[] = {0, 2, 4, 6, 8, 10, 10};
    static const uint32_t expert[] = {0, 1, 0, 2, 0, 3, MOESIM_NO_EXPERT, MOESIM_NO_EXPERT, 0, 1};
    static const int32_t slot[] = {0, 0, 1, 0, -1, 0, -1, -1, -1, 0};
    static const float weight[] = {.5f, .5f, .75f, .25f, 0, 1, 0, 0, 0, 1};
    static const uint8_t fate[] = {0, 0, 0, 0, MOESIM_OVER_CAPACITY, 0, MOESIM_BAD_ROW, MOESIM_BAD_ROW, MOESIM_REROUTED,
                                   0};
    struct moesim_plan *p = &f.plan;
    moesim_plan_reset(p, &f.batch);
    p->n_pairs = 10;
    memcpy(p->first, first, sizeof first);
    memcpy(p->expert, expert, sizeof expert);
    memcpy(p->slot, slot, sizeof slot);
    memcpy(p->weight, weight, sizeof weight);
    memcpy(p->fate, fate, sizeof fate);
    for (int i = 0; i < 8; i++)
        p->capacity[i] = 2;
    p->n_wanted = 7;
    p->n_bad_rows = 1;
}

static void set_up(void)
{
    f.arena = moesim_arena_create(0);
    f.batch = (struct moesim_batch){
        .n_tokens = 6, .n_experts = 4, .n_groups = 2, .group_start = group_start, .padding = padding};
    cr_assert_eq(moesim_plan_init(&f.plan, 6, 4, 2, 12, 0, f.arena, &f.err), MOESIM_OK);
    f.scratch = moesim_alloc(f.arena, moesim_plan_check_scratch(4, 12), 1);
    memset(f.scratch, 0xa5, moesim_plan_check_scratch(4, 12));
    fill();
}

static void tear_down(void)
{
    moesim_arena_destroy(f.arena);
}

static enum moesim_status check(void)
{
    return moesim_plan_check(&f.plan, &f.batch, "mine", f.scratch, &f.err);
}

Test(plan, memory_and_losses, .init = set_up, .fini = tear_down)
{
    struct moesim_plan soft;
    cr_assert_eq(moesim_plan_init(&soft, 3, 4, 1, 0, 8, f.arena, &f.err), MOESIM_OK);
    cr_assert(soft.dispatch && soft.combine && soft.n_slots == 8);
    cr_assert_null(f.plan.dispatch);
    cr_assert_eq(moesim_plan_init(&soft, 3, 4, 1, UINT32_MAX, 0, f.arena, &f.err), MOESIM_EINVAL);
    struct moesim_arena *small = moesim_arena_create(4096);
    cr_assert_eq(moesim_plan_init(&soft, 1000, 4, 1, 2000, 0, small, &f.err), MOESIM_ENOMEM);
    struct moesim_expert_view view;
    cr_assert_eq(moesim_expert_view_init(&view, 4, 2000, small, &f.err), MOESIM_ENOMEM);
    moesim_arena_destroy(small);

    cr_assert_eq(moesim_plan_aux_loss(&f.plan), 0);
    for (int i = 0; i < MOESIM_MAX_AUX; i++)
        moesim_plan_add_aux(&f.plan, "load", 1 << i);
    cr_assert_eq(moesim_plan_aux_loss(&f.plan), 255);
    cr_assert_eq(check(), MOESIM_OK);
    moesim_plan_add_aux(&f.plan, "one too many", 1000);
    cr_assert_eq(moesim_plan_aux_loss(&f.plan), 255);
    cr_assert_eq(check(), MOESIM_EBROKEN);
    moesim_plan_reset(&f.plan, &f.batch);
    cr_assert(f.plan.n_pairs == 0 && f.plan.n_aux == 0 && f.plan.n_wanted == 0 && f.plan.n_bad_rows == 0);
}

Test(plan, counts_and_view, .init = set_up, .fini = tear_down)
{
    uint64_t assigned[4] = {9, 9, 9, 9}, kept[4] = {9, 9, 9, 9};
    moesim_plan_count(&f.plan, assigned, kept);
    cr_assert_arr_eq(assigned, ((uint64_t[]){4, 2, 1, 1}), sizeof assigned);
    cr_assert_arr_eq(kept, ((uint64_t[]){2, 2, 1, 1}), sizeof kept);
    memset(kept, 0, sizeof kept);
    moesim_plan_count(&f.plan, NULL, kept);
    cr_assert_eq(kept[1], 2);
    moesim_plan_count(&f.plan, assigned, NULL);
    cr_assert_eq(assigned[0], 4);

    struct moesim_expert_view view;
    cr_assert_eq(moesim_expert_view_init(&view, 4, 12, f.arena, &f.err), MOESIM_OK);
    for (int again = 0; again < 2; again++) {
        moesim_expert_view_build(&view, &f.plan);
        cr_assert_arr_eq(view.start, ((uint32_t[]){0, 2, 4, 5, 6}), 5 * sizeof(uint32_t));
        cr_assert_arr_eq(view.pair, ((uint32_t[]){0, 2, 1, 9, 3, 5}), 6 * sizeof(uint32_t));
        cr_assert_arr_eq(view.token, ((uint32_t[]){0, 1, 0, 4, 1, 2}), 6 * sizeof(uint32_t));
    }
    moesim_plan_reset(&f.plan, &f.batch);
    memset(f.plan.first, 0, 7 * sizeof *f.plan.first);
    moesim_expert_view_build(&view, &f.plan);
    cr_assert_eq(view.start[4], 0);
}

/* Expects `sentence` (or no failure when NULL) after the change, and puts the plan back. */
#define BREAKS(change, sentence)                                                                                       \
    do {                                                                                                               \
        change;                                                                                                        \
        cr_assert_eq(check(), MOESIM_EBROKEN, #change);                                                                \
        cr_assert_str_eq(f.err.text, "router mine: " sentence);                                                        \
        fill();                                                                                                        \
        cr_assert_eq(check(), MOESIM_OK);                                                                              \
    } while (0)

Test(plan, broken_promises_one_by_one, .init = set_up, .fini = tear_down)
{
    struct moesim_plan *p = &f.plan;
    cr_assert_eq(check(), MOESIM_OK);
    BREAKS(p->n_tokens = 5, "the plan has 5 tokens in 2 groups, the batch 6 in 2");
    BREAKS(p->n_groups = 1, "the plan has 6 tokens in 1 groups, the batch 6 in 2");
    BREAKS(p->n_pairs = 13, "13 pairs where it asked for room for 12");
    BREAKS(p->n_pairs = 9, "first[] does not rise from 0 to 9 pairs over 6 tokens");
    BREAKS(p->first[0] = 1, "first[] does not rise from 0 to 10 pairs over 6 tokens");
    BREAKS(p->first[2] = 1, "first[] does not rise from 0 to 10 pairs over 6 tokens");
    BREAKS(p->first[3] = 4000000000u, "first[] does not rise from 0 to 10 pairs over 6 tokens");
    BREAKS(moesim_plan_add_aux(p, "load", NAN), "auxiliary loss load is not finite");

    BREAKS(p->expert[1] = 4, "token 0, pair 1 (expert 4, slot 0): there is no such expert");
    BREAKS(p->expert[0] = MOESIM_NO_EXPERT, "token 0, pair 0 (expert 4294967295, slot 0): there is no such expert");
    BREAKS(p->expert[4] = 7, "token 2, pair 0 (expert 7, slot -1): there is no such expert");
    BREAKS(p->expert[3] = 0, "token 1, pair 1 (expert 0, slot 0): the token already has this expert");
    BREAKS(p->weight[0] = NAN, "token 0, pair 0 (expert 0, slot 0): its weight is not finite");
    BREAKS(p->weight[2] = INFINITY, "token 1, pair 0 (expert 0, slot 1): its weight is not finite");
    BREAKS(p->slot[0] = 2, "token 0, pair 0 (expert 0, slot 2): its slot is outside the expert's capacity");
    BREAKS(p->slot[0] = -1, "token 0, pair 0 (expert 0, slot -1): its slot is outside the expert's capacity");
    BREAKS(p->capacity[7 - 2] = 0, "token 4, pair 1 (expert 1, slot 0): its slot is outside the expert's capacity");
    BREAKS(p->slot[2] = 0, "token 1, pair 0 (expert 0, slot 0): another pair of the group has this slot");

    BREAKS(p->fate[4] = 4, "token 2, pair 0 (expert 0, slot -1): its fate is none of kept, over capacity, rerouted, "
                           "bad row");
    BREAKS(p->weight[4] = .5f, "token 2, pair 0 (expert 0, slot -1): it is refused but has a weight");
    BREAKS(p->weight[4] = NAN, "token 2, pair 0 (expert 0, slot -1): it is refused but has a weight");
    BREAKS(p->slot[4] = 1, "token 2, pair 0 (expert 0, slot 1): it is refused but has a slot");
    BREAKS(p->expert[6] = 1, "token 3, pair 0 (expert 1, slot -1): it belongs to a bad row but names an expert");
    BREAKS((p->fate[7] = 0, p->expert[7] = 2, p->slot[7] = 0),
           "token 3, pair 1 (expert 2, slot 0): a bad row is routed somewhere");
    BREAKS(p->first[5] = 8, "token 5, pair 0 (expert 0, slot -1): padding is routed somewhere");

    BREAKS(p->n_wanted = 8, "8 pairs wanted, but 6 kept and 1 over capacity");
    BREAKS(p->n_bad_rows = 0, "0 bad rows counted, 1 marked, of 6 tokens");
    BREAKS(p->n_bad_rows = 7, "7 bad rows counted, 1 marked, of 6 tokens");
}

Test(plan, what_is_allowed, .init = set_up, .fini = tear_down)
{
    struct moesim_plan *p = &f.plan;
    p->n_wanted = 0;   /* asking has no meaning */
    p->n_bad_rows = 2; /* one without pairs */
    cr_assert_eq(check(), MOESIM_OK);
    for (int i = 0; i < 8; i++)
        p->capacity[i] = MOESIM_UNLIMITED;
    p->slot[0] = 1000000; /* holes: expert 0's two pairs of group 0 */
    p->slot[2] = 1000002;
    cr_assert_eq(check(), MOESIM_OK);
    p->slot[2] = 1000000;
    cr_assert_eq(check(), MOESIM_EBROKEN);
    p->slot[2] = 2; /* both are even, so they meet in the bucket */
    cr_assert_eq(check(), MOESIM_OK);
    p->fate[8] = 0; /* the same expert twice, once refused: token 2 */
    p->slot[8] = 0;
    p->weight[8] = -1;
    cr_assert_eq(check(), MOESIM_OK);

    f.batch.n_tokens = 0; /* an empty batch */
    f.batch.n_groups = 0;
    moesim_plan_reset(p, &f.batch);
    cr_assert_eq(check(), MOESIM_OK);
}

Test(plan, soft, .init = set_up, .fini = tear_down)
{
    cr_assert_eq(moesim_plan_init(&f.plan, 6, 4, 2, 0, 3, f.arena, &f.err), MOESIM_OK);
    moesim_plan_reset(&f.plan, &f.batch);
    for (uint32_t g = 0; g < f.batch.n_groups; g++) {
        const uint32_t first = f.batch.group_start[g], last = f.batch.group_start[g + 1];
        uint32_t real = 0;
        for (uint32_t t = first; t < last; t++)
            real += !(f.batch.padding && f.batch.padding[t]);
        for (uint32_t t = first; t < last; t++)
            for (uint32_t s = 0; s < 3 && !(f.batch.padding && f.batch.padding[t]); s++) {
                f.plan.combine[t * 3 + s] = 1 / 3.0f;
                f.plan.dispatch[t * 3 + s] = 1 / (float)real;
            }
    }
    cr_assert_eq(check(), MOESIM_OK, "%s", f.err.text);
    f.plan.dispatch[1] += 0.25f;
    cr_assert_eq(check(), MOESIM_EBROKEN);
    cr_assert(strstr(f.err.text, "its dispatch weights should sum to 1"), "%s", f.err.text);
    f.plan.dispatch[1] -= 0.25f;
    f.plan.combine[3 * 4 + 2] = INFINITY;
    cr_assert_eq(check(), MOESIM_EBROKEN);
    cr_assert_str_eq(f.err.text, "router mine: token 4, slot 2: its combine weight is not finite");
    f.plan.dispatch[1] = NAN;
    cr_assert_eq(check(), MOESIM_EBROKEN);
    cr_assert_str_eq(f.err.text, "router mine: token 0, slot 1: its dispatch weight is not finite");
}

/* Slots in any order within a capacity: valid until one is repeated. Many pairs on few experts. */
Test(plan, shuffled_slots)
{
    enum { T = 5000, E = 3 };
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_plan p;
    struct moesim_error err;
    const uint32_t start[] = {0, T};
    const struct moesim_batch batch = {.n_tokens = T, .n_experts = E, .n_groups = 1, .group_start = start};
    cr_assert_eq(moesim_plan_init(&p, T, E, 1, T, 0, arena, &err), MOESIM_OK);
    void *scratch = moesim_alloc(arena, moesim_plan_check_scratch(E, T), 1);
    moesim_plan_reset(&p, &batch);
    p.n_pairs = T;
    for (uint32_t t = 0; t < T; t++) {
        p.first[t + 1] = t + 1;
        p.expert[t] = t % E;
        p.slot[t] = (int32_t)(t / E * 7919 % 6007); /* distinct, with holes */
        p.weight[t] = 1;
        p.fate[t] = MOESIM_KEPT;
    }
    for (int e = 0; e < E; e++)
        p.capacity[e] = 6007;
    cr_assert_eq(moesim_plan_check(&p, &batch, "r", scratch, &err), MOESIM_OK, "%s", err.text);
    for (uint32_t i = 0; i < 50; i++) {
        const uint32_t a = i * 97 % T, b = (a + 3 * (i + 1)) % T;
        const int32_t was = p.slot[a];
        p.slot[a] = p.slot[b];
        cr_assert_eq(moesim_plan_check(&p, &batch, "r", scratch, &err),
                     p.expert[a] == p.expert[b] ? MOESIM_EBROKEN : MOESIM_OK);
        p.slot[a] = was;
    }
    moesim_arena_destroy(arena);
}

enum { MANY = 9000, MOST_EXPERTS = 20, CHOICES = 2 };

/* Two experts for each token, slots in the order of tokens in each group, or the last one first. */
static void fill_many(struct moesim_plan *p, const struct moesim_batch *batch, bool reversed)
{
    const uint32_t n_experts = batch->n_experts;
    moesim_plan_reset(p, batch);
    p->n_pairs = p->n_wanted = MANY * CHOICES;
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        uint32_t taken[MOST_EXPERTS] = {0};
        for (uint32_t t = batch->group_start[g]; t < batch->group_start[g + 1]; t++)
            for (uint32_t c = 0; c < CHOICES; c++) {
                const uint32_t i = t * CHOICES + c, e = (t * 7 % 31 + c) % n_experts;
                p->expert[i] = e;
                p->slot[i] = (int32_t)taken[e]++;
                p->weight[i] = .5f;
                p->fate[i] = MOESIM_KEPT;
            }
        for (uint32_t e = 0; e < n_experts; e++)
            p->capacity[g * n_experts + e] = taken[e];
        for (uint32_t i = batch->group_start[g] * CHOICES; reversed && i < batch->group_start[g + 1] * CHOICES; i++)
            p->slot[i] = (int32_t)taken[p->expert[i]] - 1 - p->slot[i];
    }
    for (uint32_t t = 0; t <= MANY; t++)
        p->first[t] = t * CHOICES;
}

/* Breaks one promise of pair i. */
static void break_pair(struct moesim_plan *p, uint32_t i, uint32_t how)
{
    switch (how) {
    case 0:
        p->expert[i] = p->n_experts;
        break;
    case 1:
        p->expert[i] = MOESIM_NO_EXPERT;
        break;
    case 2:
        p->expert[i] = p->expert[i ^ 1];
        break;
    case 3:
        p->weight[i] = i & 2 ? NAN : -INFINITY;
        break;
    case 4:
        p->slot[i] = -1;
        break;
    case 5:
        p->slot[i]++; /* another pair's, or beyond the capacity */
        break;
    case 6:
        p->fate[i] = MOESIM_OVER_CAPACITY; /* with a weight and a slot */
        break;
    case 7:
        p->fate[i] = 9;
        break;
    case 8:
        p->first[i / CHOICES] = MANY * CHOICES + 1;
        break;
    default:
        p->first[i / CHOICES + 1] = p->first[i / CHOICES] - 1;
    }
}

/* A long plan is looked through by several threads; whatever is wrong with one pair is seen. */
Test(plan, one_of_many_pairs_is_broken)
{
    static const uint32_t one[] = {0, MANY}, four[] = {0, 1, 3000, 3000, MANY};
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_plan p;
    struct moesim_error err;
    cr_assert_eq(moesim_plan_init(&p, MANY, MOST_EXPERTS, 4, MANY * CHOICES, 0, arena, &err), MOESIM_OK);
    void *scratch = moesim_alloc(arena, moesim_plan_check_scratch(MOST_EXPERTS, MANY * CHOICES), 1);
    for (uint32_t j = 0; j < 1600; j++) {
        const bool is_one = j % 2;
        const struct moesim_batch batch = {.n_tokens = MANY,
                                           .n_experts = j < 800 ? 5 : MOST_EXPERTS,
                                           .n_groups = is_one ? 1 : 4,
                                           .group_start = is_one ? one : four};
        p.n_experts = batch.n_experts;
        fill_many(&p, &batch, j / 400 % 2);
        cr_assert_eq(moesim_plan_check(&p, &batch, "r", scratch, &err), MOESIM_OK, "%s", err.text);
        break_pair(&p, CHOICES + j * 7919 % ((MANY - 2) * CHOICES), j / 2 % 10);
        cr_assert_eq(moesim_plan_check(&p, &batch, "r", scratch, &err), MOESIM_EBROKEN, "case %u", j);
    }
    moesim_arena_destroy(arena);
}
