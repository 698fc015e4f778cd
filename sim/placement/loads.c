/*
 * Loads as they come from files: nothing that a file may hold goes on unseen.
 */
#include "sim/placement/loads.h"

#include <float.h>

static enum moesim_status check_shape(const struct moesim_file_array *a, uint32_t n_layers, uint32_t n_experts,
                                      struct moesim_error *err)
{
    const uint32_t d = a->n_dimensions;
    const bool shaped = d == 1 || d == 2;
    if (!n_experts && (!shaped || a->shape[d - 1] > 65536 || (d == 2 && a->shape[0] > 65535)))
        return moesim_fail(err, MOESIM_EINVAL,
                           "%llu numbers in %u dimensions; it should be [experts] or [layers, experts], at most 65536 "
                           "experts in 65535 layers",
                           (unsigned long long)a->n, d);
    if (!n_experts || (shaped && a->shape[d - 1] == n_experts && (d == 1 || a->shape[0] == n_layers)))
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL,
                       "%llu numbers in %u dimensions; it should be [%u] or [%u, %u] (layers, experts)",
                       (unsigned long long)a->n, d, n_experts, n_layers, n_experts);
}

enum moesim_status moesim_loads_check(const struct moesim_file_array *a, uint32_t n_layers, uint32_t n_experts,
                                      struct moesim_error *err)
{
    const enum moesim_status status = check_shape(a, n_layers, n_experts, err);
    if (status != MOESIM_OK)
        return status;
    const uint64_t width = a->shape[a->n_dimensions - 1];
    double sum = 0;
    for (uint64_t i = 0; i < a->n; i++) {
        if (!(a->values[i] >= 0 && a->values[i] <= FLT_MAX))
            return moesim_fail(err, MOESIM_EINVAL, "load %llu is %g; loads are 0 or more", (unsigned long long)i,
                               (double)a->values[i]);
        sum += (double)a->values[i];
        if ((i + 1) % width == 0 && !(sum > 0))
            return moesim_fail(err, MOESIM_EINVAL, "the loads of row %llu are all 0", (unsigned long long)(i / width));
        sum = (i + 1) % width == 0 ? 0 : sum;
    }
    return MOESIM_OK;
}

uint32_t moesim_loads_skip_dense(struct moesim_file_array *a)
{
    uint64_t i = 0;
    while (i < a->n && a->values[i] == 0)
        i++;
    if (a->n_dimensions != 2 || i == a->n)
        return 0;
    const uint64_t dense = i / a->shape[1];
    a->values += dense * a->shape[1];
    a->n -= dense * a->shape[1];
    a->shape[0] -= dense;
    return (uint32_t)dense;
}
