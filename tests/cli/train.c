/*
 * Mode train from the outside: what a study of it stores, stopping and going on, and what goes wrong on the way.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/cli/program.h"

static const char study[] =
    "study: small\n"
    "mode: train\n"
    "steps: 80\n"
    "seeds: 1\n"
    "workload: {name: text, files: text, domains: file, tokens: 256, sequence: 32}\n"
    "model: {layers: 2, experts: 4, d_model: 32, d_ff: 32}\n"
    "train: {heads: 2, validation_batches: 2, validate_every: 20, rate_warm_up: 5, learning_rate: 0.01}\n"
    "router: softmax-topk\n";

/* Two texts of words that follow each other by rule, so that there is something to learn. */
static void write_texts(void)
{
    static const char *const words[2][4] = {{"the ", "old ", "grey ", "cat "}, {"int ", "x = ", "(y + ", "1); "}};
    cr_assert_eq(system("mkdir text"), 0);
    for (int d = 0; d < 2; d++) {
        static char text[20000];
        size_t n = 0;
        for (unsigned i = 0; n < 16000; i++)
            n += (size_t)sprintf(text + n, "%s", words[d][(i + i / 7) % 4]);
        program_write(d ? "text/code" : "text/prose", text);
    }
    program_write("study.yaml", study);
}

static void enter(void)
{
    program_enter_folder();
    write_texts();
}

TestSuite(train, .init = enter, .fini = program_leave_folder, .timeout = 240);

/* Runs a study, which must end with this status; `says` must be in what it told. */
static void run_file(const char *file, int status, const char *says, const char *words)
{
    struct heard h = program_run("run %s %s", file, words);
    cr_assert_eq(h.status, status, "%s: %s", words, h.err);
    cr_assert(strstr(h.err, says), "%s: %s", words, h.err);
    program_forget(&h);
}

static void run(int status, const char *says, const char *words)
{
    run_file("study.yaml", status, says, words);
}

static void check(const char *db, const char *sql, const char *expected)
{
    char *got = program_query(db, sql);
    cr_assert_str_eq(got, expected, "%s", sql);
    free(got);
}

Test(train, stores_what_was_learned)
{
    run(0, "2 blocks, 0.0", "--db t.db");
    check("t.db", "SELECT count(*) FROM v_runs WHERE state = 'done' AND bits_per_byte < 5", "1"); /* 8 at the start */
    check(
        "t.db",
        "SELECT count(*) FROM v_runs WHERE train_loss > 0 AND grad_norm > 0 AND max_vio_global >= 0 AND flop_train > 0"
        " AND routing_fluctuation BETWEEN 0 AND 1 AND router_saturation BETWEEN 0 AND 1 AND time_step IS NULL"
        " AND domain_specialisation BETWEEN 0.5 AND 1 AND vocabulary_specialisation BETWEEN 0.5 AND 1",
        "1");
    check("t.db", "SELECT group_concat(step) FROM (SELECT DISTINCT step FROM v_domain_loss ORDER BY step)",
          "19,39,59,79");
    check("t.db", "SELECT count(DISTINCT domain) FROM v_domain_loss", "2");
    /* Every token of a domain names two experts of each layer. */
    check("t.db",
          "SELECT group_concat(DISTINCT n = 2 * tokens) FROM (SELECT sum(assigned) n, tokens FROM v_specialisation"
          " GROUP BY run, layer, kind, subject)",
          "1");
    check("t.db", "SELECT count(*) FROM series JOIN metric m ON m.id = metric WHERE m.name = 'bits_per_byte'", "4");
    /* The last validation is the figure. */
    check("t.db",
          "SELECT abs(sum(bits_per_byte * tokens) / sum(tokens) - (SELECT bits_per_byte FROM v_runs)) < 1e-12"
          " FROM v_domain_loss WHERE step = 79",
          "1");
    cr_assert(!program_exists("checkpoints"), "nothing is left of a run that ended");
}

