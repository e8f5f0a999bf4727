// Loaded before the sanitizers' own library (scripts/sanitizers.py): the counters of GCC's coverage, and an operator new
// that throws. That of the sanitizers ends the process where the engines catch std::bad_alloc, such as for the length of
// a damaged file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

extern "C" {

// fuzz/run.py gives the counters to libFuzzer. A block of code has the counter of its address's hash.
uint8_t cyllama_coverage[1 << 17];
size_t  cyllama_coverage_size = sizeof(cyllama_coverage);

void __sanitizer_cov_trace_pc() {
    const auto address = reinterpret_cast<uint64_t>(__builtin_return_address(0));
    ++cyllama_coverage[(address * 0x9E3779B97F4A7C15u) >> 47];
}

} // extern "C"

void * operator new(size_t size) {
    void * found = malloc(size ? size : 1);
    if (!found) {
        throw std::bad_alloc();
    }
    return found;
}

void * operator new(size_t size, std::align_val_t alignment) {
    const auto step = static_cast<size_t>(alignment);
    void * found = aligned_alloc(step, (size + step - 1) / step * step);
    if (!found) {
        throw std::bad_alloc();
    }
    return found;
}

void * operator new(size_t size, const std::nothrow_t &) noexcept { return malloc(size ? size : 1); }
void * operator new[](size_t size) { return operator new(size); }
void * operator new[](size_t size, std::align_val_t alignment) { return operator new(size, alignment); }
void * operator new[](size_t size, const std::nothrow_t & tag) noexcept { return operator new(size, tag); }
void operator delete(void * pointer) noexcept { free(pointer); }
void operator delete(void * pointer, size_t) noexcept { free(pointer); }
void operator delete(void * pointer, std::align_val_t) noexcept { free(pointer); }
void operator delete(void * pointer, size_t, std::align_val_t) noexcept { free(pointer); }
void operator delete(void * pointer, const std::nothrow_t &) noexcept { free(pointer); }
void operator delete[](void * pointer) noexcept { free(pointer); }
void operator delete[](void * pointer, size_t) noexcept { free(pointer); }
void operator delete[](void * pointer, std::align_val_t) noexcept { free(pointer); }
void operator delete[](void * pointer, size_t, std::align_val_t) noexcept { free(pointer); }
void operator delete[](void * pointer, const std::nothrow_t &) noexcept { free(pointer); }
