/*
 * The machines that come along. Realistic rates are fits to published measurements (docs/cost-model.md); where there is
 * none, the vendor's peak times an efficiency measured on its nearest relative, and the reference says so.
 */
#include <stddef.h>

#include "sim/cluster/cluster.h"

/* What H100 reaches of its peaks, for machines without measurements of their own. */
#define FLOP_SHARE (824.0 / 989.0)
#define MEMORY_SHARE (2.9 / 3.35)
#define NVLINK_SHARE (321.7 / 450.0)
#define LOW_LATENCY_NVLINK_SHARE (241.0 / 450.0)
#define NIC_SHARE (47.8 / 50.0)

/* What all GPU presets share: one node of n devices, the expert kernels' start-up and tile (TensorRT-LLM on H100). */
#define GPUS(n)                                                                                                        \
    .nodes = 1, .devices_per_node = (n), .tp = 1, .leaf_oversubscription = 1, .launch_s = 35.2e-6, .tile_rows = 128

/* DeepEP's low-latency start-ups on H100. */
#define HOPPER_LOW_LATENCY .low_latency_latency_intra_s = 12.8e-6, .low_latency_latency_inter_s = 16.6e-6
#define HOPPER_NORMAL .normal_latency_intra_s = 12.8e-6, .normal_latency_inter_s = 16.6e-6

/* One step of NCCL's ring on H100 (8 devices, 16 MiB). */
#define HOPPER_ALL_REDUCE .all_reduce_latency_intra_s = 4.1e-6, .all_reduce_latency_inter_s = 4.1e-6

