/*
 * Word pieces: known answers, random words beside a search through all prefixes, hostile vocabularies, and the workload
 * text made of them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <moesim/random.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"
#include "workloads/corpus.h"
#include "workloads/pieces.h"

TestSuite(pieces, .timeout = 60, .init = folder_create, .fini = folder_remove);

/* ---- words into pieces ---- */

/* The pieces of a text by their lines, each followed by '|'. */
static const char *split(const char *const *lines, uint32_t n_lines, const char *text)
{
    static char list[16384], out[16384];
    struct moesim_arena *arena = moesim_arena_create(0);
    struct vocabulary vocabulary = {0};
    struct pieces pieces;
    struct moesim_error err;
    uint32_t *ids;
    size_t n_ids, n = 0;
    for (uint32_t i = 0; i < n_lines; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s\n", lines[i]);
    cr_assert_eq(vocabulary_of_lines(&vocabulary, "list", (const uint8_t *)list, n, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(pieces_of_vocabulary(&vocabulary, "list", &pieces, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(pieces_encode(&pieces, (const uint8_t *)text, strlen(text), arena, &ids, &n_ids, &err), MOESIM_OK);
    out[0] = '\0';
    n = 0;
    for (size_t i = 0; i < n_ids; i++) {
        cr_assert_lt(ids[i], n_lines);
        n += (size_t)snprintf(out + n, sizeof out - n, "%s|", lines[ids[i]]);
    }
    vocabulary_free(&vocabulary);
    moesim_arena_destroy(arena);
    return out;
}

#define SPLIT(text, ...)                                                                                               \
    split((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), text)

Test(pieces, known_answers)
{
    /* the example and the test of BERT's own tokenization.py (github.com/google-research/bert) */
    cr_assert_str_eq(SPLIT("unaffable", "[UNK]", "un", "##aff", "##able"), "un|##aff|##able|");
    const char *const bert[] = {"[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing"};
    cr_assert_str_eq(split(bert, 10, "unwanted running"), "un|##want|##ed|runn|##ing|");
    cr_assert_str_eq(split(bert, 10, "unwantedX running"), "[UNK]|runn|##ing|");

    /* the longest piece first, without a way back; a word begins without a mark and goes on with one */
    cr_assert_str_eq(SPLIT("abc", "[UNK]", "a", "ab", "##bc", "##c"), "ab|##c|");
    cr_assert_str_eq(SPLIT("abc a", "[UNK]", "a", "ab", "##bc"), "[UNK]|a|");
    cr_assert_str_eq(SPLIT("ab ba", "[UNK]", "a", "##b"), "a|##b|[UNK]|");
    cr_assert_str_eq(SPLIT("aaaa", "[UNK]", "a", "##aa", "##a"), "a|##aa|##a|");
    cr_assert_str_eq(SPLIT("The the", "[UNK]", "the"), "[UNK]|the|");

    /* words are those of words.h: signs are words, '_' is a letter */
    cr_assert_str_eq(SPLIT("f(a_b)=#", "[UNK]", "f", "(", ")", "=", "a", "##_", "##b", "#"), "f|(|a|##_|##b|)|=|#|");
    cr_assert_str_eq(SPLIT("[UNK] ##a", "[UNK]", "[", "]", "##a", "UNK", "#", "##", "###", "a"), "[|UNK|]|#|#|a|");
    cr_assert_str_eq(SPLIT("漢字とa", "[UNK]", "漢", "字", "##字", "##a", "a"), "漢|字|[UNK]|a|");
    cr_assert_str_eq(SPLIT("größe größer größen", "[UNK]", "gr", "##ö", "##öß", "##e", "##er"),
                     "gr|##öß|##e|gr|##öß|##er|[UNK]|");
}

/* One character more than the field's implementations take; what counts is characters, not bytes. */
Test(pieces, long_words)
{
    static const char *const letters[] = {"a", "ä", "𐐀"};
    for (size_t l = 0; l < 3; l++)
        for (uint32_t length = 99; length <= 102; length++) {
            char text[512] = "", inside[8], expected[1024] = "";
            snprintf(inside, sizeof inside, "##%s", letters[l]);
            for (uint32_t i = 0; i < length; i++) {
                strcat(text, letters[l]);
                strcat(strcat(expected, i ? inside : letters[l]), "|");
            }
            cr_assert_str_eq(SPLIT(text, letters[l], inside, "[UNK]"), length <= 100 ? expected : "[UNK]|");
            cr_assert_str_eq(SPLIT(text, text, "[UNK]", "b"),
                             length <= 100 ? strcat(strcpy(expected, text), "|") : "[UNK]|", "also a line of its own");
        }
}

enum { N_LINES = 60, N_WORDS = 4000 };

/* "a" to "c" and two characters of two bytes that begin alike. */
static void random_word(const struct moesim_random *random, uint64_t *at, uint32_t most, char *word)
{
    static const char *const letters[] = {"a", "b", "c", "ä", "ö"};
    const uint32_t n = 1 + moesim_random_below(random, (*at)++, most);
    *word = '\0';
    for (uint32_t i = 0; i < n; i++)
        strcat(word, letters[moesim_random_below(random, (*at)++, 5)]);
}

static bool is_there(char (*lines)[64], uint32_t n, const char *line)
{
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(lines[i], line))
            return true;
    return false;
}

/* By trying every end of every piece, byte by byte. */
static void cut_slowly(char (*lines)[64], const char *word, char *out)
{
    char cut[512] = "", piece[512];
    for (size_t at = 0, n = strlen(word), end; at < n; at = end) {
        for (end = n; end > at; end--) {
            snprintf(piece, sizeof piece, "%s%.*s", at ? "##" : "", (int)(end - at), word + at);
            if (is_there(lines, N_LINES, piece))
                break;
        }
        if (end == at) {
            strcat(out, "[UNK]|");
            return;
        }
        strcat(strcat(cut, piece), "|");
    }
    strcat(out, cut);
}

Test(pieces, random_words_beside_a_slow_search)
{
    static char lines[N_LINES][64];
    const char *line[N_LINES];
    uint32_t n_cut = 0, n_unknown = 0;
    for (uint32_t round = 0; round < 40; round++) {
        const struct moesim_random random = {round, MOESIM_STREAM_TEST, 0, 0};
        uint64_t at = 0;
        strcpy(lines[0], "[UNK]");
        strcpy(lines[1], "b");
        for (uint32_t i = 2; i < N_LINES;) {
            char word[64];
            random_word(&random, &at, 1 + round % 5, word);
            snprintf(lines[i], sizeof lines[i], "%s%s", moesim_random_below(&random, at++, 3) ? "##" : "", word);
            if (round % 5 == 0) /* few words of one letter: the others are fillers */
                snprintf(lines[i], sizeof lines[i], "%s%s%u", i % 2 ? "##" : "", word, i);
            i += !is_there(lines, i, lines[i]);
        }
        for (uint32_t i = 0; i < N_LINES; i++)
            line[i] = lines[i];
        for (uint32_t w = 0; w < N_WORDS / 40; w++) {
            char word[64], expected[2048] = "";
            random_word(&random, &at, 12, word);
            cut_slowly(lines, word, expected);
            cr_assert_str_eq(split(line, N_LINES, word), expected, "round %u: %s", round, word);
            n_unknown += !strcmp(expected, "[UNK]|");
            n_cut += strchr(strchr(expected, '|') + 1, '|') != NULL;
        }
    }
    cr_assert(n_cut > 300 && n_unknown > 300, "%u words cut, %u unknown", n_cut, n_unknown);
}

/* ---- vocabularies ---- */

Test(pieces, hostile_vocabularies)
{
    const struct {
        const char *text;
        size_t n;
        const char *says;
    } cases[] = {
        {"", 0, "the text file is empty"},
        {"\n", 1, "line 1 is empty; one word or word piece a line is needed"},
        {"[UNK]\na\n\nb", 10, "line 3 is empty"},
        {"[UNK]\r\n\r\n", 9, "line 2 is empty"},
        {"[UNK]\na\n##a\na", 13, "line 4 repeats line 2; one word or word piece a line is needed"},
        {"[UNK]\n##a\na\r\n##a\r\n", 18, "line 4 repeats line 2"},
        {"a\n##a\n[unk]\n", 12, "no line is [UNK], which stands for all words that the pieces do not make up"},
        {"[UNK]\n##a\n[PAD]\nx y\n##\n", 23, "no word can begin with any of its 5 pieces"},
        {"[UNK]\na\ngr\xfc\xdf\n\xff\n", 15, "line 3 is no UTF-8"},
        {"\0\0\0", 3, "no line is [UNK]"},
        {"{\"[UNK]\": 0, \"a\": 1}", 20, "a file of one piece a line is needed, such as BERT's vocab.txt"},
    };
    struct moesim_error err;
    uint32_t n_lines;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = folder_write("list", cases[i].text, cases[i].n);
        const struct corpus_choice choice = {.tokens = CORPUS_PIECES, .word_list = path};
        cr_assert_eq(corpus_count_lines(&choice, &n_lines, &err), MOESIM_EIO, "case %zu", i);
        cr_assert(strstr(err.text, cases[i].says) && !strncmp(err.text, path, strlen(path)), "case %zu: %s", i,
                  err.text);
    }
    static const char *const names[] = {"absent", "folder"}, *const says[] = {"cannot be read",
                                                                              "is a directory; a text file is needed"};
    cr_assert_eq(mkdir(folder_path("folder"), 0700), 0);
    for (size_t i = 0; i < 2; i++) {
        const struct corpus_choice choice = {.tokens = CORPUS_PIECES, .word_list = folder_path(names[i])};
        cr_assert_eq(corpus_count_lines(&choice, &n_lines, &err), MOESIM_EIO);
        cr_assert(strstr(err.text, says[i]) && strstr(err.text, names[i]), "%s", err.text);
    }
}

/* Ends of lines as on other systems, no end of the last line, packed: the same ids. */
Test(pieces, ends_of_lines)
{
    static const char *const lists[] = {"[UNK]\na\n##b\n", "[UNK]\na\n##b", "[UNK]\r\na\r\n##b\r\n"};
    static const uint32_t expected[] = {1, 2, 0, 1};
    char file[512];
    snprintf(file, sizeof file, "%s", folder_write("t", "ab b a", 6));
    for (size_t i = 0; i < 6; i++) {
        const char *text = lists[i % 3];
        const char *list =
            i < 3 ? folder_write("list", text, strlen(text)) : folder_write_xz("list", text, strlen(text));
        const struct corpus_choice choice = {file, CORPUS_BY_PATH, CORPUS_PIECES, list};
        struct moesim_arena *arena = moesim_arena_create(0);
        struct moesim_error err;
        struct corpus corpus;
        char says[1024];
        cr_assert_eq(corpus_read(&choice, arena, &corpus, &err), MOESIM_OK);
        cr_assert_eq(corpus_encode(&corpus, &choice, 3, arena, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(corpus_n_tokens(&corpus.domains[0]), 4);
        cr_assert_arr_eq(corpus.domains[0].ids, expected, sizeof expected);
        cr_assert(corpus.word[2].length == 3 && !memcmp(corpus.word[2].bytes, "##b", 3));
        corpus_describe(&corpus, says, sizeof says);
        cr_assert(strstr(says, "; 4 tokens, 25 % unknown"), "%s", says);
        moesim_arena_destroy(arena);
    }
}

/* ---- the workload ---- */

static const char numbers[] = "[PAD]\n[UNK]\nw\n##0\n##1\n##2\n##3\n##4\n##5\n##6\n##7\n##8\n##9\n,\n";
enum { N_NUMBERS = 14, N_COUNTED = 9000 };

/* "w0, w1, ... w96? w0, ...": 3 or 4 pieces each, of the last one '?' is unknown. */
static const char *write_counting(void)
{
    static char text[60000];
    size_t n = 0;
    for (uint32_t i = 0; i < N_COUNTED; i++)
        n += (size_t)sprintf(text + n, "w%u%s ", i % 97, i % 97 == 96 ? "?" : ",");
    return folder_write("t", text, n);
}

/* The ids are written out again and must be the text. */
Test(pieces, tokens_are_the_text)
{
    struct instance w;
    struct moesim_workload_shape shape;
    char out[2400] = "", expected[1200] = "";
    const char *const *settings = SETTINGS("files", write_counting(), "vocabulary", "piece", "word_list",
                                           folder_write("list", numbers, strlen(numbers)), "sequence", "600");
    cr_assert_eq(instance_shape(&w, "text", settings, &shape), MOESIM_OK, "%s", w.error.text);
    cr_assert_eq(shape.vocabulary, N_NUMBERS);
    cr_assert_eq(instance_init(&w, instance_env(600, 0)), MOESIM_OK, "%s", w.error.text);
    const struct moesim_batch b = instance_step(&w, 5, 0);
    for (uint32_t t = 0; t < 600; t++) {
        char text[16];
        const size_t n = w.workload->token_text(w.state, b.token_id[t], text, sizeof text);
        text[n] = '\0';
        cr_assert(n && b.token_id[t] > 0, "[PAD] is in no text");
        strcat(out, !strncmp(text, "##", 2) ? text + 2 : text[0] == '[' ? "?" : text);
    }
    for (uint32_t i = 0; i < 100; i++)
        sprintf(expected + strlen(expected), "w%u%s", i % 97, i % 97 == 96 ? "?" : ",");
    const char *first = strstr(out, "w0,");
    cr_assert(first && !strncmp(first, expected, 300), "%s", out);
    char provenance[1024];
    w.workload->provenance(w.state, provenance, sizeof provenance);
    cr_assert(strstr(provenance, " % unknown"), "%s", provenance);
    instance_destroy(&w);
}

/* Tokens are counted in pieces where lengths are told and parts are cut. */
Test(pieces, lengths_are_of_pieces)
{
    struct instance w;
    struct moesim_error err;
    static const char text[] = "ab ab ab ab ab ab ab ab ab ab", list[] = "[UNK]\na\n##b\nab\n";
    char file[512];
    snprintf(file, sizeof file, "%s", folder_write("t", text, strlen(text)));
    static const char *const says[] = {"has 20 tokens, 10 of them for validation, fewer than the 11 of one sequence",
                                       "has 10 tokens, 5 of them for validation, fewer than the 11 of one sequence"};
    for (int whole = 0; whole < 2; whole++) {
        const char *path = folder_write("list", list, whole ? sizeof list - 1 : 12);
        instance_create(
            &w, "text",
            SETTINGS("files", file, "vocabulary", "piece", "word_list", path, "held_out", "0.5", "sequence", "11"));
        struct moesim_workload_env env = instance_env(11, 0);
        env.part = MOESIM_PART_VALIDATION;
        cr_assert_eq(w.workload->fits(w.params, &env, &err), MOESIM_EINVAL);
        cr_assert(strstr(err.text, says[whole]), "%s", err.text);
        instance_destroy(&w);
    }
}

/* Bytes per token are those of the part, which may be of other words than the rest; a word that the part begins inside
 * of is in it. A domain whose part has no token is in nobody's way. */
Test(pieces, bytes_of_a_part)
{
    static const struct {
        const char *vocabulary, *held_out;
        uint32_t part;
        double expected;
    } cases[] = {
        {"word", "0.2", MOESIM_PART_ALL, 27.0 / 10},       {"word", "0.2", MOESIM_PART_TRAINING, 16.0 / 8},
        {"word", "0.2", MOESIM_PART_VALIDATION, 11.0 / 2}, {"piece", "0.2", MOESIM_PART_ALL, 27.0 / 15},
        {"piece", "0.2", MOESIM_PART_TRAINING, 16.0 / 12}, {"piece", "0.2", MOESIM_PART_VALIDATION, 11.0 / 3},
        {"piece", "0.07", MOESIM_PART_VALIDATION, 4.0},    {"byte", "0.2", MOESIM_PART_VALIDATION, 1},
    };
    char files[1100], list[512];
    snprintf(files, sizeof files, "%s,%s", folder_write("long", "a a a a a a a a bbbbbb cccc", 27),
             folder_write("short", "a", 1));
    snprintf(list, sizeof list, "%s", folder_write("list", "[UNK]\na\nb\n##b\ncccc\n", 19));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        const bool byte = cases[i].vocabulary[0] == 'b';
        instance_create(&w, "text",
                        SETTINGS("files", files, "vocabulary", cases[i].vocabulary, "word_list", byte ? "" : list,
                                 "held_out", cases[i].held_out, "sequence", "1", "only", "long"));
        struct moesim_workload_env env = instance_env(4, 0);
        env.part = cases[i].part;
        cr_assert_eq(instance_init(&w, env), MOESIM_OK, "%s", w.error.text);
        cr_assert_eq(w.workload->bytes_per_token(w.state, 0), cases[i].expected, "case %zu: %.17g", i,
                     w.workload->bytes_per_token(w.state, 0));
        cr_assert_eq(w.workload->bytes_per_token(w.state, 1), cases[i].part != MOESIM_PART_VALIDATION, "case %zu", i);
        instance_destroy(&w);
    }
}

/* Row i of the vectors is the embedding of id i: common=1 and mixing=0 leave it as it is, but for its length. */
Test(pieces, vectors_have_a_row_for_every_piece)
{
    static float value[N_NUMBERS + 1][2];
    static uint8_t bytes[1024];
    for (uint32_t i = 0; i <= N_NUMBERS; i++) {
        value[i][0] = (float)cos(i);
        value[i][1] = (float)sin(i);
    }
    char file[512], list[512], path[512];
    snprintf(file, sizeof file, "%s", write_counting());
    snprintf(list, sizeof list, "%s", folder_write("list", numbers, strlen(numbers)));
    for (uint32_t more = 0; more < 2; more++) {
        char shape_text[24];
        snprintf(shape_text, sizeof shape_text, "(%u, 2)", N_NUMBERS + more);
        const size_t n = compose_npy(bytes, "<f4", shape_text, value, (N_NUMBERS + more) * sizeof *value);
        snprintf(path, sizeof path, "%s", folder_write("v.npy", bytes, n));
        const char *const *settings = SETTINGS("files", file, "vocabulary", "piece", "word_list", list, "vectors", path,
                                               "common", "1", "mixing", "0", "sequence", "100");
        struct instance w;
        struct moesim_workload_shape shape;
        cr_assert_eq(instance_shape(&w, "text", settings, &shape), more ? MOESIM_EIO : MOESIM_OK, "%s", w.error.text);
        if (more) {
            cr_assert(strstr(w.error.text, "has 15 rows, ") && strstr(w.error.text, "list has 14 lines"), "%s",
                      w.error.text);
        } else {
            cr_assert(shape.d_model == 2 && shape.vocabulary == N_NUMBERS);
            cr_assert_eq(instance_init(&w, instance_env(300, 2)), MOESIM_OK, "%s", w.error.text);
            const struct moesim_batch b = instance_step(&w, 0, 1);
            for (uint32_t t = 0; t < 300; t++)
                for (uint32_t j = 0; j < 2; j++)
                    cr_assert_float_eq((double)b.hidden[2 * t + j],
                                       M_SQRT2 * (j ? sin(b.token_id[t]) : cos(b.token_id[t])), 1e-5);
        }
        instance_destroy(&w);
    }
}

/* In every batching, from any step to any other, on any number of threads. */
Test(pieces, steps_are_pure_functions)
{
    static const char *const kinds[] = {"contiguous", "shuffled", "decode", "serving"};
    char file[512], list[512];
    snprintf(file, sizeof file, "%s", write_counting());
    snprintf(list, sizeof list, "%s", folder_write("list", numbers, strlen(numbers)));
    for (int k = 0; k < 4; k++) {
        struct instance a, b;
        const char *const *settings =
            SETTINGS("files", file, "vocabulary", "piece", "word_list", list, "sequence", "70", "batching", kinds[k]);
        omp_set_num_threads(1);
        instance_create(&a, "text", settings);
        cr_assert_eq(instance_init(&a, instance_env(210, 8)), MOESIM_OK, "%s", a.error.text);
        const struct moesim_batch x = instance_step(&a, 9, 1);
        for (int threads = 1; threads <= 4; threads *= 2) {
            omp_set_num_threads(threads);
            instance_create(&b, "text", settings);
            cr_assert_eq(instance_init(&b, instance_env(210, 8)), MOESIM_OK);
            instance_step(&b, 4, 0);
            const struct moesim_batch y = instance_step(&b, 9, 1);
            cr_assert_arr_eq(x.hidden, y.hidden, 210 * 8 * sizeof(float));
            cr_assert_arr_eq(x.token_id, y.token_id, 210 * sizeof(uint32_t));
            instance_destroy(&b);
        }
        instance_destroy(&a);
    }
}

Test(pieces, settings_that_do_not_go_together)
{
    char file[512], list[512];
    snprintf(file, sizeof file, "%s", write_counting());
    snprintf(list, sizeof list, "%s", folder_write("list", numbers, strlen(numbers)));
    const struct {
        const char *const *settings;
        const char *says;
    } cases[] = {
        {SETTINGS("files", file, "vocabulary", "piece"),
         "vocabulary=piece takes its pieces from word_list=FILE, one a line, as in BERT's vocab.txt"},
        {SETTINGS("files", file, "vocabulary", "piece", "word_list", list, "words", "9"),
         "words has no effect without vocabulary=word"},
        {SETTINGS("files", file, "vocabulary", "word", "word_list", list, "words", "9"),
         "words has no effect beside word_list"},
        {SETTINGS("files", file, "word_list", list),
         "word_list has no effect without vocabulary=word or vocabulary=piece"},
        {SETTINGS("files", file, "vocabulary", "piece", "word_list", list, "checkpoint", "m", "vectors", "v"),
         "vectors has no effect beside checkpoint"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        struct moesim_workload_shape shape;
        cr_assert_eq(instance_shape(&w, "text", cases[i].settings, &shape), MOESIM_EINVAL);
        cr_assert_str_eq(w.error.text, cases[i].says);
        instance_destroy(&w);
    }
}
