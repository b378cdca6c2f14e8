/* The part of ONNX Runtime's C interface that the library needs, declared here so that no header file is needed to build it.
 *
 * OrtApi is a table of functions that grows at its end only, so the index of a function is a constant of the interface: each
 * SLOT line below checks a member's, and tests/runtime/kernels/library/test_ort_abi.py compares them with ONNX Runtime's
 * header. OrtCustomOp grows at its end as well; `version` tells ONNX Runtime which members are filled in. On 64-bit Windows
 * ORT_API_CALL, which is left out here, changes nothing.
 */
#ifndef INTAGLIO_ORT_ABI_H
#define INTAGLIO_ORT_ABI_H

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 17

typedef struct OrtStatus OrtStatus; /* NULL is success */
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInfo OrtShapeInfo; /* OrtTensorTypeAndShapeInfo */
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtCustomOp OrtCustomOp;
typedef struct OrtApi OrtApi;

typedef struct {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

enum ErrorCode { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_NOT_IMPLEMENTED = 9 };
enum ElementType { ANY = 0, FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7, FLOAT16 = 10 };
enum Characteristic { REQUIRED = 0, OPTIONAL = 1 };

/* Functions that are not called are pointers without a name of their own. */
struct OrtApi {
  OrtStatus *(*CreateStatus)(int code, const char *message);
  void *from_1[1];
  const char *(*GetErrorMessage)(const OrtStatus *);
  void *from_3[23];
  OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **);
  OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *, const OrtCustomOp *);
  OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *, OrtCustomOpDomain *);
  void *from_29[22];
  OrtStatus *(*GetTensorMutableData)(const OrtValue *, void **);
  void *from_52[8];
  OrtStatus *(*GetTensorElementType)(const OrtShapeInfo *, int *);
  OrtStatus *(*GetDimensionsCount)(const OrtShapeInfo *, size_t *);
  OrtStatus *(*GetDimensions)(const OrtShapeInfo *, int64_t *sizes, size_t rank);
  void *from_63[2];
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtShapeInfo **);
  void *from_66[19];
  OrtStatus *(*KernelInfoGetAttribute_float)(const OrtKernelInfo *, const char *name, float *);
  OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *, const char *name, int64_t *);
  OrtStatus *(*KernelInfoGetAttribute_string)(const OrtKernelInfo *, const char *name, char *to, size_t *bytes);
  OrtStatus *(*KernelContext_GetInputCount)(const OrtKernelContext *, size_t *);
  void *from_89[1];
  OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *, size_t index, const OrtValue **);
  OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *, size_t index, const int64_t *sizes, size_t rank,
                                        OrtValue **);
  void *from_92[1];
  void (*ReleaseStatus)(OrtStatus *);
  void *from_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtShapeInfo *);
  void *from_100[130];
  OrtStatus *(*KernelInfo_GetInputCount)(const OrtKernelInfo *, size_t *);
  OrtStatus *(*KernelInfo_GetOutputCount)(const OrtKernelInfo *, size_t *);
  OrtStatus *(*KernelInfo_GetInputName)(const OrtKernelInfo *, size_t index, char *name, size_t *bytes);
  OrtStatus *(*KernelInfo_GetOutputName)(const OrtKernelInfo *, size_t index, char *name, size_t *bytes);
  void *from_234[3];
  OrtStatus *(*HasSessionConfigEntry)(const OrtSessionOptions *, const char *key, int *);
  void *from_238[11];
  OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *, size_t index, int *is_constant,
                                                  const OrtValue **);
  void *from_250[24];
  OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *, void (*body)(void *, size_t), size_t count,
                                          size_t batches, void *data);
};

#define SLOT(index, name) \
  _Static_assert(offsetof(OrtApi, name) == (index) * sizeof(void *), #name " is at another index")
SLOT(0, CreateStatus);
SLOT(2, GetErrorMessage);
SLOT(26, CreateCustomOpDomain);
SLOT(27, CustomOpDomain_Add);
SLOT(28, AddCustomOpDomain);
SLOT(51, GetTensorMutableData);
SLOT(60, GetTensorElementType);
SLOT(61, GetDimensionsCount);
SLOT(62, GetDimensions);
SLOT(65, GetTensorTypeAndShape);
SLOT(85, KernelInfoGetAttribute_float);
SLOT(86, KernelInfoGetAttribute_int64);
SLOT(87, KernelInfoGetAttribute_string);
SLOT(88, KernelContext_GetInputCount);
SLOT(90, KernelContext_GetInput);
SLOT(91, KernelContext_GetOutput);
SLOT(93, ReleaseStatus);
SLOT(99, ReleaseTensorTypeAndShapeInfo);
SLOT(230, KernelInfo_GetInputCount);
SLOT(231, KernelInfo_GetOutputCount);
SLOT(232, KernelInfo_GetInputName);
SLOT(233, KernelInfo_GetOutputName);
SLOT(237, HasSessionConfigEntry);
SLOT(249, KernelInfoGetConstantInput_tensor);
SLOT(274, KernelContext_ParallelFor);

struct OrtCustomOp {
  uint32_t version;
  void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
  const char *(*GetName)(const OrtCustomOp *);
  const char *(*GetExecutionProviderType)(const OrtCustomOp *);
  int (*GetInputType)(const OrtCustomOp *, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp *);
  int (*GetOutputType)(const OrtCustomOp *, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp *);
  void (*KernelCompute)(void *, OrtKernelContext *);
  void (*KernelDestroy)(void *);
  int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp *);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
  OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **);
  OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
  OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *, void *);
  int (*GetStartVersion)(const OrtCustomOp *);
  int (*GetEndVersion)(const OrtCustomOp *);
  size_t (*GetMayInplace)(int **, int **);
  void (*ReleaseMayInplace)(int *, int *);
  size_t (*GetAliasMap)(int **, int **);
  void (*ReleaseAliasMap)(int *, int *);
};

#endif