const struct moesim_cluster_preset moesim_cluster_presets[] = {
    {
        .cluster = {.name = "laptop",
                    .nodes = 1,
                    .devices_per_node = 1,
                    .tp = 1,
                    .leaf_oversubscription = 1,
                    .flop_per_s = 130e9,
                    .memory_bytes_per_s = 25e9,
                    .memory_bytes = 24e9,
                    .launch_s = 8e-6,
                    .tile_rows = 8},
        .peak = {.flop_per_s = 190e9, .memory_bytes_per_s = 50e9},
        .summary = "one CPU device of two cores: no all-to-all",
        .reference =
            "measured: 2 cores of AMD Zen 3 with AVX2, OpenBLAS over experts 130 of 190 GFLOP/s, reads 25 GB/s",
    },
    {
        .cluster = {.name = "a100-dgx",
                    GPUS(8),
                    .flop_per_s = 312e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 2.04e12 * MEMORY_SHARE,
                    .memory_bytes = 80e9,
                    .nvlink_bytes_per_s = 206.9e9,
                    .nic_bytes_per_s = 25e9 * NIC_SHARE,
                    .latency_intra_s = 43.4e-6,
                    .latency_inter_s = 43.4e-6,
                    .all_reduce_nvlink_bytes_per_s = 227e9,
                    .all_reduce_latency_intra_s = 6.2e-6,
                    .all_reduce_latency_inter_s = 6.2e-6},
        .peak =
            {.flop_per_s = 312e12, .memory_bytes_per_s = 2.04e12, .nvlink_bytes_per_s = 300e9, .nic_bytes_per_s = 25e9},
        .summary = "nodes of 8 A100-SXM 80 GB with NVLink and one 200 Gb/s NIC each, BF16",
        .reference =
            "NVLink: fit to NCCL's all-to-all on 8 A100 (NVIDIA aiconfigurator); no measurement of the rest: "
            "peak times H100's efficiency (FLOP 83 %, memory 87 %, NIC 96 %), start-up between nodes as inside",
    },
    {
        .cluster = {.name = "h100-dgx",
                    GPUS(8),
                    .flop_per_s = 824e12,
                    .memory_bytes_per_s = 2.9e12,
                    .memory_bytes = 80e9,
                    .nvlink_bytes_per_s = 321.7e9,
                    .nic_bytes_per_s = 47.8e9,
                    .latency_intra_s = 30.1e-6,
                    .latency_inter_s = 30.1e-6,
                    HOPPER_NORMAL,
                    .low_latency_nvlink_bytes_per_s = 241e9,
                    HOPPER_LOW_LATENCY,
                    .all_reduce_nvlink_bytes_per_s = 457.6e9,
                    HOPPER_ALL_REDUCE},
        .peak =
            {.flop_per_s = 989e12, .memory_bytes_per_s = 3.35e12, .nvlink_bytes_per_s = 450e9, .nic_bytes_per_s = 50e9},
        .summary = "nodes of 8 H100-SXM with NVLink and one 400 Gb/s NIC each, BF16",
        .reference = "fits to NVIDIA aiconfigurator's H100 tables: TensorRT-LLM expert kernels, NCCL all-to-all "
                     "(NVLink of collectives and normal), DeepEP low-latency (NIC, start-ups); start-up of collectives "
                     "between nodes as inside",
    },
    {
        .cluster = {.name = "h800",
                    GPUS(8),
                    .flop_per_s = 989e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 3.35e12 * MEMORY_SHARE,
                    .memory_bytes = 80e9,
                    .nvlink_bytes_per_s = 142e9,
                    .nic_bytes_per_s = 44.4e9,
                    .latency_intra_s = 30.1e-6,
                    .latency_inter_s = 30.1e-6,
                    .normal_latency_intra_s = 37.4e-6,
                    .normal_latency_inter_s = 28.8e-6,
                    .low_latency_nvlink_bytes_per_s = 175e9,
                    .low_latency_nic_bytes_per_s = 48.3e9,
                    .low_latency_latency_intra_s = 37.4e-6,
                    .low_latency_latency_inter_s = 28.8e-6,
                    HOPPER_ALL_REDUCE},
        .peak =
            {.flop_per_s = 989e12, .memory_bytes_per_s = 3.35e12, .nvlink_bytes_per_s = 200e9, .nic_bytes_per_s = 50e9},
        .summary = "nodes of 8 H800 with NVLink at 200 GB/s and one 400 Gb/s NIC each, BF16",
        .reference = "fits to DeepEP's tables of its first version (normal and low-latency kernels on H800); FLOP and "
                     "memory: peak times H100's efficiency; start-up of collectives as on H100",
    },
    {
        .cluster = {.name = "h20",
                    GPUS(8),
                    .flop_per_s = 148e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 4.0e12 * MEMORY_SHARE,
                    .memory_bytes = 96e9,
                    .nvlink_bytes_per_s = 450e9 * NVLINK_SHARE,
                    .nic_bytes_per_s = 50e9 * NIC_SHARE,
                    .latency_intra_s = 30.1e-6,
                    .latency_inter_s = 30.1e-6,
                    HOPPER_NORMAL,
                    .low_latency_nvlink_bytes_per_s = 450e9 * LOW_LATENCY_NVLINK_SHARE,
                    HOPPER_LOW_LATENCY,
                    HOPPER_ALL_REDUCE},
        .peak =
            {.flop_per_s = 148e12, .memory_bytes_per_s = 4.0e12, .nvlink_bytes_per_s = 450e9, .nic_bytes_per_s = 50e9},
        .summary = "nodes of 8 H20 with NVLink and one 400 Gb/s NIC each, BF16",
        .reference = "no measurement: peak times H100's efficiency (FLOP 83 %, memory 87 %, NVLink 71 %, low-latency "
                     "NVLink 54 %, NIC 96 %), H100's start-ups",
    },
    {
        .cluster = {.name = "h200-dgx",
                    GPUS(8),
                    .flop_per_s = 989e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 4.8e12 * MEMORY_SHARE,
                    .memory_bytes = 141e9,
                    .nvlink_bytes_per_s = 330.8e9,
                    .nic_bytes_per_s = 50e9 * NIC_SHARE,
                    .latency_intra_s = 25.6e-6,
                    .latency_inter_s = 25.6e-6,
                    HOPPER_NORMAL,
                    .low_latency_nvlink_bytes_per_s = 450e9 * LOW_LATENCY_NVLINK_SHARE,
                    HOPPER_LOW_LATENCY,
                    HOPPER_ALL_REDUCE},
        .peak =
            {.flop_per_s = 989e12, .memory_bytes_per_s = 4.8e12, .nvlink_bytes_per_s = 450e9, .nic_bytes_per_s = 50e9},
        .summary = "nodes of 8 H200-SXM with NVLink and one 400 Gb/s NIC each, BF16",
        .reference = "NVLink: fit to NCCL's all-to-all on 8 H200 (NVIDIA aiconfigurator); no measurement of the rest: "
                     "peak times H100's efficiency (FLOP 83 %, memory 87 %, low-latency NVLink 54 %, NIC 96 %), H100's "
                     "start-ups",
    },
    {
        .cluster = {.name = "b200-dgx",
                    GPUS(8),
                    .flop_per_s = 2250e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 7.7e12 * MEMORY_SHARE,
                    .memory_bytes = 180e9,
                    .nvlink_bytes_per_s = 531e9,
                    .nic_bytes_per_s = 100e9 * NIC_SHARE,
                    .latency_intra_s = 11e-6,
                    .latency_inter_s = 16.6e-6,
                    HOPPER_NORMAL,
                    .low_latency_nvlink_bytes_per_s = 900e9 * LOW_LATENCY_NVLINK_SHARE,
                    HOPPER_LOW_LATENCY,
                    .all_reduce_nvlink_bytes_per_s = 685e9,
                    HOPPER_ALL_REDUCE},
        .peak = {.flop_per_s = 2250e12,
                 .memory_bytes_per_s = 7.7e12,
                 .nvlink_bytes_per_s = 900e9,
                 .nic_bytes_per_s = 100e9},
        .summary = "nodes of 8 B200 with NVLink and one 800 Gb/s NIC each, BF16",
        .reference =
            "NVLink: bus bandwidth of NCCL's all-to-all on 8 B200 at 512 MiB (NVIDIA aiconfigurator); no "
            "measurement of the rest: peak times H100's efficiency (FLOP 83 %, memory 87 %, low-latency NVLink "
            "54 %, NIC 96 %), H100's start-ups",
    },
    {
        .cluster = {.name = "gb200-nvl72",
                    GPUS(72),
                    .flop_per_s = 2500e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 8.0e12 * MEMORY_SHARE,
                    .memory_bytes = 198.6e9,
                    .nvlink_bytes_per_s = 531e9,
                    .nic_bytes_per_s = 100e9 * NIC_SHARE,
                    .latency_intra_s = 11e-6,
                    .latency_inter_s = 16.6e-6,
                    HOPPER_NORMAL,
                    .low_latency_nvlink_bytes_per_s = 900e9 * LOW_LATENCY_NVLINK_SHARE,
                    HOPPER_LOW_LATENCY,
                    .all_reduce_nvlink_bytes_per_s = 685e9,
                    HOPPER_ALL_REDUCE},
        .peak = {.flop_per_s = 2500e12,
                 .memory_bytes_per_s = 8.0e12,
                 .nvlink_bytes_per_s = 900e9,
                 .nic_bytes_per_s = 100e9},
        .summary = "racks of 72 GB200 that NVLink joins (a rack is a node), one 800 Gb/s NIC each, BF16",
        .reference = "no measurement: NVLink as measured on B200, else peak times H100's efficiency (FLOP 83 %, memory "
                     "87 %, low-latency NVLink 54 %, NIC 96 %), H100's start-ups",
    },
    {
        .cluster = {.name = "mi300x",
                    GPUS(8),
                    .flop_per_s = 1307e12 * FLOP_SHARE,
                    .memory_bytes_per_s = 5.3e12 * MEMORY_SHARE,
                    .memory_bytes = 192e9,
                    .nvlink_bytes_per_s = 448e9 * NVLINK_SHARE,
                    .nic_bytes_per_s = 50e9 * NIC_SHARE,
                    .latency_intra_s = 30.1e-6,
                    .latency_inter_s = 30.1e-6,
                    .low_latency_nvlink_bytes_per_s = 448e9 * LOW_LATENCY_NVLINK_SHARE,
                    HOPPER_LOW_LATENCY,
                    HOPPER_ALL_REDUCE},
        .peak =
            {.flop_per_s = 1307e12, .memory_bytes_per_s = 5.3e12, .nvlink_bytes_per_s = 448e9, .nic_bytes_per_s = 50e9},
        .summary = "nodes of 8 MI300X with 7 xGMI links of 64 GB/s and one 400 Gb/s NIC each, BF16",
        .reference = "no measurement: peak times H100's efficiency (FLOP 83 %, memory 87 %, xGMI 71 %, low-latency "
                     "xGMI 54 %, NIC 96 %), H100's start-ups; the seven links count as one port, which is right for "
                     "even traffic only",
    },
    {.cluster.name = NULL},
};
