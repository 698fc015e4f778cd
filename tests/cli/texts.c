/* The workload text and the example studies on texts and recordings, as people use them: what a bad file says. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/cli/program.h"

TestSuite(texts, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    cr_assert(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0);
}

/* Exit 4, one sentence that names the file, nothing run. */
Test(texts, bad_files)
{
    static const struct {
        const char *workload, *says;
    } cases[] = {
        {"files=absent.txt", "absent.txt: text file cannot be read"},
        {"files=cut.gz", "cut.gz: the gzip data is damaged or truncated"},
        {"files=cut.xz", "cut.xz: the xz data is damaged or truncated"},
        {"files=plain.xz", "plain.xz: is named .xz but is not xz data"},
        {"files=empty", "empty: the text file is empty"},
        {"files=none", "none: no text file in this directory"},
        {"files=loop", "loop: text file cannot be read"},
        {"files=pipe", "pipe: is not a regular file"},
        {"files=/dev/zero", "/dev/zero: is not a regular file"},
        {"files=latin1,vocabulary=word", "latin1: byte 2 of the text is no UTF-8"},
        {"files=blank,vocabulary=word", "blank: there is no word in this text"},
        {"files=plain.txt,vocabulary=word,vectors=v.npy,word_list=list", "v.npy: cannot be read"},
        {"files=plain.txt,vocabulary=word,vectors=plain.txt,word_list=list", "plain.txt: "},
    };
    static const unsigned char gzip[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b},
                               xz[] = {0xfd, '7', 'z', 'X', 'Z', 0, 0};
    write_bytes("cut.gz", gzip, sizeof gzip);
    write_bytes("cut.xz", xz, sizeof xz);
    program_write("plain.xz", "plain");
    program_write("plain.txt", "plain text");
    program_write("empty", "");
    program_write("blank", " \n ");
    program_write("latin1", "gr\xfc\xdf");
    program_write("list", "a\nb\n");
    cr_assert(mkdir("none", 0700) == 0 && mkfifo("pipe", 0600) == 0 && symlink("loop", "loop") == 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("run --workload text:%s --router softmax-topk --db x.db", cases[i].workload);
        cr_assert_eq(h.status, 4, "%s: %d %s", cases[i].workload, h.status, h.err);
        cr_assert(strstr(h.err, cases[i].says), "%s", h.err);
        cr_assert(!program_exists("x.db"));
        program_forget(&h);
    }
}

#ifdef __SANITIZE_ADDRESS__
#define MOST_KIB (256 << 10) /* the sanitizer's own memory counts */
#else
#define MOST_KIB (100 << 10)
#endif

/* A kilobyte that unpacks to a gigabyte is read as far as any file: 8 MiB. */
Test(texts, a_bomb_takes_no_memory)
{
    static char zeros[1 << 20];
    gzFile file = gzopen("bomb.gz", "wb9");
    for (int i = 0; i < 1024; i++)
        cr_assert_eq(gzwrite(file, zeros, sizeof zeros), (int)sizeof zeros);
    gzclose(file);
    struct heard h = program_run("run --workload text:files=bomb.gz --router softmax-topk --set steps=1 --set "
                                 "seeds=1 --db x.db -q");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_assert(strstr(h.out, "bomb.gz (1 file, 8388608 bytes)"), "%s", h.out);
    program_forget(&h);
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    cr_assert_lt(usage.ru_maxrss, MOST_KIB, "%ld KiB", usage.ru_maxrss);
}

