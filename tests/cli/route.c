/* moesim route: decisions for files of gate columns. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <moesim/status.h>

#include "tests/cli/program.h"
#include "workloads/npy.h"

TestSuite(route, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 60);

static void write_rows(const char *path, const float *x, uint64_t rows, uint64_t columns)
{
    struct moesim_error err;
    cr_assert_eq(npy_write_float(path, x, (uint64_t[]){rows, columns}, 2, &err), MOESIM_OK);
}

/* Gate scores (0.8, 0.1, 0.1) with k = 2 choose the first two experts: the tie goes to the lower id. */
Test(route, worked_example)
{
    write_rows("w.npy", (float[]){logf(0.8f), logf(0.1f), logf(0.1f)}, 1, 3);
    struct heard h = program_run("route w.npy --router softmax-topk:k=2");
    unsigned expert[2];
    double weight[2];
    cr_assert_eq(h.status, 0);
    cr_assert_eq(sscanf(h.out, "layer,token,choice,expert,weight,kept,slot\n0,0,0,%u,%lf,1,0\n0,0,1,%u,%lf,1,0\n",
                        &expert[0], &weight[0], &expert[1], &weight[1]),
                 4, "%s", h.out);
    cr_expect_eq(expert[0], 0);
    cr_expect_eq(expert[1], 1);
    cr_expect_float_eq(weight[0], 0.8, 1e-6);
    cr_expect_float_eq(weight[1], 0.1, 1e-6);
    program_forget(&h);

    /* softmax(0.4, 0.3, 0.3) = (0.3559, 0.3220, 0.3220) */
    write_rows("s.npy", (float[]){0.4f, 0.3f, 0.3f}, 1, 3);
    h = program_run("route s.npy --router softmax-topk:k=3");
    double w[3];
    cr_assert_eq(sscanf(h.out, "%*s 0,0,0,0,%lf,1,0 0,0,1,1,%lf,1,0 0,0,2,2,%lf,1,0", &w[0], &w[1], &w[2]), 3);
    cr_expect_float_eq(w[0], 0.3559, 5e-5);
    cr_expect_float_eq(w[1], 0.3220, 5e-5);
    cr_expect_float_eq(w[2], 0.3220, 5e-5);
    program_forget(&h);
}

Test(route, one_expert_and_no_capacity_are_valid)
{
    write_rows("one.npy", (float[]){1, 2}, 2, 1);
    struct heard h = program_run("route one.npy --router softmax-topk");
    cr_expect_str_eq(h.out, "layer,token,choice,expert,weight,kept,slot\n0,0,0,0,1,1,0\n0,1,0,0,1,1,1\n");
    program_forget(&h);

    /* two tokens want expert 0, which has one slot: T k / E * factor = 2 * 1 / 2 * 0.5 rounds up to 1 */
    write_rows("two.npy", (float[]){1, 0, 1, 0}, 2, 2);
    h = program_run("route two.npy --router softmax-topk:k=1,capacity_factor=0.5");
    cr_expect(strstr(h.out, "\n0,1,0,0,0,0,-1\n"), "%s", h.out);
    cr_expect(strstr(h.err, "1 of 2 pairs are over capacity"), "%s", h.err);
    program_forget(&h);
}

Test(route, bad_rows_are_routed_nowhere_and_counted)
{
    write_rows("bad.npy", (float[]){NAN, NAN, 1, 2, NAN, 5}, 3, 2);
    struct heard h = program_run("route bad.npy --router softmax-topk:k=1");
    cr_expect_eq(h.status, 0);
    cr_expect_null(strstr(h.out, "\n0,0,"), "%s", h.out);
    cr_expect(strstr(h.out, "\n0,1,0,1,"));
    cr_expect(strstr(h.out, "\n0,2,0,1,"), "NaN never beats a number: %s", h.out);
    cr_expect(strstr(h.err, "1 of 3 rows have no finite value"), "%s", h.err);
    program_forget(&h);
}

