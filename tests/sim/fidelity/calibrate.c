/*
 * The search against constants that are known, because the figures were made with them.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/fidelity/calibrate.h"

TestSuite(fidelity_calibrate, .timeout = 60);

/* t = start + size / rate for the sizes below, made with a start-up of 20 and a rate of 3. */
static const double sizes[] = {30, 60, 600, 3000};

static double line(const void *context, const double *constant)
{
    struct moesim_errors errors = {0};
    (void)context;
    for (int i = 0; i < 4; i++)
        moesim_errors_add(&errors, 20 + sizes[i] / 3, constant[0] + sizes[i] / constant[1]);
    return moesim_errors_misfit(&errors);
}

Test(fidelity_calibrate, finds_what_the_figures_were_made_with)
{
    for (double start = 5; start <= 80; start *= 2)
        for (double rate = 1; rate <= 8; rate *= 2) {
            double constant[2] = {start, rate};
            const double misfit = moesim_calibrate(line, NULL, 2, constant, NULL);
            cr_assert_lt(misfit, 2e-4, "from %g, %g: %g, %g", start, rate, constant[0], constant[1]);
            cr_assert_float_eq(constant[0], 20, 0.05);
            cr_assert_float_eq(constant[1], 3, 0.003);
        }
}

Test(fidelity_calibrate, keeps_its_limits)
{
    double constant[2] = {20, 1};
    const double most[2] = {0, 2};
    const double misfit = moesim_calibrate(line, NULL, 2, constant, most);
    cr_assert(constant[1] <= 2 && constant[1] > 1.9, "%g", constant[1]);
    cr_assert_float_eq(misfit, line(NULL, constant), 1e-15);
    const double first = constant[0];
    constant[0] = 20;
    constant[1] = 1;
    moesim_calibrate(line, NULL, 2, constant, most);
    cr_assert_eq(constant[0], first, "the same way every time");
}

/* Two figures that want 100 and 110 leave any constant between them the same mean; the squares want the middle. */
static double pulled(const void *context, const double *constant)
{
    struct moesim_errors errors = {0};
    (void)context;
    moesim_errors_add(&errors, 100, constant[0]);
    moesim_errors_add(&errors, 110, constant[0]);
    return moesim_errors_misfit(&errors);
}

Test(fidelity_calibrate, decides_between_two_figures)
{
    double low[1] = {60}, high[1] = {200};
    moesim_calibrate(pulled, NULL, 1, low, NULL);
    moesim_calibrate(pulled, NULL, 1, high, NULL);
    cr_assert_float_eq(low[0], high[0], 0.1, "%g, %g", low[0], high[0]);
}
