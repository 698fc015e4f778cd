/*
 * Which products run on this processor.
 */
#include "sim/layer/products.h"

#include <string.h>

static const struct moesim_products *const all[] = {
#ifdef MOESIM_HAVE_FMA
    &moesim_products_avx512,
    &moesim_products_avx2_fma,
#endif
    &moesim_products_openblas,
    &moesim_products_portable,
};

static bool runs_here(const struct moesim_products *products)
{
#ifdef MOESIM_HAVE_FMA
    if (products == &moesim_products_avx512)
        return __builtin_cpu_supports("avx512f");
    if (products == &moesim_products_avx2_fma)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return products != NULL;
}

const struct moesim_products *moesim_products_find(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if ((!name || !strcmp(name, all[i]->name)) && runs_here(all[i])) {
            if (all[i]->start)
                all[i]->start();
            return all[i];
        }
    return NULL;
}
