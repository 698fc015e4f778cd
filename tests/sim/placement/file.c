/*
 * Plans from files: read as they are written, or refused with one sentence.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sim/placement/ruled.h"

static char folder[] = "/tmp/moesim-plan-XXXXXX", path[64], spec[128];

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/plan.json", folder);
    snprintf(spec, sizeof spec, "file:path=%s", path);
}

static void tear_down(void)
{
    unlink(path);
    rmdir(folder);
}

TestSuite(file, .init = set_up, .fini = tear_down);

static void write_plan(const char *text)
{
    FILE *out = fopen(path, "w");
    cr_assert_not_null(out);
    fputs(text, out);
    fclose(out);
}

static enum moesim_status place(struct ruled *r, uint32_t n_layers, uint32_t n_experts, uint32_t n_devices)
{
    const struct moesim_placement_stats stats = {.n_layers = n_layers, .n_experts = n_experts};
    return ruled_place(r, spec, &stats, 1, n_devices);
}

Test(file, slots_in_order)
{
    write_plan("{\"layers\": [{\"devices\": [[2, 0, 2], [1], [0, 1]]}, {\"devices\": [[0], [1], [2]]}]}\n");
    struct ruled r;
    cr_assert_eq(place(&r, 2, 3, 3), MOESIM_OK, "%s", r.err.text);
    const uint32_t expert[] = {2, 0, 2, 1, 0, 1}, slot[] = {0, 3, 4, 6}, single[] = {0, 1, 2};
    cr_assert_arr_eq(r.placement[0].expert, expert, sizeof expert);
    cr_assert_arr_eq(r.placement[0].device_slot, slot, sizeof slot);
    cr_assert_arr_eq(r.placement[1].primary, single, sizeof single);
    ruled_close(&r);
}

Test(file, one_layer_serves_all)
{
    write_plan("{\"layers\": [{\"devices\": [[1], [0]]}]}");
    struct ruled r;
    cr_assert_eq(place(&r, 3, 2, 2), MOESIM_OK, "%s", r.err.text);
    cr_assert_eq(r.placement[2].primary[1], 0);
    ruled_close(&r);
}

static void expect(enum moesim_status status, uint32_t n_layers, uint32_t n_experts, uint32_t n_devices,
                   const char *sentence)
{
    struct ruled r;
    char text[600];
    cr_assert_eq(place(&r, n_layers, n_experts, n_devices), status);
    snprintf(text, sizeof text, "%s%s", *sentence == '*' ? "" : path, sentence + (*sentence == '*'));
    cr_assert_str_eq(r.err.text, text);
    ruled_close(&r);
}

Test(file, of_another_model_or_cluster)
{
    write_plan("{\"layers\": [{\"devices\": [[1], [0]]}, {\"devices\": [[1], [0]]}]}");
    expect(MOESIM_EINVAL, 2, 4, 2,
           " is for another model or cluster: layer 0 of its 2 has 2 experts on 2 devices of an EP group, and 2 layers "
           "of 4 on 2 are needed");
    expect(MOESIM_EINVAL, 3, 2, 2,
           " is for another model or cluster: layer 0 of its 2 has 2 experts on 2 devices of an EP group, and 3 layers "
           "of 2 on 2 are needed");
    expect(MOESIM_EINVAL, 2, 2, 4,
           " is for another model or cluster: layer 0 of its 2 has 2 experts on 2 devices of an EP group, and 2 layers "
           "of 2 on 4 are needed");
    write_plan("{\"layers\": [{\"devices\": [[2], [0]]}]}");
    expect(MOESIM_EINVAL, 1, 3, 2, ": layer 0 has expert 1 on no device");
}

Test(file, that_are_no_plans)
{
    const char *const no_plan = " is no plan; it should be {\"layers\": [{\"devices\": [[expert, ...], ...]}]}";
    static const char *const texts[] = {"[]",
                                        "{}",
                                        "{\"layers\": []}",
                                        "{\"layers\": [3]}",
                                        "{\"layers\": [{\"devices\": []}]}",
                                        "{\"layers\": [{\"devices\": [3]}]}",
                                        "{\"layers\": [{\"devices\": [[0], [-1]]}]}",
                                        "{\"layers\": [{\"devices\": [[0], [1.5]]}]}",
                                        "{\"layers\": [{\"devices\": [[0], [\"1\"]]}]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_plan(texts[i]);
        expect(MOESIM_EIO, 1, 2, 2, no_plan);
    }
    write_plan("{\"layers\": [{\"devices\": [[0], [99999999999999]]}]}");
    struct ruled r;
    cr_assert_eq(place(&r, 1, 2, 2), MOESIM_EINVAL);
    ruled_close(&r);
    write_plan("{\"layers\": [{\"devices\"");
    expect(MOESIM_EIO, 1, 2, 2, ":1:22: ':' expected near end of file");
    unlink(path);
    expect(MOESIM_EIO, 1, 2, 2, ": No such file or directory");
    cr_assert_eq(mkfifo(path, 0600), 0); /* a pipe would wait for ever */
    expect(MOESIM_EIO, 1, 2, 2, ": not a regular file of at most 64 MiB");
    strcpy(spec, "file");
    expect(MOESIM_EINVAL, 1, 2, 2, "*path is not given; write file:path=plan.json");
}

Test(file, a_path_is_a_placement)
{
    cr_assert_eq(moesim_placement_find("plans/a"), moesim_placement_find("file"));
    cr_assert_eq(moesim_placement_find("a.json"), moesim_placement_find("file"));
    cr_assert_null(moesim_placement_find("a.jso"));
    cr_assert_null(moesim_placement_find(".json"));
}