/* 64 experts in three layers, expert e with load e + 1. */
static void write_loads(const char *path)
{
    char text[4096] = "layer,expert,count\n";
    for (int i = 0; i < 192; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d,%d,%d\n", i / 64, i % 64, i % 64 + 1);
    program_write(path, text);
}

/* The example studies say which file is missing, and are sound once it is there. */
Test(texts, example_studies)
{
    static const struct {
        const char *study, *missing, *points;
    } cases[] = {{"text", "texts: text file cannot be read", "140 points"},
                 {"training", "texts: text file cannot be read", "9 points"},
                 {"batching", "recorded.trace: cannot be read", "150 points"},
                 {"capacity-trace", "recorded.trace: cannot be read", "160 points"},
                 {"staleness", "loads/arxiv.npy: cannot be read", "350 points"}};
    static const char *const domains[] = {"prose", "dictionary", "novels", "kernel", "c", "languages"};
    static const char *const loads[] = {"arxiv", "book", "c4", "github", "wikipedia"};
    const char *source = getenv("MOESIM_SOURCE");
    for (int there = 0; there < 2; there++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct heard h = program_run("run %s/examples/studies/%s.yaml --dry-run", source, cases[i].study);
            cr_assert_eq(h.status, there ? 0 : 4, "%s: %s", cases[i].study, h.err);
            const char *says = there ? cases[i].points : cases[i].missing;
            cr_assert(strstr(there ? h.out : h.err, says), "%s: %s%s", cases[i].study, h.out, h.err);
            program_forget(&h);
        }
        if (there)
            break;
        char words[4001]; /* as long as training asks of a domain */
        for (size_t i = 0; i < sizeof words - 1; i++)
            words[i] = "some words "[i % 11];
        words[sizeof words - 1] = '\0';
        cr_assert(mkdir("texts", 0700) == 0 && mkdir("loads", 0700) == 0);
        for (size_t d = 0; d < 6; d++) {
            char path[64];
            snprintf(path, sizeof path, "texts/%s", domains[d]);
            cr_assert_eq(mkdir(path, 0700), 0);
            snprintf(path, sizeof path, "texts/%s/a", domains[d]);
            program_write(path, words);
        }
        write_loads("loads.csv");
        for (size_t d = 0; d < 5; d++) {
            struct heard h = program_run("trace convert loads.csv loads/%s.npy", loads[d]);
            cr_assert_eq(h.status, 0, "%s", h.err);
            program_forget(&h);
        }
        program_write("sequences.csv", "start,len\n0,2\n");
        program_write("log.csv", "layer,experts\n0,3 1\n0,1 2\n");
        struct heard h = program_run("trace convert log.csv recorded.trace --sequences sequences.csv");
        cr_assert_eq(h.status, 0, "%s", h.err);
        program_forget(&h);
    }
}

/* A recording in every mixture: the same decisions, so the same sums; contiguous sequences of few experts are less even
 * than single tokens of all. */
Test(texts, batching_changes_the_imbalance)
{
    char text[8192] = "layer,experts\n", sequences[512] = "start,len\n";
    for (int q = 0; q < 8; q++) { /* eight sequences of 32 tokens, each with two experts of its own */
        for (int t = 0; t < 32; t++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "0,%d %d\n", 2 * q, 2 * q + 1);
        snprintf(sequences + strlen(sequences), sizeof sequences - strlen(sequences), "%d,32\n", 32 * q);
    }
    program_write("a.csv", text);
    program_write("s.csv", sequences);
    struct heard h = program_run("run --workload 'trace:file=a.csv,sequences=s.csv,tokens=32' --workload "
                                 "'trace:file=a.csv,sequences=s.csv,tokens=32,batching=shuffled' --workload "
                                 "'trace:file=a.csv,sequences=s.csv,tokens=32,batching=decode' --router replay --set "
                                 "seeds=3 --set steps=8 -q --db x.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    /* contiguous: 2 of 16 experts have all, max_vio 16 / 2 - 1 = 7; decode: four tokens of each sequence, 0 */
    char *found = program_query("x.db", "SELECT group_concat(v, ' ') FROM (SELECT max_vio AS v FROM v_runs WHERE "
                                        "workload NOT LIKE '%shuffled%' GROUP BY workload, max_vio ORDER BY v)");
    cr_assert_str_eq(found, "0.0 7.0");
    free(found);
    found = program_query("x.db", "SELECT count(*) FROM v_runs WHERE workload LIKE '%shuffled%' AND max_vio "
                                  "BETWEEN 0.5 AND 2.5");
    cr_assert_str_eq(found, "3");
    free(found);
}

/* A server that is a third full: padding is in no figure, so that a token has its two experts and the rate counts the
 * tokens that are there, about 154 of 512. */
Test(texts, padding_is_not_counted)
{
    program_write("plain.txt", "some words, and then some more of them");
    struct heard h = program_run("run --workload text:files=plain.txt,batching=serving,arrival=steady,demand=0.3,"
                                 "prompt=1,sequence=8,tokens=512 --router softmax-topk:k=2 --set seeds=1 --set "
                                 "steps=20 --set warm_up=2 -q --db x.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    char *found = program_query("x.db", "SELECT experts_per_token = 2 AND dropped_tokens = 0 AND tokens_per_second * "
                                        "time_layer BETWEEN 140 AND 170 FROM v_runs");
    cr_assert_str_eq(found, "1");
    free(found);
}
