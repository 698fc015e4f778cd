/* Presets are points on shared axes: what `describe` says they are the same as is the same, figure by figure. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(recipes, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

/* Every counted figure of the run with that router, as text. */
static char *figures(const char *router)
{
    char sql[1024];
    snprintf(
        sql, sizeof sql,
        "SELECT count(*) || ': ' || group_concat(line, ';') FROM (SELECT m.name || coalesce(s.layer, '') || ' ' || "
        "coalesce(s.value, '-') || ' ' || coalesce(s.mean, '-') || ' ' || coalesce(s.std, '-') AS line FROM "
        "summary s JOIN metric m ON m.id = s.metric WHERE m.kind <> 'measured' AND s.run = (SELECT id FROM v_runs "
        "WHERE state = 'done' AND router = '%s') ORDER BY line)",
        router);
    return program_query("moesim.db", sql);
}

/* 64 experts, so that 8 groups hold the experts that a preset takes from them; four steps, so that a bias moves. */
static void expect_same(const char *name, const char *recipe)
{
    struct heard h = program_run("run -q --fresh --set seeds=1 --set steps=4 --workload lognormal:tokens=256 --set "
                                 "model.layers=2 --set model.experts=64 --router %s --router %s",
                                 name, recipe);
    cr_assert_eq(h.status, 0, "%s: %s", name, h.err);
    program_forget(&h);
    char *preset = figures(name), *point = figures(recipe);
    cr_expect(strlen(preset) > 100, "%s: %s", name, preset);
    cr_expect_str_eq(preset, point, "%s", name);
    free(preset);
    free(point);
}

Test(recipes, presets_are_what_describe_says)
{
    static const char *const presets[] = {"switch",      "gshard", "vmoe", "deepseek-v2",
                                          "deepseek-v3", "moge",   "ntlb", "quantile"};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        struct heard h = program_run("describe router %s --json", presets[i]);
        json_t *root = json_loads(h.out, 0, NULL);
        const char *recipe = json_string_value(json_object_get(root, "same_as"));
        cr_assert(recipe && strncmp(recipe, "softmax-topk:", 13) == 0, "%s: %s", presets[i], h.out);
        struct heard plain = program_run("describe router %s", presets[i]);
        cr_expect(strstr(plain.out, "the same as:\n  softmax-topk:"), "%s: %s", presets[i], plain.out);
        expect_same(presets[i], recipe);
        program_forget(&plain);
        program_forget(&h);
        json_decref(root);
    }
}

/* A router with functions of its own is no point on the axes, and softmax-topk is their origin. */
Test(recipes, others_have_none)
{
    static const char *const others[] = {"softmax-topk", "noisy-topk", "expert-choice", "hash", "null", "sinkhorn"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct heard h = program_run("describe router %s --json", others[i]);
        cr_expect(!strstr(h.out, "same_as"), "%s", h.out);
        program_forget(&h);
    }
}
