/* The worker's side: resolve the study, run groups of points, answer. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/process.h"
#include "cli/recorder.h"
#include "cli/stop.h"
#include "cli/study_source.h"
#include "cli/verbs.h"
#include "sim/experiment/experiment.h"

#define SLACK_BYTES (UINT64_C(64) << 20) /* for results on their way */

struct channel {
    FILE *in, *out;
};

/* Keeps the pipes out of a plugin's reach: its stdin is empty, its stdout goes where its stderr goes. */
static bool open_channel(struct channel *channel)
{
    int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 100), out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || out < 0 || nothing < 0)
        return false;
    dup2(nothing, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    close(nothing);
    channel->in = fdopen(in, "r");
    channel->out = fdopen(out, "w");
    return channel->in && channel->out;
}

static bool answer(struct channel *channel, const char *kind, uint32_t point, const char *bytes, size_t n)
{
    fprintf(channel->out, "%s %u %zu\n", kind, point, n);
    fwrite(bytes, 1, n, channel->out);
    return fflush(channel->out) == 0;
}

static bool answer_failure(struct channel *channel, uint32_t point, const char *why)
{
    return answer(channel, "failed", point, why, strlen(why));
}

/* Bounds the address space at what is mapped now, with all threads started, plus the allowance. */
static void limit_memory(uint64_t allowance)
{
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (!allowance)
        return;
    int started = 0;
#pragma omp parallel reduction(+ : started)
    started += 1;
    unsigned long pages = 0;
    FILE *size = fopen("/proc/self/statm", "re");
    if (size && started && fscanf(size, "%lu", &pages) == 1) {
        rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + allowance + SLACK_BYTES;
        setrlimit(RLIMIT_AS, &(struct rlimit){bytes, bytes});
    }
    if (size)
        fclose(size);
}

/* What a group of usual size gives back is taken by the next one; by way of the kernel it would be cleared anew. Not
 * where the address space is bounded, of which it would be lacking elsewhere. */
static void keep_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

/* Steps to the end; `record` NULL or the file that the decisions go to. */
static enum moesim_status step_to_end(struct moesim_experiment *experiment, const char *record,
                                      struct moesim_error *err)
{
    struct recorder *recorder = NULL;
    struct moesim_routed routed;
    enum moesim_status status = record ? recorder_open(record, &recorder, err) : MOESIM_OK;
    while (!status && !moesim_experiment_done(experiment) && !stop_signal()) {
        status = moesim_experiment_step_layer(experiment, &routed, err);
        if (!status && recorder)
            status = recorder_add(recorder, &routed, err);
    }
    struct moesim_error end;
    const enum moesim_status closed = recorder_close(recorder, status == MOESIM_OK, &end);
    if (!status && closed)
        *err = end;
    return status ? status : closed;
}

/* A training that is told to stop ends its step first, and is kept. */
static enum moesim_status stop_training(struct moesim_experiment *experiment, struct moesim_error *err)
{
    struct moesim_routed routed;
    enum moesim_status status = MOESIM_OK;
    while (!status && !moesim_experiment_can_save(experiment))
        status = moesim_experiment_step_layer(experiment, &routed, err);
    if (!status)
        status = moesim_experiment_save(experiment, err);
    return status ? status : moesim_fail(err, MOESIM_ESTOP, "stopped");
}

static enum moesim_status step_all(const struct moesim_point *const *points, uint32_t n, uint64_t memory,
                                   const char *record, struct moesim_experiment **experiment,
                                   struct moesim_outcome *outcomes, struct moesim_error *err)
{
    enum moesim_status status = moesim_experiment_create(points, n, memory, experiment, err);
    if (!status && points[0]->mode == MOESIM_MODE_TRAIN)
        stop_watch();
    if (!status)
        status = step_to_end(*experiment, record, err);
    if (!status && !moesim_experiment_done(*experiment))
        status = stop_training(*experiment, err);
    return status ? status : moesim_experiment_finish(*experiment, outcomes, err);
}

struct packed {
    char *bytes;
    size_t size;
};

