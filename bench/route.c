/*
 * Speed and memory of routing alone, from gate columns to a filled plan, in training. First softmax-topk in million
 * tokens per second, for the shapes of published comparisons; then every router as a multiple of softmax-topk on the
 * same shape, beside the most it may be, and its scratch beyond gate columns and plan. The two are timed in turns, so
 * that whatever else the machine does falls on both.
 *
 * bench-route [NAME or NAME:PARAMETERS or PLUGIN.so[:PARAMETERS]] narrows to the lines that begin so, or times the
 * plugin.
 */
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <moesim/kernels.h>

#include "bench/setting.h"
#include "routers/table.h"

#define N_REPEATS 21
#define N_WARM_UP 2
#define MOST_SCRATCH 64 /* MiB */

/* The most a router may take, in multiples of softmax-topk. */
#define UNBOUNDED 0
#define TOKEN_CHOICE 1.5
#define EXPERT_CHOICE 3
#define NOISY 4             /* draws noise for every logit */
#define COLUMN_STATISTICS 8 /* knows the order of each expert's column */

/* `gated`: the router makes its logits of hidden states, or of others: softmax-topk's time includes the gate, and the
 * logits count as such, not as scratch. `shift` is added to all logits, so that a router without a k has its mean
 * there. */
struct line {
    const char *spec;
    uint32_t n_experts, k;
    double most_ratio, most_s; /* 0 = no bound */
    bool gated;
    float shift;
};

#define LINE_K(spec_, k_, bound) .spec = (spec_), .n_experts = 256, .k = (k_), .most_ratio = (bound)
#define LINE(spec, bound) LINE_K(spec, 8, bound)

