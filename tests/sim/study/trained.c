/*
 * A checkpoint in a study: what follows from it, and what does not go with it, at its line and column.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/checkpoint/safetensors.h"
#include "sim/models/model.h"
#include "sim/study/study.h"
#include "tests/sim/registry.h"
#include "tests/sim/train/bed.h"

static char folder[] = "/tmp/moesim-study-XXXXXX";

static void open_bed(void)
{
    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
    FILE *f = fopen("t", "w");
    for (unsigned i = 0; i < 300; i++)
        fprintf(f, "word%u ", i % 40);
    cr_assert_eq(fclose(f), 0);
}

static void close_bed(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert(chdir("/") == 0 && system(command) == 0);
}

TestSuite(study_trained, .init = open_bed, .fini = close_bed, .timeout = 60);

static struct moesim_arena *arena;
static const struct moesim_point *const *point;
static uint32_t n_points;
static struct moesim_mistakes mistakes;

static bool hash_path(const char *path, uint64_t *hash)
{
    FILE *f = fopen(path, "rb");
    *hash = 1;
    for (int c; f && (c = getc(f)) != EOF;)
        *hash = *hash * 31 + (unsigned)c;
    return f && !fclose(f);
}

static bool resolve(const char *text)
{
    struct moesim_registry registry = registry_of_all();
    registry.hash_path = hash_path;
    moesim_arena_destroy(arena);
    arena = moesim_arena_create(0);
    mistakes = (struct moesim_mistakes){0};
    struct moesim_study *study = moesim_study_parse("s.yaml", text, strlen(text), arena, &mistakes);
    cr_assert(study, "%s", mistakes.item[0].text);
    return moesim_study_resolve(study, &registry, &point, &n_points, &mistakes);
}

static void must(const char *text)
{
    cr_assert(resolve(text), "%s: %s", text, mistakes.item[0].text);
}

static void keep(const char *spec, struct moesim_transformer_config model)
{
    bed_keep(spec, NULL, &model, "m");
}

#define HEAD "workload: {name: text, files: t, tokens: 64, sequence: 16, checkpoint: m}\nseeds: 1\n"

Test(study_trained, sizes_follow_the_model)
{
    keep("switch", (struct moesim_transformer_config){
                       .n_blocks = 6, .moe_every = 2, .n_shared = 1, .top_k = 3, .activation = MOESIM_GELU});
    must(HEAD "router: [softmax-topk, 'expert-choice']\n");
    const struct moesim_model *model = &point[0]->model;
    cr_assert(model->layers == 3 && model->experts == 8 && model->top_k == 3 && model->d_model == 16);
    cr_assert(model->d_ff == 12 && model->shared_experts == 1 && model->activation == MOESIM_GELU);
    const struct moesim_trained *t = point[1]->trained;
    cr_assert(t && t == point[0]->trained && t->seed == 7 && t->step == 8 && t->n_columns == 8);
    cr_assert_str_eq(t->choice.spec, "switch");
    const struct moesim_transformer_config config = moesim_trained_config(point[0]);
    cr_assert(config.sequence == 16 && config.n_sequences == 4);
    /* What the study says itself stays. */
    must(HEAD "router: softmax-topk\nmodel: {layers: 2, experts: 5, top_k: 1, d_ff: 20, shared_experts: 0, activation: "
              "relu}\n");
    model = &point[0]->model;
    cr_assert(model->layers == 2 && model->experts == 5 && model->top_k == 1);
    cr_assert(model->d_ff == 20 && model->shared_experts == 0 && model->activation == MOESIM_RELU_MLP);
    /* Rotary positions take any sequence. */
    must("workload: {name: text, files: t, tokens: 64, sequence: 32, checkpoint: m}\nrouter: switch\n");
    must("workload: {name: text, files: t, tokens: 64}\nrouter: switch\n");
    cr_assert(!point[0]->trained && point[0]->model.layers == 1);
}

/* A model that was trained on under the same name makes another point, and so does a file of its router. */
Test(study_trained, what_the_file_holds_counts)
{
    uint64_t hash[2];
    for (uint32_t i = 0; i < 2; i++) {
        keep(i ? "switch:aux_coef=0.1" : "switch", (struct moesim_transformer_config){.moe_every = 1});
        must(HEAD "router: switch\n");
        hash[i] = point[0]->hash;
    }
    cr_assert_neq(hash[0], hash[1]);
}

/* ---- refusals ---- */

static void refused(const char *lines, uint32_t line, uint32_t column, const char *says, uint32_t n_files)
{
    cr_assert_not(resolve(lines), "%s", lines);
    bool found = false;
    for (uint32_t i = 0; i < mistakes.n; i++)
        found |= mistakes.item[i].line == line && mistakes.item[i].column == column &&
                 strstr(mistakes.item[i].text, says) != NULL;
    cr_assert(found && mistakes.n == 1, "%s\nsays %u:%u: %s", lines, mistakes.item[0].line, mistakes.item[0].column,
              mistakes.item[0].text);
    cr_assert_eq(mistakes.n_files, n_files, "%s", lines);
}

