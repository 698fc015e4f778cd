/*
 * A router that sends every token to expert 0, and breaks its word in the way that BEHAVE names at build time.
 */
#include <fenv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moesim/router.h>

#define GOOD 0
#define SEGV 1
#define EXIT 2
#define LOOP 3
#define EAT 4
#define BAD_IDS 5
#define NOISE 6
#define ABI 7
#define SHORT_STRUCT 8
#define NO_ROUTE 9
#define BAD_NAME 10
#define CONSTRUCTOR 11
#define CONSTRUCTOR_EXIT 12
#define CONSTRUCTOR_NOISE 13
#define DESTRUCTOR 14
#define NULL_ROUTER 15
#define WILD_OFFSET 16
#define UNKNOWN_TYPE 17
#define NO_CHOICES 18
#define NO_DEFAULT 19
#define BAD_DEFAULT 20

static volatile int keep = 1;

static void misbehave(void)
{
    if (BEHAVE == SEGV) {
        fputs("about to fall\n", stderr);
        raise(SIGSEGV);
    }
    if (BEHAVE == EXIT)
        exit(0);
    while (BEHAVE == LOOP && keep)
        continue;
    for (size_t i = 0; BEHAVE == EAT && i < 1 << 16; i++) {
        static char *volatile kept; /* a compiler drops memory that nobody keeps */
        char *block = kept = malloc(1 << 20);
        if (!block) {
            fputs("no more memory\n", stderr);
            abort();
        }
        memset(block, (int)i, 1 << 20);
    }
    if (BEHAVE == NOISE) {
        puts("outcome 0 5\nnoise");
        fflush(stdout);
        for (int fd = 3; fd < 20; fd++)
            close(fd);
        fesetround(FE_UPWARD);
    }
}

static enum moesim_status route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                struct moesim_error *err)
{
    (void)state;
    (void)err;
    misbehave();
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        plan->first[t] = n;
        if (batch->padding && batch->padding[t])
            continue;
        plan->expert[n] = BEHAVE == BAD_IDS ? 1000000 : 0;
        plan->weight[n] = 1;
        plan->slot[n] = (int32_t)t;
        plan->fate[n++] = MOESIM_KEPT;
    }
    for (uint32_t i = 0; i < batch->n_groups * batch->n_experts; i++)
        plan->capacity[i] = MOESIM_UNLIMITED;
    plan->first[batch->n_tokens] = n;
    plan->n_pairs = plan->n_wanted = n;
    return MOESIM_OK;
}

#if BEHAVE == CONSTRUCTOR
__attribute__((constructor)) static void fall(void)
{
    raise(SIGSEGV);
}
#endif

#if BEHAVE == CONSTRUCTOR_EXIT
__attribute__((constructor)) static void leave(void)
{
    exit(0);
}
#endif

#if BEHAVE == CONSTRUCTOR_NOISE
__attribute__((constructor)) static void make_noise(void)
{
    puts("noise before the results");
    fflush(stdout);
    fesetround(FE_UPWARD);
}
#endif

#if BEHAVE == DESTRUCTOR
__attribute__((destructor)) static void fall_late(void)
{
    raise(SIGSEGV);
}
#endif

#ifndef NO_SYMBOL
/* One parameter, whose row is wrong. */
static const struct moesim_param rows[] = {
    {.key = "odd",
     .def = BEHAVE == NO_DEFAULT    ? NULL
            : BEHAVE == BAD_DEFAULT ? "many"
                                    : "1",
     .help = "a parameter",
     .max = 9,
     .offset = BEHAVE == WILD_OFFSET ? 1u << 30 : 0,
     .type = BEHAVE == UNKNOWN_TYPE ? 99
             : BEHAVE == NO_CHOICES ? MOESIM_TYPE_CHOICE
                                    : MOESIM_TYPE_UINT},
    MOESIM_PARAM_END,
};

static const struct moesim_router router = {
    .abi = BEHAVE == ABI ? 99 : MOESIM_ROUTER_ABI,
    .struct_size = BEHAVE == SHORT_STRUCT ? 16 : sizeof(struct moesim_router),
    .param_size = sizeof(struct moesim_param),
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = BEHAVE == BAD_NAME ? "bad name\033[31m" : "firstborn",
    .summary = "every token to expert 0",
    .params = BEHAVE >= WILD_OFFSET ? rows : NULL,
    .params_size = BEHAVE >= WILD_OFFSET ? sizeof(uint32_t) : 0,
    .route = BEHAVE == NO_ROUTE ? NULL : route,
};

MOESIM_API const struct moesim_router *const moesim_plugin = BEHAVE == NULL_ROUTER ? NULL : &router;
#else
MOESIM_API enum moesim_status (*const other_symbol)(void *, const struct moesim_batch *, struct moesim_plan *,
                                                    struct moesim_error *) = route;
#endif
