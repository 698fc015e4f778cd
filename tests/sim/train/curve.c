/*
 * Whole trainings beside a second implementation, reference.py, which starts from the same weights and batches: with
 * the recorded decisions the losses of all steps are equal within 1e-3, routing freely within 2 %.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <moesim/random.h>

#include "sim/models/model.h"
#include "sim/train/training.h"
#include "tests/sim/train/bed.h"

#define PYTHON "/usr/bin/python3" /* for which Debian has python3-torch */
#define NO_TORCH 77

enum { STEPS = 200, VOCABULARY = 64, SEQUENCE = 32, N_SEQUENCES = 4, N_TOKENS = SEQUENCE * N_SEQUENCES, N_EXPERTS = 8 };

/* A model with a router, and what the reference has to know of the router. */
struct trial {
    const char *spec;
    uint32_t k, n_blocks, moe_every, n_shared, activation, positions, micro_batches;
    bool tied, gate_bias;
    /* of the router: */
    const char *score, *weight;
    double scale, aux_coef, z_coef, capacity_factor, gamma;
    uint32_t token_groups; /* in which an expert's capacity is counted */
    uint32_t aux_groups;   /* of tokens, over which the balancing loss is averaged */
    bool aux_by_best_scores;
    uint32_t expert_groups, kept_groups;
};

static const struct trial softmax_topk = {.spec = "softmax-topk:k=2,aux_form=switch,aux_coef=0.02,z_coef=0.001",
                                          .k = 2,
                                          .n_blocks = 3,
                                          .moe_every = 2,
                                          .n_shared = 1,
                                          .activation = MOESIM_SWIGLU,
                                          .positions = MOESIM_ROTARY,
                                          .micro_batches = 1,
                                          .gate_bias = true,
                                          .score = "softmax",
                                          .weight = "none",
                                          .scale = 1,
                                          .aux_coef = 0.02,
                                          .z_coef = 0.001,
                                          .token_groups = 1,
                                          .aux_groups = 1};

static const struct trial renormalised = {.spec = "softmax-topk:k=3,weight=sum",
                                          .k = 3,
                                          .n_blocks = 2,
                                          .moe_every = 1,
                                          .activation = MOESIM_GELU,
                                          .positions = MOESIM_LEARNED,
                                          .micro_batches = 2,
                                          .score = "softmax",
                                          .weight = "sum",
                                          .scale = 1,
                                          .token_groups = 1,
                                          .aux_groups = 1};

static const struct trial switch_ = {.spec = "switch:capacity_factor=1.25,group=sequence,aux_coef=0.01",
                                     .k = 1,
                                     .n_blocks = 2,
                                     .moe_every = 1,
                                     .activation = MOESIM_GELU,
                                     .positions = MOESIM_LEARNED,
                                     .micro_batches = 1,
                                     .tied = true,
                                     .score = "softmax",
                                     .weight = "none",
                                     .scale = 1,
                                     .aux_coef = 0.01,
                                     .capacity_factor = 1.25,
                                     .token_groups = N_SEQUENCES,
                                     .aux_groups = N_SEQUENCES};

static const struct trial deepseek_v3 = {.spec = "deepseek-v3:k=2,n_groups=4,topk_groups=2,gamma=0.005,aux_coef=0.001",
                                         .k = 2,
                                         .n_blocks = 2,
                                         .moe_every = 2,
                                         .n_shared = 1,
                                         .activation = MOESIM_SWIGLU,
                                         .positions = MOESIM_ROTARY,
                                         .micro_batches = 2,
                                         .score = "sigmoid",
                                         .weight = "sum",
                                         .scale = 2.5,
                                         .aux_coef = 0.001,
                                         .gamma = 0.005,
                                         .token_groups = 1,
                                         .aux_groups = N_SEQUENCES,
                                         .aux_by_best_scores = true,
                                         .expert_groups = 4,
                                         .kept_groups = 2};

static struct moesim_arena *arena;
static struct moesim_error err;
static char folder[] = "/tmp/moesim-curve-XXXXXX";

static void open_bed(void)
{
    arena = moesim_arena_create(0);
    strcpy(err.text, "memory is exhausted");
    cr_assert(mkdtemp(folder));
}

