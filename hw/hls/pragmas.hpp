// Every compiler pragma of these sources, as macros that can be switched off.
// It holds no types and no functions.
//
// -DCOSIM_PRAGMAS=0 (default): none, for g++ and clang++.
// -DCOSIM_PRAGMAS=1: Vitis HLS.
// -DCOSIM_PRAGMAS=2: only loop unrolling and pipelining, for compilers that refuse the rest.
#ifndef COSIM_PRAGMAS_HPP
#define COSIM_PRAGMAS_HPP

#ifndef COSIM_PRAGMAS
#ifdef __SYNTHESIS__
#define COSIM_PRAGMAS 1
#else
#define COSIM_PRAGMAS 0
#endif
#endif

#define COSIM_DO_PRAGMA(text) _Pragma(#text)

#if COSIM_PRAGMAS >= 1
#define COSIM_PIPELINE COSIM_DO_PRAGMA(HLS PIPELINE II = 1)
#define COSIM_UNROLL COSIM_DO_PRAGMA(HLS UNROLL)
#else
#define COSIM_PIPELINE
#define COSIM_UNROLL
#endif

#if COSIM_PRAGMAS == 1
#define COSIM_INLINE COSIM_DO_PRAGMA(HLS INLINE)
#define COSIM_NO_INLINE COSIM_DO_PRAGMA(HLS INLINE off)
#define COSIM_DATAFLOW COSIM_DO_PRAGMA(HLS DATAFLOW)
// Sums keep their order: a chain is a DSP48 cascade, a tree is adders in the fabric.
#define COSIM_NO_BALANCE COSIM_DO_PRAGMA(HLS EXPRESSION_BALANCE off)
#define COSIM_PARTITION(name) COSIM_DO_PRAGMA(HLS ARRAY_PARTITION variable = name complete)
#define COSIM_COPIES(name) COSIM_DO_PRAGMA(HLS ARRAY_PARTITION variable = name dim = 1 complete)
#define COSIM_AGGREGATE(name) COSIM_DO_PRAGMA(HLS AGGREGATE variable = name compact = bit)
#define COSIM_BLOCK_RAM(name) COSIM_DO_PRAGMA(HLS BIND_STORAGE variable = name type = ram_2p impl = bram)
// Shared by two processes; the token channels give the order, so no hand-shake is wanted.
#define COSIM_SHARED(name) COSIM_DO_PRAGMA(HLS STREAM variable = name type = unsync)
#define COSIM_DEPTH(name, count) COSIM_DO_PRAGMA(HLS STREAM variable = name depth = count)
#define COSIM_AXI(name, group, size) \
    COSIM_DO_PRAGMA(HLS INTERFACE m_axi port = name bundle = group depth = size offset = slave)
#define COSIM_REGISTER(name) COSIM_DO_PRAGMA(HLS INTERFACE s_axilite port = name bundle = control)
#else
#define COSIM_INLINE
#define COSIM_NO_INLINE
#define COSIM_DATAFLOW
#define COSIM_NO_BALANCE
#define COSIM_PARTITION(name)
#define COSIM_COPIES(name)
#define COSIM_AGGREGATE(name)
#define COSIM_BLOCK_RAM(name)
#define COSIM_SHARED(name)
#define COSIM_DEPTH(name, count)
#define COSIM_AXI(name, group, size)
#define COSIM_REGISTER(name)
#endif

#endif // COSIM_PRAGMAS_HPP
