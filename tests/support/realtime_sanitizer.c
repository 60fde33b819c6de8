/* Python with LLVM's RealtimeSanitizer, which reports calls that allocate, lock or block.

   `checked_tick`, `checked_listen` and `checked_loop` call a native function, whose address Python
   has set, as real-time code. Link with clang's libclang_rt.rtsan; no code has to be compiled with
   clang, because the sanitizer intercepts the functions of the C library.

   https://clang.llvm.org/docs/RealtimeSanitizer.html */

#include <Python.h>

void __rtsan_ensure_initialized(void);
void __rtsan_realtime_enter(void);
void __rtsan_realtime_exit(void);

typedef int (*exchange)(const void *, void *, unsigned long, const void *, unsigned long, void *);
typedef long long (*loop)(long long, long long, long long);

exchange native_tick, native_listen;
loop native_loop;

int checked_tick(const void *input, void *output, unsigned long frames, const void *time,
                 unsigned long flags, void *user) {
    __rtsan_realtime_enter();
    int result = native_tick(input, output, frames, time, flags, user);
    __rtsan_realtime_exit();
    return result;
}

int checked_listen(const void *input, void *output, unsigned long frames, const void *time,
                   unsigned long flags, void *user) {
    __rtsan_realtime_enter();
    int result = native_listen(input, output, frames, time, flags, user);
    __rtsan_realtime_exit();
    return result;
}

long long checked_loop(long long address, long long pause_us, long long block_us) {
    __rtsan_realtime_enter();
    long long result = native_loop(address, pause_us, block_us);
    __rtsan_realtime_exit();
    return result;
}

long long allocate(long long size, long long unused, long long unused_too) {
    void *volatile memory = malloc((size_t)size);
    free(memory);
    return unused + unused_too;
}

int main(int argc, char **argv) {
    __rtsan_ensure_initialized();
    return Py_BytesMain(argc, argv);
}
