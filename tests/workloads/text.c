/*
 * text: batches are the files' own bytes, hidden states look back and never ahead, and a seeded linear gate routes them
 * unevenly and by domain.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "tests/workloads/instance.h"
#include "workloads/embedding.h"

TestSuite(text, .timeout = 60, .init = folder_create, .fini = folder_remove);

enum { N_WORDS = 24, N_KINDS = 3, TEXT_BYTES = 60000 };

/* Words of three kinds of text; sentences are drawn from them. */
static const char *const words[N_KINDS][N_WORDS] = {
    {"the",  "license", "of",   "any",  "work",   "you",    "may",  "this",     "software", "and",  "without", "copy",
     "with", "rights",  "from", "that", "source", "notice", "each", "warranty", "terms",    "free", "shall",   "under"},
    {"if",    "(x",   "==",   "0)",   "return",  "{\n    ", "}\n\n",  "static", "int",  "*p",  "->",     "next;\n",
     "char ", "buf[", "i++]", "for(", "size_t ", "n;\n",    "while(", "&&",     "NULL", "#if", "break;", "/* */"},
    {"der",
     "die",
     "und",
     "nicht",
     "f\xc3\xbcr",
     "eine",
     "Rechner",
     "wird",
     "Paketverwaltung",
     "auf",
     "oder",
     "k\xc3\xb6nnen",
     "das",
     "Benutzer",
     "zu",
     "sich",
     "mit",
     "Datei",
     "schlie\xc3\x9flich",
     "von",
     "ist",
     "werden",
     "auch",
     "Verzeichnis"},
};

static const char *write_text(const char *name, uint32_t kind, uint32_t seed)
{
    char *text = malloc(TEXT_BYTES + 64);
    cr_assert(text);
    const struct moesim_random random = {seed, MOESIM_STREAM_TEST, kind, 0};
    size_t n = 0;
    for (uint64_t i = 0; n < TEXT_BYTES; i++)
        n += (size_t)sprintf(text + n, "%s ", words[kind][moesim_random_below(&random, i, N_WORDS)]);
    const char *path = kind == 1 ? folder_write_gzip(name, text, TEXT_BYTES) : folder_write(name, text, TEXT_BYTES);
    free(text);
    return path;
}

/* The three kinds as one `files` value; the second is gzip. */
static const char *write_texts(void)
{
    static char list[2048];
    snprintf(list, sizeof list, "%s,%s,%s", write_text("english.txt", 0, 1), write_text("code.c.gz", 1, 1),
             write_text("deutsch.txt", 2, 1));
    return list;
}

/* A text of write_texts as a string; the caller frees it. */
static char *read_text(const char *name)
{
    char *text = malloc(TEXT_BYTES + 1);
    FILE *file = fopen(folder_path(name), "rb");
    cr_assert(text && file);
    cr_assert_eq(fread(text, 1, TEXT_BYTES, file), TEXT_BYTES);
    text[TEXT_BYTES] = '\0';
    fclose(file);
    return text;
}

static struct moesim_workload_env make_env(uint64_t seed, uint32_t n_layers, uint32_t n_tokens, uint32_t d_model)
{
    return (struct moesim_workload_env){.seed = seed,
                                        .n_layers = n_layers,
                                        .n_experts = 16,
                                        .n_columns = 16,
                                        .n_tokens = n_tokens,
                                        .d_model = d_model,
                                        .n_devices = 1};
}

static void open_text(struct instance *w, const char *const *settings, struct moesim_workload_env env)
{
    instance_create(w, "text", settings);
    cr_assert_eq(instance_init(w, env), MOESIM_OK, "%s", w->error.text);
}

