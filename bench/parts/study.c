/*
 * Whole studies by the program itself, stored; and the most memory that a run needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/folder.h"
#include "bench/parts/parts.h"

extern char **environ;

enum { MOST_REPEATS = 3 };

struct program {
    const char *path;
    char folder[FOLDER_PATH], study[FOLDER_PATH], database[FOLDER_PATH];
};

/* The moesim that was built beside this program. */
static void find_program(const struct bench *bench, char path[FOLDER_PATH])
{
    if (bench->options.program) {
        snprintf(path, FOLDER_PATH, "%s", bench->options.program);
        return;
    }
    const ssize_t n = readlink("/proc/self/exe", path, FOLDER_PATH - 32);
    path[n > 0 ? n : 0] = '\0';
    for (int i = 0; i < 2 && strrchr(path, '/'); i++)
        *strrchr(path, '/') = '\0';
    strcat(path, "/cli/moesim");
}

static void write_study(struct program *p, const char *text)
{
    FILE *out = fopen(folder_file(p->folder, "study.yaml", p->study), "w");
    if (!out || fputs(text, out) == EOF || fclose(out) != 0)
        bench_stop("%s cannot be written", p->study);
    folder_file(p->folder, "study.db", p->database);
}

/* Starts `arguments`, waits, and fails unless it ends with 0. */
static bool spawn(char **arguments, int out, struct rusage *usage)
{
    posix_spawn_file_actions_t actions;
    pid_t process;
    int state = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    const int problem = posix_spawn(&process, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (problem)
        return false;
    while (wait4(process, &state, 0, usage) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

int part_study_memory(char **arguments)
{
    struct rusage usage;
    const int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nothing < 0 || !spawn(arguments, nothing, &usage))
        return 1;
    printf("%ld\n", usage.ru_maxrss);
    return 0;
}

/* The words of a run; those of `words` before it. */
static void run_with(struct program *p, const char *const *words, uint32_t n, int out)
{
    const char *const run[] = {p->path, "run", p->study, "--db", p->database, "--quiet", "--fresh"};
    char *arguments[16] = {NULL};
    struct rusage usage;
    for (uint32_t i = 0; i < n + sizeof run / sizeof *run; i++)
        arguments[i] = strdup(i < n ? words[i] : run[i - n]);
    if (!spawn(arguments, out, &usage))
        bench_stop("%s run %s failed; --program names a moesim", p->path, p->study);
    for (uint32_t i = 0; arguments[i]; i++)
        free(arguments[i]);
}

static void run_study(void *program)
{
    const int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    run_with(program, NULL, 0, nothing);
    close(nothing);
}

static void measure_many(struct bench *bench, struct program *p)
{
    const uint32_t seeds = bench->options.quick ? 1 : 50;
    char text[512];
    struct bench_figure figure = {.part = "study",
                                  .name = "1000 points of 20 steps",
                                  .ours = bench_ours(run_study, p),
                                  .work = 20 * seeds / 1000.0,
                                  .unit = "s",
                                  .as_time = 1,
                                  .bound = BENCH_AT_MOST(60),
                                  .most_repeats = MOST_REPEATS};
    if (!bench_wants(bench, "study", figure.name))
        return;
    snprintf(text, sizeof text,
             "study: many\nmode: route\nseeds: %u\nsteps: 20\nworkload: {name: gaussian, tokens: 4096}\n"
             "model: {layers: 1, experts: 64, top_k: 2}\n"
             "router:\n  - {name: softmax-topk, k: [1, 2, 4, 8], capacity_factor: [0, 1, 1.25, 1.5, 2]}\n",
             seeds);
    write_study(p, text);
    bench_measure(bench, &figure);
}

static void measure_points(struct bench *bench, struct program *p)
{
    const uint32_t seeds = bench->options.quick ? 4 : 300;
    char text[512];
    struct bench_figure figure = {.part = "study",
                                  .name = "points of 65,536 tokens",
                                  .ours = bench_ours(run_study, p),
                                  .work = seeds,
                                  .unit = "points/s",
                                  .bound = BENCH_AT_LEAST(150)};
    if (!bench_wants(bench, "study", figure.name))
        return;
    snprintf(text, sizeof text,
             "study: points\nmode: route\nseeds: %u\nsteps: 1\nworkload: {name: gaussian, tokens: 65536}\n"
             "model: {layers: 1, experts: 64, top_k: 2}\nrouter: softmax-topk\n",
             seeds);
    write_study(p, text);
    bench_measure(bench, &figure);
}

/* Bytes that a run of so many tokens and steps needs. */
static double memory_of(struct program *p, uint32_t tokens, uint32_t steps)
{
    static const char *const self[] = {"/proc/self/exe", PART_STUDY_MEMORY};
    char text[512], path[FOLDER_PATH];
    double kilobytes = NAN;
    snprintf(text, sizeof text,
             "study: memory\nmode: route\nseeds: 1\nsteps: %u\nworkload: {name: gaussian, tokens: %u}\n"
             "model: {layers: 1, experts: 64, top_k: 2}\nrouter: softmax-topk\n",
             steps, tokens);
    write_study(p, text);
    FILE *out = fopen(folder_file(p->folder, "memory.txt", path), "w+e");
    if (!out)
        bench_stop("%s cannot be written", path);
    run_with(p, self, 2, fileno(out));
    rewind(out);
    if (fscanf(out, "%lf", &kilobytes) != 1)
        bench_stop("the memory of a run is not known");
    fclose(out);
    return 1024 * kilobytes;
}

static void measure_memory(struct bench *bench, struct program *p)
{
    const uint32_t tokens = bench->options.quick ? 1u << 16 : 1u << 20;
    struct bench_figure figure = {
        .part = "study", .name = "beyond logits and plan", .unit = "MiB", .bound = BENCH_AT_MOST(64)};
    if (bench_wants(bench, "study", figure.name)) {
        const double known = tokens * (64 * 4.0 + 2 * 16 + 4);
        figure.value = (memory_of(p, tokens, 1) - known) / (1 << 20);
        bench_measure(bench, &figure);
    }
    figure = (struct bench_figure){
        .part = "study", .name = "memory, 64 steps by 4", .unit = "", .bound = BENCH_AT_MOST(1.05)};
    if (bench_wants(bench, "study", figure.name)) {
        figure.value = memory_of(p, 65536, 64) / memory_of(p, 65536, 4);
        bench_measure(bench, &figure);
    }
}

void part_study(struct bench *bench)
{
    struct program p;
    char path[FOLDER_PATH];
    find_program(bench, path);
    p.path = path;
    folder_make(p.folder);
    measure_many(bench, &p);
    measure_points(bench, &p);
    measure_memory(bench, &p);
    folder_remove(p.folder);
}
