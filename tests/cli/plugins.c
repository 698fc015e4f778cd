/* Routers out of tree: loaded by path, refused with a reason, and unable to harm other runs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/program.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* These plugins fall on purpose: a sanitizer must let the signals pass, or its log would be taken for a find. */
static void enter(void)
{
    char options[1024];
    const char *given = getenv("ASAN_OPTIONS");
    snprintf(options, sizeof options, "%s:handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigfpe=0",
             given ? given : "");
    setenv("ASAN_OPTIONS", options, 1);
    program_enter_folder();
}

TestSuite(plugins, .init = enter, .fini = program_leave_folder, .timeout = 120);

#define STUDY "-q --set seeds=2 --set steps=2 --workload gaussian:tokens=64 --set model.layers=1 --set model.experts=8"

static void expect_value(const char *sql, const char *expected)
{
    char *found = program_query("moesim.db", sql);
    cr_expect_str_eq(found, expected, "%s: %s", sql, found);
    free(found);
}

Test(plugins, run_by_path_by_name_and_in_route)
{
    struct heard h = program_run("run " STUDY " --router {P}/good.so --router softmax-topk");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.out, "good.so"));
    expect_value("SELECT count(*) FROM v_runs WHERE state = 'done' AND router LIKE '%good.so'", "2");
    expect_value("SELECT count(*) FROM run WHERE files LIKE '%good.so\":\"%'", "2");
    expect_value("SELECT DISTINCT CAST(dead_experts AS INTEGER) FROM v_runs WHERE router LIKE '%good.so'", "7");
    program_forget(&h);
    h = program_run("run " STUDY " --plugin {P}/good.so --router firstborn --db name.db");
    cr_expect_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    program_write_npy("l.npy", 3, 4, 0);
    h = program_run("route l.npy --router {P}/good.so");
    cr_expect_str_eq(h.out,
                     "layer,token,choice,expert,weight,kept,slot\n0,0,0,0,1,1,0\n0,1,0,0,1,1,1\n0,2,0,0,1,1,2\n");
    cr_expect_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    h = program_run("describe router {P}/good.so");
    cr_expect(strstr(h.out, "firstborn: every token to expert 0"), "%s%s", h.out, h.err);
    program_forget(&h);
}

/* One bad run must not end the others: the study goes on, the point is stored with its reason, the exit status is 1. */
static void expect_isolated(const char *plugin, const char *options, const char *reason)
{
    char db[64], sql[256];
    snprintf(db, sizeof db, "%s.db", plugin);
    struct heard h = program_run("run " STUDY " --db %s --router {P}/%s --router softmax-topk %s", db, plugin, options);
    cr_expect_eq(h.status, 1, "%s: %d %s", plugin, h.status, h.err);
    cr_expect(strstr(h.err, reason), "%s: %s", plugin, h.err);
    cr_expect(strstr(h.out, "softmax-topk"), "%s: the table still comes", plugin);
    program_forget(&h);
    char *done = program_query(db, "SELECT count(*) FROM v_runs WHERE state = 'done' AND router = 'softmax-topk'");
    cr_expect_str_eq(done, "2", "%s", plugin);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM v_runs WHERE state = 'failed' AND reason LIKE '%%%s%%'", reason);
    char *failed = program_query(db, sql);
    cr_expect_str_eq(failed, "2", "%s: %s failed", plugin, failed);
    free(done);
    free(failed);
}

Test(plugins, what_they_do_stays_theirs)
{
    expect_isolated("segv.so", "", "killed by SIGSEGV (Segmentation fault); its last words: about to fall");
    expect_isolated("exit.so", "", "exited with status 0");
    expect_isolated("loop.so", "--timeout 2", "timed out after 2 s");
    expect_isolated("misdeeds.so:deed=stop", "--timeout 2", "timed out after 2 s");
    expect_isolated("misdeeds.so:deed=flood", "--timeout 2", "timed out after 2 s; its last words: 0000");
    expect_isolated("bad_ids.so", "", "1000000");
    struct heard h = program_run("run " STUDY " --db segv.so.db --router {P}/segv.so --router softmax-topk");
    cr_expect_eq(h.status, 1, "what failed before is not tried again, but it counts");
    program_forget(&h);
    h = program_run("run -q --set seeds=2 --set steps=2 --workload gaussian:tokens=64 --set model.layers=1 "
                    "--set model.experts=8 --db segv.so.db --router {P}/segv.so --router softmax-topk --retry-failed");
    cr_expect_eq(h.status, 1);
    cr_expect(strstr(h.err, "SIGSEGV"), "%s", h.err);
    program_forget(&h);
}

