/* The parent's side of the workers. */
#include "cli/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/isolate.h"
#include "cli/process.h"
#include "cli/progress.h"

#define MAX_MESSAGE (UINT64_C(1) << 31)
#define LINE 256
#define SAVING_S 60 /* that a stopped training has to end its step and save its model */

struct worker {
    pid_t pid;           /* 0 = none */
    int to, from, error; /* error: -1 when it was closed at the other end */
    bool once;           /* ends with its group */
    const uint32_t *point;
    uint32_t n_points, n_left;
    bool *answered;    /* [n_points] */
    double deadline_s; /* 0 = none */
    time_t started;
    char *in; /* bytes of an unfinished message */
    size_t n_in, in_room;
    char line[LINE], last_line[LINE]; /* of its stderr: being read, and the last whole one */
    size_t n_line;
    char reason[512]; /* why the points left have failed; "" = they have not */
};

struct worker_pool {
    struct worker_setup setup;
    uint32_t n;
    struct worker worker[];
};

enum moesim_status worker_pool_create(const struct worker_setup *setup, struct worker_pool **pool,
                                      struct moesim_error *err)
{
    *pool = calloc(1, sizeof **pool + setup->n_workers * sizeof(struct worker));
    if (!*pool)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    (*pool)->setup = *setup;
    (*pool)->n = setup->n_workers;
    return MOESIM_OK;
}

static void close_pipes(struct worker *w)
{
    close(w->to);
    close(w->from);
    if (w->error >= 0)
        close(w->error);
    free(w->in);
    w->in = NULL;
    w->n_in = w->in_room = w->n_line = 0;
    w->pid = 0;
}

/* Lets a worker end by itself: an idle one, or one that saves a training. */
static void dismiss(struct worker *w, double seconds)
{
    bool late;
    close(w->to);
    process_wait(w->pid, seconds, &late);
    w->to = -1;
    close_pipes(w);
}

static bool is_training(const struct worker_pool *pool, const struct worker *w)
{
    return w->pid && w->n_left && pool->setup.points[w->point[0]]->mode == MOESIM_MODE_TRAIN;
}

void worker_pool_destroy(struct worker_pool *pool)
{
    if (!pool)
        return;
    for (uint32_t i = 0; i < pool->n; i++) {
        struct worker *w = &pool->worker[i];
        if (w->pid && w->n_left)
            kill(w->pid, is_training(pool, w) ? SIGTERM : SIGKILL);
    }
    for (uint32_t i = 0; i < pool->n; i++) {
        struct worker *w = &pool->worker[i];
        if (w->pid)
            dismiss(w, is_training(pool, w) ? SAVING_S : 2);
        free(w->answered);
    }
    free(pool);
}

bool worker_pool_has_room(const struct worker_pool *pool)
{
    for (uint32_t i = 0; i < pool->n; i++)
        if (!pool->worker[i].n_left)
            return true;
    return false;
}

bool worker_pool_is_busy(const struct worker_pool *pool)
{
    for (uint32_t i = 0; i < pool->n; i++)
        if (pool->worker[i].n_left)
            return true;
    return false;
}

/* ---- starting and sending ---- */

/* Everything, or false: the worker is gone, which its end will explain. */
static bool send_bytes(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t sent = write(fd, bytes, n);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        bytes += sent;
        n -= (size_t)sent;
    }
    return true;
}

static enum moesim_status start(struct worker_pool *pool, struct worker *w, struct moesim_error *err)
{
    int pipes[3][2];
    for (int i = 0; i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC) != 0) {
            while (i--) {
                close(pipes[i][0]);
                close(pipes[i][1]);
            }
            return moesim_fail(err, MOESIM_EIO, "a worker process could not be started: %s", strerror(errno));
        }
    char verb[] = "__worker", *argv[] = {verb, NULL};
    enum moesim_status status = process_spawn(argv, pipes[0][0], pipes[1][1], pipes[2][1], true, &w->pid, err);
    close(pipes[0][0]);
    close(pipes[1][1]);
    close(pipes[2][1]);
    w->to = pipes[0][1];
    w->from = pipes[1][0];
    w->error = pipes[2][0];
    w->last_line[0] = '\0';
    if (status) {
        close_pipes(w);
        return status;
    }
    char head[96];
    snprintf(head, sizeof head, "setup %zu %u %" PRIu64 "\n", strlen(pool->setup.source_json), pool->setup.threads,
             pool->setup.memory_bytes);
    if (send_bytes(w->to, head, strlen(head)))
        (void)!send_bytes(w->to, pool->setup.source_json, strlen(pool->setup.source_json));
    return MOESIM_OK;
}

