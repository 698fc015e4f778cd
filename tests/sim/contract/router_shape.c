/*
 * shape(): the host's defaults, and answers that cannot be right; what becomes of a failure.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/router.h>

TestSuite(router_shape, .timeout = 60);

static struct moesim_shape answer;
static uint8_t kinds[8];

static enum moesim_status give_answer(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                      struct moesim_error *err)
{
    (void)params;
    if (env->n_experts == 1)
        return moesim_fail(err, MOESIM_EREFUSE, "one expert is not enough");
    *shape = answer;
    return MOESIM_OK;
}

static const struct moesim_router plain = {MOESIM_ROUTER_HEAD, .name = "plain"};
static const struct moesim_router shaped = {MOESIM_ROUTER_HEAD, .name = "shaped", .shape = give_answer};
static const struct moesim_env env = {.n_experts = 8, .top_k = 2, .max_tokens = 100};

Test(router_shape, defaults)
{
    struct moesim_shape s;
    struct moesim_error err;
    cr_assert_eq(moesim_router_shape(&plain, NULL, &env, &s, &err), MOESIM_OK);
    cr_assert(s.struct_size == sizeof s && s.needs == 0 && s.n_columns == 8 && s.n_optional_columns == 0);
    cr_assert(s.n_experts == 8 && s.n_weights == 0 && s.weight_std == 0.02f && s.n_memory == 0);
    cr_assert(s.max_pairs == 200 && s.n_slots == 0 && s.group == MOESIM_GROUP_DEVICE && s.group_tokens == 0);
    cr_assert(s.input_jitter == 0 && s.expert_kind == NULL);
    struct moesim_env one = env;
    one.n_experts = 1;
    cr_assert_eq(moesim_router_shape(&shaped, NULL, &one, &s, &err), MOESIM_EREFUSE);
    cr_assert_str_eq(err.text, "one expert is not enough");
}

#define WRONG(change, sentence)                                                                                        \
    do {                                                                                                               \
        cr_assert_eq(moesim_router_shape(&plain, NULL, &env, &answer, &err), MOESIM_OK);                               \
        cr_assert_eq(moesim_router_shape(&shaped, NULL, &env, &s, &err), MOESIM_OK);                                   \
        change;                                                                                                        \
        cr_assert_eq(moesim_router_shape(&shaped, NULL, &env, &s, &err), MOESIM_EBROKEN, #change);                     \
        cr_assert_str_eq(err.text, "router shaped: its shape " sentence);                                              \
    } while (0)

Test(router_shape, wrong_answers)
{
    struct moesim_shape s;
    struct moesim_error err;
    WRONG(answer.needs = 1u << 20, "needs something this version does not know");
    WRONG(answer.n_experts = 0, "has no experts, or more than 2^20");
    WRONG(answer.n_experts = (1u << 20) + 1, "has no experts, or more than 2^20");
    WRONG(answer.n_columns = (1u << 24) + 1, "has more than 2^24 gate columns");
    WRONG(answer.n_optional_columns = 9, "has more optional gate columns than gate columns");
    WRONG(answer.n_weights = UINT64_MAX, "has more than 2^40 weights or floats of memory");
    WRONG(answer.n_memory = UINT64_MAX, "has more than 2^40 weights or floats of memory");
    WRONG(answer.weight_std = NAN, "has a negative or infinite weight_std");
    WRONG(answer.weight_std = -1, "has a negative or infinite weight_std");
    WRONG(answer.group = 4, "has an unknown group");
    WRONG(answer.group = MOESIM_GROUP_TOKENS, "has groups of 0 tokens");
    WRONG(answer.input_jitter = 1, "has an input jitter outside 0..1");
    WRONG(answer.input_jitter = NAN, "has an input jitter outside 0..1");
    WRONG((answer.expert_kind = kinds, kinds[7] = 4), "has an expert of an unknown kind");
}

/* ---- failures ---- */

static int given;         /* what the hook returns */
static const char *words; /* and writes as its sentence; NULL = nothing, "*" = a text without an end */

static enum moesim_status speak(struct moesim_error *err)
{
    if (words && words[0] == '*')
        memset(err->text, '*', sizeof err->text);
    else if (words)
        memcpy(err->text, words, strlen(words) + 1);
    return (enum moesim_status)given;
}

static enum moesim_status odd_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                    struct moesim_error *err)
{
    (void)state;
    (void)batch;
    (void)plan;
    return speak(err);
}

/* A router may return what it likes: the host gets a status it knows and a sentence it can show. */
Test(router_shape, failures_always_have_a_sentence)
{
    static const struct moesim_router odd = {MOESIM_ROUTER_HEAD, .name = "odd", .route = odd_route};
    static const struct {
        int given;
        const char *words;
        enum moesim_status status;
        const char *says;
    } cases[] = {
        {MOESIM_EREFUSE, "not so many", MOESIM_EREFUSE, "not so many"},
        {MOESIM_EINVAL, NULL, MOESIM_EINVAL, "router odd: its route failed without a reason"},
        {MOESIM_EINVAL, "\033[1mbold\n", MOESIM_EINVAL, "?[1mbold?"},
        {MOESIM_ESTOP, "stop", MOESIM_EBROKEN, "router odd: its route returned the status 7, which no router may give"},
        {MOESIM_EPLUGIN, NULL, MOESIM_EBROKEN, "router odd: its route returned the status 3, which no router may give"},
        {-1, NULL, MOESIM_EBROKEN, "router odd: its route returned the status -1, which no router may give"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moesim_error err = {"left from before"};
        given = cases[i].given;
        words = cases[i].words;
        cr_expect_eq(moesim_router_route(&odd, NULL, NULL, NULL, &err), cases[i].status);
        cr_expect_str_eq(err.text, cases[i].says);
    }
    struct moesim_error err;
    given = MOESIM_EINVAL;
    words = "*";
    cr_expect_eq(moesim_router_route(&odd, NULL, NULL, NULL, &err), MOESIM_EINVAL);
    cr_expect_eq(strlen(err.text), sizeof err.text - 1);
    /* hooks that are not there succeed */
    cr_expect_eq(moesim_router_init(&odd, NULL, NULL, NULL, &err), MOESIM_OK);
    cr_expect_eq(moesim_router_backward(&odd, NULL, NULL, NULL, NULL, &err), MOESIM_OK);
    cr_expect_eq(moesim_router_update(&odd, NULL, NULL, &err), MOESIM_OK);
}
