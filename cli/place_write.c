/* Writers of plans. */
#include "cli/place_write.h"

#include <string.h>

/* "[3, 1, 4]": the experts in slots first .. last - 1. */
static void write_experts(FILE *out, const struct moesim_placement *p, uint32_t first, uint32_t last)
{
    fputc('[', out);
    for (uint32_t s = first; s < last; s++)
        fprintf(out, s > first ? ", %u" : "%u", p->expert[s]);
    fputc(']', out);
}

static void write_moesim(FILE *out, const struct moesim_placement *placement, uint32_t n_layers, uint32_t first_layer)
{
    (void)first_layer; /* layers are in order, without numbers */
    fputs("{\"layers\": [", out);
    for (uint32_t l = 0; l < n_layers; l++) {
        const struct moesim_placement *p = &placement[l];
        fputs(l ? ",\n{\"devices\": [" : "\n{\"devices\": [", out);
        for (uint32_t d = 0; d < p->n_devices; d++) {
            fputs(d ? ", " : "", out);
            write_experts(out, p, p->device_slot[d], p->device_slot[d + 1]);
        }
        fputs("]}", out);
    }
    fputs("\n]}\n", out);
}

static void write_vllm_ascend(FILE *out, const struct moesim_placement *placement, uint32_t n_layers,
                              uint32_t first_layer)
{
    fprintf(out, "{\"moe_layer_count\": %u, \"layer_list\": [", n_layers);
    for (uint32_t l = 0; l < n_layers; l++) {
        const struct moesim_placement *p = &placement[l];
        fprintf(out, "%s\n{\"layer_id\": %u, \"device_count\": %u, \"device_list\": [", l ? "," : "", first_layer + l,
                p->n_devices);
        for (uint32_t d = 0; d < p->n_devices; d++) {
            fprintf(out, "%s\n  {\"device_id\": %u, \"device_expert\": ", d ? "," : "", d);
            write_experts(out, p, p->device_slot[d], p->device_slot[d + 1]);
            fputc('}', out);
        }
        fputs("]}", out);
    }
    fputs("\n]}\n", out);
}

static void write_trtllm(FILE *out, const struct moesim_placement *placement, uint32_t n_layers, uint32_t first_layer)
{
    fputs("initial_global_assignments:\n", out);
    for (uint32_t l = 0; l < n_layers; l++) {
        fprintf(out, "  %u: ", first_layer + l);
        write_experts(out, &placement[l], 0, placement[l].device_slot[placement[l].n_devices]);
        fputc('\n', out);
    }
    fprintf(out, "num_slots: %u\nlayer_updates_per_iter: 0\n", placement[0].device_slot[placement[0].n_devices]);
}

const struct plan_format plan_formats[] = {
    {"moesim", .write = write_moesim},
    {"vllm-ascend", .equal_slots = true, .distinct = true, .write = write_vllm_ascend},
    {"trtllm", .equal_slots = true, .counts_dense = true, .write = write_trtllm},
    {.name = NULL},
};

const struct plan_format *plan_format_find(const char *name)
{
    for (const struct plan_format *format = plan_formats; format->name; format++)
        if (strcmp(format->name, name) == 0)
            return format;
    return NULL;
}

/* The slot of a device that holds what an earlier one does, or `last`. */
static uint32_t second_copy(const struct moesim_placement *p, uint32_t first, uint32_t last)
{
    for (uint32_t s = first; s < last; s++)
        for (uint32_t i = first; i < s; i++)
            if (p->expert[i] == p->expert[s])
                return s;
    return last;
}

enum moesim_status plan_format_check(const struct plan_format *format, const struct moesim_placement *placement,
                                     uint32_t n_layers, struct moesim_error *err)
{
    for (uint32_t l = 0; l < n_layers; l++)
        for (uint32_t d = 0; d < placement[l].n_devices; d++) {
            const struct moesim_placement *p = &placement[l];
            const uint32_t first = p->device_slot[d], last = p->device_slot[d + 1], slots = placement->device_slot[1];
            const uint32_t again = format->distinct ? second_copy(p, first, last) : last;
            if (format->equal_slots && last - first != slots)
                return moesim_fail(
                    err, MOESIM_EINVAL,
                    "--format %s has as many experts on every device, but the placement has %u on device "
                    "%u of layer %u and %u on the first; make the slots a multiple of the devices",
                    format->name, last - first, d, l, slots);
            if (again < last)
                return moesim_fail(err, MOESIM_EINVAL,
                                   "--format %s cannot have an expert twice on one device, as the placement has expert "
                                   "%u on device %u of layer %u; lpt places no such copies",
                                   format->name, p->expert[again], d, l);
        }
    return MOESIM_OK;
}
