/*
 * softmax-topk and expert-choice from gate columns to a validated plan, in the shapes of published comparisons, beside
 * the same in PyTorch and numpy, and beside ggml's softmax and top-k.
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "bench/ggml.h"
#include "bench/parts/parts.h"
#include "bench/peer.h"
#include "bench/setting.h"

struct line {
    const char *spec;
    uint32_t n_experts, k;
    double torch, ggml; /* asked for: their time by ours */
};

static const struct line lines[] = {
    {"softmax-topk", 8, 2, 15, 5},    {"softmax-topk", 64, 2, 8, 5},  {"softmax-topk", 64, 8, 6, 5},
    {"softmax-topk", 256, 8, 6, 3.5}, {"expert-choice", 64, 2, 5, 0}, {"expert-choice", 256, 8, 5, 0},
};

/* The sum of the choices: expert ids, or token ids of what experts chose. */
static double sum_of_choices(const struct moesim_plan *plan, bool by_token)
{
    double sum = 0;
    for (uint32_t t = 0; t < plan->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            sum += by_token ? t : plan->expert[i];
    return sum;
}

struct rivals {
    struct peer *peer[2];
    struct ggml_graph *graph;
};

static void add_orders(struct bench_figure *figure, struct peer *peer, const char *const *order, uint32_t n,
                       struct bench_bound bound, double expected)
{
    for (uint32_t i = 0; i < n; i++) {
        char name[BENCH_RIVAL_NAME];
        const bool plain = strcmp(order[i], "plain") == 0 || strcmp(order[i], "expert-choice") == 0;
        snprintf(name, sizeof name, "%s%s%s", peer_name(peer), plain ? "" : " ", plain ? "" : order[i]);
        peer_run(peer, order[i], 1);
        if (!(fabs(peer_found(peer) - expected) <= 1e-6 * expected))
            bench_stop("%s: %s chooses otherwise (%.17g, not %.17g)", figure->name, name, peer_found(peer), expected);
        struct bench_rival *rival = bench_add(figure, name, NULL, NULL, BENCH_FASTER, bound);
        rival->runner.peer = peer;
        rival->runner.order = order[i];
        rival->runner.single = strncmp(name, "numpy", 5) == 0;
    }
}

static struct rivals add_rivals(struct bench *bench, struct bench_figure *figure, const struct line *line,
                                struct setting *s)
{
    static const char *const by_token[] = {"plain", "out"}, *const by_expert[] = {"expert-choice", "turned"};
    const bool chosen = strcmp(line->spec, "expert-choice") == 0;
    const double expected = sum_of_choices(&s->plan, chosen);
    struct rivals rivals = {{NULL}, NULL};
    struct peer_task task = {.library = "torch",
                             .task = "route",
                             .n_tokens = s->batch.n_tokens,
                             .n_experts = line->n_experts,
                             .k = line->k,
                             .capacity = (uint32_t)((uint64_t)s->batch.n_tokens * line->k / line->n_experts),
                             .threads = (uint32_t)omp_get_max_threads(),
                             .data = s->batch.columns,
                             .size = (size_t)s->batch.n_tokens * line->n_experts * sizeof(float)};
    if ((rivals.peer[0] = peer_open(&task)))
        add_orders(figure, rivals.peer[0], chosen ? by_expert : by_token, 2, BENCH_AT_LEAST(line->torch), expected);
    task.library = "numpy";
    if (!chosen && (rivals.peer[1] = peer_open(&task)))
        add_orders(figure, rivals.peer[1], by_token, 1, BENCH_UNBOUND, expected);
    if (!chosen && bench->ggml &&
        (rivals.graph = ggml_open_route(bench->ggml, s->batch.columns, s->batch.n_tokens, line->n_experts, line->k)))
        bench_add(figure, "ggml top_k", ggml_run, rivals.graph, BENCH_FASTER, BENCH_AT_LEAST(line->ggml));
    return rivals;
}

static void measure(struct bench *bench, const struct line *line, const char *name)
{
    struct setting s;
    setting_open_spec(&s, line->spec,
                      (struct setting_shape){.n_experts = line->n_experts,
                                             .top_k = line->k,
                                             .n_tokens = bench->options.quick ? SETTING_TOKENS / 8 : SETTING_TOKENS});
    setting_route_and_check(&s);
    struct bench_figure figure = {.part = "route",
                                  .ours = bench_ours(setting_route_and_check, &s),
                                  .work = 1e-6 * s.batch.n_tokens,
                                  .unit = "Mtoken/s"};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_add(&figure, "not validated", setting_route, &s, BENCH_SHARE, BENCH_UNBOUND);
    struct rivals rivals = add_rivals(bench, &figure, line, &s);
    bench_measure(bench, &figure);
    peer_close(rivals.peer[0]);
    peer_close(rivals.peer[1]);
    ggml_close(rivals.graph);
    setting_close(&s);
}

void part_route(struct bench *bench)
{
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char name[BENCH_NAME];
        snprintf(name, sizeof name, "%s E=%u k=%u", lines[i].spec, lines[i].n_experts, lines[i].k);
        if (bench_wants(bench, "route", name))
            measure(bench, &lines[i], name);
    }
}
