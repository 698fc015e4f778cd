/* One study over every router: the same rows on any number of threads and jobs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "routers/table.h"
#include "tests/cli/program.h"

TestSuite(determinism, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 200);

/* Bytes that repeat now and then, so that hash tables and sequences have work to do. */
static void write_text(void)
{
    char text[8193];
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = "the quick brown fox jumps over a lazy dog.\n"[(i * i + i / 7) % 43];
    text[sizeof text - 1] = '\0';
    program_write("text.txt", text);
}

/* replay reads decisions from a file, which tests/cli/route.c makes. */
static void write_study(void)
{
    char study[4096];
    size_t n = (size_t)snprintf(study, sizeof study,
                                "study: every-router\nseeds: 2\nsteps: 3\n"
                                "workload: {name: text, files: text.txt, tokens: 304}\n"
                                "model: {layers: 2, experts: 16, top_k: 2, d_model: 32}\n"
                                "record: [expert_load, load_cv]\n"
                                "router: [");
    for (size_t i = 0, first = n; routers_table[i]; i++)
        if (strcmp(routers_table[i]->name, "replay") != 0)
            n += (size_t)snprintf(study + n, sizeof study - n, "%s%s", n > first ? ", " : "", routers_table[i]->name);
    snprintf(study + n, sizeof study - n, "]\n");
    program_write("s.yaml", study);
}

Test(determinism, every_router_on_any_threads_and_jobs)
{
    static const char *const ways[] = {"--threads 1 --jobs 1", "--threads 2 --jobs 1", "--threads 4 --jobs 1",
                                       "--threads 1 --jobs 2"};
    char *first = NULL;
    write_text();
    write_study();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char db[16];
        snprintf(db, sizeof db, "%zu.db", i);
        struct heard h = program_run("run s.yaml -q --db %s %s", db, ways[i]);
        cr_assert_eq(h.status, 0, "%s: %s", ways[i], h.err);
        program_forget(&h);
        char *rows = program_query(db, "SELECT group_concat(router || ' ' || row_hash, char(10)) FROM (SELECT router, "
                                       "row_hash FROM v_runs ORDER BY hash)");
        cr_assert(strstr(rows, "softmax-topk"));
        if (!first)
            first = strdup(rows);
        cr_assert_str_eq(rows, first, "%s gives other rows", ways[i]);
        free(rows);
    }
    free(first);
}
