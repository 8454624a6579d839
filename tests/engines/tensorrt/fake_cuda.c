// A driver's library in whose place NVIDIA's bindings call it, so that they convert all arguments. Memory is the host's, and
// everything is done at once.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int succeed(void) { return 0; }
static int get_device(int* device, int number) { *device = number; return 0; }
static int by_address(int* device, const char* address) { *device = 1; return strcmp(address, "0000:04:00.0") ? 101 : 0; }
static int get_name(char* name, int size, int device) { snprintf(name, size, "NVIDIA H100 MIG %dg.10gb", device); return 0; }
static int total_memory(size_t* bytes, int device) { (void)device; *bytes = 10ull << 30; return 0; }
static int retain(void** context, int device) { *context = (void*)(0x1000l + device); return 0; }
static int allocate(uint64_t* address, size_t size) {
  if (size >> 40) return 2;
  *address = (uint64_t)malloc(size);
  return 0;
}
static int release(uint64_t address) { free((void*)address); return 0; }
static int pin(void** address, size_t size, unsigned flags) { (void)flags; *address = malloc(size); return 0; }
static int unpin(void* address) { free(address); return 0; }
static int open_one(void** made, unsigned flags) { (void)flags; *made = (void*)0x77; return 0; }
static int upload(uint64_t to, const void* from, size_t size, void* stream) {
  (void)stream;
  memcpy((void*)to, from, size);
  return 0;
}
static int download(void* to, uint64_t from, size_t size, void* stream) {
  (void)stream;
  memcpy(to, (void*)from, size);
  return 0;
}
static int copy(uint64_t to, uint64_t from, size_t size, void* stream) {
  (void)stream;
  memcpy((void*)to, (void*)from, size);
  return 0;
}
volatile int keywarp_device_done = 1;  // set by another thread of the test
static int wait_for_event(void* event) {
  (void)event;
  for (int i = 0; i < 6000 && !keywarp_device_done; ++i) usleep(10000);
  return keywarp_device_done ? 0 : 999;
}
static int follow(void* stream, void* event, unsigned flags) { printf("%p follows %p %u\n", stream, event, flags); return 0; }
static int begin_capture(void* stream, int mode) { printf("capture %p %d\n", stream, mode); return 0; }
static int end_capture(void* stream, void** graph) { (void)stream; *graph = (void*)0x88; return 0; }
static int instantiate(void** made, void* graph, unsigned long long flags) { printf("graph %p %llu\n", graph, flags); *made = (void*)0x99; return 0; }
static int launch_graph(void* graph, void* stream) { printf("run %p in %p\n", graph, stream); return 0; }
static int elapsed(float* milliseconds, void* start, void* end) { (void)start; (void)end; *milliseconds = 2.5f; return 0; }
static int load_module(void** module, const void* image) { printf("image %.4s\n", (const char*)image + 1); *module = (void*)0x55; return 0; }
static int get_function(void** function, void* module, const char* name) { printf("kernel %s of %p\n", name, module); *function = (void*)0x66; return 0; }
static int launch(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                  void* stream, void** arguments, void** extra) {
  printf("launch %p %u %u %u, %u %u %u, %u %p: %d %d %g %d\n", function, gx, gy, gz, bx, by, bz, shared, stream,
         *(int*)*(void**)arguments[0], *(int*)arguments[1], *(float*)arguments[2], extra != NULL);
  return 0;
}

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
  static const struct { const char* name; void* function; } known[] = {
      {"cuDeviceGet", get_device}, {"cuDeviceGetByPCIBusId", by_address}, {"cuDeviceGetName", get_name},
      {"cuDeviceTotalMem", total_memory}, {"cuDevicePrimaryCtxRetain", retain}, {"cuMemAlloc", allocate},
      {"cuMemFree", release}, {"cuMemHostAlloc", pin}, {"cuMemFreeHost", unpin}, {"cuStreamCreate", open_one},
      {"cuEventCreate", open_one}, {"cuMemcpyHtoDAsync", upload}, {"cuMemcpyDtoHAsync", download},
      {"cuEventElapsedTime", elapsed}, {"cuMemcpyDtoDAsync", copy}, {"cuStreamWaitEvent", follow},
      {"cuEventSynchronize", wait_for_event}, {"cuStreamBeginCapture", begin_capture}, {"cuStreamEndCapture", end_capture},
      {"cuGraphInstantiate", instantiate}, {"cuGraphInstantiateWithFlags", instantiate}, {"cuGraphLaunch", launch_graph},
      {"cuModuleLoadData", load_module}, {"cuModuleGetFunction", get_function},
      {"cuLaunchKernel", launch}};
  (void)version;
  (void)flags;
  *function = succeed;
  for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
    if (strcmp(name, known[i].name) == 0) *function = known[i].function;
  if (status != NULL) *status = 0;
  return 0;
}

int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