Test(route, layers_json_lines_and_files)
{
    program_write_npy("l.npy", 3, 40, 8);
    struct heard h = program_run("route l.npy --router softmax-topk:k=2 -o d.jsonl");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect_str_eq(h.out, "");
    char *text = program_read("d.jsonl");
    size_t lines = 0;
    for (char *c = text; *c; c++)
        lines += *c == '\n';
    cr_expect_eq(lines, 3 * 40 * 2);
    cr_expect(strncmp(text, "{\"layer\":0,\"token\":0,\"choice\":0,\"expert\":", 41) == 0, "%.80s", text);
    cr_expect(strstr(text, "{\"layer\":2,\"token\":39,\"choice\":1,"));
    free(text);
    program_forget(&h);
    cr_expect_eq(system("ls | grep -q tmp"), 256, "no temporary file is left");
}

Test(route, same_decisions_on_any_number_of_threads)
{
    program_write_npy("l.npy", 3000, 32, 0);
    static const char *const routers[] = {"softmax-topk:k=4", "softmax-topk:capacity_factor=0.8,priority=bpr",
                                          "random"};
    for (size_t r = 0; r < 3; r++) {
        struct heard one = program_run("route l.npy --router %s --threads 1 --seed 3", routers[r]);
        for (int threads = 2; threads <= 4; threads += 2) {
            struct heard h = program_run("route l.npy --router %s --threads %d --seed 3", routers[r], threads);
            cr_expect_eq(h.status, 0);
            cr_expect(strcmp(h.out, one.out) == 0, "%s on %d threads", routers[r], threads);
            program_forget(&h);
        }
        program_forget(&one);
    }
}

Test(route, groups_and_side_files)
{
    program_write_npy("l.npy", 8, 4, 0);
    write_rows("seq2d.npy", (float[]){0, 0, 0, 0, 1, 1, 1, 1}, 8, 1);
    struct heard h = program_run("route l.npy --router softmax-topk:capacity_factor=0.25 --group 4");
    cr_expect_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    h = program_run("route l.npy --router softmax-topk --group sequence");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "--sequences"), "%s", h.err);
    program_forget(&h);
    h = program_run("route l.npy --router softmax-topk --group sequence --sequences seq2d.npy");
    cr_expect_eq(h.status, 2, "%s", h.err);
    program_forget(&h);
    struct moesim_error err;
    cr_assert_eq(npy_write_float("seq.npy", (float[]){0, 0, 0, 0, 1, 1, 1, 1}, (uint64_t[]){8}, 1, &err), MOESIM_OK);
    struct heard by_sequence =
        program_run("route l.npy --router softmax-topk:capacity_factor=0.25 --group sequence --sequences seq.npy");
    h = program_run("route l.npy --router softmax-topk:capacity_factor=0.25 --group 4");
    cr_expect_eq(by_sequence.status, 0, "%s", by_sequence.err);
    cr_expect_str_eq(by_sequence.out, h.out, "two sequences of four tokens are two groups of four");
    program_forget(&h);
    program_forget(&by_sequence);
}

static double share(const float *row, uint32_t n, uint32_t e)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)row[i] - row[e]);
    return 1 / sum;
}

struct decision {
    unsigned layer, token, choice, expert, kept;
    double weight;
    int slot;
};

/* Reads the next line of a CSV; false at its end. */
static bool next_decision(char **text, struct decision *d)
{
    char *end = strchr(*text, '\n');
    if (!end || !end[1])
        return false;
    *text = end + 1;
    cr_assert_eq(sscanf(*text, "%u,%u,%u,%u,%lf,%u,%d", &d->layer, &d->token, &d->choice, &d->expert, &d->weight,
                        &d->kept, &d->slot),
                 7, "%.80s", *text);
    return true;
}

/* Zhou et al. 2022: every expert takes its C = ceil(T * factor / E) tokens of highest probability, here ceil(7 * 2 / 4)
 * = 4; a token's experts are listed by falling weight, an expert's slots by falling probability. */