/* The names of tokens are cut between characters. */
Test(train, long_words_are_cut_to_whole_characters)
{
    static char text[9000];
    size_t n = 0;
    while (n < 8000)
        n += (size_t)sprintf(text + n, "aäääääääääääääääääääää cat ");
    program_write("text/long", text);
    run(0, "", "-q --db t.db --set workload.vocabulary=word --set workload.words=32 --set steps=4");
    check("t.db", "SELECT DISTINCT subject FROM v_specialisation WHERE subject LIKE 'aä%'", "aäääääääääääääää");
}

Test(train, bits_do_not_depend_on_threads_and_clusters_give_time)
{
    run(0, "", "-q --db one.db --jobs 1 --threads 1");
    run(0, "", "-q --db two.db --jobs 1 --threads 2");
    char *one = program_query("one.db", "SELECT row_hash FROM run");
    check("two.db", "SELECT row_hash FROM run", one);
    free(one);
    run(0, "", "-q --db c.db --set cluster=h100-dgx:ep=4");
    check("c.db", "SELECT count(*) FROM v_runs WHERE time_step > 2 * time_layer", "1");
}

Test(train, a_dense_model_has_no_routing)
{
    run(0, "", "-q --db d.db --set train.moe_every=0");
    check("d.db", "SELECT bits_per_byte < 5, load_cv IS NULL, max_vio_global IS NULL FROM v_runs", "1");
}

/* Beside routers it is one run with a label of its own. Its arithmetic alone is no time of a step. */
Test(train, a_dense_model_stands_beside_the_routers)
{
    struct heard h =
        program_run("run study.yaml -q --db d.db --router softmax-topk --router switch --set cluster=h100-dgx:ep=4 "
                    "--set 'train.moe_every=[1,0]' --set train.checkpoint=models");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_assert(strstr(h.out, "dense        train.moe_every=0"), "%s", h.out);
    program_forget(&h);
    check("d.db", "SELECT group_concat(router, ' ') FROM (SELECT router FROM v_runs ORDER BY point)",
          "softmax-topk switch dense");
    check("d.db", "SELECT group_concat(router_name) FROM v_runs WHERE time_step IS NULL AND flop_train > 0", "dense");
    cr_assert_eq(system("ls models/dense-seed1-*.safetensors >/dev/null"), 0);
    char *beside = program_query("d.db", "SELECT row_hash FROM v_runs WHERE router = 'dense'");
    run(0, "",
        "-q --db alone.db --router switch --set cluster=h100-dgx:ep=4 --set train.moe_every=0"
        " --set train.checkpoint=models");
    check("alone.db", "SELECT row_hash FROM run", beside);
    free(beside);
    h = program_run("compare d.db --baseline softmax-topk --metric bits_per_byte");
    cr_assert(h.status == 0 && strstr(h.out, "\ndense ") && !strstr(h.err, "without a partner"), "%s%s", h.out, h.err);
    program_forget(&h);
    h = program_run("report d.db -o report");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    cr_assert_eq(system("grep -q '>dense</bdi>' report/report.html"), 0);
}

static void wait_for_training(double seconds)
{
    nanosleep(
        &(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))},
        NULL);
}

Test(train, a_stopped_training_goes_on_with_the_same_bits)
{
    run(0, "", "-q --db whole.db --jobs 1 --threads 1 --set steps=1500");
    pid_t pid = program_start("run study.yaml --db s.db --jobs 1 --threads 1 --set steps=1500");
    wait_for_training(1);
    kill(pid, SIGINT);
    cr_assert_eq(program_wait(pid, 30), 130);
    char *said = program_read("err");
    cr_assert(strstr(said, "goes on from checkpoints/softmax-topk-seed1-"), "%s", said);
    free(said);
    run(0, "", "-q --db s.db --jobs 1 --threads 1 --set steps=1500");
    char *whole = program_query("whole.db", "SELECT row_hash FROM run");
    check("s.db", "SELECT row_hash FROM run", whole);
    free(whole);
    cr_assert_eq(system("ls checkpoints | grep -q ."), 256, "an unfinished one is gone when the run is done");
}

