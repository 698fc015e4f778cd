/*
 * Calibration: the constants whose predictions are nearest to the measurements.
 */
#ifndef MOESIM_SIM_FIDELITY_CALIBRATE_H
#define MOESIM_SIM_FIDELITY_CALIBRATE_H

#include <math.h>
#include <stdint.h>

/* The misfit of predictions: the mean of |predicted / published - 1|, and a hundredth of their root mean square,
 * which decides where the mean alone leaves a constant free (two figures that want different values of it). */
struct moesim_errors {
    double sum, squares;
    uint32_t n;
};
static inline void moesim_errors_add(struct moesim_errors *errors, double published, double predicted)
{
    const double error = predicted > published ? predicted / published - 1 : 1 - predicted / published;
    errors->sum += error;
    errors->squares += error * error;
    errors->n++;
}
static inline double moesim_errors_misfit(const struct moesim_errors *errors)
{
    return errors->sum / errors->n + sqrt(errors->squares / errors->n) / 100;
}

/* What is to be made small, of n positive constants. */
typedef double moesim_misfit(const void *context, const double *constant);

/* Lowers the misfit of constant[n] from where they are, by a pattern search of factors: each constant alone and each
 * pair, by steps that halve from 20 % to 0.01 % when none helps. Constants stay at or below `most`
 * (0 = no limit; NULL = none). Returns the misfit. Deterministic; finds the minimum that lies downhill, so start near.
 */
double moesim_calibrate(moesim_misfit *misfit, const void *context, uint32_t n, double *constant, const double *most);

#endif