Test(route, expert_choice_by_hand)
{
    enum { TOKENS = 7, EXPERTS = 4, SLOTS = 4 };
    float x[TOKENS][EXPERTS];
    for (uint32_t i = 0; i < TOKENS * EXPERTS; i++)
        x[i / EXPERTS][i % EXPERTS] = sinf(3 + (float)(i * i)); /* no ties */
    write_rows("x.npy", x[0], TOKENS, EXPERTS);
    struct heard h = program_run("route x.npy --router expert-choice:capacity_factor=2");
    cr_assert_eq(h.status, 0, "%s", h.err);
    struct decision d, last = {.token = TOKENS};
    uint32_t taken[EXPERTS] = {0};
    for (char *text = h.out; next_decision(&text, &d); last = d) {
        const double weight = share(x[d.token], EXPERTS, d.expert);
        uint32_t better = 0;
        for (uint32_t t = 0; t < TOKENS; t++)
            better += share(x[t], EXPERTS, d.expert) > weight;
        cr_expect(d.kept && d.slot == (int)better && better < SLOTS, "%.60s", text);
        cr_expect_float_eq(d.weight, weight, 1e-6);
        cr_expect(d.token == last.token ? d.choice == last.choice + 1 && d.weight <= last.weight : d.choice == 0);
        taken[d.expert]++;
    }
    for (uint32_t e = 0; e < EXPERTS; e++)
        cr_expect_eq(taken[e], SLOTS);
    program_forget(&h);
}

/* A bias moves the choice, not the weight; a file may hold one row for all layers or one for each. */
Test(route, bias_from_a_file)
{
    struct moesim_error err;
    const float x[2][3] = {{.5f, .3f, .2f}, {.5f, .3f, .2f}}, row[3] = {0, 0, 1}, rows[2][3] = {{0, 1, 0}, {0}};
    cr_assert_eq(npy_write_float("x.npy", x[0], (uint64_t[]){2, 1, 3}, 3, &err), MOESIM_OK);
    cr_assert_eq(npy_write_float("row.npy", row, (uint64_t[]){3}, 1, &err), MOESIM_OK);
    cr_assert_eq(npy_write_float("rows.npy", rows[0], (uint64_t[]){2, 3}, 2, &err), MOESIM_OK);
    static const struct {
        const char *file;
        unsigned expert[2];
    } cases[] = {{"row.npy", {2, 2}}, {"rows.npy", {1, 0}}};
    for (size_t i = 0; i < 2; i++) {
        struct heard h = program_run("route x.npy --router softmax-topk:k=1,bias=%s", cases[i].file);
        cr_assert_eq(h.status, 0, "%s", h.err);
        struct decision d;
        char *text = h.out;
        for (unsigned layer = 0; layer < 2; layer++) {
            cr_assert(next_decision(&text, &d));
            cr_expect(d.layer == layer && d.expert == cases[i].expert[layer], "%s: %.60s", cases[i].file, text);
            cr_expect_float_eq(d.weight, share(x[layer], 3, d.expert), 1e-6);
        }
        program_forget(&h);
    }
}

/* The text carries every bit: what replay reads back is written again to the letter, and JSON says the same. */
Test(route, written_decisions_are_whole)
{
    program_write_npy("l.npy", 3, 50, 8);
    struct heard h = program_run("route l.npy --router softmax-topk:k=3,capacity_factor=0.7,weight=sum -o d.csv");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    char *csv = program_read("d.csv");
    h = program_run("route l.npy --router replay:file=d.csv");
    cr_expect_str_eq(h.out, csv, "%s", h.err);
    program_forget(&h);
    h = program_run("route l.npy --router replay:file=d.csv -o d.jsonl");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    char *json = program_read("d.jsonl"), *line = json, *text = csv, expected[200];
    struct decision d;
    while (next_decision(&text, &d)) {
        snprintf(expected, sizeof expected,
                 "{\"layer\":%u,\"token\":%u,\"choice\":%u,\"expert\":%u,\"weight\":%.9g,\"kept\":%u,\"slot\":%d}\n",
                 d.layer, d.token, d.choice, d.expert, d.weight, d.kept, d.slot);
        cr_assert(strncmp(line, expected, strlen(expected)) == 0, "%.120s is not %s", line, expected);
        line += strlen(expected);
    }
    cr_expect_str_eq(line, "");
    free(json);
    free(csv);
}