static void close_bed(void)
{
    static const char *const names[] = {"header.json", "weights.bin", "tokens.bin", "decisions.bin"};
    char path[sizeof folder + 16];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
    moesim_arena_destroy(arena);
    arena = NULL; /* a test that is skipped may come here twice */
}

static FILE *create_file(const char *name)
{
    char path[sizeof folder + 16];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    cr_assert(f, "%s", path);
    return f;
}

static void write_all(FILE *f, const void *bytes, size_t size)
{
    cr_assert_eq(fwrite(bytes, 1, size, f), size, "the disk is full");
}

static struct moesim_training_config config_of(const struct trial *trial)
{
    return (struct moesim_training_config){
        .model = {.vocabulary = VOCABULARY,
                  .n_blocks = trial->n_blocks,
                  .d_model = 32,
                  .n_heads = 4,
                  .sequence = SEQUENCE,
                  .n_sequences = N_SEQUENCES,
                  .moe_every = trial->moe_every,
                  .n_experts = N_EXPERTS,
                  .top_k = trial->k,
                  .n_shared = trial->n_shared,
                  .d_ff = 24,
                  .activation = trial->activation,
                  .positions = trial->positions,
                  .tied_head = trial->tied,
                  .gate_bias = trial->gate_bias},
        .choice = bed_router(trial->spec, trial->k, arena),
        .optimizer = {.learning_rate = 3e-3,
                      .min_learning_rate = 3e-4,
                      .warm_up = 20,
                      .steps = STEPS,
                      .beta1 = 0.9,
                      .beta2 = 0.95,
                      .epsilon = 1e-6, /* gradients near 0 are rounding: their sign is not to count */
                      .weight_decay = 0.1,
                      .clip = 1},
        .micro_batches = trial->micro_batches,
        .seed = 5};
}

/* ---- what the reference is given ---- */

static void write_header(const struct trial *trial, const struct moesim_training_config *config,
                         const struct moesim_transformer *model)
{
    const struct moesim_transformer_config *c = &config->model;
    const struct moesim_optimizer_config *o = &config->optimizer;
    FILE *f = create_file("header.json");
    fprintf(f, "{\"steps\": %u, \"micro_batches\": %u,\n", o->steps, config->micro_batches);
    fprintf(f, " \"model\": {\"blocks\": %u, \"d_model\": %u, \"heads\": %u, \"sequence\": %u, \"sequences\": %u, ",
            c->n_blocks, c->d_model, c->n_heads, c->sequence, c->n_sequences);
    fprintf(f, "\"experts\": %u, \"activation\": \"%s\", \"positions\": \"%s\", \"tied_head\": %s},\n", c->n_experts,
            c->activation == MOESIM_SWIGLU ? "swiglu" : "gelu", c->positions == MOESIM_ROTARY ? "rotary" : "learned",
            c->tied_head ? "true" : "false");
    fprintf(f,
            " \"router\": {\"k\": %u, \"score\": \"%s\", \"weight\": \"%s\", \"scale\": %.17g, \"aux_coef\": %.17g, ",
            trial->k, trial->score, trial->weight, trial->scale, trial->aux_coef);
    fprintf(f, "\"z_coef\": %.17g, \"capacity_factor\": %.17g, \"gamma\": %.17g, \"token_groups\": %u, ", trial->z_coef,
            trial->capacity_factor, trial->gamma, trial->token_groups);
    fprintf(f, "\"aux_groups\": %u, \"aux_by_best_scores\": %s, \"expert_groups\": %u, \"kept_groups\": %u},\n",
            trial->aux_groups, trial->aux_by_best_scores ? "true" : "false", trial->expert_groups, trial->kept_groups);
    fprintf(f, " \"optimizer\": {\"learning_rate\": %.17g, \"min_learning_rate\": %.17g, \"warm_up\": %u, ",
            o->learning_rate, o->min_learning_rate, o->warm_up);
    fprintf(f, "\"beta1\": %.17g, \"beta2\": %.17g, \"epsilon\": %.17g, \"weight_decay\": %.17g, \"clip\": %.17g},\n",
            o->beta1, o->beta2, o->epsilon, o->weight_decay, o->clip);
    fprintf(f, " \"tensors\": [");
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const struct moesim_tensor *t = &model->tensor[i];
        fprintf(f, "%s\n  {\"name\": \"%s\", \"parts\": %u, \"rows\": %u, \"columns\": %u}", i > 0 ? "," : "", t->name,
                t->n_parts, t->rows, t->columns);
    }
    fprintf(f, "]}\n");
    cr_assert_eq(fclose(f), 0);
}

