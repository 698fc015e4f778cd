/* The committed pages that are made from the program's own tables: docs/metrics.md and docs/moesim.1. */
#include <stdio.h>
#include <string.h>

#include <moesim/metric.h>

#include "cli/message.h"
#include "cli/verbs.h"

/* ---- docs/metrics.md ---- */

static const char *const kind_word[] = {"counted", "modelled", "measured"};
static const char *const better_word[] = {"lower", "higher", "neither"};
static const char *const fold_word[] = {"mean over steps and layers", "total over steps and layers",
                                        "median over steps and layers", "last value, mean over layers"};

static void print_escaped(const char *text)
{
    for (; *text; text++) {
        if (strchr("|<", *text))
            putchar('\\');
        putchar(*text);
    }
}

static void print_metric(const struct moesim_metric *m)
{
    printf("## %s\n\n", m->name);
    print_escaped(m->meaning);
    printf("\n\n    %s\n\n", m->formula);
    printf("Unit: %s. Kind: %s. Better: %s. Of a run: %s. Defined: %s.\n\n", *m->unit ? m->unit : "1",
           kind_word[m->kind], better_word[m->better], fold_word[m->fold], m->defined);
}

static void print_metrics(void)
{
    puts("# Metrics\n\n"
         "Made by `moesim __docs metrics` from the table that the program, the store and the report read.\n\n"
         "*Counted* figures follow from the routing alone and have the same bits on every run. *Modelled* figures come "
         "from the cost\nmodel and a cluster preset. *Measured* figures are wall time on this machine. Modelled and "
         "measured figures never share a\ncolumn.\n\n"
         "Symbols: T tokens of a step, E experts, k experts per token, c_e pairs assigned to expert e before capacity, "
         "D devices.\n\n"
         "A run's summary of a metric has mean, standard deviation and extremes of all its values. Percentiles are "
         "exact "
         "in runs of\nup to 4096 steps, and where the metric is recorded. In longer runs the values are counted in at "
         "most 2048 bins a metric and\nlayer: where they lie within a factor of 2^r of each other, a percentile is "
         "within r/2048 of the exact one, relatively.\nSo a run takes at most 32 KiB a metric and layer, however long "
         "it is. What `record` names is kept step by step, which takes\n8 bytes a step, layer and metric, and 24 more "
         "when the run ends.\n\n"
         "Where a router's pass over the logits has them at hand, the sums of router_entropy and router_z are taken "
         "there and are a\npart of cpu_time_route; with `metrics:` that name neither they are not.\n\n"
         "| metric | unit | kind | better | meaning |\n|---|---|---|---|---|");
    for (uint32_t i = 0; i < MOESIM_N_METRICS; i++) {
        const struct moesim_metric *m = &moesim_metrics[i];
        printf("| [%s](#%s) | %s | %s | %s | ", m->name, m->name, m->unit, kind_word[m->kind], better_word[m->better]);
        print_escaped(m->meaning);
        puts(" |");
    }
    puts("");
    for (uint32_t i = 0; i < MOESIM_N_METRICS; i++)
        print_metric(&moesim_metrics[i]);
}

/* ---- docs/moesim.1 ---- */

/* Text as mdoc: no macro at a line's start, every backslash and minus as itself. */
static void roff(const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c == '\\')
            fputs("\\e", stdout);
        else if (*c == '-')
            fputs("\\-", stdout);
        else if (*c == '\n')
            fputs("\n", stdout);
        else if ((*c == '.' || *c == '\'') && (c == text || c[-1] == '\n'))
            printf("\\&%c", *c);
        else
            putchar(*c);
    }
}

/* Arguments of a macro: quoted, so that no word of them is a macro. */
static void quoted(const char *text)
{
    putchar('"');
    for (const char *c = text; *c; c++) {
        if (*c == '"')
            fputs("\\(dq", stdout);
        else if (*c == '\\')
            fputs("\\e", stdout);
        else
            putchar(*c);
    }
    putchar('"');
}

/* One sentence a line, as mdoc likes it. */
static void paragraph(const char *text)
{
    char one[2048];
    size_t n = 0;
    for (const char *c = text; *c && n + 2 < sizeof one; c++) {
        if (*c == ' ' && n > 2 && one[n - 1] == '.' && c[1] >= 'A' && c[1] <= 'Z')
            one[n++] = '\n';
        else
            one[n++] = *c;
    }
    one[n] = '\0';
    roff(one);
    puts("");
}