/* What misdeeds.so does when its parameter says so, and what the run's reason says of it. */
static const struct {
    const char *deed, *reason;
} deeds[] = {
    {"twice", "token 0, pair 1 (expert 0, slot 1): the token already has this expert"},
    {"no_such_expert", "token 0, pair 0 (expert 8, slot 0): there is no such expert"},
    {"kept_nowhere", "there is no such expert"},
    {"nan_weight", "its weight is not finite"},
    {"infinite_weight", "its weight is not finite"},
    {"refused_weight", "it is refused but has a weight"},
    {"refused_slot", "it is refused but has a slot"},
    {"same_slot", "token 1, pair 0 (expert 0, slot 0): another pair of the group has this slot"},
    {"negative_slot", "its slot is outside the expert's capacity"},
    {"over_capacity", "token 3, pair 0 (expert 0, slot 3): its slot is outside the expert's capacity"},
    {"falling", "first[] does not rise from 0 to 64 pairs"},
    {"lost_pairs", "first[] does not rise from 0 to 64 pairs"},
    {"too_many_pairs", "129 pairs where it asked for room for 128"},
    {"wrong_sum", "67 pairs wanted, but 64 kept"},
    {"bad_rows", "65 bad rows counted"},
    {"unknown_fate", "its fate is none of"},
    {"named_bad_row", "it belongs to a bad row but names an expert"},
    {"nan_loss", "auxiliary loss mine is not finite"},
    {"many_losses", "99 auxiliary losses, at most 8"},
    {"wild_arrays", "killed by SIG"},
    {"no_reason", "its route failed without a reason"},
    {"unknown_status", "its route returned the status 77"},
    {"escape", "?[31mred?and a second line"},
    {"endless_reason", "xxxxxxxxxxxxxxxx"},
    {"abort", "killed by SIGABRT"},
    {"exit3", "exited with status 3"},
    {"quick_exit", "exited with status 0"},
    {"divide", "killed by SIGFPE"},
    {"recurse", "killed by SIGSEGV"},
    {"kill", "killed by SIGKILL"},
    {"fork", "killed by SIGSEGV"},
    {"close_all", "exited with status 1"},
    {"fall_in_shape", "killed by SIGSEGV"},
    {"fall_in_init", "killed by SIGSEGV"},
    {"fall_in_update", "killed by SIGSEGV"},
    {"fall_in_finish", "killed by SIGSEGV"},
    {"fail_in_init", "it does not like this init"},
    {"fail_in_update", "it does not like this update"},
    {"wide_shape", "its shape has more than 2^24 gate columns"},
    {"huge_plan", "does not fit 32 bits"},
    {"heavy", "more than 2^40 weights"},
    {"few_experts", "no experts"},
    {"unknown_group", "unknown group"},
};

static char *softmax_figures(const char *db)
{
    return program_query(db, "SELECT group_concat(figures, ';') FROM (SELECT hash, load_cv || ' ' || max_vio "
                             "|| ' ' || router_entropy AS figures FROM v_runs WHERE router = 'softmax-topk' AND "
                             "state = 'done' ORDER BY hash)");
}

/* All in one study: each costs its own run only, with its reason, and the run beside them has the bits that it has
 * alone. */
Test(plugins, every_misdeed_is_its_own)
{
    static char study[1 << 14];
    const size_t n_deeds = sizeof deeds / sizeof *deeds;
    int n = snprintf(study, sizeof study, "workload: gaussian\nrouter:\n  - softmax-topk\n  - name: %s/misdeeds.so\n",
                     getenv("MOESIM_PLUGINS"));
    for (size_t i = 0; i < n_deeds; i++)
        n += snprintf(study + n, sizeof study - (size_t)n, "%s%s", i ? ", " : "    deed: [", deeds[i].deed);
    snprintf(study + n, sizeof study - (size_t)n, "]\n");
    program_write("deeds.yaml", study);
    struct heard h = program_run("run deeds.yaml " STUDY " --set seeds=1");
    cr_expect_eq(h.status, 1, "%d %s", h.status, h.err);
    program_forget(&h);
    char sql[512];
    for (size_t i = 0; i < n_deeds; i++) {
        snprintf(sql, sizeof sql, "SELECT reason FROM v_runs WHERE state = 'failed' AND router LIKE '%%:deed=%s'",
                 deeds[i].deed);
        char *reason = program_query("moesim.db", sql);
        cr_expect(strstr(reason, deeds[i].reason), "%s: %s", deeds[i].deed, reason);
        free(reason);
    }
    h = program_run("run " STUDY " --set seeds=1 --db alone.db --router softmax-topk");
    cr_expect_eq(h.status, 0);
    program_forget(&h);
    char *beside = softmax_figures("moesim.db"), *alone = softmax_figures("alone.db");
    cr_expect_str_eq(beside, alone);
    cr_expect(strlen(alone) > 20, "%s", alone);
    free(beside);
    free(alone);
}

