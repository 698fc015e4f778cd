/*
 * The reader of published tables, with tables that are broken.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "sim/fidelity/csv.h"

TestSuite(fidelity_csv, .timeout = 60);

Test(fidelity_csv, reads_numbers_and_words)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_csv csv;
    const double *ep;
    const char *const *kind;
    cr_assert_eq(
        moesim_csv_read("t.csv", "# a remark, with a comma\n\nep,kind\n8,a\r\n# another\n16.5,b c", arena, &csv, &err),
        MOESIM_OK, "%s", err.text);
    cr_assert(csv.n_columns == 2 && csv.n_rows == 2);
    cr_assert_eq(moesim_csv_numbers(&csv, "ep", arena, &ep, &err), MOESIM_OK);
    cr_assert_eq(moesim_csv_words(&csv, "kind", arena, &kind, &err), MOESIM_OK);
    cr_assert(ep[0] == 8 && ep[1] == 16.5);
    cr_assert_str_eq(kind[0], "a");
    cr_assert_str_eq(kind[1], "b c");
    cr_assert_eq(moesim_csv_read("t.csv", "ep,kind\n", arena, &csv, &err), MOESIM_OK);
    cr_assert_eq(csv.n_rows, 0);
    moesim_arena_destroy(arena);
}

Test(fidelity_csv, says_what_is_wrong)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_csv csv;
    const double *numbers;
    static const struct {
        const char *text, *sentence;
    } broken[] = {
        {"", "t.csv is empty; its first line should name the columns"},
        {"# only a remark\n", "t.csv is empty; its first line should name the columns"},
        {"a,b\n1,2\n\n3\n", "t.csv:4 has 1 cells instead of 2"},
        {"a,b\n1,2,3\n", "t.csv:2 has 3 cells instead of 2"},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        cr_assert_eq(moesim_csv_read("t.csv", broken[i].text, arena, &csv, &err), MOESIM_EINVAL, "%zu", i);
        cr_assert_str_eq(err.text, broken[i].sentence);
    }
    cr_assert_eq(moesim_csv_read("t.csv", "a,b,c,d\n1,x,nan,\n2,3,4,5\n", arena, &csv, &err), MOESIM_OK);
    cr_assert_eq(moesim_csv_numbers(&csv, "b", arena, &numbers, &err), MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "t.csv, row 1: b = 'x' is not a finite number");
    cr_assert_eq(moesim_csv_numbers(&csv, "c", arena, &numbers, &err), MOESIM_EINVAL);
    cr_assert_eq(moesim_csv_numbers(&csv, "d", arena, &numbers, &err), MOESIM_EINVAL);
    cr_assert_eq(moesim_csv_numbers(&csv, "e", arena, &numbers, &err), MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "t.csv has no column 'e'");
    moesim_arena_destroy(arena);
}
