/*
 * A checkpoint as the gate of a study: layer by layer the bits are those of the model itself, run on the same tokens.
 */
#include <criterion/criterion.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/checkpoint/checkpoint.h"
#include "sim/experiment/experiment.h"
#include "sim/experiment/experiment_state.h"
#include "sim/study/study.h"
#include "tests/sim/registry.h"
#include "tests/sim/train/bed.h"

static char folder[] = "/tmp/moesim-trained-XXXXXX", text_path[64], list_path[64], model_path[64];
static struct moesim_error err;
static struct moesim_mistakes mistakes;

static void open_bed(void)
{
    cr_assert(mkdtemp(folder));
    snprintf(text_path, sizeof text_path, "%s/text", folder);
    snprintf(list_path, sizeof list_path, "%s/list", folder);
    snprintf(model_path, sizeof model_path, "%s/m.safetensors", folder);
    FILE *f = fopen(text_path, "w");
    for (unsigned i = 0; i < 600; i++)
        fprintf(f, "%u is no %s. ", i * i % 97, i % 3 ? "square" : "multiple of nine");
    cr_assert_eq(fclose(f), 0);
}

static void close_bed(void)
{
    unlink(text_path);
    unlink(list_path);
    unlink(model_path);
    cr_assert_eq(rmdir(folder), 0);
}

TestSuite(trained, .init = open_bed, .fini = close_bed, .timeout = 120);

struct bench {
    struct moesim_arena *arena;
    const struct moesim_point *const *point;
    uint32_t n;
};

/* The points of a study of the checkpoint, 3 steps of 4 sequences, with further keys of the workload and lines. */
static struct bench begin_with(const char *keys, const char *lines)
{
    char text[2000];
    struct bench b = {.arena = moesim_arena_create(0)};
    const struct moesim_registry registry = registry_of_all();
    snprintf(text, sizeof text,
             "workload: {name: text, files: %s, tokens: 64, sequence: 16, checkpoint: %s%s}\nseeds: [7]\nsteps: 3\n%s",
             text_path, model_path, keys, lines);
    mistakes = (struct moesim_mistakes){0};
    struct moesim_study *study = moesim_study_parse("s.yaml", text, strlen(text), b.arena, &mistakes);
    cr_assert(study && moesim_study_resolve(study, &registry, &b.point, &b.n, &mistakes), "%s: %s", lines,
              mistakes.item[0].text);
    return b;
}

static struct bench begin(const char *lines)
{
    return begin_with("", lines);
}

/* With room for scratch of routers for whole runs of tokens, which small batches fill only a little. */
static struct moesim_experiment *create(const struct moesim_point *const *point)
{
    struct moesim_experiment *e;
    cr_assert_eq(moesim_experiment_create(point, 1, 2 * moesim_experiment_memory(*point) + (1 << 20), &e, &err),
                 MOESIM_OK, "%s: %s", (*point)->router_spec, err.text);
    return e;
}

/* The model of the point's checkpoint, to run by hand. */
static void load(const struct moesim_point *p, struct moesim_arena *arena, struct moesim_transformer *model)
{
    const struct moesim_transformer_config config = moesim_trained_config(p);
    cr_assert_eq(moesim_transformer_init(model, &config, &p->trained->choice, p->trained->seed, arena, &err), MOESIM_OK,
                 "%s", err.text);
    cr_assert_eq(moesim_checkpoint_load_model(model, p->trained->path, &err), MOESIM_OK, "%s", err.text);
}

static bool equal_plans(const struct moesim_plan *a, const struct moesim_plan *b)
{
    if (a->n_tokens != b->n_tokens || a->n_pairs != b->n_pairs || a->n_slots != b->n_slots)
        return false;
    if (a->n_slots) {
        const size_t n = (size_t)a->n_tokens * a->n_slots * sizeof(float);
        return !memcmp(a->dispatch, b->dispatch, n) && !memcmp(a->combine, b->combine, n);
    }
    return !memcmp(a->first, b->first, (a->n_tokens + 1) * sizeof *a->first) &&
           !memcmp(a->expert, b->expert, a->n_pairs * sizeof *a->expert) &&
           !memcmp(a->weight, b->weight, a->n_pairs * sizeof *a->weight) &&
           !memcmp(a->fate, b->fate, a->n_pairs * sizeof *a->fate) &&
           !memcmp(a->slot, b->slot, a->n_pairs * sizeof *a->slot);
}