/* These do things to their process that nobody else may feel; their runs are good ones. */
Test(plugins, what_harms_nobody_is_no_failure)
{
    static const char *const routers[] = {"misdeeds.so:deed=none", "misdeeds.so:deed=close_standard",
                                          "misdeeds.so:deed=wander", "constructor_noise.so"};
    struct heard h = program_run("run " STUDY " --db alone.db --router softmax-topk");
    program_forget(&h);
    char *alone = softmax_figures("alone.db");
    cr_expect(strlen(alone) > 20, "%s", alone);
    for (size_t i = 0; i < sizeof routers / sizeof *routers; i++) {
        char db[64];
        snprintf(db, sizeof db, "%zu.db", i);
        h = program_run("run " STUDY " --db %s --router {P}/%s --router softmax-topk --json", db, routers[i]);
        cr_expect_eq(h.status, 0, "%s: %d %s", routers[i], h.status, h.err);
        cr_expect(h.out[0] == '{' || h.out[0] == '[', "%s prints among the results: %.60s", routers[i], h.out);
        char *beside = softmax_figures(db);
        cr_expect_str_eq(beside, alone, "%s", routers[i]);
        free(beside);
        program_forget(&h);
    }
    free(alone);
}

Test(plugins, memory_is_bounded)
{
    if (SANITIZED) /* its allocator takes address space in its own way */
        cr_skip_test("not under a sanitizer");
    expect_isolated("eat.so", "--memory 256M", "no more memory");
}

/* Prints a false result, closes descriptors, changes the rounding mode: the runs beside it have the same bits. */
Test(plugins, noise_touches_nobody)
{
    struct heard h = program_run("run " STUDY " --router {P}/noise.so --router softmax-topk --router random");
    cr_expect_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    h = program_run("run " STUDY " --db alone.db --router softmax-topk --router random");
    program_forget(&h);
    static const char sql[] = "SELECT group_concat(load_cv || ' ' || aux, ';') FROM (SELECT load_cv, hash AS aux FROM "
                              "v_runs WHERE router IN ('softmax-topk', 'random') ORDER BY hash)";
    char *beside = program_query("moesim.db", sql), *alone = program_query("alone.db", sql);
    cr_expect_str_eq(beside, alone);
    cr_expect(strlen(alone) > 20);
    free(beside);
    free(alone);
    program_write_npy("l.npy", 2, 4, 0);
    h = program_run("route l.npy --router {P}/noise.so");
    cr_expect_str_eq(h.out, "layer,token,choice,expert,weight,kept,slot\n0,0,0,0,1,1,0\n0,1,0,0,1,1,1\n");
    program_forget(&h);
}

Test(plugins, a_crash_in_route_writes_nothing)
{
    program_write_npy("l.npy", 3, 4, 0);
    static const char *const plugins[] = {"segv", "exit"};
    for (size_t i = 0; i < 2; i++) {
        struct heard h = program_run("route l.npy --router {P}/%s.so -o d.csv", plugins[i]);
        cr_expect_eq(h.status, 1, "%d", h.status);
        cr_expect(strstr(h.err, i ? "exited with status 0" : "SIGSEGV"), "%s", h.err);
        cr_expect(!program_exists("d.csv"));
        cr_expect_eq(system("ls | grep -q tmp"), 256, "no temporary file is left");
        program_forget(&h);
    }
}

Test(plugins, conformance_tells_good_from_bad)
{
    static const struct {
        const char *plugin;
        int status;
        const char *says;
    } cases[] = {
        {"{P}/good.so", 0, "0 failed"}, {"{P}/bad_ids.so", 1, "FAIL  "},
        {"{P}/segv.so", 1, "SIGSEGV"},  {"{P}/exit.so", 1, "exited with status 0"},
        {"{P}/abi.so", 3, "ABI 99"},    {"round-robin", 0, "0 failed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("check %s --shapes 10", cases[i].plugin);
        cr_expect_eq(h.status, cases[i].status, "%s: %d", cases[i].plugin, h.status);
        cr_expect(strstr(h.out, cases[i].says) || strstr(h.err, cases[i].says), "%s: %s%s", cases[i].plugin, h.out,
                  h.err);
        program_forget(&h);
    }
}

/* A router that hangs, out of tree or not, is stopped in check and route as it is in run. */
Test(plugins, check_and_route_stop_what_hangs)
{
    program_write_npy("l.npy", 3, 4, 0);
    static const char *const calls[] = {"check {P}/loop.so --timeout 0.5",
                                        "route l.npy --router {P}/loop.so --timeout 0.5",
                                        "route l.npy --router {P}/loop.so --timeout 0.5 -o d.csv"};
    for (size_t i = 0; i < 3; i++) {
        struct heard h = program_run("%s", calls[i]);
        cr_expect_eq(h.status, 1, "%s: %d", calls[i], h.status);
        cr_expect(strstr(h.err, "loop.so timed out after 0.5 s"), "%s: %s", calls[i], h.err);
        cr_expect(!strstr(h.out, "failed"), "%s: %s", calls[i], h.out);
        cr_expect_eq(i == 2, strstr(h.err, "nothing was written") != NULL, "%s: %s", calls[i], h.err);
        program_forget(&h);
    }
    cr_expect_eq(system("ls | grep -qv l.npy"), 256, "nothing but l.npy is there");
    struct heard h = program_run("check sinkhorn --shapes 100000 --timeout 0.5");
    cr_expect_eq(h.status, 1, "%d", h.status);
    cr_expect(strstr(h.err, "router sinkhorn timed out after 0.5 s"), "%s", h.err);
    program_forget(&h);
    h = program_run("check softmax-topk --shapes 5 --timeout 100");
    cr_expect_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.out, "softmax-topk: 5 shapes"), "%s", h.out);
    program_forget(&h);
    h = program_run("check quickstart --timeout 5");
    cr_expect_eq(h.status, 2, "%d", h.status);
    cr_expect(strstr(h.err, "--timeout is for routers"), "%s", h.err);
    program_forget(&h);
}

