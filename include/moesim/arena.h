/* SPDX-License-Identifier: MIT
 *
 * Run memory: allocated while a run is set up, given back all at once when it ends.
 */
#ifndef MOESIM_ARENA_H
#define MOESIM_ARENA_H

#include <stddef.h>

#include <moesim/status.h>

struct moesim_arena;

/* A new arena that refuses to grow past `limit_bytes` (0 = no limit); NULL when there is no memory. */
MOESIM_API struct moesim_arena *moesim_arena_create(size_t limit_bytes);

/* Gives back the arena and all that was allocated from it; NULL is allowed. */
MOESIM_API void moesim_arena_destroy(struct moesim_arena *arena);

/* Zeroed memory for n elements of `size` bytes, aligned to 64 bytes, owned by the arena.
 * NULL when n * size overflows, passes the limit or cannot be had; n = 0 gives a valid pointer. */
MOESIM_API void *moesim_alloc(struct moesim_arena *arena, size_t n, size_t size);

/* The same, but what large blocks hold is not set: for arrays that are written before they are read, and large enough
 * for clearing them to be felt. */
MOESIM_API void *moesim_alloc_unset(struct moesim_arena *arena, size_t n, size_t size);

/* A copy of `text` owned by the arena; NULL as for moesim_alloc. */
MOESIM_API char *moesim_strdup(struct moesim_arena *arena, const char *text);

/* Bytes handed out so far, rounding included. */
MOESIM_API size_t moesim_arena_used(const struct moesim_arena *arena);

#endif