static void man_options(const struct cli_option *options)
{
    puts(".Bl -tag -width Ds");
    for (const struct cli_option *o = options; o->name; o++) {
        fputs(".It ", stdout);
        if (o->letter)
            printf("Fl %c , ", o->letter);
        printf("Fl Fl %s", o->name);
        if (o->argument) {
            fputs(" Ar ", stdout);
            quoted(o->argument);
        }
        puts("");
        paragraph(o->help);
    }
    puts(".It Fl h , Fl Fl help\nShow help with an example.\n.El");
}

static void man_verb(const struct cli_verb *verb)
{
    printf(".Ss %s\n.Nm Cm %s\n", verb->name, verb->name);
    if (*verb->arguments) {
        fputs(".Ar ", stdout);
        quoted(verb->arguments);
        puts("");
    }
    puts(".Op Ar options\n.Pp");
    char sentence[256];
    snprintf(sentence, sizeof sentence, "%c%s.", verb->summary[0] - 32, verb->summary + 1);
    paragraph(sentence);
    if (verb->details)
        paragraph(verb->details);
    man_options(verb->options);
}

static void man_examples(void)
{
    puts(".Sh EXAMPLES");
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        for (const struct cli_example *e = (*v)->examples; e && e->command; e++) {
            char sentence[256];
            snprintf(sentence, sizeof sentence, "%s:", e->meaning);
            paragraph(sentence);
            fputs(".Dl ", stdout);
            quoted(e->command);
            puts(e[1].command || v[1] ? "\n.Pp" : "");
        }
}

static void print_man(void)
{
    puts(".\\\" Made by `moesim __docs man` from the option tables.\n"
         ".Dd July 1, 2025\n.Dt MOESIM 1\n.Os\n.Sh NAME\n.Nm moesim\n"
         ".Nd simulate routing strategies of Mixture-of-Experts models\n"
         ".Sh SYNOPSIS\n.Nm\n.Ar verb\n.Op Ar options\n.Nm\n.Fl Fl help | Fl Fl version\n"
         ".Sh DESCRIPTION\n.Nm\n"
         "routes real or synthetic tokens through pluggable routers, prices the same routing on a simulated cluster, "
         "stores\nevery figure in SQLite and draws the comparison.\n.Pp\n"
         "A SPEC is\n.Ar name\nor\n.Ar name:key=value,key=value ;\n"
         "a router's may be the path of a shared object instead.\n"
         "Results go to standard output, progress to standard error.\n.Sh COMMANDS");
    for (const struct cli_verb *const *v = cli_verbs; *v; v++)
        man_verb(*v);
    puts(".Sh ENVIRONMENT\n.Bl -tag -width Ds\n.It Ev NO_COLOR\nNo colour when set.\n"
         ".It Ev TERM\nNo redrawn progress line when\n.Qq dumb .\n.El\n"
         ".Sh FILES\n.Bl -tag -width Ds\n.It Pa moesim.db\nThe default database.\n.El\n"
         ".Sh EXIT STATUS\n.Bl -tag -width Ds -compact\n.It 0\nDone.\n.It 1\nSome runs failed; the results of the "
         "others are kept.\n.It 2\nUsage or configuration error; nothing was run.\n.It 3\nA plugin could not be "
         "loaded.\n.It 4\nDatabase, file or disk.\n.It 5\nA\n.Fl Fl fail\\-if\nthreshold was missed.\n"
         ".It 130 , 143\nStopped by SIGINT or SIGTERM after a clean save.\n.El");
    man_examples();
}

static int docs(const struct cli_call *call)
{
    if (strcmp(call->args[0], "metrics") == 0)
        print_metrics();
    else if (strcmp(call->args[0], "man") == 0)
        print_man();
    else
        return cli_fail(CLI_USAGE, "__docs: '%s' is none of metrics, man", call->args[0]);
    return CLI_DONE;
}

static const struct cli_option options[] = {CLI_OPTION_END};

const struct cli_verb cli_docs = {
    .name = "__docs",
    .arguments = "metrics|man",
    .summary = "prints a page of docs/ that is made from the program's tables",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = docs,
};