Test(text, batch_holds_sequences_of_the_files)
{
    enum { T = 1000, SEQUENCE = 96, D = 24 };
    struct instance w;
    const char *files = write_texts();
    instance_create(&w, "text", SETTINGS("files", files, "sequence", "96"));
    struct moesim_workload_shape shape = {.struct_size = sizeof shape};
    cr_assert_eq(w.workload->shape(w.params, &shape, &w.error), MOESIM_OK, "%s", w.error.text);
    cr_assert(shape.vocabulary == 256 && shape.n_domains == 3 && shape.gate_std > 0);
    cr_assert(shape.d_model == 0 && shape.n_tokens == 0 && shape.n_layers == 0);
    cr_assert_eq(instance_init(&w, make_env(4, 2, T, D)), MOESIM_OK, "%s", w.error.text);

    char *english = read_text("english.txt");
    for (uint32_t step = 0; step < 3; step++) {
        const struct moesim_batch b = instance_step(&w, step, 0);
        cr_assert(b.n_tokens == T && b.d_model == D && !b.columns);
        for (uint32_t first = 0, q = 0; first < T; first += SEQUENCE, q++) {
            const uint32_t n = T - first < SEQUENCE ? T - first : SEQUENCE;
            char piece[SEQUENCE + 1] = {0};
            for (uint32_t t = first; t < first + n; t++) {
                cr_assert_eq(b.sequence_id[t], q);
                cr_assert_eq(b.domain[t], (step * 11 + q) % 3, "domains take turns"); /* 11 sequences a step */
                piece[t - first] = (char)b.token_id[t];
            }
            cr_assert_eq(b.domain[first] == 0, strstr(english, piece) != NULL, "\"%s\"", piece);
        }
        for (uint32_t t = 0; t < T; t++) {
            double square = 0;
            for (uint32_t j = 0; j < D; j++)
                square += pow((double)b.hidden[(size_t)t * D + j], 2);
            cr_assert_float_eq(square / D, 1, 1e-5);
        }
    }
    free(english);
    instance_destroy(&w);
}

Test(text, is_a_function_of_seed_step_and_layer)
{
    enum { T = 600, D = 16, BYTES = T * D * sizeof(float) };
    const char *files = write_texts();
    const char *const *settings = SETTINGS("files", files, "sequence", "100");
    struct instance one, again, other;
    open_text(&one, settings, make_env(4, 3, T, D));
    open_text(&again, settings, make_env(4, 3, T, D));
    open_text(&other, settings, make_env(5, 3, T, D));
    const struct moesim_batch a = instance_step(&one, 2, 1);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        instance_step(&again, 9, 0);
        const struct moesim_batch b = instance_step(&again, 2, 1);
        cr_assert_arr_eq(a.hidden, b.hidden, BYTES);
        cr_assert_arr_eq(a.token_id, b.token_id, T * sizeof(uint32_t));
    }
    const struct moesim_batch layer = instance_step(&again, 2, 2);
    cr_assert_arr_eq(a.token_id, layer.token_id, T * sizeof(uint32_t));
    cr_assert(memcmp(a.hidden, layer.hidden, BYTES), "layers do not differ");
    cr_assert(memcmp(a.token_id, instance_step(&again, 3, 1).token_id, T * sizeof(uint32_t)));
    cr_assert(memcmp(a.token_id, instance_step(&other, 2, 1).token_id, T * sizeof(uint32_t)));
    instance_destroy(&one);
    instance_destroy(&again);
    instance_destroy(&other);
}

