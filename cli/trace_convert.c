/* moesim trace convert: the same routing in another format. */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/file.h"
#include "cli/message.h"
#include "cli/stop.h"
#include "cli/trace.h"
#include "workloads/trace/export.h"

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* A file or folder that was begun. */
static void remove_all(const char *path)
{
    nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* A pipe or device is written as it is. */
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

static enum moesim_status check_output(const struct trace_call *o, const char *in, const char *out,
                                       const struct trace_export *export, struct moesim_error *err)
{
    const char *const read[] = {in, o->weights, o->sequences};
    struct stat info;
    for (uint32_t i = 0; i < sizeof read / sizeof *read; i++)
        if (read[i] && cli_file_same(read[i], out))
            return moesim_fail(err, MOESIM_EINVAL, "trace convert: %.300s would replace what is read", out);
    if (stat(out, &info) == 0 && (export->folder || S_ISDIR(info.st_mode)))
        return moesim_fail(err, MOESIM_EINVAL, "trace convert: %.300s is there already", out);
    if (o->append && stat(out, &info) != 0)
        return moesim_fail(err, MOESIM_EIO, "%.300s: there is nothing to append to: %s", out, strerror(errno));
    return MOESIM_OK;
}

/* Writes beside the name and renames; appending goes on in place, since what is there stays whole. */
static enum moesim_status write_output(struct trace *trace, const struct trace_export *export,
                                       const struct trace_export_options *options, const char *out,
                                       struct moesim_error *err)
{
    char temporary[4096];
    if (options->append || is_special(out))
        return export->write(trace, out, options, err);
    if (!cli_file_temporary(out, (long)getpid(), temporary, sizeof temporary))
        return moesim_fail(err, MOESIM_EIO, "%.300s: the name is too long", out);
    stop_watch();
    enum moesim_status status = export->write(trace, temporary, options, err);
    if (!status && stop_signal())
        status = moesim_fail(err, MOESIM_ESTOP, "stopped; nothing was written");
    if (!status && rename(temporary, out) != 0)
        status = moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written: %s", out, strerror(errno));
    if (status)
        remove_all(temporary);
    return status;
}

int cli_trace_convert(const struct trace_call *o, const char *const *args)
{
    const char *in = args[0], *out = args[1];
    struct trace *trace = NULL;
    struct trace_export_options options = {.format = o->format, .loads = o->as != NULL, .append = o->append};
    const struct trace_export *export = NULL;
    struct moesim_error err;
    char losses[64] = "";
    enum moesim_status status = cli_trace_open(o, in, &trace, &err);
    if (!status && trace_shape(trace)->all_zero)
        status = moesim_fail(
            &err, MOESIM_EIO,
            "%.300s: all ids are 0: the recorder captured nothing (--experts 1 if there is one expert)", in);
    if (!status)
        status = trace_export_find(trace, out, &options, &export, &err);
    if (!status)
        status = check_output(o, in, out, export, &err);
    if (!status && *trace_note(trace))
        cli_note("%s", trace_note(trace));
    if (!status) {
        trace_export_losses(trace, export, &options, losses, sizeof losses);
        status = write_output(trace, export, &options, out, &err);
    }
    if (!status && *losses)
        cli_note("%s does not hold:%s", export->name, losses);
    trace_close(trace);
    const int exit = status ? cli_fail_status(status, &err) : CLI_DONE;
    return status == MOESIM_ESTOP ? stop_exit() : exit;
}