/* What a file beside the logits says reaches the router: another file gives other decisions, layer by layer. */
Test(route, files_beside_the_logits_count)
{
    static const struct {
        const char *router, *option;
        uint64_t shape[3];
        uint32_t n_dimensions;
    } cases[] = {
        {"cosine:k=2", "--hidden", {30, 6}, 2},
        {"cosine:k=2", "--hidden", {2, 30, 6}, 3},
        {"hash:k=2", "--tokens", {30}, 1},
        {"zero-expert:gating_residual=true", "--previous", {2, 30, 12}, 3},
        {"softmax-topk:capacity_factor=0.5", "--group sequence --sequences", {30}, 1},
    };
    struct moesim_error err;
    program_write_npy("l.npy", 2, 30, 12);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint64_t *s = cases[i].shape, n = s[0] * (s[1] ? s[1] : 1) * (s[2] ? s[2] : 1);
        float *x = malloc(n * sizeof *x);
        char *said[3];
        for (uint32_t v = 0; v < 3; v++) { /* the first again, then another */
            for (uint64_t j = 0; j < n; j++)
                x[j] = (float)(v < 2 ? j * 7 % 11 / (n > 30 ? 1 : 6) : j * 5 % 13);
            cr_assert_eq(npy_write_float("x.npy", x, s, cases[i].n_dimensions, &err), MOESIM_OK);
            struct heard h =
                program_run("route l.npy --experts 8 --router %s %s x.npy", cases[i].router, cases[i].option);
            cr_assert_eq(h.status, 0, "%s: %s", cases[i].router, h.err);
            said[v] = strdup(h.out);
            program_forget(&h);
        }
        cr_expect_str_eq(said[0], said[1]);
        cr_expect_str_neq(said[1], said[2], "%s %s", cases[i].router, cases[i].option);
        for (uint32_t v = 0; v < 3; v++)
            free(said[v]);
        free(x);
    }
}

Test(route, never_replaces_what_it_reads)
{
    program_write_npy("l.npy", 5, 4, 0);
    char *before = program_read("l.npy");
    cr_assert_eq(system("ln -s l.npy link.npy"), 0);
    static const char *const outputs[] = {"l.npy", "./l.npy", "link.npy"};
    for (size_t i = 0; i < 3; i++) {
        struct heard h = program_run("route l.npy --router softmax-topk -o %s", outputs[i]);
        cr_expect_eq(h.status, 2);
        cr_expect(strstr(h.err, "would replace what is read"), "%s", h.err);
        program_forget(&h);
    }
    char *after = program_read("l.npy");
    cr_expect_arr_eq(before, after, 200);
    free(before);
    free(after);
}

Test(route, lost_output)
{
    program_write_npy("l.npy", 20000, 8, 0);
    struct heard h = program_run("route l.npy --router softmax-topk -o /dev/full");
    cr_expect_eq(h.status, 4);
    cr_expect(strstr(h.err, "No space left on device"), "%s", h.err);
    program_forget(&h);
    h = program_run(">/dev/full route l.npy --router softmax-topk");
    cr_expect_eq(h.status, 4);
    program_forget(&h);
    h = program_run(">/dev/full list routers");
    cr_expect_eq(h.status, 4);
    program_forget(&h);
    h = program_run("route l.npy --router softmax-topk -o no/such/folder.csv");
    cr_expect_eq(h.status, 4);
    program_forget(&h);

    /* a reader that goes away is no failure and gets no message */
    char command[4096];
    snprintf(command, sizeof command,
             "{ '%s' route l.npy --router softmax-topk; echo $? >status; } 2>err | head -n 1 >head", getenv("MOESIM"));
    cr_assert_eq(system(command), 0);
    char *status = program_read("status"), *said = program_read("err"), *head = program_read("head");
    cr_expect_str_eq(status, "0\n");
    cr_expect_str_eq(said, "");
    cr_expect_str_eq(head, "layer,token,choice,expert,weight,kept,slot\n");
    free(status);
    free(said);
    free(head);
}