static void write_weights(const struct moesim_transformer *model)
{
    FILE *f = create_file("weights.bin");
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const struct moesim_tensor *t = &model->tensor[i];
        for (uint32_t part = 0; part < t->n_parts; part++)
            for (uint32_t row = 0; row < t->rows; row++)
                for (uint32_t column = 0; column < t->columns; column++)
                    write_all(f, &t->value[moesim_tensor_place(t, part, row, column)], sizeof(float));
    }
    cr_assert_eq(fclose(f), 0);
}

/* A walk from word to word, each of which has four that may follow and is met equally often: a word met once in the
 * whole run would be moved by the sign of a gradient near 0, where rounding decides. Now and then there is nothing to
 * predict.
 */
static void draw_words(uint32_t batch, uint32_t words[2][N_TOKENS])
{
    static const uint32_t turn[8] = {9, 9, 9, 9, 30, 30, 47, 60};
    const struct moesim_random walk = {.seed = 9, .stream = MOESIM_STREAM_TEST, .step = batch};
    for (uint32_t s = 0; s < N_SEQUENCES; s++) {
        uint32_t word = moesim_random_below(&walk, N_TOKENS + s, VOCABULARY);
        for (uint32_t t = s * SEQUENCE; t < (s + 1) * SEQUENCE; t++) {
            const uint32_t next = (5 * word + turn[moesim_random_below(&walk, t, 8)]) % VOCABULARY;
            words[0][t] = word;
            words[1][t] = t % 11 == 7 ? MOESIM_NO_TARGET : next;
            word = next;
        }
    }
}

static void write_decisions(FILE *f, const struct moesim_training_figures *figures, uint32_t k)
{
    for (uint32_t layer = 0; layer < figures->n_layers; layer++) {
        const struct moesim_plan *plan = figures->layer[layer].plan;
        cr_assert_eq(plan->n_pairs, (uint64_t)N_TOKENS * k);
        for (uint32_t i = 0; i < plan->n_pairs; i++) {
            const int32_t decision[] = {(int32_t)plan->expert[i], plan->fate[i] == MOESIM_KEPT};
            write_all(f, decision, sizeof decision);
        }
    }
}

/* What became of a training. */
struct curve {
    double loss[STEPS], aux[STEPS];
    uint64_t n_refused;
};

static void train(struct moesim_training *training, const struct trial *trial, struct curve *curve)
{
    uint32_t words[2][N_TOKENS];
    struct moesim_training_figures figures = {0};
    FILE *tokens = create_file("tokens.bin"), *decisions = create_file("decisions.bin");
    for (uint32_t i = 0; !moesim_training_done(training); i++) {
        draw_words(i, words);
        const struct moesim_sequences sample = {.n_sequences = N_SEQUENCES, .token = words[0], .target = words[1]};
        cr_assert_eq(moesim_training_step(training, &sample, &figures, &err), MOESIM_OK, "%s", err.text);
        write_all(tokens, words, sizeof words);
        write_decisions(decisions, &figures, trial->k);
        for (uint32_t layer = 0; layer < figures.n_layers; layer++)
            for (uint64_t pair = 0; pair < figures.layer[layer].plan->n_pairs; pair++)
                curve->n_refused += figures.layer[layer].plan->fate[pair] != MOESIM_KEPT;
        if (figures.updated) {
            curve->loss[figures.step] = figures.step_loss;
            curve->aux[figures.step] = figures.step_aux_loss;
        }
    }
    cr_assert_eq(fclose(tokens) + fclose(decisions), 0);
}

/* ---- beside the reference ---- */

/* Largest distances from the reference, the last of its steps, and its numbers of the routers' memory. */
struct distance {
    double forced_loss, forced_aux, free_loss; /* nats, nats, relative */
    double memory;
    uint32_t n_forced, n_free, n_memory;
};

