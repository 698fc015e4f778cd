/*
 * Every router as a multiple of softmax-topk on the same shape, in training, from gate columns to a filled plan, beside
 * the most it may be; and its scratch beyond gate columns and plan.
 *
 * With --only a name the lines that begin so, and with --only PLUGIN.so[:PARAMETERS] that router.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "bench/parts/parts.h"
#include "bench/setting.h"

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

/* Lines that differ in their shape alone have it in their name. */
static void name_line(const struct line *line, char name[BENCH_NAME])
{
    snprintf(name, BENCH_NAME, "%s%s", line->spec, line->gated ? " (with its gate)" : "");
}

static struct setting_shape shape_of(const struct bench *bench, const struct line *line, bool gated)
{
    return (struct setting_shape){.n_experts = line->n_experts,
                                  .top_k = line->k,
                                  .n_tokens = bench->options.quick ? SETTING_TOKENS / 8 : SETTING_TOKENS,
                                  .gated = gated,
                                  .shift = line->shift};
}

/* Scratch beyond the gate columns that a router makes itself, MiB. */
static double scratch(const struct setting *s, const struct line *line)
{
    const double columns = line->gated ? line->n_experts * 4.0 * s->batch.n_tokens : 0;
    return ((double)setting_scratch(s) - columns) / (1 << 20);
}

static double measure(struct bench *bench, const struct line *line, struct setting *own, const char *name)
{
    struct setting base;
    setting_open_spec(&base, "softmax-topk", shape_of(bench, line, line->gated));
    setting_route_and_check(own);
    struct bench_figure figure = {
        .part = "routers", .ours = bench_ours(setting_route, own), .work = 1, .unit = "ms", .as_time = 1e3};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    if (line->most_s > 0)
        figure.bound = BENCH_AT_MOST(1e3 * line->most_s);
    bench_add(&figure, "softmax-topk", setting_route, &base, BENCH_COST,
              line->most_ratio > 0 ? BENCH_AT_MOST(line->most_ratio) : BENCH_UNBOUND);
    bench_measure(bench, &figure);
    const double mib = scratch(own, line);
    setting_close(&base);
    return mib;
}

static void measure_plugin(struct bench *bench, const char *path)
{
    char file[512];
    const size_t n = strcspn(path, ":");
    snprintf(file, sizeof file, "%.*s", (int)n, path);
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    const struct moesim_router *const *plugin = library ? dlsym(library, "moesim_plugin") : NULL;
    struct setting own;
    struct moesim_error err;
    const struct line line = {LINE(path, UNBOUNDED)};
    if (!plugin)
        bench_stop("%s", dlerror());
    if (setting_open(&own, *plugin, path[n] ? path + n + 1 : "", shape_of(bench, &line, false), &err))
        bench_stop("%s: %s", path, err.text);
    measure(bench, &line, &own, path);
    setting_close(&own);
}

/* The most scratch of all that were measured, and whose it is. */
static void note_scratch(struct bench *bench, double mib, const char *whose)
{
    struct bench_figure figure = {.part = "routers", .unit = "MiB", .value = mib, .bound = BENCH_AT_MOST(MOST_SCRATCH)};
    snprintf(figure.name, sizeof figure.name, "most scratch: %s", whose);
    bench_measure(bench, &figure);
}

void part_routers(struct bench *bench)
{
    const char *only = bench->options.only;
    double most = -1;
    char whose[BENCH_NAME] = "";
    if (only && strchr(only, '/')) {
        measure_plugin(bench, only);
        return;
    }
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char name[BENCH_NAME];
        struct setting own;
        name_line(&lines[i], name);
        if (!bench_wants(bench, "routers", name))
            continue;
        setting_open_spec(&own, lines[i].spec, shape_of(bench, &lines[i], false));
        const double mib = measure(bench, &lines[i], &own, name);
        setting_close(&own);
        if (mib > most) {
            most = mib;
            snprintf(whose, sizeof whose, "%s", lines[i].spec);
        }
    }
    if (most >= 0)
        note_scratch(bench, most, whose);
}