Test(train, models_are_kept_where_the_study_says)
{
    run(0, "", "-q --db k.db --set train.checkpoint=models");
    cr_assert_eq(system("ls models/softmax-topk-seed1-*.safetensors >/dev/null"), 0);
    /* What was kept is no input: the runs are still known. */
    run(0, "", "-q --db k.db --set train.checkpoint=models");
    check("k.db", "SELECT count(*) FROM run", "1");
    struct heard h = program_run("run study.yaml --db k.db --set train.checkpoint=models --dry-run");
    cr_assert(strstr(h.out, "1 point, 0 to run"), "%s", h.out);
    program_forget(&h);
    program_write("file", "");
    run(1, "file/x: cannot be made", "--db k.db --fresh --set train.checkpoint=file/x");
}

Test(train, a_damaged_checkpoint_is_told_and_harms_nothing)
{
    pid_t pid = program_start("run study.yaml --db s.db --jobs 1 --threads 1 --set steps=1500");
    wait_for_training(1);
    kill(pid, SIGTERM);
    cr_assert_eq(program_wait(pid, 30), 143);
    cr_assert_eq(system("f=$(ls checkpoints/*) && printf x | dd of=$f bs=1 seek=60000 conv=notrunc 2>/dev/null"), 0);
    run(1, "the unfinished training cannot go on; remove its file to begin anew: checkpoints/",
        "--db s.db --jobs 1 --threads 1 --set steps=1500");
    run(0, "", "-q --db s.db --jobs 1 --threads 1 --set steps=1500 --fresh");
}

Test(train, a_training_that_diverges_is_told_with_its_last_model)
{
    const char *wild = "--set train.learning_rate=1000 --set train.clip=0 --set train.rate_warm_up=0";
    char words[256];
    snprintf(words, sizeof words, "--db w.db --set train.validate_every=80 %s", wild);
    run(1, "diverged; the model before that is in checkpoints/softmax-topk-seed1-", words);
    check("w.db", "SELECT reason LIKE '%: step %block %' FROM run", "1");
    cr_assert_eq(system("ls checkpoints/*-diverged.safetensors >/dev/null"), 0);
}

