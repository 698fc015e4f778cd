/*
 * Schemas: defaults, strict parsing, the sentences, the text form, the nearest key.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <moesim/param.h>

TestSuite(param, .timeout = 60);

struct inner {
    double rate;
};
struct params {
    uint32_t top_k, rule;
    uint64_t bytes;
    double capacity_factor;
    bool shuffle;
    const char *file;
    struct inner inner;
};

static const struct moesim_param rows[] = {
    MOESIM_PARAM(struct params, top_k, "top_k", 1, 64, "experts"),
    MOESIM_CHOICE(struct params, rule, "mesh", "megatron|mesh|gshard", "rule"),
    MOESIM_PARAM(struct params, bytes, "1000", 0, 1e18, "bytes"),
    MOESIM_PARAM(struct params, capacity_factor, "1.25", -10, 100, "factor"),
    MOESIM_PARAM(struct params, shuffle, "true", 0, 0, "flag"),
    MOESIM_PARAM(struct params, file, "", 0, 0, "file"),
    MOESIM_PARAM_IN(struct params, inner, rate, "0.5", 0, 1, "rate"),
    MOESIM_PARAM_END,
};
static const struct moesim_schema schema = {rows, sizeof(struct moesim_param)};

static struct moesim_arena *arena;
static struct moesim_error err;
static struct params p;

static void set_up(void)
{
    arena = moesim_arena_create(0);
    cr_assert_eq(moesim_params_default(schema, 6, &p, arena, &err), MOESIM_OK);
}

static void tear_down(void)
{
    moesim_arena_destroy(arena);
}

static enum moesim_status set(const char *key, const char *text)
{
    return moesim_param_set(moesim_schema_find(schema, key), text, &p, arena, &err);
}

Test(param, defaults_and_rows, .init = set_up, .fini = tear_down)
{
    cr_assert_eq(p.top_k, 6);
    cr_assert_eq(p.rule, 1);
    cr_assert_eq(p.bytes, 1000);
    cr_assert_eq(p.capacity_factor, 1.25);
    cr_assert(p.shuffle);
    cr_assert_str_eq(p.file, "");
    cr_assert_eq(p.inner.rate, 0.5);
    cr_assert_str_eq(moesim_schema_row(schema, 6)->key, "rate");
    cr_assert_null(moesim_schema_row(schema, 7));
    cr_assert_null(moesim_schema_find(schema, "rat"));
    const struct moesim_schema none = {NULL, 0};
    cr_assert_null(moesim_schema_row(none, 0));
    cr_assert_null(moesim_schema_nearest(none, "k"));
    cr_assert_eq(moesim_params_default(none, 2, &p, arena, &err), MOESIM_OK);
    /* a schema that contradicts itself */
    const struct moesim_param wrong[] = {MOESIM_PARAM(struct params, top_k, "9", 1, 8, ""), MOESIM_PARAM_END};
    cr_assert_eq(moesim_params_default((struct moesim_schema){wrong, sizeof *wrong}, 2, &p, arena, &err),
                 MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "default: top_k = 9 is outside 1..8");
}

Test(param, right_values, .init = set_up, .fini = tear_down)
{
    cr_assert_eq(set("top_k", "64"), MOESIM_OK);
    cr_assert_eq(p.top_k, 64);
    cr_assert_eq(set("top_k", "+007"), MOESIM_OK); /* decimal, not octal */
    cr_assert_eq(p.top_k, 7);
    cr_assert_eq(set("bytes", "999999999999999999"), MOESIM_OK);
    cr_assert_eq(p.bytes, UINT64_C(999999999999999999));
    const struct {
        const char *text;
        double value;
    } reals[] = {{"2", 2}, {"-1.5", -1.5}, {".5", .5}, {"5.", 5}, {"1e-3", 1e-3}, {"1E+1", 10}, {"-0", 0}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        cr_assert_eq(set("capacity_factor", reals[i].text), MOESIM_OK, "%s", reals[i].text);
        cr_assert_eq(p.capacity_factor, reals[i].value);
    }
    cr_assert_eq(set("rule", "gshard"), MOESIM_OK);
    cr_assert_eq(p.rule, 2);
    cr_assert_eq(set("rule", "megatron"), MOESIM_OK);
    cr_assert_eq(p.rule, 0);
    cr_assert_eq(set("shuffle", "false"), MOESIM_OK);
    cr_assert(!p.shuffle);
    char name[] = "a:b, c";
    cr_assert_eq(set("file", name), MOESIM_OK);
    name[0] = 'x';
    cr_assert_str_eq(p.file, "a:b, c"); /* a copy */
}

