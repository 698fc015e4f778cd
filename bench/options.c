#include "bench/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_REPEATS = 11, QUICK_REPEATS = 3 };

static const struct row {
    const char *name, *argument, *help;
} rows[] = {
    {"part", "NAME", "only this part; repeatable, and NAMEs may be joined by commas"},
    {"only", "TEXT", "only figures that begin so; of routers also PLUGIN.so[:PARAMETERS]"},
    {"list", NULL, "name the figures instead of measuring them"},
    {"repeats", "N", "of each figure (default 11; --quick 3)"},
    {"threads", "N", "of ours and of all that is measured beside us (default OMP_NUM_THREADS)"},
    {"quick", NULL, "small sizes: whether it works, not what it takes"},
    {"wait", "S", "how long a repeat waits for others to leave the processors idle (default 1)"},
    {"ggml", "DIR", "a folder with libggml-base.so and libggml-cpu*.so to measure beside"},
    {"products", "NAME", "the experts' kernels: avx512, avx2-fma, portable, openblas (default: the fastest)"},
    {"program", "FILE", "the moesim that runs whole studies (default: the one built beside this)"},
    {"db", "FILE", "add the repeats to this database, for 'moesim compare'"},
    {"label", "NAME", "what the database calls this program (default: its revision)"},
    {"json", "FILE", "all figures with their repeats"},
    {"plot", "FILE", "a page for .html, a drawing for .svg"},
    {"help", NULL, "show this text"},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static void print_help(void)
{
    puts("Examples:\n"
         "  bench/run\n"
         "      build the program, then measure everything\n"
         "  bench/run --part layer --ggml ~/llama.cpp/build/bin --plot layer.html\n"
         "      the MoE layer beside PyTorch and ggml, as a page\n\n"
         "Usage: moesim-bench [options]\n\nOptions:");
    for (int i = 0; i < N_ROWS; i++) {
        char left[40];
        snprintf(left, sizeof left, "--%s %s", rows[i].name, rows[i].argument ? rows[i].argument : "");
        printf("  %-18s %s\n", left, rows[i].help);
    }
    puts("\nParts:");
    for (const struct bench_part *part = bench_parts; part->name; part++)
        printf("  %-18s %s\n", part->name, part->summary);
}

static _Noreturn void refuse(const char *format, const char *word)
{
    fputs("moesim-bench: ", stderr);
    fprintf(stderr, format, word);
    fputs("; --help lists what there is\n", stderr);
    exit(2);
}

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) {
        fprintf(stderr, "moesim-bench: --%s '%s' is not a number from %g to %g\n", name, text, least, most);
        exit(2);
    }
    return value;
}

/* Adds the parts of "a,b"; the list lives as long as the program. */
static void add_parts(struct options *o, char *names)
{
    for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
        const struct bench_part *part = bench_parts;
        while (part->name && strcmp(part->name, name) != 0)
            part++;
        if (!part->name || o->bench.n_parts == OPTIONS_MOST_PARTS)
            refuse("no part '%s'", name);
        o->part[o->bench.n_parts++] = part->name;
    }
}

static void set(struct options *o, const char *name, char *value)
{
    struct bench_options *b = &o->bench;
    const struct {
        const char *name, **field;
    } texts[] = {{"only", &b->only},   {"ggml", &b->ggml}, {"products", &b->products}, {"program", &b->program},
                 {"label", &b->label}, {"db", &o->db},     {"json", &o->json},         {"plot", &o->plot}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(name, texts[i].name) == 0)
            *texts[i].field = value;
    if (strcmp(name, "part") == 0)
        add_parts(o, value);
    else if (strcmp(name, "list") == 0)
        b->list = true;
    else if (strcmp(name, "quick") == 0)
        b->quick = true;
    else if (strcmp(name, "repeats") == 0)
        b->repeats = (uint32_t)number(name, value, 1, BENCH_MOST_REPEATS);
    else if (strcmp(name, "threads") == 0)
        b->threads = (uint32_t)number(name, value, 1, 1024);
    else if (strcmp(name, "wait") == 0)
        b->wait_s = number(name, value, 0, 3600);
}

void options_read(struct options *o, int argc, char **argv)
{
    struct option longs[N_ROWS + 1] = {{0}};
    for (int i = 0; i < N_ROWS; i++)
        longs[i] = (struct option){rows[i].name, rows[i].argument ? required_argument : no_argument, NULL, i};
    *o = (struct options){.bench = {.wait_s = 1}};
    opterr = 0;
    for (int code, at; at = optind, (code = getopt_long(argc, argv, ":", longs, NULL)) != -1;) {
        if (code == ':')
            refuse("option '%s' needs a value", argv[at]);
        if (code == '?')
            refuse("unknown option '%s'", argv[at]);
        if (strcmp(rows[code].name, "help") == 0) {
            print_help();
            exit(0);
        }
        set(o, rows[code].name, optarg);
    }
    if (optind < argc)
        refuse("unexpected '%s'", argv[optind]);
    if (!o->bench.repeats)
        o->bench.repeats = o->bench.quick ? QUICK_REPEATS : DEFAULT_REPEATS;
    o->bench.part = o->part;
}
