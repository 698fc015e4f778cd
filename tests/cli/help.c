/* Help, listings, and what happens to misspelt words. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(help, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 60);

static const char *const verbs[] = {"run",     "route",  "list",   "describe", "check",
                                    "compare", "report", "export", "doctor"};
#define N_VERBS (sizeof verbs / sizeof *verbs)

Test(help, every_verb_shows_an_example_first)
{
    struct heard overview = program_run("--help");
    cr_assert_eq(overview.status, 0);
    for (size_t i = 0; i < N_VERBS; i++) {
        struct heard h = program_run("%s --help", verbs[i]), again = program_run("help %s", verbs[i]);
        char example[64], usage[64];
        snprintf(example, sizeof example, "Examples:\n  moesim %s", verbs[i]);
        snprintf(usage, sizeof usage, "Usage: moesim %s ", verbs[i]);
        cr_expect_eq(h.status, 0);
        cr_expect(strncmp(h.out, example, strlen(example)) == 0, "%s", verbs[i]);
        cr_expect(strstr(h.out, usage), "%s", verbs[i]);
        cr_expect(strstr(overview.out, verbs[i]));
        cr_expect_str_eq(h.out, again.out);
        cr_expect_str_eq(h.err, "");
        program_forget(&h);
        program_forget(&again);
    }
    cr_expect_null(strstr(overview.out, "__"), "machinery is not listed");
    program_forget(&overview);
}

/* Each line: what is asked, and what the one line on stderr says. */
static const struct {
    const char *line, *says;
} misspelt[] = {
    {"rnu", "did you mean 'run'?"},
    {"help rnu", "did you mean 'run'?"},
    {"reprot moesim.db", "did you mean 'report'?"},
    {"frobnicate", "unknown verb 'frobnicate'"},
    {"--frobnicate", "unknown option '--frobnicate'"},
    {"run --jbos 2", "did you mean '--jobs'?"},
    {"run --jobs=0", "--jobs '0' is not a whole number from 1 to 256"},
    {"run --jobs 2x", "--jobs '2x' is not a whole number"},
    {"run --jobs 0x2", "--jobs '0x2' is not a whole number"},
    {"run --timeout -1", "--timeout '-1' is not a number"},
    {"run --memory 5Q", "--memory '5Q' is not a whole number"},
    {"run --jobs", "option '--jobs' needs a value"},
    {"run --quiet=yes", "option '--quiet' takes no value"},
    {"run -Z", "unknown option '-Z'"},
    {"run a.yaml b.yaml", "too many arguments"},
    {"run --seed 1.5", "--seed '1.5' is not a whole number"},
    {"run --router softmax-tpok", "did you mean 'softmax-topk'?"},
    {"run --workload gausian", "did you mean 'gaussian'?"},
    {"run --router softmax-topk:capacity_facter=1", "did you mean 'capacity_factor'?"},
    {"run --router softmax-topk:priority=tokn", "did you mean 'token'?"},
    {"run --set stps=3", "did you mean 'steps'?"},
    {"run quickstrat", "did you mean the built-in study 'quickstart'?"},
    {"run --fail-if 'max_voi > 1'", "did you mean 'max_vio'?"},
    {"run --fail-if 'max_vio'", "is not '[ROUTER:]METRIC OP NUMBER'"},
    {"run --fail-if 'max_vio > x'", "is not '[ROUTER:]METRIC OP NUMBER'"},
    {"run --fail-if '< 1'", "is not '[ROUTER:]METRIC OP NUMBER'"},
    {"run --fail-if 'nonsuch:max_vio > 1'", "the study has no router 'nonsuch'"},
    {"route", "an argument is missing"},
    {"route a.npy", "--router SPEC is missing"},
    {"route a.npy --router random --phase trian", "did you mean 'train'?"},
    {"list", "an argument is missing"},
    {"list roters", "did you mean 'routers'?"},
    {"describe router sotfmax-topk", "did you mean 'softmax-topk'?"},
    {"describe metric max_voi", "did you mean 'max_vio'?"},
    {"describe cluster h100-dxg", "did you mean 'h100-dgx'?"},
    {"check softmax-topkk", "did you mean 'softmax-topk'?"},
    {"compare x.db --metric max_voi", "did you mean 'max_vio'?"},
    {"compare x.db --format csb", "did you mean 'csv'?"},
    {"export x.db --format xml", "--format 'xml' is none of csv, json, jsonl, md"},
};

Test(help, misspelt_words_get_one_line_and_exit_2)
{
    for (size_t i = 0; i < sizeof misspelt / sizeof *misspelt; i++) {
        struct heard h = program_run("%s", misspelt[i].line);
        cr_expect_eq(h.status, 2, "%s: %d", misspelt[i].line, h.status);
        cr_expect(strstr(h.err, misspelt[i].says), "%s: %s", misspelt[i].line, h.err);
        cr_expect_str_eq(h.out, "");
        program_forget(&h);
    }
    cr_expect(!program_exists("moesim.db"), "nothing was run, so nothing is there");
}

Test(help, listings_and_descriptions)
{
    static const char *const kinds[] = {"router", "workload", "placement", "cluster", "model", "metric", "study"};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct heard h = program_run("list %s --json", kinds[k]);
        json_t *names = json_loads(h.out, 0, NULL), *item;
        cr_assert_eq(h.status, 0);
        cr_assert(json_is_array(names) && json_array_size(names) > 0, "%s", kinds[k]);
        program_forget(&h);
        size_t i;
        json_array_foreach(names, i, item)
        {
            const char *name = json_string_value(json_object_get(item, "name"));
            h = program_run("describe %s %s --json", kinds[k], name);
            json_t *description = json_loads(h.out, 0, NULL);
            cr_expect_eq(h.status, 0);
            cr_expect_str_eq(json_string_value(json_object_get(description, "name")), name);
            json_decref(description);
            program_forget(&h);
        }
        json_decref(names);
    }
    struct heard h = program_run("describe router softmax-topk");
    cr_expect(strstr(h.out, "capacity_factor") && strstr(h.out, "0 .. 65536") && strstr(h.out, "reference: "));
    program_forget(&h);
    h = program_run("describe metric max_vio");
    cr_expect(strstr(h.out, "formula: ") && strstr(h.out, "lower is better"));
    program_forget(&h);
}

Test(help, completion_offers_words)
{
    static const struct {
        const char *line, *offers;
    } cases[] = {
        {"__complete -- ru", "run\n"},
        {"__complete -- run --dry", "--dry-run\n"},
        {"__complete -- run --router softm", "softmax-topk\n"},
        {"__complete -- export x.db --format js", "json\njsonl\n"},
        {"__complete -- list clu", "clusters\n"},
        {"__complete -- describe metric max", "max_vio\nmax_vio_global\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("%s", cases[i].line);
        cr_expect_str_eq(h.out, cases[i].offers, "%s: %s", cases[i].line, h.out);
        program_forget(&h);
    }
}

Test(help, doctor_names_what_is_bound)
{
    struct heard h = program_run("doctor");
    cr_expect_eq(h.status, 0);
    cr_expect(strstr(h.out, "cblas_sgemm from") && strstr(h.out, "openblas"));
    program_forget(&h);
    h = program_run("doctor --json");
    json_t *rows = json_loads(h.out, 0, NULL);
    cr_expect(json_array_size(rows) > 5);
    json_decref(rows);
    program_forget(&h);
}