Test(param, wrong_values_change_nothing, .init = set_up, .fini = tear_down)
{
    const struct {
        const char *key, *text, *sentence;
    } wrong[] = {
        {"top_k", "-2", "top_k = -2 is outside 1..64"},
        {"top_k", "65", "top_k = 65 is outside 1..64"},
        {"top_k", "4294967298", "top_k = 4294967298 is outside 1..64"},
        {"top_k", "99999999999999999999", "top_k = 99999999999999999999 is outside 1..64"},
        {"top_k", "", "top_k = '' is not a whole number"},
        {"top_k", " 2", "top_k = ' 2' is not a whole number"},
        {"top_k", "2 ", "top_k = '2 ' is not a whole number"},
        {"top_k", "0x4", "top_k = '0x4' is not a whole number"},
        {"top_k", "2.0", "top_k = '2.0' is not a whole number"},
        {"top_k", "two", "top_k = 'two' is not a whole number"},
        {"top_k", "--2", "top_k = '--2' is not a whole number"},
        {"bytes", "-1", "bytes = -1 is outside 0..1e+18"},
        {"bytes", "18446744073709551616", "bytes = 18446744073709551616 is outside 0..1e+18"},
        {"capacity_factor", "inf", "capacity_factor = 'inf' is not a number"},
        {"capacity_factor", "nan", "capacity_factor = 'nan' is not a number"},
        {"capacity_factor", "0x1p3", "capacity_factor = '0x1p3' is not a number"},
        {"capacity_factor", "1e", "capacity_factor = '1e' is not a number"},
        {"capacity_factor", "1.2.3", "capacity_factor = '1.2.3' is not a number"},
        {"capacity_factor", "1,5", "capacity_factor = '1,5' is not a number"},
        {"capacity_factor", ".", "capacity_factor = '.' is not a number"},
        {"capacity_factor", "1e999", "capacity_factor = 1e999 is outside -10..100"},
        {"capacity_factor", "100.5", "capacity_factor = 100.5 is outside -10..100"},
        {"rule", "mes", "rule = 'mes' is none of megatron|mesh|gshard"},
        {"rule", "mesh|gshard", "rule = 'mesh|gshard' is none of megatron|mesh|gshard"},
        {"rule", "", "rule = '' is none of megatron|mesh|gshard"},
        {"rule", "Mesh", "rule = 'Mesh' is none of megatron|mesh|gshard"},
        {"shuffle", "yes", "shuffle = 'yes' is not true or false"},
        {"rate", "1.0001", "rate = 1.0001 is outside 0..1"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(set(wrong[i].key, wrong[i].text), MOESIM_EINVAL);
        cr_assert_str_eq(err.text, wrong[i].sentence);
    }
    cr_assert(p.top_k == 6 && p.rule == 1 && p.bytes == 1000 && p.capacity_factor == 1.25 && p.shuffle);
    cr_assert_eq(p.inner.rate, 0.5);

    struct moesim_arena *small = moesim_arena_create(64);
    char text[100] = {0};
    memset(text, 'a', sizeof text - 1);
    cr_assert_eq(moesim_param_set(moesim_schema_find(schema, "file"), text, &p, small, &err), MOESIM_ENOMEM);
    cr_assert_str_eq(p.file, "");
    moesim_arena_destroy(small);
}

Test(param, text_form_reads_back, .init = set_up, .fini = tear_down)
{
    const struct {
        const char *key, *text;
    } same[] = {{"top_k", "17"},
                {"bytes", "999999999999999999"},
                {"capacity_factor", "0.1"},
                {"capacity_factor", "-3"},
                {"capacity_factor", "1e-300"},
                {"shuffle", "false"},
                {"shuffle", "true"},
                {"rule", "gshard"},
                {"rule", "megatron"},
                {"file", "x y:z"},
                {"file", ""}};
    char text[64];
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        cr_assert_eq(set(same[i].key, same[i].text), MOESIM_OK);
        cr_assert_eq(moesim_param_format(moesim_schema_find(schema, same[i].key), &p, text, sizeof text),
                     strlen(same[i].text));
        cr_assert_str_eq(text, same[i].text);
    }
    uint64_t bits = 12345;
    for (int i = 0; i < 1000; i++) {
        bits = bits * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const double x = (double)(bits >> 11) * 0x1p-53 * (i % 2 ? 1 : 1e-9);
        p.capacity_factor = x;
        moesim_param_format(moesim_schema_find(schema, "capacity_factor"), &p, text, sizeof text);
        p.capacity_factor = -1;
        cr_assert_eq(set("capacity_factor", text), MOESIM_OK);
        cr_assert_eq(p.capacity_factor, x);
    }
    p.top_k = 1234567;
    cr_assert_eq(moesim_param_format(rows, &p, text, 4), 7);
    cr_assert_str_eq(text, "123");
    cr_assert_eq(moesim_param_format(rows, &p, NULL, 0), 7);
}

