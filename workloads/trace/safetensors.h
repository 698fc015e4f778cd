/*
 * The tensors of a safetensors file: a length, a JSON header, the data.
 */
#ifndef MOESIM_WORKLOADS_TRACE_SAFETENSORS_H
#define MOESIM_WORKLOADS_TRACE_SAFETENSORS_H

#include "workloads/trace/source.h"

/* Maps the file and finds its tensors, [n] malloc'd, by name. Checked: the header lies in the file and is at most 64
 * MiB, types and shapes give the sizes, the tensors fill the data without overlap or hole, no name comes twice. Tensors
 * of a type that NumPy does not have (but bfloat16), of no dimension, of more than four or without elements are left
 * out. */
MOESIM_MUST_CHECK enum moesim_status safetensors_open(const char *path, struct mapping *file,
                                                      struct trace_member **members, size_t *n,
                                                      struct moesim_error *err);

#endif