Test(train, what_does_not_go_together)
{
    static const struct {
        const char *words, *says;
    } cases[] = {
        {"--set workload.sequence=9000 --set workload.tokens=9000", "fewer than the 9000 of one sequence"},
        {"--set workload.tokens=250", "takes whole sequences"},
        {"--set workload.held_out=0", "has held_out = 0"},
        {"--workload gaussian", "has none: take text"},
        {"--set train.heads=3", "train.heads = 3 does not divide d_model = 32"},
        {"--set model.d_model=34 --set train.heads=34", "a head has 1 dimensions"},
        {"--set train.head=3", "unknown key 'head' of train; did you mean 'heads'?"},
        {"--set train=adam", "train: 'adam' is no mapping"},
        {"--set mode=route", "train has no use in mode: route"},
        {"--router replay", "needs recorded decisions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run(2, cases[i].says, cases[i].words);
}

/* Every key of the model and of the optimizer decides what is learned; nothing else differs between the runs. */
Test(train, every_key_changes_what_is_learned)
{
    static const char *const settings[] = {"heads=4",
                                           "positions=learned",
                                           "moe_every=2",
                                           "tied_head=false",
                                           "gate_bias=true",
                                           "learning_rate=0.02",
                                           "final_rate=0.5",
                                           "rate_warm_up=30",
                                           "weight_decay=0.9",
                                           "beta1=0.5",
                                           "beta2=0.5",
                                           "clip=0.1",
                                           "validation_batches=3"};
    const char *figure = "SELECT printf('%.12g', bits_per_byte) FROM v_runs ORDER BY run DESC LIMIT 1";
    run(0, "", "-q --db base.db");
    char *base = program_query("base.db", figure);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char words[128];
        snprintf(words, sizeof words, "-q --db other.db --set train.%s", settings[i]);
        run(0, "", words);
        char *other = program_query("other.db", figure);
        cr_assert_str_neq(other, base, "%s", settings[i]);
        free(other);
    }
    free(base);
}

Test(train, checkpoints_on_the_way_are_the_last_good_model)
{
    run(1, "diverged; the last good model is in checkpoints/softmax-topk-seed1-",
        "--db w.db --set train.learning_rate=1000 --set train.clip=0 --set train.rate_warm_up=0"
        " --set train.validate_every=1 --set train.checkpoint_every=1");
    run(1, "no model before that is kept (set train.checkpoint_every to keep some)",
        "--db v.db --set seeds=[2] --set train.learning_rate=1000 --set train.clip=0 --set train.rate_warm_up=0"
        " --set train.validate_every=1");
}

/* ---- a kept model as the gate of another study ---- */

static const char gate[] =
    "study: gate\n"
    "phase: eval\n"
    "steps: 5\n"
    "seeds: 2\n"
    "workload: {name: text, files: text, domains: file, tokens: 256, sequence: 32, checkpoint: m}\n"
    "router: [softmax-topk, switch]\n";

static void keep_model(void)
{
    run(0, "", "-q --db k.db --set train.checkpoint=models");
    cr_assert_eq(system("mv models/softmax-topk-seed1-*.safetensors m"), 0);
    program_write("gate.yaml", gate);
}

Test(train, a_kept_model_is_a_gate)
{
    keep_model();
    run_file("gate.yaml", 0, "", "-q --db g.db --jobs 1 --threads 1");
    check("g.db", "SELECT count(*) FROM v_runs WHERE state = 'done' AND load_cv > 0", "4");
    check("g.db", "SELECT DISTINCT workload LIKE '%; through m (router softmax-topk, step 80)' FROM run", "1");
    run_file("gate.yaml", 0, "", "-q --db h.db --jobs 1 --threads 2");
    char *one = program_query("g.db", "SELECT row_hash FROM run ORDER BY hash");
    check("h.db", "SELECT row_hash FROM run ORDER BY hash", one);
    free(one);
    /* Also in the built-in study, whose sizes make room, and with a plugin, which only a worker can ask what it needs.
     */
    struct heard h = program_run("run -q --db q.db --seed 1 --workload "
                                 "text:files=text,domains=file,sequence=32,checkpoint=m --router noisy-topk "
                                 "--router {P}/good.so");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    check("q.db", "SELECT count(*) FROM v_runs WHERE state = 'done'", "2");
}

/* What is recorded of the model's routing comes back from the trace as it was. */
Test(train, a_gates_decisions_are_recorded_and_replayed)
{
    keep_model();
    run_file("gate.yaml", 0, "", "-q --db g.db --router softmax-topk --seed 1 --record a");
    program_write("replay.yaml", "steps: 5\nworkload: {name: trace, file: a, tokens: 256}\nrouter: replay\nseeds: 1\n");
    run_file("replay.yaml", 0, "", "-q --db r.db --record b");
    cr_assert_eq(system("cmp a b"), 0);
    char *figures = program_query("g.db", "SELECT load_cv || ' ' || max_vio || ' ' || lag1_overlap FROM v_runs");
    check("r.db", "SELECT load_cv || ' ' || max_vio || ' ' || lag1_overlap FROM v_runs", figures);
    free(figures);
}

/* Ids of words follow from the texts, so a model of words is no gate for other texts, but for a part of its own. */
Test(train, a_gate_of_words_knows_its_words)
{
    run(0, "", "-q --db k.db --set train.checkpoint=models --set workload.vocabulary=word --set workload.words=12");
    cr_assert_eq(system("mv models/softmax-topk-seed1-*.safetensors m"), 0);
    program_write("gate.yaml", gate);
    run_file("gate.yaml", 0, "",
             "-q --db g.db --set workload.vocabulary=word --set workload.words=12 --set "
             "workload.only=code");
    run_file("gate.yaml", 1, "the model of m was trained on other words",
             "-q --db g.db --set workload.vocabulary=word --set workload.words=12 --set workload.files=text/code");
    run_file("gate.yaml", 2,
             "gate.yaml:5:91: error: workload text: checkpoint: m: has a vocabulary of 12 tokens, the "
             "workload of 256",
             "--db g.db");
}

/* Word pieces: tokens have the names of their lines; a gate takes the list of its training and no other. */
Test(train, pieces_of_a_file)
{
    program_write("list", "[UNK]\nthe\nold\ngr\n##ey\nc\n##at\nint\nx\n=\n(\ny\n+\n1\n)\n");
    program_write("other", "[UNK]\nthe\nold\ngr\n##ey\nc\n##at\nint\ny\n=\n(\nx\n+\n1\n)\n");
    static const char pieces[] = "-q --db %s --set workload.vocabulary=piece --set workload.word_list=%s %s";
    char words[256];
    snprintf(words, sizeof words, pieces, "k.db", "list", "--jobs 1 --threads 1 --set train.checkpoint=models");
    run(0, "", words);
    check("k.db",
          "SELECT count(*) || ' ' || min(tokens > 0) FROM v_specialisation WHERE subject IN ('##ey', '##at', '[UNK]')",
          "24 1");
    check("k.db", "SELECT bits_per_byte < 1 FROM v_runs", "1");
    snprintf(words, sizeof words, pieces, "two.db", "list", "--jobs 1 --threads 2 --set train.checkpoint=models");
    run(0, "", words);
    char *one = program_query("k.db", "SELECT row_hash FROM run");
    check("two.db", "SELECT row_hash FROM run", one);
    free(one);

    cr_assert_eq(system("mv models/softmax-topk-seed1-*.safetensors m"), 0);
    program_write("gate.yaml", gate);
    snprintf(words, sizeof words, pieces, "g.db", "list", "--router softmax-topk --seed 1 --record a");
    run_file("gate.yaml", 0, "", words);
    program_write("replay.yaml", "steps: 5\nworkload: {name: trace, file: a, tokens: 256}\nrouter: replay\nseeds: 1\n");
    run_file("replay.yaml", 0, "", "-q --db r.db --record b");
    cr_assert_eq(system("cmp a b"), 0);
    snprintf(words, sizeof words, pieces, "g.db", "other", "--router softmax-topk");
    run_file("gate.yaml", 1, "the model of m was trained on other words: take the same word_list", words);
    snprintf(words, sizeof words, pieces, "g.db", "''", "");
    run(2, "vocabulary=piece takes its pieces from word_list=FILE", words);
}

Test(train, a_damaged_gate_is_no_mistake_of_the_study)
{
    keep_model();
    cr_assert_eq(system("cp m whole && printf x | dd of=m bs=1 seek=60000 conv=notrunc 2>/dev/null"), 0);
    run_file("gate.yaml", 4, "gate.yaml:5:91: error: workload text: checkpoint: m: is damaged: its checksum is",
             "--db g.db");
    cr_assert_eq(system("head -c 60000 whole >m"), 0);
    run_file("gate.yaml", 4, "gate.yaml:5:91: error: workload text: checkpoint: m: is cut short", "--db g.db");
    cr_assert_eq(system("cp text/prose m"), 0);
    run_file("gate.yaml", 4, "m: is damaged or no checkpoint", "--db g.db");
    cr_assert_eq(unlink("m"), 0);
    run_file("gate.yaml", 4, "m: cannot be opened: No such file or directory", "--db g.db");
    cr_assert_eq(rename("whole", "m"), 0);
    run_file("gate.yaml", 2, "mode: train starts from its seed", "--db g.db --set mode=train");
    cr_assert(!program_exists("g.db"));
}