Test(param, did_you_mean)
{
    cr_assert_eq(moesim_edit_distance("", "", 2), 0);
    cr_assert_eq(moesim_edit_distance("", "abc", 9), 3);
    cr_assert_eq(moesim_edit_distance("kitten", "sitting", 9), 3);
    cr_assert_eq(moesim_edit_distance("factor", "facotr", 9), 1); /* neighbours swapped */
    cr_assert_eq(moesim_edit_distance("abcdef", "uvwxyz", 2), 3);
    cr_assert_str_eq(moesim_schema_nearest(schema, "capacity_facter"), "capacity_factor");
    cr_assert_str_eq(moesim_schema_nearest(schema, "topk"), "top_k");
    cr_assert_str_eq(moesim_schema_nearest(schema, "fiel"), "file");
    cr_assert_null(moesim_schema_nearest(schema, "placement"));
    cr_assert_null(moesim_schema_nearest(schema, ""));
    char longer[200];
    memset(longer, 'r', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    cr_assert_null(moesim_schema_nearest(schema, longer));
}

/* Of every type: the default as it was or typed again is not set, anything else is, and the first of them is named. */
Test(param, what_is_set_without_effect, .init = set_up, .fini = tear_down)
{
    static const struct {
        const char *key, *again, *other;
    } cases[] = {{"rule", "mesh", "gshard"},   {"bytes", "1000", "1001"}, {"capacity_factor", "1.250", "1.26"},
                 {"shuffle", "true", "false"}, {"file", "", "x"},         {"rate", "5e-1", "0.50000000000000011"},
                 {"top_k", "6", NULL}};
    static const char *const all[] = {"rule", "bytes", "capacity_factor", "shuffle", "file", "rate", "top_k", NULL};
    cr_assert_eq(moesim_params_unused(schema, &p, all + 7, "here", &err), MOESIM_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(moesim_params_unused(schema, &p, all, "here", &err), MOESIM_OK);
        cr_assert_eq(set(cases[i].key, cases[i].again), MOESIM_OK);
        cr_assert_eq(moesim_params_unused(schema, &p, all, "here", &err), MOESIM_OK, "%s", cases[i].key);
        if (!cases[i].other)
            continue;
        char says[80];
        snprintf(says, sizeof says, "%s has no effect here", cases[i].key);
        cr_assert_eq(set(cases[i].key, cases[i].other), MOESIM_OK);
        cr_assert_eq(moesim_params_unused(schema, &p, all, "here", &err), MOESIM_EINVAL);
        cr_assert_str_eq(err.text, says);
        cr_assert_eq(moesim_params_unused(schema, &p, all + i + 1, "here", &err), MOESIM_OK, "others are not asked");
        cr_assert_eq(set(cases[i].key, cases[i].again), MOESIM_OK);
    }
}
