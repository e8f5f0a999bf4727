/* Limits of the machine for matrix products: bytes that all threads read a second, and products of bytes of one thread.
 *
 * usage: limits THREADS
 * Prints JSON: billions of bytes a second, and billions of products a second for AVX2, AVX-512 with VNNI, and AMX (0:
 * none).
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SIZE ((size_t) 512 << 20) /* far more than caches hold */
#define ROUNDS 12
#define REPEATS 2000000L
#define MAX_THREADS 256

static char * memory;
static int n_threads;

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

__attribute__((target("avx2"))) static void * read_part(void * argument) {
    const size_t size = SIZE / n_threads / 256 * 256;
    const char * part = memory + (size_t) argument * size;
    __m256i sums[4] = { 0 };
    for (size_t at = 0; at < size; at += 128) {
        __builtin_prefetch(part + at + 1536); /* another fifth */
        __builtin_prefetch(part + at + 1600);
        for (int k = 0; k < 4; k++) {
            sums[k] = _mm256_xor_si256(sums[k], _mm256_load_si256((const __m256i *) (part + at + 32 * k)));
        }
    }
    __asm__ volatile("" : : "x"(sums[0]), "x"(sums[1]), "x"(sums[2]), "x"(sums[3])); /* they are used */
    return NULL;
}

static double read_speed(void) {
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t threads[MAX_THREADS];
        const double start = seconds(CLOCK_MONOTONIC);
        for (size_t k = 0; k < (size_t) n_threads; k++) {
            pthread_create(&threads[k], NULL, read_part, (void *) k);
        }
        for (int k = 0; k < n_threads; k++) {
            pthread_join(threads[k], NULL);
        }
        const double speed = SIZE / (seconds(CLOCK_MONOTONIC) - start) / 1e9;
        best = speed > best ? speed : best;
    }
    return best;
}

/* Twelve independent sums, so that latencies do not count. The compiler must not join or remove any. */
__attribute__((target("avx2"))) static void multiply_avx2(void) {
    __m256i sums[12] = { 0 };
    const __m256i bytes = _mm256_set1_epi8(1);
    for (long i = 0; i < REPEATS; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) {
            __m256i pairs = _mm256_maddubs_epi16(bytes, bytes);
            __asm__ volatile("" : "+x"(pairs));
            sums[k] = _mm256_add_epi16(sums[k], pairs);
            __asm__ volatile("" : "+x"(sums[k]));
        }
    }
}

__attribute__((target("avx512f,avx512vnni"))) static void multiply_vnni(void) {
    __m512i sums[12] = { 0 };
    const __m512i bytes = _mm512_set1_epi32(0x01010101);
    for (long i = 0; i < REPEATS; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) {
            sums[k] = _mm512_dpbusd_epi32(sums[k], bytes, bytes);
            __asm__ volatile("" : "+v"(sums[k]));
        }
    }
}

#define TILES 4
#define TILE_PRODUCTS (16 * 16 * 64)

__attribute__((target("amx-tile,amx-int8"))) static void multiply_amx(void) {
    char shapes[64] __attribute__((aligned(64))) = { 1 };
    for (int i = 0; i < 8; i++) {
        shapes[16 + 2 * i] = 64;
        shapes[48 + i]     = 16;
    }
    __asm__ volatile("" : : "r"(shapes) : "memory");
    _tile_loadconfig(shapes);
    for (long i = 0; i < REPEATS / 16; i++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
}

static int has_amx(void) {
    return __builtin_cpu_supports("amx-int8") && syscall(SYS_arch_prctl, 0x1023, 18) == 0; /* ask for permission */
}

/* `products` are those of all calls. */
static double product_speed(void (*multiply)(void), double products) {
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
        multiply();
        const double speed = products / (seconds(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
        best = speed > best ? speed : best;
    }
    return best;
}

int main(int argc, char ** argv) {
    n_threads = argc > 1 ? atoi(argv[1]) : 1;
    memory = aligned_alloc(4096, SIZE);
    madvise(memory, SIZE, MADV_HUGEPAGE); /* a fifth more, where the system has large pages */
    if (!memory || n_threads < 1 || n_threads > MAX_THREADS || !__builtin_cpu_supports("avx2")) {
        fprintf(stderr, "needs AVX2, 512 MiB, and 1 to %d threads\n", MAX_THREADS);
        return 1;
    }
    memset(memory, 1, SIZE);
    const double each = 12.0 * REPEATS;
    printf("{\"memory\": %.2f, \"avx2\": %.1f", read_speed(), product_speed(multiply_avx2, 32 * each));
    printf(", \"vnni\": %.1f", __builtin_cpu_supports("avx512vnni") ? product_speed(multiply_vnni, 64 * each) : 0.0);
    printf(", \"amx\": %.1f}\n",
           has_amx() ? product_speed(multiply_amx, 1.0 * TILES * TILE_PRODUCTS * (REPEATS / 16)) : 0.0);
    return 0;
}
