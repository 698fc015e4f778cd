/* A verb in a child. */
#include "cli/isolate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/file.h"
#include "cli/message.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/stop.h"

/* The wait status of the child, which is killed when we are asked to stop or after timeout_s (0 = never). */
static int wait_for(pid_t pid, double timeout_s, bool *late)
{
    const double until = progress_clock_s() + timeout_s;
    int ended = 0;
    pid_t done;
    *late = false;
    stop_watch(); /* a signal ends waitpid and nanosleep */
    while ((done = waitpid(pid, &ended, timeout_s > 0 && !*late ? WNOHANG : 0)) == 0 || (done < 0 && errno == EINTR)) {
        *late = timeout_s > 0 && progress_clock_s() > until;
        if (*late || stop_signal())
            kill(pid, SIGKILL);
        else if (done == 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return ended;
}

int isolate_call(const struct cli_call *call, const char *router, const char *output, double timeout_s)
{
    char word[] = "__isolated";
    char **argv = calloc((size_t)call->argc + 2, sizeof *argv);
    struct moesim_error err = {"memory is exhausted"};
    if (!argv)
        return cli_fail(CLI_SOME_FAILED, "%s", err.text);
    argv[0] = word;
    memcpy(argv + 1, call->argv, (size_t)call->argc * sizeof *argv);
    pid_t pid;
    fflush(stdout);
    enum moesim_status status = process_spawn(argv, -1, -1, -1, false, &pid, &err);
    free(argv);
    if (status)
        return cli_fail_status(status, &err);
    bool late;
    const int ended = wait_for(pid, timeout_s, &late);
    char end[96], temporary[4096];
    if (output && cli_file_temporary(output, (long)pid, temporary, sizeof temporary))
        unlink(temporary); /* where all went well it has its own name now */
    int exit = WIFEXITED(ended) ? WEXITSTATUS(ended) - ISOLATED_EXIT : -1;
    if ((exit >= CLI_DONE && exit <= CLI_THRESHOLD) || exit == CLI_INTERRUPTED || exit == CLI_TERMINATED)
        return exit;
    if (stop_signal())
        return stop_exit();
    const char *lost = output ? "; nothing was written" : "";
    if (late)
        return cli_fail(CLI_SOME_FAILED, "router %s timed out after %g s%s", router, timeout_s, lost);
    return cli_fail(CLI_SOME_FAILED, "the process that ran router %s %s%s", router, process_end(ended, end), lost);
}
