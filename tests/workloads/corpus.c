/*
 * Corpora: plain, gzip and xz files are the same bytes, domains are what was asked for, bad files get a sentence.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/workloads/instance.h"
#include "workloads/corpus.h"

TestSuite(corpus, .timeout = 60, .init = folder_create, .fini = folder_remove);

static struct moesim_arena *arena;

static struct corpus read_corpus(const char *files, enum corpus_domains by)
{
    struct corpus corpus = {0};
    struct moesim_error err;
    cr_assert_eq(corpus_read(&(struct corpus_choice){files, by, CORPUS_BYTES, ""}, arena, &corpus, &err), MOESIM_OK,
                 "%s: %s", files, err.text);
    return corpus;
}

static void check_domain(const struct corpus_domain *domain, uint32_t n_files, const char *bytes)
{
    cr_assert_eq(domain->n_files, n_files);
    cr_assert_eq(domain->n_bytes, strlen(bytes));
    cr_assert_arr_eq(domain->bytes, bytes, strlen(bytes));
}

Test(corpus, domains_are_paths_or_files)
{
    arena = moesim_arena_create(0);
    char list[2048];
    const char *plain = folder_write("plain.txt", "one two", 7), *zipped = folder_write_gzip("z.gz", "drei vier", 9);
    cr_assert_eq(mkdir(folder_path("d"), 0700), 0);
    cr_assert_eq(mkdir(folder_path("d/below"), 0700), 0);
    folder_write("d/b", "B", 1);
    folder_write_gzip("d/a.gz", "A", 1);
    folder_write("d/.hidden", "H", 1);
    folder_write("d/empty", "", 0);
    const char *directory = folder_path("d");
    snprintf(list, sizeof list, "%s,%s,%s", plain, directory, zipped);

    struct corpus corpus = read_corpus(list, CORPUS_BY_PATH);
    cr_assert_eq(corpus.n_domains, 3);
    check_domain(&corpus.domains[0], 1, "one two");
    check_domain(&corpus.domains[1], 2, "AB");
    check_domain(&corpus.domains[2], 1, "drei vier");
    cr_assert_str_eq(corpus.domains[1].name, directory);
    const uint64_t hash = corpus.hash;

    corpus = read_corpus(list, CORPUS_BY_FILE);
    cr_assert_eq(corpus.n_domains, 4);
    check_domain(&corpus.domains[1], 1, "A");
    check_domain(&corpus.domains[2], 1, "B");
    check_domain(&corpus.domains[3], 1, "drei vier");
    cr_assert_eq(corpus.hash, hash, "the same bytes in the same order");

    char text[4096];
    corpus_describe(&corpus, text, sizeof text);
    cr_assert(strstr(text, "plain.txt (1 file, 7 bytes), ") && strstr(text, "; hash "), "%s", text);
    for (size_t size = 1; size < 40; size++) {
        memset(text, 'x', sizeof text);
        corpus_describe(&corpus, text, size);
        cr_assert_eq(strlen(text), size - 1);
    }
    moesim_arena_destroy(arena);
}

Test(corpus, gzip_is_the_same_text_and_large_files_are_cut)
{
    arena = moesim_arena_create(0);
    const size_t n = CORPUS_MAX_FILE_BYTES + 100000;
    char *bytes = malloc(n);
    cr_assert(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * i >> 7);
    const struct corpus exact = read_corpus(folder_write("p", bytes, 300001), CORPUS_BY_PATH);
    const struct corpus zipped = read_corpus(folder_write_gzip("p.gz", bytes, 300001), CORPUS_BY_PATH);
    cr_assert_eq(exact.domains[0].n_bytes, 300001);
    cr_assert_arr_eq(exact.domains[0].bytes, bytes, 300001);
    cr_assert_eq(zipped.domains[0].n_bytes, 300001);
    cr_assert_eq(zipped.hash, exact.hash);
    const struct corpus xz = read_corpus(folder_write_xz("p.xz", bytes, 300001), CORPUS_BY_PATH);
    cr_assert_eq(xz.domains[0].n_bytes, 300001);
    cr_assert_eq(xz.hash, exact.hash);
    const char *const large[] = {folder_write("large", bytes, n), folder_write_gzip("large.gz", bytes, n),
                                 folder_write_xz("large.xz", bytes, n)};
    for (int i = 0; i < 3; i++) {
        const struct corpus corpus = read_corpus(large[i], CORPUS_BY_PATH);
        cr_assert_eq(corpus.domains[0].n_bytes, CORPUS_MAX_FILE_BYTES);
        cr_assert_arr_eq(corpus.domains[0].bytes, bytes, CORPUS_MAX_FILE_BYTES);
    }
    free(bytes);
    moesim_arena_destroy(arena);
}

static void refuse(const char *files, enum moesim_status status, const char *sentence)
{
    struct corpus corpus;
    struct moesim_error err = {""};
    cr_assert_eq(corpus_read(&(struct corpus_choice){files, CORPUS_BY_FILE, CORPUS_BYTES, ""}, arena, &corpus, &err),
                 status, "%s: %s", files, err.text);
    cr_assert(strstr(err.text, sentence), "%s: %s", files, err.text);
    cr_assert(strstr(err.text, files), "no path: %s", err.text);
}

Test(corpus, says_which_file_will_not_do)
{
    arena = moesim_arena_create(0);
    char zipped[4096], noise[4000];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * i * i >> 5);
    const char *path = folder_write_gzip("whole.gz", noise, sizeof noise);
    FILE *file = fopen(path, "rb");
    cr_assert(file);
    const size_t n = fread(zipped, 1, sizeof zipped, file);
    fclose(file);
    cr_assert(n > 100);

    refuse(folder_path("absent.txt"), MOESIM_EIO, "text file cannot be read: No such file");
    refuse(folder_write("empty.txt", "", 0), MOESIM_EIO, "is empty");
    refuse(folder_write("cut.gz", zipped, n / 2), MOESIM_EIO, "damaged or truncated");
    zipped[n - 6] ^= 1; /* of the checksum */
    refuse(folder_write("sum.gz", zipped, n), MOESIM_EIO, "damaged or truncated");
    refuse(folder_write("not.gz", noise, sizeof noise), MOESIM_EIO, "not gzip data");
    refuse(folder_write_gzip("nothing.gz", "", 0), MOESIM_EIO, "is empty");
    path = folder_path("fifo");
    cr_assert_eq(mkfifo(path, 0600), 0);
    refuse(path, MOESIM_EIO, "not a regular file");
    path = folder_path("d");
    cr_assert_eq(mkdir(path, 0700), 0);
    refuse(path, MOESIM_EIO, "no text file in this directory");
    moesim_arena_destroy(arena);

    struct corpus corpus;
    struct moesim_error err;
    char list[1024];
    snprintf(list, sizeof list, "%s,", folder_path("whole.gz"));
    arena = moesim_arena_create(0);
    refuse(list, MOESIM_EINVAL, "a path is empty");
    moesim_arena_destroy(arena);
    arena = moesim_arena_create(1000);
    cr_assert_eq(corpus_read(&(struct corpus_choice){.files = folder_path("whole.gz")}, arena, &corpus, &err),
                 MOESIM_ENOMEM);
    moesim_arena_destroy(arena);
}