static const struct line lines[] = {
    {LINE("softmax-topk", TOKEN_CHOICE)},
    {LINE("softmax-topk:weight=sum", TOKEN_CHOICE)},
    {LINE("softmax-topk:weight=softmax", TOKEN_CHOICE)},
    {LINE("softmax-topk:score=sigmoid,weight=sum", TOKEN_CHOICE)},
    {LINE("softmax-topk:score=sqrt-softplus,weight=sum", TOKEN_CHOICE)},
    {LINE("softmax-topk:score=relu", TOKEN_CHOICE)},
    {LINE("softmax-topk:capacity_factor=1.25", TOKEN_CHOICE)},
    {LINE("softmax-topk:capacity_factor=1.25,priority=choice", TOKEN_CHOICE)},
    {LINE("softmax-topk:capacity_factor=1.25,priority=bpr", TOKEN_CHOICE)},
    {LINE("softmax-topk:capacity_factor=1.25,priority=prob", TOKEN_CHOICE)},
    {LINE("softmax-topk:capacity_factor=1.25,priority=random", TOKEN_CHOICE)},
    {LINE("softmax-topk:capacity_factor=1,overflow=reroute", TOKEN_CHOICE)},
    {LINE("softmax-topk:bias_update=sign", TOKEN_CHOICE)},
    {LINE("softmax-topk:n_groups=8,topk_groups=4", TOKEN_CHOICE)},
    {LINE("softmax-topk:aux_form=switch", TOKEN_CHOICE)},
    {LINE("softmax-topk:aux_form=switch,z_coef=0.001", TOKEN_CHOICE)},
    {LINE("softmax-topk:bias_update=quantile", COLUMN_STATISTICS)},
    {LINE("softmax-topk:noise=1", NOISY)},
    {LINE_K("gshard", 2, TOKEN_CHOICE)},
    {LINE("vmoe", NOISY)},
    {LINE("vmoe:priority=bpr", NOISY)},
    {LINE("deepseek-v2:k=8", TOKEN_CHOICE)},
    {LINE("deepseek-v2:k=8,aux_form=sequence+device+communication", TOKEN_CHOICE)},
    {LINE("deepseek-v3", TOKEN_CHOICE)},
    {LINE("moge", TOKEN_CHOICE)},
    {LINE("noisy-topk", NOISY)},
    {LINE_K("switch", 1, TOKEN_CHOICE)},
    {LINE_K("ntlb", 4, TOKEN_CHOICE)}, /* beside routers that rank as many experts: lists of 4, and of 16 */
    {LINE_K("ntlb:k=8,capacity_factor=8,rounds=16", 16, TOKEN_CHOICE)},
    {LINE("quantile", COLUMN_STATISTICS)},
    {LINE("expert-choice", EXPERT_CHOICE)},
    {LINE("expert-choice:score=sigmoid", EXPERT_CHOICE)},
    {LINE("expert-threshold", COLUMN_STATISTICS)},
    {LINE("top-p:p=0.179", TOKEN_CHOICE)},           /* 8 experts in the mean */
    {LINE("top-p", UNBOUNDED)},                      /* 27 */
    {LINE("relu", TOKEN_CHOICE), .shift = -1.8627f}, /* 8 */
    {LINE("relu", UNBOUNDED)},                       /* 128 */
    {LINE("soft", UNBOUNDED), .gated = true},
    {LINE("cosine", TOKEN_CHOICE), .gated = true},
    {LINE("zero-expert", TOKEN_CHOICE)},
    {LINE("zero-expert:capacity_factor=1.25", TOKEN_CHOICE)},
    {LINE("zero-expert:gating_residual=true", TOKEN_CHOICE), .gated = true},
    {LINE("hierarchical", TOKEN_CHOICE)},
    {LINE("dselect-k:width=0.02", TOKEN_CHOICE)}, /* bits that have made up their minds: 8 experts */
    {LINE("dselect-k", UNBOUNDED)},               /* 70 */
    {LINE("sparsemixer", NOISY)},
    {LINE("random", TOKEN_CHOICE)},
    {.spec = "base:group=batch", .n_experts = 64, .k = 1, .most_s = 1},
    {.spec = "sinkhorn:group=batch", .n_experts = 64, .k = 8, .most_s = 1},
    {LINE("biased", TOKEN_CHOICE)},
    {LINE("bernoulli", TOKEN_CHOICE)},
    {LINE("hash", TOKEN_CHOICE)},
    {LINE("hash:k=8", TOKEN_CHOICE)},
    {LINE("hash:k=8,table=balanced", TOKEN_CHOICE)},
    {LINE("mod", TOKEN_CHOICE)},
    {LINE("round-robin", TOKEN_CHOICE)},
    {LINE("replay", TOKEN_CHOICE)},
    {LINE("null", TOKEN_CHOICE)},
};

/* Of a single thread its own time, which other jobs of the machine do not stretch. */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts as well: the best is then time[0]. */
static double median(double *time)
{
    qsort(time, N_REPEATS, sizeof *time, by_size);
    return time[N_REPEATS / 2];
}

static enum moesim_status time_step(struct setting *s, double *time, struct moesim_error *err)
{
    const double start = seconds();
    const enum moesim_status status = setting_route(s, err);
    *time = seconds() - start;
    return status;
}

/* The router in a file, or of the table. */
static const struct moesim_router *find(const char *name, struct moesim_error *err)
{
    if (strchr(name, '/')) {
        void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        const struct moesim_router *const *plugin = library ? dlsym(library, "moesim_plugin") : NULL;
        if (!plugin)
            moesim_fail(err, MOESIM_EPLUGIN, "%s", dlerror());
        return plugin ? *plugin : NULL;
    }
    for (size_t i = 0; routers_table[i]; i++)
        if (strcmp(routers_table[i]->name, name) == 0)
            return routers_table[i];
    moesim_fail(err, MOESIM_EINVAL, "no router %s", name);
    return NULL;
}

static enum moesim_status open_line(struct setting *s, const struct line *line, bool gated, struct moesim_error *err)
{
    char name[256];
    const size_t n = strcspn(line->spec, ":");
    snprintf(name, sizeof name, "%.*s", (int)n, line->spec);
    const struct moesim_router *router = find(name, err);
    const struct setting_shape shape = {line->n_experts, line->k, gated, line->shift};
    *s = (struct setting){0};
    return router ? setting_open(s, router, line->spec[n] ? line->spec + n + 1 : "", shape, err) : MOESIM_EINVAL;
}

