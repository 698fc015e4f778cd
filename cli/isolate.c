/* A verb in a child. */
#include "cli/isolate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/file.h"
#include "cli/message.h"
#include "cli/process.h"
#include "cli/stop.h"

int isolate_call(const struct cli_call *call, const char *plugin, const char *output)
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
    int ended = 0;
    stop_watch();
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR)
        if (stop_signal())
            kill(pid, SIGKILL);
    char end[96], temporary[4096];
    if (output && cli_file_temporary(output, (long)pid, temporary, sizeof temporary))
        unlink(temporary); /* where all went well it has its own name now */
    int exit = WIFEXITED(ended) ? WEXITSTATUS(ended) - ISOLATED_EXIT : -1;
    if ((exit >= CLI_DONE && exit <= CLI_THRESHOLD) || exit == CLI_INTERRUPTED || exit == CLI_TERMINATED)
        return exit;
    if (stop_signal())
        return stop_exit();
    return cli_fail(CLI_SOME_FAILED, "the process that ran plugin %s %s%s", plugin, process_end(ended, end),
                    output ? "; nothing was written" : "");
}