static const struct {
    const char *plugin, *says;
} refused[] = {
    {"{P}/abi.so", "router ABI 99, this moesim has ABI 1"},
    {"{P}/short_struct.so", "ABI 1"},
    {"{P}/no_route.so", "no route function"},
    {"{P}/bad_name.so", "needs a name"},
    {"{P}/no_symbol.so", "exports no 'moesim_plugin'"},
    {"{P}/constructor.so", "SIGSEGV"},
    {"{P}/constructor_exit.so", "exited with status 0"},
    {"{P}/destructor.so", "SIGSEGV"},
    {"{P}/null_router.so", "moesim_plugin is NULL"},
    {"{P}/wild_offset.so", "parameter odd lies outside"},
    {"{P}/unknown_type.so", "parameter odd is of a type"},
    {"{P}/no_choices.so", "parameter odd has no words"},
    {"{P}/no_default.so", "parameter odd has no default"},
    {"{P}/bad_default.so", "odd = 'many' is not a whole number"},
    {"./absent.so", "No such file"},
    {"./text.so", "cannot be loaded"},
    {"./folder.so", "not a regular file"},
    {"./fifo.so", "not a regular file"},
    {"./truncated.so", "truncated.so"},
};

Test(plugins, refused_with_exit_3)
{
    program_write("text.so", "this is no shared object\n");
    cr_assert_eq(mkdir("folder.so", 0700), 0);
    cr_assert_eq(mkfifo("fifo.so", 0600), 0);
    cr_assert_eq(system("head -c 9000 \"$MOESIM_PLUGINS\"/good.so >truncated.so"), 0);
    program_write_npy("l.npy", 3, 4, 0);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct heard h = program_run("run " STUDY " --router %s", refused[i].plugin);
        const char *file = strrchr(refused[i].plugin, '/') + 1;
        cr_expect_eq(h.status, 3, "%s: %d", refused[i].plugin, h.status);
        cr_expect(strstr(h.err, refused[i].says), "%s: %s", refused[i].plugin, h.err);
        cr_expect(strstr(h.err, file), "%s: %s", refused[i].plugin, h.err);
        cr_expect(strchr(h.err, '\n') == h.err + strlen(h.err) - 1, "one line: %s", h.err);
        cr_expect(!program_exists("moesim.db"));
        program_forget(&h);
        h = program_run("route l.npy --router %s -o d.csv", refused[i].plugin);
        cr_expect_eq(h.status, 3, "route %s: %d %s", refused[i].plugin, h.status, h.err);
        cr_expect(!program_exists("d.csv"));
        program_forget(&h);
    }
    struct heard h = program_run("run " STUDY " --plugin {P}/abi.so");
    cr_expect_eq(h.status, 3);
    program_forget(&h);
}

/* Every length of a damaged file: the program itself never dies. */
Test(plugins, truncated_at_every_fiftieth)
{
    for (int part = 0; part < 50; part += 7) {
        char command[256];
        snprintf(
            command, sizeof command,
            "head -c $(($(stat -c %%s \"$MOESIM_PLUGINS\"/good.so) * %d / 50)) \"$MOESIM_PLUGINS\"/good.so >cut.so",
            part);
        cr_assert_eq(system(command), 0);
        struct heard h = program_run("describe router ./cut.so");
        cr_expect(h.status == 3 || (part > 25 && h.status == 0), "%d/50: %d %s", part, h.status, h.err);
        program_forget(&h);
    }
}
