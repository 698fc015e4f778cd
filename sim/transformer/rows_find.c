/*
 * Which build of the row kernels runs on this processor.
 */
#include "sim/transformer/rows.h"

const struct moesim_rows *moesim_rows_find(void)
{
#ifdef MOESIM_HAVE_FMA
    if (__builtin_cpu_supports("avx2"))
        return &moesim_transformer_rows_avx2;
#endif
    return &moesim_transformer_rows_portable;
}
