// SPDX-License-Identifier: MIT OR Apache-2.0
// A guest without an operating system, for where every instruction is emulated twice: it reads clocks, reads and writes its
// virtio disk (the legacy interface of the VIRTIO 1.1 specification, 4.1.4.8), prints what it found, and powers off; with "loop"
// on its command line it counts on instead, and with "reset" it resets its machine. QEMU loads it by the Multiboot header.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__asm__(".section .multiboot, \"a\"\n"
        ".align 4\n"
        ".long 0x1badb002, 2, -(0x1badb002 + 2)\n"
        ".text\n"
        ".globl start\n"
        "start: mov $0x180000, %esp\n"
        "push %ebx\n"
        "call guest\n"
        "1: hlt\n"
        "jmp 1b\n");

static void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static u8 inb(u16 port) { u8 value; __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u16 inw(u16 port) { u16 value; __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u32 inl(u16 port) { u32 value; __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static u64 rdtsc(void) { u64 value; __asm__ volatile("rdtsc" : "=A"(value)); return value; }

static void print(const char *text) {
    for (; *text; text++) {
        while (!(inb(0x3fd) & 0x20)) {}
        outb(0x3f8, *text);
    }
}

static void hex(u32 value) {
    char text[9];
    for (int i = 0; i < 8; i++)
        text[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    text[8] = 0;
    print(text);
}

static u8 cmos(u8 index) { outb(0x70, index); return inb(0x71); }

// The queue lies where nothing else is: descriptors, ring of what is offered, and on the next page that of what is done.
static volatile u8 *const queue = (volatile u8 *)0x200000;
static u8 *const data = (u8 *)0x300000;
struct descriptor { u64 address; u32 length; u16 flags, next; };
static struct { u32 type, reserved; u64 sector; } header;
static volatile u8 status;
static u16 port, size, offered;

static int find_disk(void) {
    for (u32 slot = 0; slot < 32; slot++) {
        u32 address = 0x80000000 | slot << 11;
        outl(0xcf8, address);
        if (inl(0xcfc) != 0x10011af4)
            continue;
        outl(0xcf8, address | 0x10);
        port = inl(0xcfc) & ~3;
        outl(0xcf8, address | 4);
        outw(0xcfc, 7);
        outb(port + 18, 0);
        outb(port + 18, 3);
        outl(port + 4, 0);
        outw(port + 14, 0);
        size = inw(port + 12);
        outl(port + 8, (u32)queue >> 12);
        outb(port + 18, 7);
        return 1;
    }
    return 0;
}

static void disk(int write, u32 sector, u32 bytes) {
    struct descriptor *d = (struct descriptor *)queue;
    volatile u16 *available = (volatile u16 *)(queue + 16 * size);
    volatile u16 *used = (volatile u16 *)(queue + ((16 * size + 6 + 2 * size + 4095) & ~4095u));
    header.type = write;
    header.sector = sector;
    d[0] = (struct descriptor){(u32)&header, 16, 1, 1};
    d[1] = (struct descriptor){(u32)data, bytes, write ? 1 : 3, 2};
    d[2] = (struct descriptor){(u32)&status, 1, 2, 0};
    available[2 + offered % size] = 0;
    __asm__ volatile("" : : : "memory");
    available[1] = ++offered;
    outw(port + 16, 0);
    while (used[1] != offered) {}
    __asm__ volatile("" : : : "memory");
    if (status)
        print("disk error\n");
}

static u32 sum(u32 bytes) {
    u32 sum = 2166136261u;
    for (u32 i = 0; i < bytes; i++)
        sum = (sum ^ data[i]) * 16777619u;
    return sum;
}

void guest(const u32 *multiboot) {
    const char *line = (const char *)multiboot[4];
    int loop = 0, reset = 0;
    for (; *line; line++) {
        loop |= line[0] == 'l' && line[1] == 'o' && line[2] == 'o' && line[3] == 'p';
        reset |= line[0] == 'r' && line[1] == 'e' && line[2] == 's' && line[3] == 'e' && line[4] == 't';
    }
    print("clock ");
    hex(cmos(4) << 16 | cmos(2) << 8 | cmos(0));
    print(" ");
    hex((u32)rdtsc());
    if (find_disk()) {
        disk(0, 0, 65536);
        print("\ndisk ");
        hex(sum(65536));
        // What nobody knows before: when the disk was done, and the host's time.
        u32 random = (u32)rdtsc() ^ cmos(0);
        for (u32 i = 0; i < 65536; i++) {
            random = random * 1664525 + 1013904223;
            data[i] = random >> 24;
        }
        disk(1, 128, 65536);
        disk(0, 128, 65536);
        print("\nwritten ");
        hex(sum(65536));
    }
    for (u32 n = 1; loop; n++) {
        print("\n");
        hex(n);
        u64 end = rdtsc() + 50000000;
        while (rdtsc() < end) {}
    }
    print("\nend ");
    hex((u32)rdtsc());
    print("\n");
    if (reset)
        outb(0x64, 0xfe);
    outw(0x604, 0x2000);
}
