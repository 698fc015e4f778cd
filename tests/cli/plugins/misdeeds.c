/*
 * A router that sends every token to expert 0 and then breaks its word in the way that its parameter `deed` names:
 * plans that no host may believe, and ends that no host may share.
 */
#include <fcntl.h>
#include <fenv.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/router.h>

/* X(the parameter's word, the enumerator) */
#define DEEDS(X)                                                                                                       \
    X(none, NONE)                                                                                                      \
    X(twice, TWICE)                                                                                                    \
    X(no_such_expert, NO_SUCH_EXPERT)                                                                                  \
    X(kept_nowhere, KEPT_NOWHERE)                                                                                      \
    X(nan_weight, NAN_WEIGHT)                                                                                          \
    X(infinite_weight, INFINITE_WEIGHT)                                                                                \
    X(refused_weight, REFUSED_WEIGHT)                                                                                  \
    X(refused_slot, REFUSED_SLOT)                                                                                      \
    X(same_slot, SAME_SLOT)                                                                                            \
    X(negative_slot, NEGATIVE_SLOT)                                                                                    \
    X(over_capacity, OVER_CAPACITY)                                                                                    \
    X(falling, FALLING)                                                                                                \
    X(lost_pairs, LOST_PAIRS)                                                                                          \
    X(too_many_pairs, TOO_MANY_PAIRS)                                                                                  \
    X(wrong_sum, WRONG_SUM)                                                                                            \
    X(bad_rows, BAD_ROWS)                                                                                              \
    X(unknown_fate, UNKNOWN_FATE)                                                                                      \
    X(named_bad_row, NAMED_BAD_ROW)                                                                                    \
    X(nan_loss, NAN_LOSS)                                                                                              \
    X(many_losses, MANY_LOSSES)                                                                                        \
    X(wild_arrays, WILD_ARRAYS)                                                                                        \
    X(no_reason, NO_REASON)                                                                                            \
    X(unknown_status, UNKNOWN_STATUS)                                                                                  \
    X(escape, ESCAPE)                                                                                                  \
    X(endless_reason, ENDLESS_REASON)                                                                                  \
    X(abort, ABORT)                                                                                                    \
    X(exit3, EXIT3)                                                                                                    \
    X(quick_exit, QUICK_EXIT)                                                                                          \
    X(divide, DIVIDE)                                                                                                  \
    X(recurse, RECURSE)                                                                                                \
    X(kill, KILL)                                                                                                      \
    X(stop, STOP)                                                                                                      \
    X(flood, FLOOD)                                                                                                    \
    X(fork, FORK)                                                                                                      \
    X(close_all, CLOSE_ALL)                                                                                            \
    X(close_standard, CLOSE_STANDARD)                                                                                  \
    X(wander, WANDER)                                                                                                  \
    X(fall_in_shape, FALL_IN_SHAPE)                                                                                    \
    X(fall_in_init, FALL_IN_INIT)                                                                                      \
    X(fall_in_update, FALL_IN_UPDATE)                                                                                  \
    X(fall_in_finish, FALL_IN_FINISH)                                                                                  \
    X(fail_in_init, FAIL_IN_INIT)                                                                                      \
    X(fail_in_update, FAIL_IN_UPDATE)                                                                                  \
    X(wide_shape, WIDE_SHAPE)                                                                                          \
    X(huge_plan, HUGE_PLAN)                                                                                            \
    X(heavy, HEAVY)                                                                                                    \
    X(few_experts, FEW_EXPERTS)                                                                                        \
    X(unknown_group, UNKNOWN_GROUP)
#define WORD(word, name) #word "|"
#define NAME(word, name) name,

enum deed { DEEDS(NAME) };

struct params {
    uint32_t deed;
};

static const struct moesim_param schema[] = {
    MOESIM_CHOICE(struct params, deed, "none", DEEDS(WORD), "what it does"),
    MOESIM_PARAM_END,
};

