/* The counting guest. It counts from what sector 64 of its first disk holds. Each round it reads that sector of both
 * disks and prints `!` if one does not hold its count; it counts, writes the count to the first disk and then to the second,
 * touches one of 64 pages of memory, and prints the count as eight hexadecimal digits and a line feed. A `?` says that
 * a disk failed. A `q` on COM1 powers it off.
 *
 * Its firmware shows it the disk it boots from only; so it has a driver of its own: virtio 1.2, PCI, one queue, polled. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct common {
    u32 device_feature_select, device_feature, driver_feature_select, driver_feature;
    u16 config_msix_vector, num_queues;
    u8 device_status, config_generation;
    u16 queue_select, queue_size, queue_msix_vector, queue_enable, queue_notify_off;
    u32 queue_desc[2], queue_driver[2], queue_device[2];
};
struct descriptor { u32 address[2]; u32 len; u16 flags, next; };
struct queue {
    struct descriptor descriptors[4];
    struct { u16 flags, idx, ring[4]; } available;
    u8 gap[52];
    struct { u16 flags; volatile u16 idx; struct { u32 id, len; } ring[4]; } used;
    struct { u32 type, reserved; u64 sector; } request;
    volatile u8 status;
};
struct disk { volatile u16 *notify; struct queue *queue; u16 seen; };

#define SECTOR 64
#define PAGES ((volatile u32 *)0x100000)
#define QUEUES ((struct queue *)0x20000)
#define BUFFER ((volatile u32 *)0x30000)

static void outb(u16 port, u8 v) { __asm__ volatile("outb %0,%1" :: "a"(v), "Nd"(port)); }
static void outw(u16 port, u16 v) { __asm__ volatile("outw %0,%1" :: "a"(v), "Nd"(port)); }
static void outl(u16 port, u32 v) { __asm__ volatile("outl %0,%1" :: "a"(v), "Nd"(port)); }
static u8 inb(u16 port) { u8 v; __asm__ volatile("inb %1,%0" : "=a"(v) : "Nd"(port)); return v; }
static u32 inl(u16 port) { u32 v; __asm__ volatile("inl %1,%0" : "=a"(v) : "Nd"(port)); return v; }

static void put(u8 c) {
    while (!(inb(0x3fd) & 0x20)) {}
    outb(0x3f8, c);
}

static u32 pci(u32 device, u32 at) {
    outl(0xcf8, 0x80000000u | device << 8 | (at & 0xfc));
    return inl(0xcfc) >> (at & 3) * 8;
}

static u8 *bar(u32 device, u32 index) { return (u8 *)(pci(device, 0x10 + 4 * index) & ~0xfu); }

static void open(struct disk *disk, u32 device, struct queue *queue) {
    volatile struct common *common = 0;
    u8 *notify = 0;
    u32 multiplier = 0;
    outl(0xcf8, 0x80000000u | device << 8 | 4);
    outl(0xcfc, pci(device, 4) | 6); /* memory, bus master */
    for (u32 at = pci(device, 0x34) & 0xfc; at; at = pci(device, at + 1) & 0xfc) {
        if ((pci(device, at) & 0xff) != 9) continue;
        u8 *base = bar(device, pci(device, at + 4) & 0xff) + pci(device, at + 8);
        switch (pci(device, at + 3) & 0xff) {
        case 1: common = (struct common *)base; break;
        case 2: notify = base; multiplier = pci(device, at + 16); break;
        }
    }
    common->device_status = 0;
    while (common->device_status) {}
    common->device_status = 3;
    common->driver_feature_select = 1;
    common->driver_feature = 1; /* VIRTIO_F_VERSION_1 */
    common->driver_feature_select = 0;
    common->driver_feature = 0;
    common->device_status = 11;
    common->queue_select = 0;
    common->queue_size = 4;
    common->queue_desc[0] = (u32)queue->descriptors;
    common->queue_desc[1] = 0;
    common->queue_driver[0] = (u32)&queue->available;
    common->queue_driver[1] = 0;
    common->queue_device[0] = (u32)&queue->used;
    common->queue_device[1] = 0;
    common->queue_enable = 1;
    common->device_status = 15;
    disk->notify = (u16 *)(notify + common->queue_notify_off * multiplier);
    disk->queue = queue;
    disk->seen = 0;
}

static void transfer(struct disk *disk, u32 write) {
    struct queue *queue = disk->queue;
    queue->request.type = write;
    queue->request.sector = SECTOR;
    queue->descriptors[0] = (struct descriptor){ { (u32)&queue->request, 0 }, 16, 1, 1 };
    queue->descriptors[1] = (struct descriptor){ { (u32)BUFFER, 0 }, 512, write ? 1 : 3, 2 };
    queue->descriptors[2] = (struct descriptor){ { (u32)&queue->status, 0 }, 1, 2, 0 };
    queue->available.flags = 1; /* no interrupts */
    queue->available.ring[disk->seen & 3] = 0;
    __asm__ volatile("" ::: "memory");
    queue->available.idx = ++disk->seen;
    __asm__ volatile("lock; addl $0,0(%%esp)" ::: "memory");
    *disk->notify = 0;
    while (queue->used.idx != disk->seen) __asm__ volatile("pause" ::: "memory");
    if (queue->status) put('?');
}

static u32 load(struct disk *disk) {
    transfer(disk, 0);
    return BUFFER[0];
}

static void store(struct disk *disk, u32 count) {
    BUFFER[0] = count;
    transfer(disk, 1);
}

void main(void) {
    struct disk disks[2];
    u32 found = 0;
    outb(0x3f9, 0);
    for (u8 *byte = (u8 *)QUEUES; byte < (u8 *)(QUEUES + 2); byte++) *(volatile u8 *)byte = 0;
    /* Buses are numbered in the order of the disks. */
    for (u32 device = 0; device < 0x4000 && found < 2; device++) {
        u32 id = pci(device, 0);
        if (id == 0x10421af4 || id == 0x10011af4) {
            open(&disks[found], device, QUEUES + found);
            found++;
        }
    }
    if (found < 2) put('?');
    /* The second disk may be one count behind, if the power went between the two writes. */
    u32 count = load(&disks[0]);
    store(&disks[1], count);
    for (;;) {
        if (load(&disks[0]) != count || load(&disks[1]) != count) put('!');
        count++;
        store(&disks[0], count);
        store(&disks[1], count);
        PAGES[(count & 63) * 1024] = count;
        for (u32 shift = 32; shift; shift -= 4) {
            u32 digit = count >> (shift - 4) & 15;
            put(digit < 10 ? '0' + digit : 'a' + digit - 10);
        }
        put('\n');
        if ((inb(0x3fd) & 1) && inb(0x3f8) == 'q') outw(0x604, 0x2000); /* q35: PM1a control, S5 */
    }
}
