/* The operators of the library, each defined in an operator file of attention/, experts/ or matmul/. */
#ifndef INTAGLIO_OPERATORS_H
#define INTAGLIO_OPERATORS_H

#include "ort/ort_abi.h"

extern const OrtCustomOp matmul_nbits;
extern const OrtCustomOp merged_matmul_nbits;
extern const OrtCustomOp gather_block_quantized;
extern const OrtCustomOp qmoe;
extern const OrtCustomOp group_query_attention;
extern const OrtCustomOp group_query_attention_int8;
extern const OrtCustomOp group_query_attention_rounded; /* long sequences may be computed with rounded products */
extern const OrtCustomOp group_query_attention_int8_rounded;

#endif