static void compare_line(const struct curve *curve, const struct moesim_transformer *model, const char *line,
                         struct distance *most)
{
    char word[16];
    uint32_t i, expert;
    double loss, aux, bias;
    if (sscanf(line, "memory %u %u %lf", &i, &expert, &bias) == 3) {
        cr_assert(i < model->n_moe && expert < N_EXPERTS, "%s", line);
        const double own = model->shape.n_memory > 0 ? (double)model->moe[i].memory[expert] : 0;
        most->memory = fmax(most->memory, fabs(bias - own));
        most->n_memory++;
        return;
    }
    cr_assert_eq(sscanf(line, "%15s %u %lf %lf", word, &i, &loss, &aux), 4, "%s", line);
    cr_assert(i < STEPS && isfinite(loss) && isfinite(aux), "%s", line);
    if (!strcmp(word, "forced")) {
        most->forced_loss = fmax(most->forced_loss, fabs(loss - curve->loss[i]));
        most->forced_aux = fmax(most->forced_aux, fabs(aux - curve->aux[i]));
        most->n_forced++;
    } else {
        most->free_loss = fmax(most->free_loss, fabs(loss / curve->loss[i] - 1));
        most->n_free++;
    }
}

static struct distance run_reference(const struct curve *curve, const struct moesim_transformer *model)
{
    struct distance most = {0};
    char command[1024], line[256];
    snprintf(command, sizeof command, "%s '%s/tests/sim/train/reference.py' %s forced free", PYTHON,
             getenv("MOESIM_SOURCE"), folder);
    FILE *f = popen(command, "r");
    cr_assert(f);
    while (fgets(line, sizeof line, f))
        compare_line(curve, model, line, &most);
    const int status = pclose(f);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_TORCH) {
        close_bed();
        cr_skip_test("skipped: python3 has no torch");
    }
    cr_assert_eq(status, 0, "%s", command);
    return most;
}

static struct curve curve;

static void check(const struct trial *trial)
{
    if (access(PYTHON, X_OK)) {
        close_bed();
        cr_skip_test("skipped: no " PYTHON);
    }
    const struct moesim_training_config config = config_of(trial);
    struct moesim_training *training;
    omp_set_num_threads(1); /* the model is small */
    cr_assert_eq(moesim_training_create(&config, 0, &training, &err), MOESIM_OK, "%s", err.text);
    const struct moesim_transformer *model = moesim_training_model(training);
    write_header(trial, &config, model);
    write_weights(model);
    train(training, trial, &curve);
    cr_assert_lt(curve.loss[STEPS - 1], 0.7 * curve.loss[0], "%s: it hardly learned", trial->spec);
    const struct distance most = run_reference(&curve, model);
    if (getenv("VERBOSE"))
        fprintf(stderr,
                "%s: loss %.4f to %.4f, %llu pairs refused; forced within %.2g (auxiliary %.2g), free within %.2g %%\n",
                trial->spec, curve.loss[0], curve.loss[STEPS - 1], (unsigned long long)curve.n_refused,
                most.forced_loss, most.forced_aux, 100 * most.free_loss);
    cr_assert(most.n_forced == STEPS && most.n_free == STEPS && most.n_memory == model->n_moe * N_EXPERTS);
    cr_assert_lt(most.forced_loss, 1e-3, "%s: forced, the loss is off by %g", trial->spec, most.forced_loss);
    cr_assert_lt(most.forced_aux, 1e-3, "%s: forced, the auxiliary loss is off by %g", trial->spec, most.forced_aux);
    cr_assert_lt(most.free_loss, 0.02, "%s: free, the loss is off by %g", trial->spec, most.free_loss);
    cr_assert_lt(most.memory, 1e-5, "%s: the bias is off by %g", trial->spec, most.memory);
    cr_assert_eq(curve.n_refused > 0, trial->capacity_factor > 0, "%s", trial->spec);
    moesim_training_destroy(training);
}

Test(curve, of_softmax_topk, .init = open_bed, .fini = close_bed, .timeout = 300)
{
    check(&softmax_topk);
}

Test(curve, of_weights_that_sum_to_1, .init = open_bed, .fini = close_bed, .timeout = 300)
{
    check(&renormalised);
}

Test(curve, of_switch_with_dropped_tokens, .init = open_bed, .fini = close_bed, .timeout = 300)
{
    check(&switch_);
}

Test(curve, of_deepseek_v3_with_its_bias, .init = open_bed, .fini = close_bed, .timeout = 300)
{
    check(&deepseek_v3);
}