/* Runs the group and answers for every point of it; false when nobody listens any more. */
static bool run_group(struct channel *channel, const struct loaded_study *loaded, const uint32_t *index, uint32_t n,
                      uint64_t memory, const char *record)
{
    const struct moesim_point **points = calloc(n, sizeof *points);
    struct moesim_outcome *outcomes = calloc(n, sizeof *outcomes);
    struct moesim_experiment *experiment = NULL;
    struct moesim_error err = {"memory is exhausted"};
    enum moesim_status status = points && outcomes ? MOESIM_OK : MOESIM_ENOMEM;
    for (uint32_t i = 0; !status && i < n; i++)
        points[i] = loaded->points[index[i]];
    if (!status)
        status = step_all(points, n, memory, record, &experiment, outcomes, &err);
    struct packed *packed = calloc(n, sizeof *packed);
    for (uint32_t i = 0; !status && packed && i < n; i++)
        packed[i].bytes = moesim_outcome_pack(&outcomes[i], &packed[i].size);
    moesim_experiment_destroy(experiment); /* before the answer: a router that falls in finish() has failed */
    bool heard = status != MOESIM_ESTOP;
    for (uint32_t i = 0; heard && i < n; i++)
        heard = packed && packed[i].bytes
                    ? answer(channel, "outcome", index[i], packed[i].bytes, packed[i].size)
                    : answer_failure(channel, index[i], status ? err.text : "memory is exhausted");
    for (uint32_t i = 0; packed && i < n; i++)
        free(packed[i].bytes);
    free(packed);
    free(outcomes);
    free(points);
    return heard;
}

/* Reads "N POINT:HASH ..." and compares each hash with our own point's: the study's files must not change in between.
 */
static bool read_group(struct channel *channel, const struct loaded_study *loaded, uint32_t **index, uint32_t *n)
{
    if (fscanf(channel->in, "%" SCNu32, n) != 1 || *n == 0 || *n > loaded->n_points)
        return false;
    *index = calloc(*n, sizeof **index);
    for (uint32_t i = 0; *index && i < *n; i++) {
        uint64_t hash;
        if (fscanf(channel->in, " %" SCNu32 ":%" SCNx64, &(*index)[i], &hash) != 2 || (*index)[i] >= loaded->n_points ||
            loaded->points[(*index)[i]]->hash != hash) {
            cli_fail(CLI_SOME_FAILED, "a file of the study changed while it ran");
            return false;
        }
    }
    return *index != NULL;
}

static int serve(struct channel *channel, const struct loaded_study *loaded, uint64_t memory, const char *record)
{
    char word[8];
    while (fscanf(channel->in, "%7s", word) == 1) {
        uint32_t *index = NULL, n = 0;
        bool good = strcmp(word, "run") == 0 && read_group(channel, loaded, &index, &n) &&
                    run_group(channel, loaded, index, n, memory, record);
        free(index);
        if (!good)
            return CLI_SOME_FAILED;
    }
    return CLI_DONE;
}

static int read_setup(struct channel *channel, struct moesim_arena *arena, struct study_source *source,
                      uint64_t *memory)
{
    size_t size;
    int threads;
    struct moesim_error err;
    if (fscanf(channel->in, "setup %zu %d %" SCNu64, &size, &threads, memory) != 3 || size > (1u << 28) ||
        fgetc(channel->in) != '\n')
        return cli_fail(CLI_USAGE, "__worker is for moesim's own use");
    char *text = moesim_alloc(arena, size + 1, 1);
    if (!text || fread(text, 1, size, channel->in) != size)
        return cli_fail(CLI_SOME_FAILED, "the worker's study did not arrive");
    enum moesim_status status = study_source_from_json(text, arena, source, &err);
    if (status)
        return cli_fail_status(status, &err);
    omp_set_num_threads(threads);
    if (!*memory)
        keep_memory();
    limit_memory(*memory);
    return CLI_DONE;
}

static int run_worker(const struct cli_call *call)
{
    (void)call;
    process_follow_parent();
    struct channel channel = {NULL, NULL};
    struct moesim_arena *arena = moesim_arena_create(0);
    struct study_source source = {.name = ""};
    struct loaded_study loaded = {.arena = NULL};
    uint64_t memory = 0;
    if (!arena || !open_channel(&channel))
        return cli_fail(CLI_SOME_FAILED, "the worker could not open its pipes");
    int exit = read_setup(&channel, arena, &source, &memory);
    if (!exit)
        exit = study_load(&source, true, &loaded);
    if (!exit)
        exit = serve(&channel, &loaded, memory, source.record);
    study_unload(&loaded);
    study_source_close(&source);
    moesim_arena_destroy(arena);
    fclose(channel.in);
    fclose(channel.out);
    return exit;
}

static const struct cli_option options[] = {CLI_OPTION_END};

const struct cli_verb cli_worker = {
    .name = "__worker",
    .arguments = "",
    .summary = "runs points of a study for its parent",
    .options = options,
    .run = run_worker,
};
