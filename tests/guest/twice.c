// SPDX-License-Identifier: MIT OR Apache-2.0
// A program that is at another address each time it is started, in pages that all of its processes share. It says where its
// function is that makes system calls, and where the number is that this writes; then it calls it three times.

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static volatile unsigned count;

__asm__(".globl _start\n"
        "_start: and $-16, %rsp\n"
        "call program\n"
        ".hidden here\n"
        "here: incl count(%rip)\n"
        "mov $110, %eax\n" // getppid
        "syscall\n"
        "ret\n");

extern void here(void);

static void print(const char *text, unsigned long address) {
    char line[32];
    unsigned length = 0;
    while (*text)
        line[length++] = *text++;
    for (int shift = 60; shift >= 0; shift -= 4)
        line[length++] = "0123456789abcdef"[address >> shift & 15];
    line[length++] = '\n';
    call(1, 1, (long)line, length);
}

__attribute__((used)) void program(void) {
    print("here ", (unsigned long)here);
    print("count ", (unsigned long)&count);
    for (int turn = 0; turn < 3; turn++)
        __asm__ volatile("call here" : : : "rax", "rcx", "r11", "memory");
    // vfork: the child is on our stack, and ends. Then we do.
    call(58, 0, 0, 0);
    call(60, 0, 0, 0);
}
