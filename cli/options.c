/* Parsing by the option tables. */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"

#define MAX_OPTIONS 40
#define MAX_ARGS 256

bool cli_choice_word(const char *choices, uint32_t i, char word[32])
{
    for (; i; i--) {
        choices = strchr(choices, '|');
        if (!choices)
            return false;
        choices++;
    }
    snprintf(word, 32, "%.*s", (int)strcspn(choices, "|"), choices);
    return true;
}

bool cli_choice(const char *choices, const char *word)
{
    char one[32];
    for (uint32_t i = 0; cli_choice_word(choices, i, one); i++)
        if (strcmp(one, word) == 0)
            return true;
    return false;
}

static int bad_choice(const struct cli_verb *verb, const struct cli_option *option, const char *text)
{
    char word[16][32], list[400] = "";
    const char *words[17];
    uint32_t n = 0;
    for (; n < 16 && cli_choice_word(option->choices, n, word[n]); n++) {
        words[n] = word[n];
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", n ? ", " : "", word[n]);
    }
    words[n] = NULL;
    const char *near = cli_nearest(text, words);
    return cli_fail(CLI_USAGE, "%s: --%s '%s' is none of %s%s%s%s", verb->name, option->name, text, list,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* The number in `text`, strictly: digits, sign, point and exponent only, with an optional unit for bytes. */
static bool read_number(const char *text, bool unit, double *number)
{
    if (!*text || strspn(text, "0123456789.eE+-KMGTkmgt") != strlen(text))
        return false;
    char *end;
    errno = 0;
    *number = strtod(text, &end);
    if (end == text || errno == ERANGE)
        return false;
    if (unit && *end) {
        const char *units = "KMGT", *found = strchr(units, *end >= 'a' ? *end - 32 : *end);
        if (!found)
            return false;
        *number = ldexp(*number, 10 * (int)(found - units + 1));
        end++;
    }
    return *end == '\0';
}

static int set_number(const struct cli_verb *verb, const struct cli_option *option, const char *text, void *field)
{
    double number;
    if (!read_number(text, option->type == CLI_BYTES, &number) || !(number >= option->min && number <= option->max) ||
        (option->type != CLI_REAL && number != floor(number)))
        return cli_fail(CLI_USAGE, "%s: --%s '%s' is not a %s from %.16g to %.16g%s", verb->name, option->name, text,
                        option->type == CLI_REAL ? "number" : "whole number", option->min, option->max,
                        option->type == CLI_BYTES ? " (K, M, G and T are understood)" : "");
    if (option->type == CLI_COUNT)
        *(uint32_t *)field = (uint32_t)number;
    else if (option->type == CLI_BYTES)
        *(uint64_t *)field = (uint64_t)number;
    else
        *(double *)field = number;
    return CLI_DONE;
}

static int set_option(const struct cli_verb *verb, const struct cli_option *option, const char *text, void *options)
{
    void *field = (char *)options + option->offset;
    if (option->type == CLI_FLAG) {
        *(bool *)field = true;
        return CLI_DONE;
    }
    if (option->choices && !cli_choice(option->choices, text))
        return bad_choice(verb, option, text);
    if (option->type == CLI_TEXT) {
        *(const char **)field = text;
        return CLI_DONE;
    }
    if (option->type == CLI_LIST) {
        struct cli_list *list = field;
        if (list->n == CLI_LIST_MAX)
            return cli_fail(CLI_USAGE, "%s: --%s is given more than %d times", verb->name, option->name, CLI_LIST_MAX);
        list->item[list->n++] = text;
        return CLI_DONE;
    }
    return set_number(verb, option, text, field);
}

static int unknown_option(const struct cli_verb *verb, const char *word)
{
    const char *words[MAX_OPTIONS + 2], *near = NULL;
    uint32_t n = 0;
    for (const struct cli_option *o = verb->options; o->name; o++)
        words[n++] = o->name;
    words[n++] = "help";
    words[n] = NULL;
    char name[64];
    if (strncmp(word, "--", 2) == 0) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
        near = cli_nearest(name, words);
    }
    if (near)
        return cli_fail(CLI_USAGE, "%s: unknown option '%s'; did you mean '--%s'?", verb->name, word, near);
    return cli_fail(CLI_USAGE, "%s: unknown option '%s'; 'moesim %s --help' lists them", verb->name, word, verb->name);
}

/* getopt's tables from ours. Long options answer 256 + row. */
static void getopt_tables(const struct cli_verb *verb, struct option *longs, char *shorts)
{
    uint32_t n = 0;
    size_t s = 0;
    shorts[s++] = '-'; /* arguments in order, whatever POSIXLY_CORRECT says */
    shorts[s++] = ':';
    shorts[s++] = 'h';
    for (const struct cli_option *o = verb->options; o->name; o++, n++) {
        longs[n] = (struct option){o->name, o->argument ? required_argument : no_argument, NULL, 256 + (int)n};
        if (o->letter) {
            shorts[s++] = o->letter;
            if (o->argument)
                shorts[s++] = ':';
        }
    }
    longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
    longs[n] = (struct option){0};
    shorts[s] = '\0';
}

static const struct cli_option *option_of(const struct cli_verb *verb, int code)
{
    if (code >= 256)
        return verb->options + (code - 256);
    for (const struct cli_option *o = verb->options; o->name; o++)
        if (o->letter && o->letter == code)
            return o;
    return NULL;
}

struct parsed {
    const char *args[MAX_ARGS];
    uint32_t n_args;
    bool help;
};

static int parse(const struct cli_verb *verb, int argc, char **argv, void *options, struct parsed *parsed)
{
    struct option longs[MAX_OPTIONS + 2];
    char shorts[3 * MAX_OPTIONS + 4];
    getopt_tables(verb, longs, shorts);
    optind = 1;
    for (int before = optind, code; (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1; before = optind) {
        if (code == 'h') {
            parsed->help = true;
            return CLI_DONE;
        }
        if (code == ':')
            return cli_fail(CLI_USAGE, "%s: option '%s' needs a value", verb->name, argv[before]);
        if (code == '?' && optopt >= 256)
            return cli_fail(CLI_USAGE, "%s: option '--%s' takes no value", verb->name, option_of(verb, optopt)->name);
        if (code == '?')
            return unknown_option(verb, argv[before]);
        int failed = CLI_DONE;
        if (code != 1)
            failed = set_option(verb, option_of(verb, code), optarg, options);
        else if (parsed->n_args == MAX_ARGS)
            failed = cli_fail(CLI_USAGE, "%s: too many arguments", verb->name);
        else
            parsed->args[parsed->n_args++] = optarg;
        if (failed)
            return failed;
    }
    for (; optind < argc && parsed->n_args < MAX_ARGS; optind++)
        parsed->args[parsed->n_args++] = argv[optind];
    return CLI_DONE;
}

int cli_verb_call(const struct cli_verb *verb, int argc, char **argv, bool isolated)
{
    void *options = calloc(1, verb->options_size ? verb->options_size : 1);
    struct parsed parsed = {.n_args = 0};
    if (!options)
        return cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    if (verb->defaults)
        memcpy(options, verb->defaults, verb->options_size);
    opterr = 0;
    char **again = malloc(((size_t)argc + 1) * sizeof *again); /* getopt must not reorder what a child gets */
    int exit = again ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    if (!exit) {
        memcpy(again, argv, ((size_t)argc + 1) * sizeof *again);
        exit = parse(verb, argc, argv, options, &parsed);
    }
    if (!exit && parsed.help)
        cli_print_help(verb, stdout);
    else if (!exit && (parsed.n_args < verb->min_args || parsed.n_args > verb->max_args))
        exit = cli_fail(CLI_USAGE, "%s: %s; usage: moesim %s %s", verb->name,
                        parsed.n_args < verb->min_args ? "an argument is missing" : "too many arguments", verb->name,
                        verb->arguments);
    else if (!exit)
        exit = verb->run(&(struct cli_call){options, parsed.args, parsed.n_args, again, argc, isolated});
    free(again);
    free(options);
    return exit;
}