/* Two streams one after the other are one text, as `cat a.xz b.xz` makes it; what is packed by its first bytes, not its
 * name, is unpacked too. */
Test(corpus, xz_streams_follow_each_other)
{
    arena = moesim_arena_create(0);
    char both[4096];
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(folder_write_xz("one", i ? "drei" : "eins, ", i ? 4 : 6), "rb");
        cr_assert(file);
        n += fread(both + n, 1, sizeof both - n, file);
        fclose(file);
    }
    const struct corpus corpus = read_corpus(folder_write("no.suffix", both, n), CORPUS_BY_PATH);
    check_domain(&corpus.domains[0], 1, "eins, drei");
    moesim_arena_destroy(arena);
}

/* Every cut of an .xz file and every changed byte is refused or, where only padding or reserved bits are hit, the same
 * text; a dictionary of 4 GiB is refused before it is allocated. */
Test(corpus, damaged_xz)
{
    arena = moesim_arena_create(0);
    char noise[160];
    uint8_t packed[2048];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * i * i >> 5);
    FILE *file = fopen(folder_write_xz("whole.xz", noise, sizeof noise), "rb");
    cr_assert(file);
    const size_t n = fread(packed, 1, sizeof packed, file);
    fclose(file);
    for (size_t cut = 6; cut < n; cut++)
        refuse(folder_write("cut.xz", packed, cut), MOESIM_EIO, "the xz data is damaged or truncated after");
    refuse(folder_write("cut.xz", packed, 5), MOESIM_EIO, "is named .xz but is not xz data");
    for (size_t i = 6; i < n; i++) {
        struct corpus corpus;
        struct moesim_error err = {""};
        packed[i] ^= 0x11;
        cr_assert_eq(
            corpus_read(&(struct corpus_choice){.files = folder_write("changed.xz", packed, n)}, arena, &corpus, &err),
            MOESIM_EIO, "byte %zu", i);
        cr_assert(strstr(err.text, "changed.xz: "), "%s", err.text);
        packed[i] ^= 0x11;
    }
    /* the block header: size, flags, perhaps two sizes, filter LZMA2 (0x21), 1 byte of properties: 40 = 4 GiB; CRC32 */
    const size_t header = (packed[12] + 1u) * 4;
    size_t filter = 14;
    while (packed[filter] != 0x21 || packed[filter + 1] != 1)
        cr_assert_lt(++filter, 12 + header);
    packed[filter + 2] = 40;
    const uint32_t sum = (uint32_t)crc32(0, packed + 12, (uInt)header - 4);
    for (int i = 0; i < 4; i++)
        packed[12 + header - 4 + (size_t)i] = (uint8_t)(sum >> 8 * i);
    refuse(folder_write("greedy.xz", packed, n), MOESIM_EIO, "unpacking it would take 4096 MiB; at most 80");
    moesim_arena_destroy(arena);
}

