/* Messages, their sanitising, and the fate of stdout. */
#include "cli/message.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moesim/param.h>

char *cli_printable(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c && n + 1 < size; c++) {
        if (*c < 0x20 || *c == 0x7f) {
            out[n++] = '?';
        } else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) { /* C1 in UTF-8: some terminals obey it */
            out[n++] = '?';
            c++;
        } else {
            out[n++] = (char)*c;
        }
    }
    out[n] = '\0';
    return out;
}

static void say(const char *label, const char *format, va_list list)
{
    char raw[2048], text[2048];
    vsnprintf(raw, sizeof raw, format, list);
    fprintf(stderr, "moesim: %s%s\n", label, cli_printable(raw, text, sizeof text));
}

int cli_fail(int exit, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    say("", format, list);
    va_end(list);
    return exit;
}

void cli_note(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    say("note: ", format, list);
    va_end(list);
}

static int exit_of(enum moesim_status status)
{
    switch (status) {
    case MOESIM_OK:
        return CLI_DONE;
    case MOESIM_EINVAL:
    case MOESIM_EREFUSE:
        return CLI_USAGE;
    case MOESIM_EPLUGIN:
        return CLI_PLUGIN;
    case MOESIM_EIO:
        return CLI_DISK;
    case MOESIM_ESTOP:
        return CLI_INTERRUPTED;
    case MOESIM_ENOMEM:
    case MOESIM_EBROKEN:
    case MOESIM_EDIVERGED:
        break;
    }
    return CLI_SOME_FAILED;
}

int cli_fail_status(enum moesim_status status, const struct moesim_error *err)
{
    return cli_fail(exit_of(status), "%s", err->text);
}

const char *cli_nearest(const char *word, const char *const *words)
{
    const char *best = NULL;
    uint32_t least = 3;
    for (; *words; words++) {
        uint32_t distance = moesim_edit_distance(word, *words, 2);
        if (distance < least && distance < strlen(word)) {
            least = distance;
            best = *words;
        }
    }
    return best;
}

bool cli_output_lost(void)
{
    return ferror(stdout) != 0;
}

int cli_finish_output(int exit)
{
    errno = 0;
    bool lost = fflush(stdout) != 0;
    int error = errno;
    if (!lost && !ferror(stdout))
        return exit;
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    if (error == EPIPE || (poll(&out, 1, 0) == 1 && (out.revents & POLLERR)))
        return exit;
    return cli_fail(CLI_DISK, "the results could not be written to standard output: %s",
                    error ? strerror(error) : "write error");
}

bool cli_colour(int fd)
{
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fd) && !(no_colour && *no_colour) && term && strcmp(term, "dumb") != 0;
}
