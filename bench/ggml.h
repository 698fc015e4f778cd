/*
 * ggml's routing and MoE layer, from the libraries of any build of it, which are loaded when asked for. Nothing of ggml
 * is built in: the few functions that are called are declared here as their documentation has them.
 */
#ifndef BENCH_GGML_H
#define BENCH_GGML_H

#include <stdint.h>

struct ggml;
struct ggml_graph;

/* Loads libggml-base and the libggml-cpu that suits this processor best from `folder`; ends the program with a sentence
 * when there is none. */
struct ggml *ggml_load(const char *folder);
/* The library's file name. */
const char *ggml_name(const struct ggml *ggml);

/* softmax and top_k over logits [n_tokens][n_experts]. */
struct ggml_graph *ggml_open_route(const struct ggml *ggml, const float *logits, uint32_t n_tokens, uint32_t n_experts,
                                   uint32_t k);

/* A SwiGLU layer as llama.cpp builds it, float32, with random weights, for choices [n_tokens][k]. */
struct ggml_graph *ggml_open_layer(const struct ggml *ggml, const uint32_t *expert, uint32_t n_tokens,
                                   uint32_t n_experts, uint32_t k, uint32_t d_model, uint32_t d_ff);

/* Computes a graph once, on all threads. */
void ggml_run(void *graph);

/* NULL is allowed. */
void ggml_close(struct ggml_graph *graph);

#endif