/* 64 MiB of one byte pack into 64 kB of gzip or 10 kB of xz. */
Test(corpus, bombs_are_cut)
{
    enum { BYTES = 64 << 20 };
    char *bytes = calloc(BYTES, 1);
    cr_assert(bytes);
    arena = moesim_arena_create((size_t)40 << 20);
    const char *const bomb[] = {folder_write_gzip("bomb.gz", bytes, BYTES), folder_write_xz("bomb.xz", bytes, BYTES)};
    free(bytes);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(read_corpus(bomb[i], CORPUS_BY_PATH).domains[0].n_bytes, CORPUS_MAX_FILE_BYTES);
    moesim_arena_destroy(arena);
}

static void make_tree(void)
{
    static const char *const directory[] = {"t", "t/b", "t/b/deep", "t/b-c", "t/none", "t/.hidden", "elsewhere"};
    for (size_t i = 0; i < sizeof directory / sizeof *directory; i++)
        cr_assert_eq(mkdir(folder_path(directory[i]), 0700), 0);
    folder_write("t/zz", "Z", 1);
    folder_write("t/a", "A", 1);
    folder_write("t/b/2", "2", 1);
    folder_write("t/b/deep/1", "1", 1);
    folder_write("t/b-c/x", "x", 1);
    folder_write("t/.hidden/h", "h", 1);
    folder_write("elsewhere/e", "e", 1);
    cr_assert_eq(mkfifo(folder_path("t/b/pipe"), 0600), 0);
    cr_assert_eq(symlink("../elsewhere", folder_path("t/linked")), 0); /* right below: followed */
    cr_assert_eq(symlink("..", folder_path("t/b/up")), 0);             /* further down: not, it has no end */
    cr_assert_eq(symlink("../a", folder_path("t/b/deep/file")), 0);    /* nowhere: passed over */
    cr_assert_eq(symlink("../../a", folder_path("t/b/deep/to-a")), 0);
    cr_assert_eq(symlink("self", folder_path("t/self")), 0);
}

Test(corpus, directories_and_links)
{
    arena = moesim_arena_create(0);
    make_tree();
    struct corpus corpus = read_corpus(folder_path("t"), CORPUS_BY_PATH);
    cr_assert_eq(corpus.n_domains, 1);
    check_domain(&corpus.domains[0], 7, "Ax21AeZ"); /* by path: a, b-c/x, b/2, b/deep/1, b/deep/to-a, linked/e, zz */
    corpus = read_corpus(folder_path("t"), CORPUS_BY_DIRECTORY);
    cr_assert_eq(corpus.n_domains, 4);
    check_domain(&corpus.domains[0], 2, "AZ");
    cr_assert_str_eq(corpus.domains[0].name, folder_path("t"));
    check_domain(&corpus.domains[1], 1, "x");
    check_domain(&corpus.domains[2], 3, "21A");
    cr_assert_str_eq(corpus.domains[2].name, folder_path("t/b"));
    check_domain(&corpus.domains[3], 1, "e");
    cr_assert_eq(read_corpus(folder_path("t"), CORPUS_BY_FILE).n_domains, 7);

    char path[600], below[40] = "t";
    for (int i = 0; i < 34; i++) {
        snprintf(path, sizeof path, "%s%s", folder_path("t"), "");
        for (int j = 0; j <= i; j++)
            snprintf(path + strlen(path), sizeof path - strlen(path), "/d");
        cr_assert_eq(mkdir(path, 0700), 0);
    }
    refuse(folder_path(below), MOESIM_EIO, "nested deeper than 32");
    moesim_arena_destroy(arena);
}

static enum moesim_status read_words(const char *files, const char *word_list, uint32_t n_ids, struct corpus *corpus,
                                     struct moesim_error *err)
{
    const struct corpus_choice choice = {files, CORPUS_BY_PATH, CORPUS_WORDS, word_list};
    const enum moesim_status status = corpus_read(&choice, arena, corpus, err);
    return status ? status : corpus_encode(corpus, &choice, n_ids, arena, err);
}

