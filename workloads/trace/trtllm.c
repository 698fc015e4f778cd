/*
 * TensorRT-LLM's expert statistics, summed over ranks and iterations.
 */
#include "workloads/trace/trtllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/json_scan.h"
#include "workloads/trace/rows.h"
#include "workloads/trace/safetensors.h"

/* "12_3": iteration 12, layer 3. */
static bool parse_name(const struct trace_member *m, uint32_t *layer)
{
    uint64_t number[2] = {0, 0};
    uint32_t part = 0, digits = 0;
    for (size_t i = 0; i < m->n_name; i++) {
        if (m->name[i] == '_' && part == 0 && digits > 0) {
            part = 1;
            digits = 0;
        } else if (m->name[i] >= '0' && m->name[i] <= '9' && digits < 9) {
            number[part] = number[part] * 10 + (uint64_t)(m->name[i] - '0');
            digits++;
        } else {
            return false;
        }
    }
    *layer = (uint32_t)number[1];
    return part == 1 && digits > 0;
}

bool trtllm_is_rank(const struct trace_member *members, size_t n)
{
    uint32_t layer;
    for (size_t i = 0; i < n; i++)
        if (!parse_name(&members[i], &layer))
            return false;
    return n > 0;
}

static enum moesim_status add_tensor(const char *path, const struct trace_member *m, uint32_t n_experts,
                                     struct trace_rows *rows, struct moesim_error *err)
{
    uint32_t layer;
    const int n_name = (int)(m->n_name < 64 ? m->n_name : 64);
    if (!parse_name(m, &layer))
        return moesim_fail(err, MOESIM_EIO, "%.300s: tensor '%.*s' is not named ITERATION_LAYER", path, n_name,
                           m->name);
    if (m->array.n_dimensions != 1 || (n_experts && m->array.n != n_experts))
        return moesim_fail(err, MOESIM_EIO,
                           "%.300s: tensor '%.*s' holds %llu numbers; one for each of the %u experts is "
                           "needed",
                           path, n_name, m->name, (unsigned long long)m->array.n, n_experts);
    enum moesim_status status = MOESIM_OK;
    for (uint64_t e = 0; !status && e < m->array.n; e++) {
        double count;
        npy_read_double(&m->array, e, 1, &count);
        status = trace_rows_count(rows, layer, e < UINT32_MAX ? (uint32_t)e : UINT32_MAX, count, err);
    }
    if (status)
        moesim_error_prefix(err, "%.300s: tensor '%.*s'", path, n_name, m->name);
    return status;
}

static enum moesim_status add_rank(const char *path, const struct trace_member *members, size_t n, uint32_t n_experts,
                                   struct trace_rows *rows, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (size_t i = 0; !status && i < n; i++)
        status = add_tensor(path, &members[i], n_experts, rows, err);
    return status;
}

enum moesim_status trtllm_open_rank(const char *path, const struct trace_member *members, size_t n,
                                    const struct trace_options *options, struct trace_source *source,
                                    struct moesim_error *err)
{
    struct trace_rows *rows;
    enum moesim_status status = trace_rows_create(path, options, &rows, err);
    if (status)
        return status;
    status =
        add_rank(path, members, n, options->n_experts ? options->n_experts : (uint32_t)members[0].array.n, rows, err);
    if (!status)
        status = trace_rows_finish(rows, source, err);
    trace_rows_destroy(rows);
    return status;
}

/* ---- the folder ---- */

/* num_experts of meta_info.json. */
static enum moesim_status read_meta(const char *folder, uint32_t *n_experts, struct moesim_error *err)
{
    char *path;
    struct mapping file;
    if (asprintf(&path, "%s/meta_info.json", folder) < 0)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    enum moesim_status status = mapping_open(path, "TensorRT-LLM's meta_info.json", &file, err);
    if (!status) {
        const char *text = (const char *)file.bytes;
        struct scan j = {path, text, text, text + file.size, err};
        struct scan_walk walk;
        struct scan_text key;
        int64_t value = 0;
        status = scan_open(&j, SCAN_OBJECT, &walk);
        while (!status && !(status = scan_member(&j, &walk, &key)) && walk.more) {
            if (scan_is(key, "num_experts"))
                status = scan_whole(&j, "num_experts", &value);
            else
                status = scan_skip(&j);
        }
        if (!status && (value < 1 || value > TRACE_MAX_EXPERTS))
            status = moesim_fail(err, MOESIM_EIO, "%.300s: num_experts should be a number from 1 to %u", path,
                                 TRACE_MAX_EXPERTS);
        *n_experts = (uint32_t)value;
        mapping_close(&file);
    }
    free(path);
    return status;
}

static enum moesim_status add_file(const char *path, uint32_t n_experts, struct trace_rows *rows,
                                   struct moesim_error *err)
{
    struct mapping file;
    struct trace_member *members;
    size_t n;
    enum moesim_status status = safetensors_open(path, &file, &members, &n, err);
    if (status)
        return status;
    status = add_rank(path, members, n, n_experts, rows, err);
    free(members);
    mapping_close(&file);
    return status;
}

enum moesim_status trace_open_trtllm_folder(const char *path, const struct trace_options *options,
                                            struct trace_source *source, struct moesim_error *err)
{
    uint32_t n_experts = 0;
    char **paths = NULL;
    size_t n = 0;
    struct trace_rows *rows = NULL;
    enum moesim_status status = read_meta(path, &n_experts, err);
    if (!status && options->n_experts && options->n_experts != n_experts)
        status = moesim_fail(err, MOESIM_EINVAL, "%.300s has loads of %u experts, not of %u", path, n_experts,
                             options->n_experts);
    if (!status)
        status = trace_list_ranks(path, "rank", ".safetensors", &paths, &n, err);
    if (!status)
        status = trace_rows_create(path, options, &rows, err);
    for (size_t i = 0; !status && i < n; i++)
        status = add_file(paths[i], n_experts, rows, err);
    if (!status)
        status = trace_rows_finish(rows, source, err);
    trace_rows_destroy(rows);
    trace_free_list(paths, n);
    return status;
}
