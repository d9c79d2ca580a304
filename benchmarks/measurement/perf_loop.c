/* Times a model through the runtime's C interface, as onnxruntime_perf_test does: inputs made once, one run to warm up,
 * a clock around each run. The Python package has the library but no headers; functions of its interface never change
 * place, so the few that are needed are taken by their number in OrtApi.
 *
 *   perf_loop MODEL THREADS SECONDS OUTPUT,... NAME:TYPE:DIM,DIM,... [NAME:TYPE:DIM,...]   prints the median in ms
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { const void *const *(*get_api)(uint32_t); const char *(*version)(void); } Base;
const Base *OrtGetApiBase(void);

enum { GET_ERROR = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_OPTIONS = 10, SET_THREADS = 24,
       CREATE_TENSOR = 49, CREATE_CPU_MEMORY = 69, RELEASE_VALUE = 96, ADD_CONFIG = 130 };
enum { MOST = 32, ONNX_FLOAT = 1, ONNX_INT8 = 3 };

static const void *const *api;

static void check(void *status) {
    if (status) {
        fprintf(stderr, "%s\n", ((const char *(*)(const void *))api[GET_ERROR])(status));
        exit(1);
    }
}

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static int by_size(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

int main(int count, char **words) {
    void *env, *options, *session, *memory, *inputs[MOST], *outputs[MOST];
    const char *input_names[MOST], *output_names[MOST];
    size_t input_count = 0, output_count = 0, runs = 0, room = 1 << 20;
    double *times = malloc(room * sizeof *times), end;

    if (count < 6) return 2;
    api = OrtGetApiBase()->get_api(14);
    check(((void *(*)(int, const char *, void **))api[CREATE_ENV])(3, "perf", &env));
    check(((void *(*)(void **))api[CREATE_OPTIONS])(&options));
    check(((void *(*)(void *, int))api[SET_THREADS])(options, atoi(words[2])));
    check(((void *(*)(void *, const char *, const char *))api[ADD_CONFIG])(
        options, "session.intra_op.allow_spinning", "0"));
    check(((void *(*)(void *, const char *, void *, void **))api[CREATE_SESSION])(env, words[1], options, &session));
    check(((void *(*)(int, int, void **))api[CREATE_CPU_MEMORY])(1, 0, &memory));
    for (char *name = strtok(words[4], ","); name; name = strtok(NULL, ",")) output_names[output_count++] = name;
    for (int place = 5; place < count; place++) {
        char *type = strchr(words[place], ':'), *dims;
        int64_t shape[MOST], elements = 1;
        size_t rank = 0, width;
        *type++ = 0;
        dims = strchr(type, ':');
        *dims++ = 0;
        for (char *size = strtok(dims, ","); size; size = strtok(NULL, ",")) elements *= shape[rank++] = atoll(size);
        width = strcmp(type, "int8") ? sizeof(float) : 1;
        void *data = malloc(elements * width);
        for (int64_t element = 0; element < elements; element++)
            if (width == 1) ((int8_t *)data)[element] = rand() % 7 - 3;
            else ((float *)data)[element] = rand() / (float)RAND_MAX * 2 - 1;
        input_names[input_count] = words[place];
        check(((void *(*)(void *, void *, size_t, const int64_t *, size_t, int, void **))api[CREATE_TENSOR])(
            memory, data, elements * width, shape, rank, width == 1 ? ONNX_INT8 : ONNX_FLOAT, &inputs[input_count++]));
    }
    end = 1e300;
    while (runs < room && (runs < 10 || now_ms() < end)) {
        double start = now_ms();
        memset(outputs, 0, sizeof outputs);
        check(((void *(*)(void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t,
                          void **))api[RUN])(
            session, NULL, input_names, inputs, input_count, output_names, output_count, outputs));
        times[runs++] = now_ms() - start;
        for (size_t place = 0; place < output_count; place++)
            ((void (*)(void *))api[RELEASE_VALUE])(outputs[place]);
        if (end == 1e300) {  /* that was the warm-up */
            runs = 0;
            end = now_ms() + atof(words[3]) * 1e3;
        }
    }
    qsort(times, runs, sizeof *times, by_size);
    printf("%.6f\n", times[runs / 2]);
    return 0;
}