static void run_model(struct moesim_transformer *model, uint32_t step, const struct moesim_batch *batch)
{
    const struct moesim_sequences sequences = {
        .n_sequences = batch->n_tokens / model->config.sequence, .token = batch->token_id, .domain = batch->domain};
    cr_assert_eq(moesim_transformer_forward(model, MOESIM_EVAL, step, 0, &sequences, &err), MOESIM_OK, "%s", err.text);
}

/* Every layer of every step beside the model; returns in how many the plans are equal. */
static uint32_t count_equal(const struct moesim_point *const *point, struct moesim_transformer *model)
{
    struct moesim_experiment *e = create(point);
    uint32_t n = 0;
    while (!moesim_experiment_done(e)) {
        const uint32_t step = moesim_experiment_steps_done(e);
        for (uint32_t l = 0; l < (*point)->model.layers; l++) {
            struct moesim_routed now;
            cr_assert_eq(moesim_experiment_step_layer(e, &now, &err), MOESIM_OK, "%s", err.text);
            if (l == 0)
                run_model(model, step, now.batch);
            const struct moesim_batch *batch = &model->moe[l].batch;
            cr_assert_arr_eq(now.batch->hidden, batch->hidden, 64 * batch->d_model * sizeof(float));
            n += equal_plans(now.plan, &model->moe[l].plan);
        }
    }
    moesim_experiment_destroy(e);
    return n;
}

static const struct {
    const char *spec;
    struct moesim_transformer_config model;
} cases[] = {
    {"softmax-topk", {.moe_every = 1}},
    {"noisy-topk", {.moe_every = 1}},
    {"softmax-topk:score=sigmoid,weight=sum,bias_update=sign,gamma=0.05", {.moe_every = 2, .n_blocks = 5}},
    {"switch:capacity_factor=1", {.moe_every = 1, .gate_bias = true, .n_shared = 1}},
    {"expert-choice", {.moe_every = 1, .positions = MOESIM_LEARNED}},
    {"softmax-topk:group=sequence,capacity_factor=1,jitter=0.2", {.moe_every = 1, .activation = MOESIM_GELU}},
    {"expert-threshold", {.moe_every = 1}},
    {"zero-expert:n_constant=0,gating_residual=true", {.moe_every = 1}},
    {"hierarchical", {.moe_every = 1, .tied_head = true}},
    {"cosine", {.moe_every = 1}},
    {"soft", {.moe_every = 1}},
    {"hash", {.moe_every = 1}},
    {"random", {.moe_every = 1}},
};

Test(trained, plans_are_those_of_the_model)
{
    const int most = omp_get_max_threads();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char lines[256];
        struct moesim_transformer model;
        omp_set_num_threads(1);
        bed_keep(cases[i].spec, NULL, &cases[i].model, model_path);
        snprintf(lines, sizeof lines, "phase: eval\nrouter: '%s'\n", cases[i].spec);
        struct bench b = begin(lines);
        load(b.point[0], b.arena, &model);
        for (int n_threads = 1; n_threads <= 4; n_threads *= 2) {
            omp_set_num_threads(n_threads);
            cr_assert_eq(count_equal(b.point, &model), 3 * model.n_moe, "%s on %d threads", cases[i].spec, n_threads);
        }
        moesim_transformer_finish(&model);
        moesim_arena_destroy(b.arena);
    }
    omp_set_num_threads(most);
}

/* Tokens that are word pieces of a list are the model's as well. */
Test(trained, plans_of_pieces_are_those_of_the_model)
{
    static const char list[] = "[UNK]\nis\nno\nsquare\nmul\n##tip\n##le\n1\n##1\n2\n##2\n3\n##3\n4\n##4\n.\n";
    char keys[128];
    struct moesim_transformer model;
    FILE *f = fopen(list_path, "w");
    cr_assert(f && fputs(list, f) >= 0 && fclose(f) == 0);
    bed_keep("softmax-topk", NULL, &(struct moesim_transformer_config){.moe_every = 1, .vocabulary = 16}, model_path);
    snprintf(keys, sizeof keys, ", vocabulary: piece, word_list: %s", list_path);
    struct bench b = begin_with(keys, "phase: eval\nrouter: softmax-topk\n");
    load(b.point[0], b.arena, &model);
    cr_assert_eq(count_equal(b.point, &model), 3 * model.n_moe);
    moesim_transformer_finish(&model);
    moesim_arena_destroy(b.arena);
}