struct state {
    uint32_t deed;
};

static volatile int depth_limit = INT_MAX;

static int recurse(volatile int *above)
{
    volatile int here[1024];
    here[0] = above[0] + 1;
    return here[0] < depth_limit ? recurse(here) + above[0] : 0;
}

static void fall(uint32_t deed, uint32_t here)
{
    if (deed == here)
        raise(SIGSEGV);
}

static enum moesim_status shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                struct moesim_error *err)
{
    const uint32_t deed = ((const struct params *)params)->deed;
    (void)err;
    fall(deed, FALL_IN_SHAPE);
    shape->max_pairs = 2 * (uint64_t)env->max_tokens;
    if (deed == WIDE_SHAPE)
        shape->n_columns = UINT32_MAX;
    if (deed == HUGE_PLAN)
        shape->max_pairs = UINT64_MAX / 2;
    if (deed == HEAVY)
        shape->n_weights = UINT64_MAX / 2;
    if (deed == FEW_EXPERTS)
        shape->n_experts = 0;
    if (deed == UNKNOWN_GROUP)
        shape->group = 99;
    return MOESIM_OK;
}

static enum moesim_status init(void *state, const void *params, const struct moesim_env *env, struct moesim_error *err)
{
    struct state *s = state;
    (void)env;
    s->deed = ((const struct params *)params)->deed;
    fall(s->deed, FALL_IN_INIT);
    return s->deed == FAIL_IN_INIT ? moesim_fail(err, MOESIM_EINVAL, "it does not like this init") : MOESIM_OK;
}

static enum moesim_status update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    const struct state *s = state;
    (void)feedback;
    fall(s->deed, FALL_IN_UPDATE);
    return s->deed == FAIL_IN_UPDATE ? moesim_fail(err, MOESIM_EINVAL, "it does not like this update") : MOESIM_OK;
}

static void finish(void *state)
{
    fall(((const struct state *)state)->deed, FALL_IN_FINISH);
}

/* Ends of the process, and what it leaves behind. */
static void misbehave(uint32_t deed)
{
    volatile int zero = 0;
    if (deed == ABORT)
        abort();
    if (deed == EXIT3)
        exit(3);
    if (deed == QUICK_EXIT)
        _exit(0);
    if (deed == DIVIDE) {
        raise(SIGFPE);
        zero = 1 / (zero + 1);
    }
    if (deed == RECURSE)
        recurse(&zero);
    if (deed == KILL)
        raise(SIGKILL);
    if (deed == STOP)
        raise(SIGSTOP);
    while (deed == FLOOD)
        fprintf(stderr, "%01000d\n", 1);
    if (deed == FORK && fork() != 0)
        raise(SIGSEGV);
    if (deed == FORK)
        for (;;) /* the child holds its parent's pipes */
            pause();
    for (int fd = 3; deed == CLOSE_ALL && fd < 1024; fd++)
        close(fd);
    for (int fd = 0; deed == CLOSE_STANDARD && fd < 3; fd++)
        close(fd);
    if (deed == WANDER) {
        (void)!chdir("/");
        umask(0777);
        setenv("OMP_NUM_THREADS", "7", 1);
        signal(SIGTERM, SIG_IGN);
        fesetround(FE_DOWNWARD);
        puts("outcome 0 5\nnoise");
        fflush(stdout);
    }
}

/* All tokens to expert 0, kept, in order. */
static void fill(const struct moesim_batch *batch, struct moesim_plan *plan)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        plan->first[t] = n;
        if (batch->padding && batch->padding[t])
            continue;
        plan->expert[n] = 0;
        plan->weight[n] = 1;
        plan->slot[n] = (int32_t)t;
        plan->fate[n++] = MOESIM_KEPT;
    }
    for (uint32_t i = 0; i < batch->n_groups * batch->n_experts; i++)
        plan->capacity[i] = MOESIM_UNLIMITED;
    plan->first[batch->n_tokens] = n;
    plan->n_pairs = plan->n_wanted = n;
}

