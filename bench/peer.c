#include "bench/peer.h"

#include <math.h>
#include <omp.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Starts `arguments` with its standard input and output at our ends of two pipes. */
static bool start(struct peer *peer, char **arguments)
{
    int to[2], from[2];
    if (pipe(to) || pipe(from))
        return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    const int unused[] = {to[0], to[1], from[0], from[1]};
    for (int i = 0; i < 4; i++)
        posix_spawn_file_actions_addclose(&actions, unused[i]);
    const int failed = posix_spawnp(&peer->process, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    peer->to = fdopen(to[1], "w");
    peer->from = fdopen(from[0], "r");
    return !failed && peer->to && peer->from;
}

bool peer_open(struct peer *peer, const char *script, uint32_t n_experts, uint32_t k, uint32_t d_model, uint32_t d_ff,
               uint32_t n_tokens, const uint32_t *expert)
{
    char number[6][16];
    char *arguments[] = {"python3", strdup(script), number[0], number[1], number[2],
                         number[3], number[4],      number[5], NULL};
    const uint32_t values[] = {n_experts, k, d_model, d_ff, n_tokens, (uint32_t)omp_get_max_threads()};
    for (int i = 0; i < 6; i++)
        snprintf(number[i], sizeof number[i], "%u", values[i]);
    *peer = (struct peer){0};
    bool ready = arguments[1] && start(peer, arguments);
    free(arguments[1]);
    if (ready && (!fgets(peer->name, sizeof peer->name, peer->from) || !strncmp(peer->name, "none", 4)))
        ready = false;
    if (!ready) {
        peer_close(peer);
        return false;
    }
    peer->name[strcspn(peer->name, "\n")] = '\0';
    fwrite(expert, sizeof *expert, (size_t)n_tokens * k, peer->to);
    fflush(peer->to);
    return true;
}

struct machine_time peer_run(struct peer *peer, bool backward)
{
    struct machine_time span = {NAN, NAN};
    fputc(backward ? 'b' : 'f', peer->to);
    fflush(peer->to);
    if (fscanf(peer->from, "%lf %lf", &span.wall_s, &span.cpu_s) != 2)
        return (struct machine_time){NAN, NAN};
    span.cpu_s /= omp_get_max_threads();
    return span;
}

void peer_close(struct peer *peer)
{
    if (peer->to)
        fclose(peer->to);
    if (peer->from)
        fclose(peer->from);
    if (peer->process > 0)
        waitpid(peer->process, NULL, 0);
    *peer = (struct peer){0};
}