static struct worker *idle_worker(struct worker_pool *pool)
{
    struct worker *found = NULL;
    for (uint32_t i = 0; i < pool->n; i++) {
        struct worker *w = &pool->worker[i];
        if (!w->n_left && (!found || w->pid))
            found = w;
    }
    return found;
}

/* Notes the group in `w`; its deadline starts now. */
static bool take_group(const struct worker_setup *setup, struct worker *w, const uint32_t *point, uint32_t n)
{
    bool *answered = realloc(w->answered, n * sizeof *answered);
    if (!answered)
        return false;
    memset(answered, 0, n * sizeof *answered);
    w->answered = answered;
    w->point = point;
    w->n_points = w->n_left = n;
    w->once = setup->points[point[0]]->router->plugin;
    w->reason[0] = '\0';
    w->started = time(NULL);
    double limit = setup->timeout_s > 0 ? setup->timeout_s : w->once ? PLUGIN_TIMEOUT_S : 0;
    w->deadline_s = limit > 0 ? progress_clock_s() + limit : 0;
    return true;
}

enum moesim_status worker_pool_send(struct worker_pool *pool, const uint32_t *point, uint32_t n,
                                    struct moesim_error *err)
{
    struct worker *w = idle_worker(pool);
    enum moesim_status status = MOESIM_OK;
    if (w->pid && pool->setup.points[point[0]]->router->plugin)
        dismiss(w, 2);
    if (!w->pid)
        status = start(pool, w, err);
    size_t room = 32 + (size_t)n * 32, used = 0;
    char *line = status ? NULL : malloc(room);
    if (!status && (!line || !take_group(&pool->setup, w, point, n)))
        status = moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    if (!status) {
        used = (size_t)snprintf(line, room, "run %u", n);
        for (uint32_t i = 0; i < n; i++)
            used += (size_t)snprintf(line + used, room - used, " %u:%016" PRIx64, point[i],
                                     pool->setup.points[point[i]]->hash);
        line[used++] = '\n';
        (void)!send_bytes(w->to, line, used);
    }
    free(line);
    return status;
}

/* ---- hearing ---- */

/* Keeps the last line that is not empty. */
static void hear_stderr(struct worker *w, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            if (w->n_line + 1 < LINE)
                w->line[w->n_line++] = bytes[i];
            continue;
        }
        w->line[w->n_line] = '\0';
        if (w->n_line)
            memcpy(w->last_line, w->line, w->n_line + 1);
        w->n_line = 0;
    }
}

/* What is there, but no more than a pipe holds: who writes without end must not keep us. */
static void drain_stderr(struct worker *w)
{
    char bytes[4096];
    struct pollfd from = {.fd = w->error, .events = POLLIN};
    for (int i = 0; i < 16 && w->error >= 0 && poll(&from, 1, 0) == 1; i++) {
        ssize_t n = read(w->error, bytes, sizeof bytes);
        if (n > 0) {
            hear_stderr(w, bytes, (size_t)n);
        } else {
            close(w->error);
            w->error = -1;
        }
    }
}

/* The worker is over: its points that are left have failed for `why`, NULL = for the way it ended. */
static void end_worker(struct worker *w, const char *why)
{
    char end[96], text[128];
    bool late;
    if (why)
        kill(w->pid, SIGKILL);
    int status = process_wait(w->pid, 5, &late);
    kill(-w->pid, SIGKILL); /* its own children, if it has any */
    drain_stderr(w);
    hear_stderr(w, "\n", 1);
    if (!why) {
        snprintf(text, sizeof text, "the worker process %s", process_end(status, end));
        why = text;
    }
    snprintf(w->reason, sizeof w->reason, "%s%s%s", why, *w->last_line ? "; its last words: " : "", w->last_line);
    close_pipes(w);
}

static bool take_bytes(struct worker *w)
{
    if (w->in_room - w->n_in < 65536) {
        size_t room = 2 * w->in_room + 131072;
        char *more = realloc(w->in, room);
        if (!more)
            return false;
        w->in = more;
        w->in_room = room;
    }
    ssize_t n = read(w->from, w->in + w->n_in, w->in_room - w->n_in);
    if (n > 0)
        w->n_in += (size_t)n;
    return n > 0;
}

static int index_of(const struct worker *w, uint32_t point)
{
    for (uint32_t i = 0; i < w->n_points; i++)
        if (w->point[i] == point && !w->answered[i])
            return (int)i;
    return -1;
}

static char *copy_of(const char *bytes, size_t n)
{
    char *copy = malloc(n + 1);
    if (copy) {
        memcpy(copy, bytes, n);
        copy[n] = '\0';
    }
    return copy;
}