static enum moesim_status count_lines(const char *list, uint32_t *n_lines, struct moesim_error *err)
{
    return corpus_count_lines(&(struct corpus_choice){.tokens = CORPUS_WORDS, .word_list = list}, n_lines, err);
}

/* "b": 4, "a": 3, "," 3: of equal ones the lower byte first. */
Test(corpus, words_by_frequency_or_list)
{
    arena = moesim_arena_create(0);
    struct corpus corpus;
    struct moesim_error err = {""};
    char files[1200];
    snprintf(files, sizeof files, "%s,%s", folder_write("one", "a b, b\n\ta c", 12), folder_write("two", "b,b,a", 5));
    cr_assert_eq(read_words(files, "", 4, &corpus, &err), MOESIM_OK, "%s", err.text);
    const uint32_t one[] = {3, 1, 2, 1, 3, 0}, two[] = {1, 2, 1, 2, 3};
    cr_assert_eq(corpus_n_tokens(&corpus.domains[0]), 6);
    cr_assert_arr_eq(corpus.domains[0].ids, one, sizeof one);
    cr_assert_arr_eq(corpus.domains[1].ids, two, sizeof two);
    cr_assert_eq(corpus_token(&corpus.domains[1], 4), 3);

    const char *list = folder_write("list", "c\r\n,\nx y\nb", 10);
    cr_assert_eq(read_words(files, list, 0, &corpus, &err), MOESIM_OK, "%s", err.text);
    const uint32_t listed[] = {0, 4, 2, 4, 0, 1};
    cr_assert_arr_eq(corpus.domains[0].ids, listed, sizeof listed);
    uint32_t n_lines;
    cr_assert(count_lines(list, &n_lines, &err) == MOESIM_OK && n_lines == 4);

    static const struct {
        const char *text, *says;
    } bad[] = {{"a\n\nb", "line 2 is empty"},
               {"a\nb\na\n", "line 3 repeats line 1; one word or word piece a line"},
               {"\r", "line 1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        list = folder_write("list", bad[i].text, strlen(bad[i].text));
        cr_assert_eq(count_lines(list, &n_lines, &err), MOESIM_EIO);
        cr_assert(strstr(err.text, bad[i].says) && strstr(err.text, list), "%s", err.text);
    }
    cr_assert_eq(read_words(folder_write("blank", " \n\t", 3), "", 4, &corpus, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "there is no word in this text"), "%s", err.text);
    moesim_arena_destroy(arena);
}

/* For words a text must be UTF-8; where a large file is cut inside a character, that one is left out. */
Test(corpus, utf8_is_checked_for_words)
{
    arena = moesim_arena_create(0);
    struct corpus corpus;
    struct moesim_error err = {""};
    const char *path = folder_write("latin1", "gr\xfc\xdf dich", 9);
    cr_assert_eq(read_words(path, "", 4, &corpus, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, path) && strstr(err.text, "byte 2 of the text is no UTF-8"), "%s", err.text);
    const size_t n = CORPUS_MAX_FILE_BYTES + 2;
    char *bytes = malloc(n);
    cr_assert(bytes);
    memset(bytes, 'a', n);
    memcpy(bytes + n - 4, "\xe2\x82\xac.", 4); /* the euro sign's last byte is cut off */
    cr_assert_eq(read_words(folder_write_gzip("long", bytes, n), "", 4, &corpus, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(corpus.domains[0].n_bytes, CORPUS_MAX_FILE_BYTES - 2);
    cr_assert_eq(corpus.domains[0].n_ids, 1);
    bytes[n - 100] = '\xff';
    cr_assert_eq(read_words(folder_write("long", bytes, n), "", 4, &corpus, &err), MOESIM_EIO);
    free(bytes);
    moesim_arena_destroy(arena);
}

/* What a Debian machine has without doing anything: the licences and perl-base. */
Test(corpus, built_in_choice_finds_debian_texts)
{
    if (access("/usr/share/common-licenses/GPL-3", R_OK))
        cr_skip_test("not a Debian machine");
    arena = moesim_arena_create(0);
    const struct corpus corpus = read_corpus("", CORPUS_BY_PATH);
    cr_assert(corpus.n_domains >= 1 && corpus.n_domains <= 3);
    cr_assert_str_eq(corpus.domains[0].name, "prose");
    for (uint32_t d = 0; d < corpus.n_domains; d++)
        cr_assert_gt(corpus.domains[d].n_bytes, 50000);
    cr_assert_eq(corpus.n_domains == 3, corpus.missing[0] == '\0');
    char text[1000];
    corpus_describe(&corpus, text, sizeof text);
    cr_assert(strstr(text, "prose (") && strstr(text, corpus.missing), "%s", text);
    moesim_arena_destroy(arena);
}