static const char *verdict(bool holds)
{
    return holds ? "ok" : "OVER";
}

static void print_times(const struct line *line, double *base, double *own, double *ratio, const struct setting *s)
{
    const double times = median(ratio), mib = (double)setting_scratch(s) / (1 << 20);
    const double most_mib = MOST_SCRATCH + (line->gated ? line->n_experts * 4.0 * SETTING_TOKENS / (1 << 20) : 0);
    const double middle = median(own);
    median(base);
    printf("%8.2f ms %6.2fx (best %6.2fx)", middle * 1e3, times, own[0] / base[0]);
    if (line->most_ratio > 0)
        printf(" of %gx %-5s", line->most_ratio, verdict(times <= line->most_ratio));
    else if (line->most_s > 0)
        printf(" of %g s  %-5s", line->most_s, verdict(middle <= line->most_s));
    else
        printf("%12s", "");
    printf("%7.1f MiB %-5s E=%u k=%-2u %5.1f experts a token  %s%s\n", mib, verdict(mib <= most_mib), line->n_experts,
           line->k, (double)s->plan.n_pairs / SETTING_TOKENS, line->spec,
           line->gated ? " (beside gate and softmax-topk)" : "");
}

static enum moesim_status print_line(const struct line *line, struct moesim_error *err)
{
    const struct line softmax_topk = {.spec = "softmax-topk", .n_experts = line->n_experts, .k = line->k};
    struct setting base, own = {0};
    double base_s[N_REPEATS], own_s[N_REPEATS], ratio[N_REPEATS];
    enum moesim_status status = open_line(&base, &softmax_topk, line->gated, err);
    if (!status)
        status = open_line(&own, line, false, err);
    for (int i = -N_WARM_UP; i < N_REPEATS && !status; i++) {
        const int at = i < 0 ? 0 : i;
        status = time_step(&base, &base_s[at], err);
        if (!status)
            status = time_step(&own, &own_s[at], err);
        ratio[at] = own_s[at] / base_s[at];
    }
    if (!status)
        print_times(line, base_s, own_s, ratio, &own);
    setting_close(&own);
    setting_close(&base);
    return status;
}

static enum moesim_status print_rates(struct moesim_error *err)
{
    static const uint32_t shape[][2] = {{8, 2}, {64, 2}, {64, 8}, {256, 8}};
    enum moesim_status status = MOESIM_OK;
    for (size_t i = 0; i < sizeof shape / sizeof *shape && !status; i++) {
        const struct line line = {.spec = "softmax-topk", .n_experts = shape[i][0], .k = shape[i][1]};
        struct setting s;
        double time[N_REPEATS];
        status = open_line(&s, &line, false, err);
        for (int j = -N_WARM_UP; j < N_REPEATS && !status; j++)
            status = time_step(&s, &time[j < 0 ? 0 : j], err);
        if (!status) {
            const double middle = median(time);
            printf("E=%-4u k=%-2u  %8.2f Mtokens/s (best %.2f)\n", line.n_experts, line.k,
                   SETTING_TOKENS / middle / 1e6, SETTING_TOKENS / time[0] / 1e6);
        }
        setting_close(&s);
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    struct moesim_error err;
    printf("softmax-topk, %u tokens, %d threads, kernels %s\n", SETTING_TOKENS, omp_get_max_threads(),
           moesim_kernel_path());
    enum moesim_status status = *only ? MOESIM_OK : print_rates(&err);
    if (strchr(only, '/')) {
        const struct line plugin = {LINE(only, UNBOUNDED)};
        status = print_line(&plugin, &err);
    }
    for (size_t i = 0; i < sizeof lines / sizeof *lines && !status; i++)
        if (strncmp(lines[i].spec, only, strlen(only)) == 0) {
            status = print_line(&lines[i], &err);
            fflush(stdout);
        }
    if (status)
        fprintf(stderr, "bench route: %s\n", err.text);
    return status != MOESIM_OK;
}
