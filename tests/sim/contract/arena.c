/*
 * Status sentences, the arena, the hash.
 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <moesim/arena.h>
#include <moesim/hash.h>

TestSuite(arena, .timeout = 60);

static bool holds_only(const char *block, size_t n, char value)
{
    for (size_t i = 0; i < n; i++)
        if (block[i] != value)
            return false;
    return true;
}

Test(arena, hands_out_aligned_zeroed_separate_blocks)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    char *block[300];
    size_t size[300], expected = 0;
    for (size_t i = 0; i < 300; i++) { /* from 1 byte past a chunk's quarter and past a whole chunk */
        size[i] = i < 250 ? 1 + i * 7 : i * 1500;
        const bool zeroed = i % 3 > 0;
        block[i] = zeroed ? moesim_alloc(arena, size[i], 1) : moesim_alloc_unset(arena, size[i], 1);
        cr_assert(block[i]);
        cr_assert_eq((uintptr_t)block[i] % 64, 0);
        cr_assert(!zeroed || holds_only(block[i], size[i], 0));
        memset(block[i], (int)i & 0x7f, size[i]);
        expected += (size[i] + 63) / 64 * 64;
    }
    for (size_t i = 0; i < 300; i++)
        cr_assert(holds_only(block[i], size[i], (char)(i & 0x7f)));
    cr_assert_eq(moesim_arena_used(arena), expected);
    moesim_arena_destroy(arena);
    moesim_arena_destroy(NULL);
}

Test(arena, refuses_overflow_and_its_limit)
{
    struct moesim_arena *arena = moesim_arena_create(1000); /* 15 blocks of 64 bytes */
    cr_assert_null(moesim_alloc(arena, SIZE_MAX, 2));
    cr_assert_null(moesim_alloc(arena, SIZE_MAX / 8 + 1, 8));
    cr_assert_null(moesim_alloc(arena, SIZE_MAX, 1));
    cr_assert_null(moesim_alloc(arena, 1001, 1));
    cr_assert_eq(moesim_arena_used(arena), 0);
    cr_assert(moesim_alloc(arena, 0, 8));
    cr_assert(moesim_alloc(arena, 8, 0));
    cr_assert_eq(moesim_arena_used(arena), 128);
    cr_assert(moesim_alloc(arena, 13 * 64, 1));
    cr_assert_null(moesim_alloc(arena, 1, 1));
    cr_assert_null(moesim_alloc_unset(arena, 1, 1));
    moesim_arena_destroy(arena);

    arena = moesim_arena_create(0);
    cr_assert_null(moesim_alloc(arena, SIZE_MAX - 64, 1)); /* no limit, and still no crash */
    cr_assert_null(moesim_alloc(arena, SIZE_MAX / 2, 1));
    cr_assert_null(moesim_alloc(arena, SIZE_MAX / 3, 1));
    cr_assert_str_eq(moesim_strdup(arena, ""), "");
    cr_assert_str_eq(moesim_strdup(arena, "router"), "router");
    moesim_arena_destroy(arena);
}

Test(arena, failure_sentences)
{
    struct moesim_error err;
    cr_assert_eq(moesim_fail(&err, MOESIM_EIO, "cannot open %s", "a\nb\x1b[1m\x7f"), MOESIM_EIO);
    cr_assert_str_eq(err.text, "cannot open a?b?[1m?");
    moesim_error_prefix(&err, "study %d\t", 7);
    cr_assert_str_eq(err.text, "study 7?: cannot open a?b?[1m?");
    cr_assert_eq(moesim_fail(NULL, MOESIM_EINVAL, "nobody listens"), MOESIM_EINVAL);
    moesim_error_prefix(NULL, "nobody");

    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    cr_assert_eq(moesim_fail(&err, MOESIM_ENOMEM, "%s", longer), MOESIM_ENOMEM);
    cr_assert_eq(strlen(err.text), sizeof err.text - 1);
    moesim_error_prefix(&err, "%s", longer);
    cr_assert_eq(strlen(err.text), sizeof err.text - 1);
    moesim_fail(&err, MOESIM_EINVAL, "short");
    moesim_error_prefix(&err, "%s", "é: UTF-8 passes");
    cr_assert_str_eq(err.text, "é: UTF-8 passes: short");
}

/* Known answers of FNV-1a 64, from the authors' test vectors. */
Test(arena, hash_known_answers)
{
    cr_assert_eq(moesim_hash(MOESIM_HASH_START, "", 0), UINT64_C(0xcbf29ce484222325));
    cr_assert_eq(moesim_hash(MOESIM_HASH_START, "a", 1), UINT64_C(0xaf63dc4c8601ec8c));
    cr_assert_eq(moesim_hash(MOESIM_HASH_START, "foobar", 6), UINT64_C(0x85944171f73967e8));
    cr_assert_eq(moesim_hash(moesim_hash(MOESIM_HASH_START, "foo", 3), "bar", 3), UINT64_C(0x85944171f73967e8));
}