Test(study_trained, what_does_not_go_together)
{
    static const struct {
        const char *lines;
        uint32_t line, column;
        const char *says;
    } cases[] = {
        {"mode: train\n" HEAD "router: switch\n", 2, 72,
         "mode: train starts from its seed; modes route and execute take a checkpoint"},
        {HEAD "router: switch\nmodel: {layers: 3}\n", 4, 17, "model.layers = 3, but the workload"},
        {HEAD "router: switch\nmodel: {experts: 9}\n", 4, 18, "the model has 9 experts, but the workload"},
        {HEAD "router: switch\nmodel: {d_model: 32}\n", 4, 18, "the model has d_model 32, but the workload"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  tokens: 72\n  sequence: 16\n  checkpoint: m\n", 5, 11,
         "the model of m reads whole sequences one after the other; the workload text has 72 tokens a step in "
         "sequences of 16"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  sequence: 17\n  checkpoint: m\n", 6, 15,
         "has 4096 tokens a step in sequences of 17"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  vocabulary: word\n  checkpoint: m\n", 6, 15,
         "workload text: checkpoint: m: has a vocabulary of 256 tokens, the workload of 16384"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  context: 32\n  checkpoint: m\n", 5, 12,
         "context has no effect beside checkpoint"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  mixing: 0.5\n  checkpoint: m\n", 5, 11,
         "mixing has no effect beside checkpoint"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  common: 0.5\n  checkpoint: m\n", 5, 11,
         "common has no effect beside checkpoint"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  gate_std: 1\n  checkpoint: m\n", 5, 13,
         "gate_std has no effect beside checkpoint"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  vectors: v.npy\n  checkpoint: m\n", 5, 12,
         "vectors has no effect beside checkpoint"},
        {"router: switch\nworkload:\n  name: text\n  files: t\n  batching: decode\n  checkpoint: m\n", 5, 13,
         "it goes with batching=contiguous only"},
        {HEAD "router: hierarchical\n", 3, 9,
         "router hierarchical cannot route by the gates of m, which were trained with softmax-topk: of its 10 columns "
         "they have 0"},
        {HEAD "router: mod\n", 3, 9, "of its 1 columns they have 0"},
        {HEAD "router: dselect-k\n", 3, 9, "of its 8 columns they have 0"},
        {HEAD "router: zero-expert\n", 3, 9, "router zero-expert cannot route by the gates of m"},
    };
    keep("softmax-topk", (struct moesim_transformer_config){.moe_every = 1});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(cases[i].lines, cases[i].line, cases[i].column, cases[i].says, 0);
}

Test(study_trained, models_that_give_no_gate)
{
    static const char study[] = HEAD "router: switch\n";
    keep("switch", (struct moesim_transformer_config){.moe_every = 0});
    refused(study, 1, 72, "workload text: checkpoint: m: is of a dense model: it has no gates", 0);
    keep("switch", (struct moesim_transformer_config){.moe_every = 1, .positions = MOESIM_LEARNED, .sequence = 8});
    refused(study, 1, 72,
            "m: has learned the positions of sequences of 8 tokens, the workload's have 16; set sequence to 8", 0);
    keep("hash", (struct moesim_transformer_config){.moe_every = 1});
    refused(study, 3, 9,
            "router switch cannot route by the gates of m, which were trained with hash: of its 8 columns "
            "they have 0",
            0);
    must(HEAD "router: [hash, random, cosine]\n");
    keep("dselect-k", (struct moesim_transformer_config){.moe_every = 1});
    refused(study, 3, 9, "which were trained with dselect-k: of its 8 columns they have 0", 0);
    must(HEAD "router: dselect-k\n");
    keep("noisy-topk", (struct moesim_transformer_config){.moe_every = 1});
    must(HEAD "router: [noisy-topk, switch]\n");
}

Test(study_trained, routers_that_cannot_be_had)
{
    static const struct {
        const char *spec, *says;
    } cases[] = {
        {"./mine.so:k=2", "m: was trained with the router ./mine.so:k=2, a plugin; a checkpoint needs one of moesim's"},
        {"swich", "m: its router swich: unknown router 'swich'; did you mean 'switch'?"},
        {"switch:depth=2", "m: its router switch:depth=2: unknown key 'depth' of router switch"},
        {"softmax-topk:k=9", "checkpoint: k = 9 exceeds the 8 experts"},
        {"replay", "router replay cannot be trained: it replays recorded decisions"},
        {"", "m: its router : router has no value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bed_keep("switch", cases[i].spec, &(struct moesim_transformer_config){.moe_every = 1}, "m");
        refused(HEAD "router: switch\n", 1, 72, cases[i].says, 0);
    }
}

/* Files that cannot be read are told apart from mistakes of the study. */
Test(study_trained, damaged_files)
{
    static const char study[] = HEAD "router: switch\n";
    refused(study, 1, 72, "workload text: checkpoint: m: cannot be opened: No such file", 1);
    keep("switch", (struct moesim_transformer_config){.moe_every = 1});
    FILE *f = fopen("m", "r+b");
    fseek(f, -3, SEEK_END);
    const int byte = getc(f);
    fseek(f, -3, SEEK_END);
    putc(byte ^ 4, f);
    cr_assert_eq(fclose(f), 0);
    refused(study, 1, 72, "workload text: checkpoint: m: is damaged: its checksum is", 1);
    cr_assert_eq(truncate("m", 9000), 0);
    refused(study, 1, 72, "workload text: checkpoint: m: is cut short", 1);
    cr_assert_eq(truncate("m", 100), 0);
    refused(study, 1, 72, "workload text: checkpoint: m: is damaged or no checkpoint", 1);
    struct moesim_error err;
    cr_assert_eq(moesim_safetensors_write("m", NULL, 0, NULL, 0, &err), MOESIM_OK);
    refused(study, 1, 72, "m: is no checkpoint of a training: it lacks its format", 1);
    cr_assert(unlink("m") == 0 && symlink("t", "m") == 0);
    refused(study, 1, 72, "workload text: checkpoint: m: is damaged or no checkpoint", 1);
}
