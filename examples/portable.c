/* Separate raw float32 samples with a portable graph and the C API of ONNX Runtime.
 *
 *   cc -O2 portable.c -o portable -lonnxruntime
 *   ./portable speech-portable.onnx < mixture.f32 > sources.f32
 *
 * The input has one channel at the model's rate; the output has, block after block, the samples of
 * each source. Sizes are read from the graph. Nothing is allocated per block.
 */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

static const OrtApi *ort;

static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", ort->GetErrorMessage(status));
  exit(1);
}

/* A tensor of zeros with the shape of an input or output, its samples, and their number. */
static OrtValue *tensor(OrtTypeInfo *type, float **samples, size_t *count) {
  const OrtTensorTypeAndShapeInfo *info;
  OrtAllocator *allocator;
  OrtValue *value;
  int64_t shape[8];
  size_t rank;
  check(ort->CastTypeInfoToTensorInfo(type, &info));
  check(ort->GetDimensionsCount(info, &rank));
  if (rank > 8) exit(1);
  check(ort->GetDimensions(info, shape, rank));
  check(ort->GetTensorShapeElementCount(info, count));
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  check(ort->CreateTensorAsOrtValue(allocator, shape, rank,
                                    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
  check(ort->GetTensorMutableData(value, (void **)samples));
  for (size_t i = 0; i < *count; i++) (*samples)[i] = 0.0f;
  ort->ReleaseTypeInfo(type);
  return value;
}

int main(int argc, char **argv) {
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtTypeInfo *type;
  OrtValue *mixture, *sources, *states[2];
  float *samples, *stems, *ignored;
  size_t block, total, size;
  if (argc != 2) {
    fprintf(stderr, "usage: %s GRAPH.onnx < mixture.f32 > sources.f32\n", argv[0]);
    return 2;
  }
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (ort == NULL) {
    fprintf(stderr, "the library of ONNX Runtime is older than the header\n");
    return 1;
  }
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "portable", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->SetIntraOpNumThreads(options, 1));
  check(ort->CreateSession(env, argv[1], options, &session));
  check(ort->SessionGetInputTypeInfo(session, 0, &type));
  mixture = tensor(type, &samples, &block);
  check(ort->SessionGetOutputTypeInfo(session, 0, &type));
  sources = tensor(type, &stems, &total);
  for (int i = 0; i < 2; i++) {
    check(ort->SessionGetInputTypeInfo(session, 1, &type));
    states[i] = tensor(type, &ignored, &size);
  }
  const char *in[] = {"mixture", "state"}, *out[] = {"sources", "next_state"};
  for (int turn = 0; fread(samples, sizeof(float), block, stdin) == block; turn ^= 1) {
    const OrtValue *given[] = {mixture, states[turn]};
    OrtValue *wanted[] = {sources, states[turn ^ 1]}; /* two states, used alternately */
    check(ort->Run(session, NULL, in, given, 2, out, 2, wanted));
    fwrite(stems, sizeof(float), total, stdout);
  }
  for (int i = 0; i < 2; i++) ort->ReleaseValue(states[i]);
  ort->ReleaseValue(mixture);
  ort->ReleaseValue(sources);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(env);
  return 0;
}