/* Without what the router remembers, the same tokens go elsewhere. */
Test(trained, the_bias_counts)
{
    struct moesim_transformer model;
    bed_keep(cases[2].spec, NULL, &cases[2].model, model_path);
    char lines[256];
    snprintf(lines, sizeof lines, "phase: eval\nrouter: '%s'\n", cases[2].spec);
    struct bench b = begin(lines);
    load(b.point[0], b.arena, &model);
    memset(model.moe[0].memory, 0, model.shape.n_memory * sizeof(float));
    struct moesim_experiment *e = create(b.point);
    struct moesim_routed now;
    cr_assert_eq(moesim_experiment_step_layer(e, &now, &err), MOESIM_OK, "%s", err.text);
    run_model(&model, 0, now.batch);
    cr_assert_not(equal_plans(now.plan, &model.moe[0].plan));
    moesim_experiment_destroy(e);
    moesim_transformer_finish(&model);
    moesim_arena_destroy(b.arena);
}

/* All see the model's hidden states and, as far as they have the columns, its gate; columns that noisy-topk may lack
 * are 0. In phase train their noise is on and the hidden states stay. */
Test(trained, routers_share_hidden_states_and_gate)
{
    struct moesim_transformer model;
    bed_keep("softmax-topk", NULL, &(struct moesim_transformer_config){.moe_every = 1, .gate_bias = true}, model_path);
    struct bench b = begin("phase: [eval, train]\nmodel: {experts: [8, 5]}\n"
                           "router: [noisy-topk, switch, 'softmax-topk:k=3,bias_update=sign', hash]\n");
    load(b.point[0], b.arena, &model);
    cr_assert_eq(b.n, 16);
    for (uint32_t i = 0; i < b.n; i++) {
        struct moesim_experiment *e = create(b.point + i);
        for (uint32_t l = 0; l < 2; l++) {
            struct moesim_routed now;
            cr_assert_eq(moesim_experiment_step_layer(e, &now, &err), MOESIM_OK, "%s", err.text);
            if (l == 0)
                run_model(&model, 0, now.batch);
            const struct moesim_batch *own = &model.moe[l].batch;
            cr_assert_arr_eq(now.batch->hidden, own->hidden, 64 * own->d_model * sizeof(float));
            for (uint32_t t = 0; t < 64; t++)
                for (uint32_t c = 0; c < now.batch->n_columns; c++) {
                    const float column = now.batch->columns[t * now.batch->stride + c];
                    cr_assert_eq(column, c < b.point[i]->model.experts ? own->columns[t * own->stride + c] : 0);
                }
        }
        moesim_experiment_destroy(e);
    }
    moesim_transformer_finish(&model);
    moesim_arena_destroy(b.arena);
}

/* Experts are executed on the model's hidden states; what went through what is told. */
Test(trained, executes_and_says_where_it_is_from)
{
    bed_keep("switch", NULL, &(struct moesim_transformer_config){.moe_every = 1}, model_path);
    struct bench b = begin("mode: execute\nrouter: softmax-topk\ncluster: {name: h100-dgx, nodes: 1, ep: 8}\n");
    struct moesim_experiment *e = create(b.point);
    struct moesim_outcome outcome;
    while (!moesim_experiment_done(e))
        cr_assert_eq(moesim_experiment_step(e, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(moesim_experiment_finish(e, &outcome, &err), MOESIM_OK, "%s", err.text);
    char end[128];
    snprintf(end, sizeof end, "; through %s (router switch, step 8)", model_path);
    const size_t n = strlen(outcome.workload_provenance);
    cr_assert(n > strlen(end) && !strcmp(outcome.workload_provenance + n - strlen(end), end), "%s",
              outcome.workload_provenance);
    moesim_experiment_destroy(e);
    moesim_arena_destroy(b.arena);
}

/* A file that changed since the study was read is a failed run, not another model's figures. */
Test(trained, a_file_that_changed_is_refused)
{
    bed_keep("switch", NULL, &(struct moesim_transformer_config){.moe_every = 1}, model_path);
    struct bench b = begin("router: switch\n");
    struct moesim_experiment *e;
    bed_keep("switch", NULL, &(struct moesim_transformer_config){.moe_every = 1, .d_ff = 20}, model_path);
    cr_assert_eq(moesim_experiment_create(b.point, 1, 0, &e, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "is of another shape: blocks.0.experts.in"), "%s", err.text);
    truncate(model_path, 1000);
    cr_assert_eq(moesim_experiment_create(b.point, 1, 0, &e, &err), MOESIM_EIO);
    moesim_arena_destroy(b.arena);
}
