// The few names of CUDA's runtime that TensorRT's headers and the plugins use, to compile them without a CUDA toolkit.
#pragma once

#include <stddef.h>

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
typedef enum cudaError { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 } cudaError_t;

extern "C" const char* cudaGetErrorString(cudaError_t error);