/* One text, one sequence each, shorter and longer than the text, one byte, no token at all. */
Test(text, odd_sizes)
{
    static const struct {
        const char *bytes, *sequence, *context;
        uint32_t n_tokens, d_model;
    } cases[] = {
        {"abc", "8", "1", 20, 3}, {"a", "256", "64", 300, 1},    {"abcdefghijk", "11", "64", 22, 7},
        {"xy", "1", "5", 5, 8},   {"abc", "4096", "64", 10, 64}, {"abc", "256", "64", 0, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        const char *path = folder_write("t", cases[i].bytes, strlen(cases[i].bytes));
        open_text(&w,
                  SETTINGS("files", path, "sequence", cases[i].sequence, "context", cases[i].context, "common",
                           i % 2 ? "0" : "1", "mixing", "1"),
                  make_env(1, 1, cases[i].n_tokens, cases[i].d_model));
        const struct moesim_batch b = instance_step(&w, 1, 0);
        const size_t length = strlen(cases[i].bytes);
        cr_assert_eq(b.n_tokens, cases[i].n_tokens);
        for (uint32_t t = 0; t < b.n_tokens; t++) {
            const char *at = strchr(cases[i].bytes, (int)b.token_id[t]);
            cr_assert(at);
            if (t && b.sequence_id[t] == b.sequence_id[t - 1])
                cr_assert_eq(
                    b.token_id[t],
                    (uint8_t)cases[i]
                        .bytes[(size_t)(strchr(cases[i].bytes, (int)b.token_id[t - 1]) + 1 - cases[i].bytes) % length],
                    "a short text repeats");
            for (uint32_t j = 0; j < b.d_model; j++)
                cr_assert(isfinite(b.hidden[(size_t)t * b.d_model + j]));
        }
        instance_destroy(&w);
    }
    struct instance w;
    struct moesim_workload_shape shape = {.struct_size = sizeof shape};
    instance_create(&w, "text", SETTINGS("files", "/absent/text"));
    cr_assert_eq(w.workload->shape(w.params, &shape, &w.error), MOESIM_EIO);
    cr_assert_eq(instance_init(&w, make_env(1, 1, 8, 8)), MOESIM_EIO);
    cr_assert(strstr(w.error.text, "/absent/text"), "%s", w.error.text);
    instance_destroy(&w);
}

static double cosine(const float *a, const float *b, uint32_t d)
{
    double ab = 0;
    for (uint32_t j = 0; j < d; j++)
        ab += (double)a[j] * (double)b[j] / d;
    return ab;
}

/* Hidden states of a whole sequence, and a sample's sum. Scratch: [3 * d_model]. */
static void embed_sequence(const struct embedding *e, const uint32_t *bytes, uint32_t n, double share, float *scratch,
                           float *hidden)
{
    const uint32_t d = e->d_model;
    struct embedding_past past = embedding_start(e);
    memset(scratch, 0, d * sizeof *scratch);
    for (uint32_t t = 0; t < n; t++) {
        embedding_next(e, &past, bytes[t], scratch + d, scratch, scratch);
        embedding_mix(e, scratch + d, scratch, share, scratch + (size_t)2 * d, hidden + (size_t)t * d);
    }
}

static void embed_centre(struct embedding *e, const uint8_t *bytes, uint32_t n, float *scratch)
{
    struct embedding_past past = embedding_start(e);
    for (uint32_t t = 0; t < n; t++)
        embedding_centre(e, &past, bytes[t], 1, scratch);
}

/* Row t does not change when later bytes do; equal contexts give nearly equal rows, other contexts do not. */
Test(text, hidden_states_look_back_only)
{
    enum { D = 64, N = 200 };
    struct moesim_arena *arena = moesim_arena_create(0);
    struct embedding e;
    struct moesim_error err;
    cr_assert_eq(embedding_init(&e, 3, D, 256, 8, arena, &err), MOESIM_OK);
    float *scratch = moesim_alloc(arena, 3 * D, sizeof *scratch), *hidden[3];
    uint32_t bytes[3][N];
    for (uint32_t v = 0; v < 3; v++) {
        hidden[v] = moesim_alloc(arena, (size_t)N * D, sizeof(float));
        for (uint32_t t = 0; t < N; t++)
            bytes[v][t] = "the cat sat on the mat and "[t % 27]; /* repeats every 27 bytes */
    }
    for (uint32_t t = 150; t < N; t++)
        bytes[1][t] = 'x';
    for (uint32_t v = 0; v < 2; v++)
        embed_sequence(&e, bytes[v], N, 0.5, scratch, hidden[v]);
    cr_assert_arr_eq(hidden[0], hidden[1], 150 * D * sizeof(float));
    cr_assert(memcmp(hidden[0] + 150 * D, hidden[1] + 150 * D, D * sizeof(float)));
    for (uint32_t t = 120; t < 173; t++) {
        cr_assert_gt(cosine(hidden[0] + t * D, hidden[0] + (t + 27) * D, D), 0.999, "a repeated context");
        cr_assert_lt(cosine(hidden[0] + t * D, hidden[0] + (t + 13) * D, D), 0.95, "another context");
    }

    moesim_arena_destroy(arena);
}

/* share 0: the last three bytes alone. share 1: the memory alone, sum_i (1 - decay) decay^i g_(t-i), here summed from
 * scratch in double for every row; g comes from the centre of ever longer samples. */
Test(text, memory_is_a_decayed_mean)
{
    enum { D = 16, N = 40 };
    struct moesim_arena *arena = moesim_arena_create(0);
    struct embedding e, sample;
    struct moesim_error err;
    const uint8_t text[N + 1] = "if (a == b) return a; if (a == c) retur ";
    uint32_t bytes[N];
    float scratch[3 * D], last[N][D], memory[N][D];
    double g[N][D];
    cr_assert_eq(embedding_init(&e, 3, D, 256, 5, arena, &err), MOESIM_OK);
    for (uint32_t t = 0; t < N; t++) {
        bytes[t] = text[t];
        cr_assert_eq(embedding_init(&sample, 3, D, 256, 5, arena, &err), MOESIM_OK);
        embed_centre(&sample, text, t + 1, scratch);
        for (uint32_t j = 0; j < D; j++) {
            g[t][j] = (double)sample.centre[j];
            for (uint32_t i = 0; i < t; i++)
                g[t][j] -= g[i][j];
        }
    }
    embed_sequence(&e, bytes, N, 0, scratch, last[0]);
    embed_sequence(&e, bytes, N, 1, scratch, memory[0]);
    cr_assert_arr_eq(last[4], last[26], D * sizeof(float));  /* "(a" after a blank */
    cr_assert(memcmp(last[4], last[19], D * sizeof(float))); /* "a" after "n " */
    for (uint32_t t = 0; t < N; t++) {
        double m[D], g_square = 0, m_square = 0;
        for (uint32_t j = 0; j < D; j++) {
            m[j] = 0;
            for (uint32_t i = 0; i <= t; i++)
                m[j] += 0.2 * pow(0.8, i) * g[t - i][j];
            g_square += g[t][j] * g[t][j] / D;
            m_square += m[j] * m[j] / D;
        }
        for (uint32_t j = 0; j < D; j++) {
            cr_assert_float_eq((double)last[t][j], g[t][j] / sqrt(g_square), 1e-4);
            cr_assert_float_eq((double)memory[t][j], m[j] / sqrt(m_square), 1e-4);
        }
    }
    moesim_arena_destroy(arena);
}

enum { E = 16, K = 2, D_MODEL = 64 };

/* Loads of a top-2 gate with seeded standard normal weights, by kind of text and half of the steps. */
static void count_loads(struct instance *w, uint32_t layer, uint32_t n_steps, double load[N_KINDS][2][E])
{
    static float gate[D_MODEL][E];
    const struct moesim_random random = {21, MOESIM_STREAM_TEST, layer, 0};
    moesim_random_normals(&random, 0, (size_t)D_MODEL * E, gate[0]);
    for (uint32_t step = 0; step < n_steps; step++) {
        const struct moesim_batch b = instance_step(w, step, layer);
        for (uint32_t t = 0; t < b.n_tokens; t++) {
            double logit[E] = {0};
            for (uint32_t j = 0; j < D_MODEL; j++)
                for (uint32_t e = 0; e < E; e++)
                    logit[e] += (double)b.hidden[(size_t)t * D_MODEL + j] * (double)gate[j][e];
            for (uint32_t k = 0; k < K; k++) {
                uint32_t best = 0;
                for (uint32_t e = 1; e < E; e++)
                    if (logit[e] > logit[best])
                        best = e;
                logit[best] = -INFINITY;
                load[b.domain[t]][step % 2][best]++;
            }
        }
    }
}

static double load_cv(const double *load)
{
    double sum = 0, squares = 0;
    for (uint32_t e = 0; e < E; e++) {
        sum += load[e];
        squares += load[e] * load[e];
    }
    return sqrt(squares * E / (sum * sum) - 1);
}

/* Jensen-Shannon divergence of two load distributions, bits. */
static double divergence(const double *a, const double *b)
{
    double sum_a = 0, sum_b = 0, bits = 0;
    for (uint32_t e = 0; e < E; e++) {
        sum_a += a[e];
        sum_b += b[e];
    }
    for (uint32_t e = 0; e < E; e++) {
        const double p = a[e] / sum_a, q = b[e] / sum_b, m = (p + q) / 2;
        bits += (p > 0 ? p / 2 * log2(p / m) : 0) + (q > 0 ? q / 2 * log2(q / m) : 0);
    }
    return bits;
}

Test(text, routing_is_uneven_and_differs_by_domain)
{
    static double load[N_KINDS][2][E];
    struct instance w;
    open_text(&w, SETTINGS("files", write_texts()), make_env(8, 2, 3072, D_MODEL));
    for (uint32_t layer = 0; layer < 2; layer++) {
        memset(load, 0, sizeof load);
        count_loads(&w, layer, 8, load);
        double pooled[E] = {0}, whole[N_KINDS][E] = {0}, within = 0, between = INFINITY;
        for (uint32_t d = 0; d < N_KINDS; d++) {
            for (uint32_t e = 0; e < E; e++) {
                whole[d][e] = load[d][0][e] + load[d][1][e];
                pooled[e] += whole[d][e];
            }
            within = fmax(within, divergence(load[d][0], load[d][1]));
        }
        for (uint32_t d = 0; d < N_KINDS; d++)
            between = fmin(between, divergence(whole[d], whole[(d + 1) % N_KINDS]));
        cr_assert_gt(load_cv(pooled), 0.3, "layer %u: load CV %.3f", layer, load_cv(pooled));
        cr_assert_gt(between, 5 * within, "layer %u: %.4f bits between domains, %.4f within", layer, between, within);
        cr_assert_gt(between, 0.03, "layer %u: %.4f bits", layer, between);
    }
    instance_destroy(&w);
}

/* Which text a piece is from, by its place: the texts are random enough for pieces of this length to be there once. */
static const char *find_piece(const char *text, const struct moesim_batch *b, uint32_t first, uint32_t length)
{
    char piece[128] = {0};
    for (uint32_t t = 0; t < length; t++)
        piece[t] = (char)b->token_id[first + t];
    return strstr(text, piece);
}

Test(text, validation_is_the_end_of_each_text_and_training_the_rest)
{
    enum { T = 960, SEQUENCE = 96 };
    const char *files = write_texts();
    char *english = read_text("english.txt");
    const size_t border = TEXT_BYTES - (size_t)(0.25 * TEXT_BYTES);
    for (uint32_t part = MOESIM_PART_TRAINING; part <= MOESIM_PART_VALIDATION; part++) {
        struct instance w;
        struct moesim_workload_env env = make_env(4, 1, T, 0);
        env.part = part;
        open_text(&w, SETTINGS("files", files, "sequence", "96", "held_out", "0.25"), env);
        for (uint32_t step = 0; step < 40; step++) {
            const struct moesim_batch b = instance_step(&w, step, 0);
            cr_assert(!b.hidden && b.d_model == 0, "nobody asked for hidden states");
            for (uint32_t first = 0; first < T; first += SEQUENCE) {
                if (b.domain[first])
                    continue;
                const char *at = find_piece(english, &b, first, SEQUENCE);
                cr_assert(at);
                cr_assert(part == MOESIM_PART_TRAINING ? at + SEQUENCE <= english + border : at >= english + border,
                          "part %u has bytes %zu to %zu of %d", part, (size_t)(at - english),
                          (size_t)(at - english) + SEQUENCE, TEXT_BYTES);
            }
        }
        instance_destroy(&w);
    }
    free(english);
}

Test(text, tokens_are_the_same_with_and_without_hidden_states)
{
    enum { T = 500 };
    const char *const *settings = SETTINGS("files", write_texts(), "sequence", "64", "batching", "decode");
    struct instance bare, embedded;
    open_text(&bare, settings, make_env(4, 2, T, 0));
    open_text(&embedded, settings, make_env(4, 2, T, 16));
    for (uint32_t step = 0; step < 5; step++) {
        const struct moesim_batch a = instance_step(&bare, step, 1), b = instance_step(&embedded, step, 1);
        cr_assert_arr_eq(a.token_id, b.token_id, T * sizeof *a.token_id);
        cr_assert_arr_eq(a.domain, b.domain, T * sizeof *a.domain);
        cr_assert_arr_eq(a.sequence_id, b.sequence_id, T * sizeof *a.sequence_id);
    }
    instance_destroy(&bare);
    instance_destroy(&embedded);
}

Test(text, a_part_shorter_than_a_sequence_is_refused)
{
    struct instance w;
    struct moesim_error err;
    const char *files = write_texts();
    instance_create(&w, "text", SETTINGS("files", files, "sequence", "7000"));
    struct moesim_workload_env env = make_env(4, 1, 14000, 32);
    env.part = MOESIM_PART_TRAINING;
    cr_assert_eq(w.workload->fits(w.params, &env, &err), MOESIM_OK);
    env.part = MOESIM_PART_VALIDATION;
    cr_assert_eq(w.workload->fits(w.params, &env, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "english.txt has 60000 tokens, 6000 of them for validation, fewer than the 7000"), "%s",
              err.text);
    env.part = MOESIM_PART_ALL;
    cr_assert_eq(w.workload->fits(w.params, &env, &err), MOESIM_OK, "a short text is repeated elsewhere");
    moesim_arena_destroy(w.arena);
}

Test(text, names_of_domains_and_tokens)
{
    struct instance w;
    char text[64];
    open_text(&w, SETTINGS("files", write_texts()), make_env(4, 1, 64, 0));
    cr_assert(strstr(w.workload->domain_name(w.state, 0), "english.txt"));
    cr_assert_eq(w.workload->bytes_per_token(w.state, 0), 1);
    cr_assert_eq(w.workload->token_text(w.state, 'q', text, sizeof text), 1);
    cr_assert_eq(text[0], 'q');
    instance_destroy(&w);

    open_text(&w, SETTINGS("files", folder_write("few.txt", "one two two three three three", 29), "vocabulary", "word"),
              make_env(4, 1, 64, 0));
    cr_assert_eq(w.workload->bytes_per_token(w.state, 0), 29.0 / 6);
    cr_assert_eq(w.workload->token_text(w.state, 1, text, sizeof text), 5);
    cr_assert(!memcmp(text, "three", 5));
    cr_assert_eq(w.workload->token_text(w.state, 2, text, 2), 2, "cut at the room that there is");
    cr_assert(!memcmp(text, "tw", 2));
    cr_assert_eq(w.workload->token_text(w.state, 0, text, sizeof text), 0, "all other words");
    instance_destroy(&w);
}
