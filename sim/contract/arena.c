/* SPDX-License-Identifier: MIT
 *
 * The arena: large chunks from the heap, handed out in 64-byte steps. Fresh chunks of the size that allocators map
 * straight from the kernel cost nothing until touched, so a generous upper bound on a plan is only address space.
 */
#include <moesim/arena.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT ((size_t)64)
#define CHUNK_BYTES ((size_t)256 << 10)
#define HUGE_BYTES                                                                                                     \
    ((size_t)8 << 20) /* from here on pages of 2 MB are worth asking for: first touched 6 times as fast */
#define MOST_BYTES ((size_t)PTRDIFF_MAX / 2) /* no object is larger, and sums of sizes stay below SIZE_MAX */

struct chunk {
    struct chunk *next;
    char *free, *end; /* aligned; the rest of the chunk */
};

struct moesim_arena {
    struct chunk *chunks; /* the first is the one being filled */
    size_t used, limit;
};

struct moesim_arena *moesim_arena_create(size_t limit_bytes)
{
    struct moesim_arena *arena = calloc(1, sizeof *arena);
    if (arena)
        arena->limit = limit_bytes ? limit_bytes : SIZE_MAX;
    return arena;
}

void moesim_arena_destroy(struct moesim_arena *arena)
{
    if (!arena)
        return;
    for (struct chunk *c = arena->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(arena);
}

static void ask_for_huge_pages(struct chunk *chunk)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)2 << 20, first = ((uintptr_t)chunk->free + page - 1) & ~(page - 1);
    const uintptr_t end = (uintptr_t)chunk->end & ~(page - 1);
    if (end > first)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE); /* a wish: it changes no more than the time */
#else
    (void)chunk;
#endif
}

/* A chunk with room for `bytes`; a large request gets a chunk of its own behind the one being filled, which may be left
 * as it comes. Calling malloc for it keeps what an earlier arena gave back from being cleared again. */
static struct chunk *add_chunk(struct moesim_arena *arena, size_t bytes, bool zeroed)
{
    const bool own = bytes > CHUNK_BYTES / 4;
    const size_t room = own ? bytes : CHUNK_BYTES, size = sizeof(struct chunk) + ALIGNMENT + room;
    struct chunk *chunk = own && !zeroed ? malloc(size) : calloc(1, size);
    if (!chunk)
        return NULL;
    chunk->free = (char *)(((uintptr_t)(chunk + 1) + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    chunk->end = chunk->free + room;
    if (room >= HUGE_BYTES)
        ask_for_huge_pages(chunk);
    struct chunk **place = own && arena->chunks ? &arena->chunks->next : &arena->chunks;
    chunk->next = *place;
    *place = chunk;
    return chunk;
}

static void *allocate(struct moesim_arena *arena, size_t n, size_t size, bool zeroed)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > MOST_BYTES)
        return NULL;
    bytes = bytes ? (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1) : ALIGNMENT;
    if (bytes > arena->limit - arena->used)
        return NULL;
    struct chunk *chunk = arena->chunks;
    if (!chunk || (size_t)(chunk->end - chunk->free) < bytes)
        chunk = add_chunk(arena, bytes, zeroed);
    if (!chunk)
        return NULL;
    void *memory = chunk->free;
    chunk->free += bytes;
    arena->used += bytes;
    return memory;
}

void *moesim_alloc(struct moesim_arena *arena, size_t n, size_t size)
{
    return allocate(arena, n, size, true);
}

void *moesim_alloc_unset(struct moesim_arena *arena, size_t n, size_t size)
{
    return allocate(arena, n, size, false);
}

char *moesim_strdup(struct moesim_arena *arena, const char *text)
{
    const size_t n = strlen(text) + 1;
    char *copy = moesim_alloc(arena, n, 1);
    if (copy)
        memcpy(copy, text, n);
    return copy;
}

size_t moesim_arena_used(const struct moesim_arena *arena)
{
    return arena->used;
}
