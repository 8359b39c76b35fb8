# The boot sector of the counting guest: reads what comes after it, and calls it in flat 32-bit protected mode.
# How it is built: build.sh beside it.
.code16
.section .note.GNU-stack,"",@progbits
.section .boot, "ax"
.globl start
start:
  cli
  cld
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0x7c00,%sp
  ljmp $0,$next
next:
  mov $0x42,%ah
  mov $packet,%si
  int $0x13
  jc failed
  cli
  lgdt gdtr
  mov %cr0,%eax
  or $1,%al
  mov %eax,%cr0
  ljmp $8,$flat
failed:
  hlt
  jmp failed
.code32
flat:
  mov $16,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0x7c00,%esp
  jmp main
.balign 8
packet:
  .byte 16, 0
  .word 15
  .word 0x7e00, 0
  .quad 1
gdt:
  .quad 0
  .quad 0x00cf9a000000ffff
  .quad 0x00cf92000000ffff
gdtr:
  .word 23
  .long gdt
.org 510
  .word 0xaa55
