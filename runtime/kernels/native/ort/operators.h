/* The operators of the library. */
#ifndef INTAGLIO_OPERATORS_H
#define INTAGLIO_OPERATORS_H

#include "ort/ort_abi.h"

extern const OrtCustomOp matmul_nbits;
extern const OrtCustomOp nbits_layer;
extern const OrtCustomOp gather_block_quantized;
extern const OrtCustomOp group_query_attention;
extern const OrtCustomOp group_query_attention_int8;

#endif
