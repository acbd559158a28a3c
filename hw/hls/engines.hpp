// One command of an engine, by opcode.
// It neither waits for tokens nor gives any; see overlay.cpp and scheduler.cpp.
#ifndef COSIM_ENGINES_HPP
#define COSIM_ENGINES_HPP

#include "convolution.hpp"
#include "depthwise.hpp"
#include "norm.hpp"
#include "spatial.hpp"
#include "transfer.hpp"
#include "vector.hpp"

namespace cosim {

#define COSIM_READ(name, buffer, size) , const Beat name[size]

inline void execute_engine(const Command &command, const InputWord input[COLUMNS][INPUT_SIZE],
                           const WeightWord weight[WEIGHT_SIZE]
                               COSIM_BEAT_MEMORIES(COSIM_READ),
                           NormChannel norm_channels[NORM_PARAMETERS_SIZE],
                           AccumulatorWord accumulator[ACCUMULATOR_SIZE],
                           const OutputWord skip[OUTPUT_SIZE], OutputWord output[OUTPUT_SIZE]) {
    const Opcode opcode = static_cast<Opcode>(decode_header(command).opcode);
    switch (opcode) {
    case Opcode::CONVOLUTION:
    case Opcode::NARROW_CONVOLUTION:
        convolution(decode_convolution_arguments(command), opcode == Opcode::NARROW_CONVOLUTION,
                    input, weight, convolution_parameters, accumulator, skip, output);
        break;
    case Opcode::ADD:
        add(decode_add_arguments(command), input, output);
        break;
    case Opcode::MULTIPLY:
        multiply(decode_multiply_arguments(command), input, output);
        break;
    case Opcode::AFFINE:
        affine(decode_affine_arguments(command), input, vector_parameters, output);
        break;
    case Opcode::FLOW_SUM:
        flow_sum(decode_flow_sum_arguments(command), input, vector_parameters, output);
        break;
    case Opcode::LOOKUP:
        lookup(decode_lookup_arguments(command), input, table, output);
        break;
    case Opcode::AVERAGE_POOL:
        average_pool(decode_average_pool_arguments(command), input, output);
        break;
    case Opcode::MAX_POOL:
        max_pool(decode_max_pool_arguments(command), input, output);
        break;
    case Opcode::UPSAMPLE:
        upsample(decode_upsample_arguments(command), input, output);
        break;
    case Opcode::SOFTMAX:
        softmax(decode_softmax_arguments(command), input, table, output);
        break;
    case Opcode::GRID_SAMPLE:
        grid_sample(decode_grid_sample_arguments(command), input, output);
        break;
    case Opcode::GROUP_SUMS:
        group_sums(decode_group_sums_arguments(command), input, norm_parameters, norm_channels);
        break;
    case Opcode::GROUP_NORM:
        group_norm(decode_group_norm_arguments(command), input, norm_channels, output);
        break;
    case Opcode::DEPTHWISE:
        depthwise(decode_depthwise_arguments(command), input, depthwise_parameters,
                  depthwise_weights, output);
        break;
    default:
        break;
    }
}

} // namespace cosim

#endif // COSIM_ENGINES_HPP
