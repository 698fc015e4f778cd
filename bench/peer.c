#include "bench/peer.h"

#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peer.py.h"

extern char **environ;

enum { MOST_VARIABLES = 4096 };

struct peer {
    FILE *to, *from;
    pid_t process;
    char name[64];
    double found, cpu_s;
};

#define BLAS_FOLDER "/usr/lib/x86_64-linux-gnu"

/* Our variables, and the folder where the loader looks first. */
static bool variables(const char *blas, char path[256], char **list)
{
    uint32_t n = 0;
    for (char **v = environ; *v && n < MOST_VARIABLES - 2; v++)
        if (!blas || strncmp(*v, "LD_LIBRARY_PATH=", 16) != 0)
            list[n++] = *v;
    if (blas) {
        snprintf(path, 256, "LD_LIBRARY_PATH=" BLAS_FOLDER "/%s", blas);
        list[n++] = path;
        list[n] = NULL;
        return access(path + 16, X_OK) == 0;
    }
    list[n] = NULL;
    return true;
}

/* Starts `arguments` with its standard input and output at our ends of two pipes. */
static bool start(struct peer *peer, char *const *arguments, char *const *environment)
{
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC)) /* a peer must not hold another's pipe open */
        return false;
    if (pipe2(from, O_CLOEXEC)) {
        close(to[0]);
        close(to[1]);
        return false;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    const int failed = posix_spawnp(&peer->process, arguments[0], &actions, NULL, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    peer->to = fdopen(to[1], "w");
    peer->from = fdopen(from[0], "r");
    if (failed)
        peer->process = 0;
    return !failed && peer->to && peer->from;
}

static char versions[256];

const char *peer_versions(void)
{
    return versions;
}

/* Its name, and what it reads. */
static bool greet(struct peer *peer, const struct peer_task *task)
{
    if (!fgets(peer->name, sizeof peer->name, peer->from) || !strncmp(peer->name, "none", 4))
        return false;
    peer->name[strcspn(peer->name, "\n")] = '\0';
    if (!strstr(versions, peer->name) && strlen(versions) + strlen(peer->name) + 3 < sizeof versions) {
        strcat(versions, *versions ? ", " : "");
        strcat(versions, peer->name);
    }
    peer->name[strcspn(peer->name, " ")] = '\0';
    return fwrite(task->data, 1, task->size, peer->to) == task->size && fflush(peer->to) == 0;
}

static struct peer *open_with(const char *python, const struct peer_task *task)
{
    char number[8][16], path[256], program[64], option[] = "-c";
    char *arguments[13] = {program, option, strdup(peer_py), strdup(task->library), strdup(task->task)},
         *list[MOST_VARIABLES];
    const uint32_t values[] = {task->n_tokens, task->n_experts, task->k,      task->capacity,
                               task->d_model,  task->d_ff,      task->threads};
    snprintf(program, sizeof program, "%s", python);
    for (int i = 0; i < 7; i++) {
        snprintf(number[i], sizeof number[i], "%u", values[i]);
        arguments[5 + i] = number[i];
    }
    struct peer *peer = calloc(1, sizeof *peer);
    const bool ready = peer && arguments[2] && arguments[3] && arguments[4] && variables(task->blas, path, list) &&
                       start(peer, arguments, list) && greet(peer, task);
    for (int i = 2; i < 5; i++)
        free(arguments[i]);
    if (ready)
        return peer;
    peer_close(peer);
    return NULL;
}

struct peer *peer_open(const struct peer_task *task)
{
    static const char *const pythons[] = {"/usr/bin/python3", "python3"};
    static const char *missing[4]; /* libraries that no python has */
    uint32_t n = 0;
    for (; n < 4 && missing[n]; n++)
        if (strcmp(missing[n], task->library) == 0)
            return NULL;
    for (uint32_t i = 0; i < sizeof pythons / sizeof *pythons; i++) {
        struct peer *peer = open_with(pythons[i], task);
        if (peer)
            return peer;
    }
    if (!task->blas && n < 4)
        missing[n] = task->library;
    return NULL;
}

void peer_close(struct peer *peer)
{
    if (!peer)
        return;
    if (peer->to)
        fclose(peer->to);
    if (peer->from)
        fclose(peer->from);
    if (peer->process > 0)
        waitpid(peer->process, NULL, 0);
    free(peer);
}

const char *peer_name(const struct peer *peer)
{
    return peer->name;
}

struct machine_time peer_run(struct peer *peer, const char *order, uint32_t times)
{
    struct machine_time span;
    fprintf(peer->to, "%s %u\n", order, times);
    if (fflush(peer->to) ||
        fscanf(peer->from, "%lf %lf %lf %lf", &span.clock_s, &span.cpu_s, &peer->cpu_s, &peer->found) != 4)
        return (struct machine_time){NAN, NAN};
    return span;
}

double peer_found(const struct peer *peer)
{
    return peer->found;
}

double peer_cpu(const struct peer *peer)
{
    return peer->cpu_s;
}