static void refuse_first(struct moesim_plan *plan, uint8_t fate)
{
    plan->fate[0] = fate;
    plan->weight[0] = 0;
    plan->slot[0] = -1;
}

/* Token 0 gets a second pair on its expert; the others one each, as before. */
static void double_first(struct moesim_plan *plan)
{
    for (uint32_t t = 1; t <= plan->n_tokens; t++)
        plan->first[t]++;
    const uint64_t last = plan->n_pairs++;
    plan->n_wanted++;
    plan->expert[last] = 0;
    plan->weight[last] = 1;
    plan->slot[last] = (int32_t)last;
    plan->fate[last] = MOESIM_KEPT;
}

static void spoil(uint32_t deed, struct moesim_plan *plan)
{
    switch (deed) {
    case TWICE:
        double_first(plan);
        break;
    case NO_SUCH_EXPERT:
        plan->expert[0] = plan->n_experts;
        break;
    case KEPT_NOWHERE:
        plan->expert[0] = MOESIM_NO_EXPERT;
        break;
    case NAN_WEIGHT:
    case INFINITE_WEIGHT:
        plan->weight[0] = deed == NAN_WEIGHT ? NAN : INFINITY;
        break;
    case REFUSED_WEIGHT:
        refuse_first(plan, MOESIM_OVER_CAPACITY);
        plan->weight[0] = 1;
        break;
    case REFUSED_SLOT:
        refuse_first(plan, MOESIM_OVER_CAPACITY);
        plan->slot[0] = 0;
        break;
    case SAME_SLOT:
        plan->slot[1] = plan->slot[0];
        break;
    case NEGATIVE_SLOT:
        plan->slot[0] = -1;
        break;
    case OVER_CAPACITY:
        plan->capacity[0] = 3;
        break;
    case FALLING:
        plan->first[1] = 5;
        plan->first[2] = 1;
        break;
    case LOST_PAIRS:
        plan->first[plan->n_tokens]--;
        break;
    case TOO_MANY_PAIRS:
        plan->n_pairs = plan->max_pairs + 1;
        break;
    case WRONG_SUM:
        plan->n_wanted += 3;
        break;
    case BAD_ROWS:
        plan->n_bad_rows = plan->n_tokens + 1;
        break;
    case UNKNOWN_FATE:
        refuse_first(plan, 9);
        break;
    case NAMED_BAD_ROW:
        refuse_first(plan, MOESIM_BAD_ROW);
        break;
    case NAN_LOSS:
        moesim_plan_add_aux(plan, "mine", NAN);
        break;
    case MANY_LOSSES:
        plan->n_aux = 99;
        break;
    case WILD_ARRAYS:
        plan->first = (uint32_t *)8;
        break;
    default:
        break;
    }
}

static enum moesim_status route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                struct moesim_error *err)
{
    static const char red[] = "\033[31mred\nand a second line";
    const uint32_t deed = ((const struct state *)state)->deed;
    misbehave(deed);
    if (deed == ESCAPE)
        memcpy(err->text, red, sizeof red);
    if (deed == ENDLESS_REASON)
        memset(err->text, 'x', sizeof err->text);
    if (deed == NO_REASON || deed == ESCAPE || deed == ENDLESS_REASON)
        return MOESIM_EINVAL;
    if (deed == UNKNOWN_STATUS)
        return (enum moesim_status)77;
    fill(batch, plan);
    spoil(deed, plan);
    return MOESIM_OK;
}

static const struct moesim_router misdeeds = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "misdeeds",
    .summary = "every token to expert 0, and one misdeed",
    .params = schema,
    .params_size = sizeof(struct params),
    .state_size = sizeof(struct state),
    .shape = shape,
    .init = init,
    .route = route,
    .update = update,
    .finish = finish,
};
MOESIM_PLUGIN(misdeeds);
