/* moesim new: what it writes, and what it refuses. That the result compiles and passes is build-aux/check-install's
 * part. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(new, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 60);

Test(new, writes_three_files_with_the_name_filled_in)
{
    struct heard h = program_run("new router half-open");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.out, "half-open.c"), "%s", h.out);
    program_forget(&h);
    static const char *const files[] = {"half-open/half-open.c", "half-open/meson.build", "half-open/README.md"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *text = program_read(files[i]);
        cr_assert(text, "%s", files[i]);
        cr_expect(strstr(text, "half-open"), "%s", files[i]);
        cr_expect(!strstr(text, "@NAME@") && !strstr(text, "@IDENT@"), "%s", files[i]);
        free(text);
    }
    char *source = program_read("half-open/half-open.c");
    cr_expect(strstr(source, "MOESIM_PLUGIN(half_open_router);"), "%s", source);
    free(source);
}

Test(new, refuses_and_leaves_nothing)
{
    static const struct {
        const char *words, *says;
        int status;
    } cases[] = {
        {"new router Big", "no router name", 2},
        {"new router 9lives", "no router name", 2},
        {"new router a_b", "no router name", 2},
        {"new router moesim-x", "no router name", 2},
        {"new router é", "no router name", 2},
        {"new router ''", "no router name", 2},
        {"new router 'a b'", "no router name", 2},
        {"new router ../x", "no router name", 2},
        {"new router x.so", "no router name", 2},
        {"new router abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuv", "at most 48", 2}, /* 49 */
        {"new router test", "meson", 2},
        {"new router clean-gcda", "meson", 2},
        {"new router switch", "already", 2},
        {"new workload x", "cannot be made", 2},
        {"new router ok no/such/folder", "No such", 4},
        {"new router", "", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("%s", cases[i].words);
        cr_expect_eq(h.status, cases[i].status, "%s: %d %s", cases[i].words, h.status, h.err);
        cr_expect(strstr(h.err, cases[i].says), "%s: %s", cases[i].words, h.err);
        program_forget(&h);
    }
    cr_expect(!program_exists("Big") && !program_exists("switch") && !program_exists("ok"));
    struct heard h = program_run("new router once");
    program_forget(&h);
    h = program_run("new router once");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "exists"), "%s", h.err);
    program_forget(&h);
    program_write("file", "mine\n");
    h = program_run("new router once file");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "exists"), "%s", h.err);
    program_forget(&h);
    char *text = program_read("file");
    cr_expect_str_eq(text, "mine\n");
    free(text);
}
