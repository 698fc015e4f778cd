/*
 * No router allocates in route(), backward() or update(): every call of malloc and its kin from such a hook is counted
 * while the conformance suite tries shapes and settings. What the OpenMP runtime and the dynamic linker take for their
 * threads is theirs.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "routers/table.h"
#include "sim/experiment/conformance.h"

#define N_SHAPES 30

/* ---- what counts ---- */

static bool in_hook; /* read by the runtime's threads, which run a hook's loops */
static unsigned n_allocations;

static struct range {
    uintptr_t begin, end;
} runtime[8]; /* code whose allocations do not count */
static unsigned n_ranges;

static int note_runtime(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    const char *name = info->dlpi_name;
    if (!strstr(name, "libgomp") && !strstr(name, "libomp") && !strstr(name, "ld-linux"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum && n_ranges < sizeof runtime / sizeof *runtime; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        const uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && part->p_flags & PF_X)
            runtime[n_ranges++] = (struct range){begin, begin + part->p_memsz};
    }
    return 0;
}

static void count(const void *caller)
{
    if (!in_hook)
        return;
    for (unsigned i = 0; i < n_ranges; i++)
        if ((uintptr_t)caller >= runtime[i].begin && (uintptr_t)caller < runtime[i].end)
            return;
    __atomic_fetch_add(&n_allocations, 1, __ATOMIC_RELAXED);
}

/* ---- the C library's allocator under our names, which the dynamic linker finds first ---- */

extern void *__libc_malloc(size_t size), *__libc_calloc(size_t n, size_t size), *__libc_realloc(void *p, size_t size),
    *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    count(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    *p = __libc_memalign(alignment, size);
    return *p ? 0 : ENOMEM;
}

/* ---- a router whose hooks are watched ---- */

static const struct moesim_router *real;

static enum moesim_status route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                struct moesim_error *err)
{
    in_hook = true;
    const enum moesim_status status = real->route(state, batch, plan, err);
    in_hook = false;
    return status;
}

static enum moesim_status backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                   struct moesim_grad *grad, struct moesim_error *err)
{
    in_hook = true;
    const enum moesim_status status = real->backward(state, batch, plan, grad, err);
    in_hook = false;
    return status;
}

static enum moesim_status update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    in_hook = true;
    const enum moesim_status status = real->update(state, feedback, err);
    in_hook = false;
    return status;
}

static void try(const struct moesim_router *router, uint32_t n_shapes)
{
    static struct moesim_conformance result;
    struct moesim_error err;
    struct moesim_router watched = *router;
    real = router;
    watched.route = route;
    watched.backward = router->backward ? backward : NULL;
    watched.update = router->update ? update : NULL;
    cr_assert_eq(moesim_conformance_run(&watched, n_shapes, 2000, &result, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(result.n_failed, 0, "%s", result.failure[0]);
}

/* Starts the OpenMP runtime, which reads files and variables once, and finds its code. */
static void find_runtime(void)
{
    int n_started = 0;
#pragma omp parallel num_threads(4) reduction(+ : n_started)
    n_started++;
    cr_assert(n_started >= 1);
    dl_iterate_phdr(note_runtime, NULL);
    cr_assert(n_ranges >= 2, "no OpenMP runtime or dynamic linker is loaded");
}

TestSuite(router_allocation, .init = find_runtime, .timeout = 120);

ParameterizedTestParameters(router_allocation, no_hook_allocates)
{
    static size_t index[256];
    size_t n = 0;
    for (; routers_table[n]; n++)
        index[n] = n;
    return cr_make_param_array(size_t, index, n);
}

ParameterizedTest(size_t *index, router_allocation, no_hook_allocates)
{
    try(routers_table[*index], N_SHAPES);
    cr_assert_eq(n_allocations, 0, "%s: its hooks allocate, %u times over all", real->name, n_allocations);
}

/* ---- the counter counts ---- */

static enum moesim_status allocate_and_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                             struct moesim_error *err)
{
    moesim_arena_destroy(moesim_arena_create(0)); /* from within libmoesim */
    return routers_table[0]->route(state, batch, plan, err);
}

Test(router_allocation, a_planted_one_is_found)
{
    struct moesim_router planted = *routers_table[0];
    planted.route = allocate_and_route;
    try(&planted, 5);
    cr_assert(n_allocations >= 5, "%u", n_allocations);
}