/* Takes a whole message out of the bytes; false when there is none. Nonsense ends the worker. */
static bool next_message(struct worker *w, struct worker_event *event)
{
    char *newline = w->n_in ? memchr(w->in, '\n', w->n_in) : NULL;
    if (!newline && w->n_in < 64)
        return false;
    char kind[16], text[64];
    uint32_t point;
    uint64_t size;
    int index = -1;
    if (newline && newline - w->in < 64)
        snprintf(text, sizeof text, "%.*s", (int)(newline - w->in), w->in);
    if (newline && newline - w->in < 64 && sscanf(text, "%15s %" SCNu32 " %" SCNu64, kind, &point, &size) == 3 &&
        size < MAX_MESSAGE && (strcmp(kind, "outcome") == 0 || strcmp(kind, "failed") == 0))
        index = index_of(w, point);
    if (index < 0) {
        end_worker(w, "the worker process sent what is no result");
        return false;
    }
    size_t head = (size_t)(newline + 1 - w->in);
    if (w->n_in - head < size)
        return false;
    *event = (struct worker_event){.news = kind[0] == 'o' ? WORKER_OUTCOME : WORKER_FAILED,
                                   .point = point,
                                   .text = copy_of(newline + 1, size),
                                   .size = size,
                                   .started = w->started};
    w->n_in -= head + size;
    memmove(w->in, newline + 1 + size, w->n_in);
    w->answered[index] = true;
    if (--w->n_left == 0) {
        w->deadline_s = 0;
        if (w->once)
            dismiss(w, 2);
    }
    return true;
}

/* One of the points that a dead worker left behind. */
static bool next_failure(struct worker *w, struct worker_event *event)
{
    if (!w->n_left || !*w->reason)
        return false;
    for (uint32_t i = 0; i < w->n_points; i++) {
        if (w->answered[i])
            continue;
        w->answered[i] = true;
        w->n_left--;
        *event = (struct worker_event){.news = WORKER_FAILED,
                                       .point = w->point[i],
                                       .text = strdup(w->reason),
                                       .size = strlen(w->reason),
                                       .started = w->started};
        return true;
    }
    return false;
}

static bool next_event(struct worker_pool *pool, struct worker_event *event)
{
    for (uint32_t i = 0; i < pool->n; i++) {
        struct worker *w = &pool->worker[i];
        if (w->pid && w->n_left && next_message(w, event))
            return true;
        if (next_failure(w, event))
            return true;
    }
    return false;
}

static bool is_dead(const struct worker *w)
{
    siginfo_t end = {.si_pid = 0};
    return w->pid && waitid(P_PID, (id_t)w->pid, &end, WEXITED | WNOHANG | WNOWAIT) == 0 && end.si_pid == w->pid;
}

static void check_deadline(const struct worker_pool *pool, struct worker *w)
{
    if (!w->pid || w->deadline_s <= 0 || progress_clock_s() < w->deadline_s)
        return;
    char why[96];
    snprintf(why, sizeof why, "timed out after %g s",
             pool->setup.timeout_s > 0 ? pool->setup.timeout_s : PLUGIN_TIMEOUT_S);
    end_worker(w, why);
}

/* Waits for bytes of any worker, reads them, and ends those that closed their pipe or are late. */
static void hear(struct worker_pool *pool, double seconds)
{
    struct pollfd from[2 * 256];
    struct worker *of[256];
    nfds_t n = 0;
    for (uint32_t i = 0; i < pool->n && n < 256; i++) {
        struct worker *w = &pool->worker[i];
        if (!w->pid || !w->n_left)
            continue;
        of[n] = w;
        from[2 * n] = (struct pollfd){.fd = w->from, .events = POLLIN};
        from[2 * n + 1] = (struct pollfd){.fd = w->error, .events = POLLIN};
        n++;
    }
    int ready = poll(from, 2 * n, (int)(seconds * 1000));
    for (nfds_t i = 0; ready > 0 && i < n; i++) {
        if (from[2 * i + 1].revents)
            drain_stderr(of[i]);
        if (from[2 * i].revents && !take_bytes(of[i]))
            end_worker(of[i], NULL);
    }
    for (nfds_t i = 0; ready == 0 && i < n; i++)
        if (is_dead(of[i])) /* a child of its own may hold the pipe open */
            end_worker(of[i], NULL);
    for (nfds_t i = 0; i < n; i++)
        check_deadline(pool, of[i]);
}

enum moesim_status worker_pool_wait(struct worker_pool *pool, double seconds, struct worker_event *event,
                                    struct moesim_error *err)
{
    *event = (struct worker_event){.news = WORKER_QUIET};
    if (!next_event(pool, event)) {
        hear(pool, seconds);
        (void)!next_event(pool, event);
    }
    if (event->news != WORKER_QUIET && !event->text)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    return MOESIM_OK;
}
