# The probe guest: a 512-byte boot sector. See accelerator.rs, which holds its bytes and how to assemble them.
.code16
.org 0
start:
  cli
  cld
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0x7c00,%sp
  ljmp $0,$(0x7c00+next-start)
next:
  # COM1 115200 8n1
  mov $0x3f9,%dx
  xor %al,%al
  out %al,%dx
  # page tables at 0x1000..0x3fff : PML4, PDPT, PD (one 2 MiB page x 1)
  mov $0x1000,%di
  mov $0x1800,%cx
  rep stosw
  movw $0x2003,0x1000
  movw $0x3003,0x2000
  movw $0x0083,0x3000
  lgdt (0x7c00+gdtr-start)
  mov $0x1000,%eax
  mov %eax,%cr3
  mov %cr4,%eax
  or $0x620,%eax          # PAE | OSFXSR | OSXMMEXCPT
  mov %eax,%cr4
  mov $0xc0000080,%ecx
  rdmsr
  or $0x100,%ax           # LME
  wrmsr
  mov %cr0,%eax
  and $0xfffffffb,%eax    # EM off
  or $0x80000003,%eax     # PG | MP | PE
  mov %eax,%cr0
  ljmp $8,$(0x7c00+long-start)
.code64
long:
  mov $0x8000,%esp
  # cmpxchg16b on memory
  mov $0x4000,%edi
  xor %eax,%eax
  xor %edx,%edx
  mov %rax,(%rdi)
  mov %rax,8(%rdi)
  mov $0x1234,%ebx
  mov $0x5678,%ecx
  lock cmpxchg16b (%rdi)
  jnz fail
  cmpl $0x5678,8(%rdi)
  jne fail
  # sse
  movdqu (%rdi),%xmm0
  movdqu %xmm0,16(%rdi)
  cmpl $0x1234,16(%rdi)
  jne fail
  # BMI2 where the CPU says it has it
  mov $7,%eax
  xor %ecx,%ecx
  cpuid
  bt $8,%ebx
  jnc ok
  mov $5,%eax
  mov $3,%ecx
  shlx %rcx,%rax,%rdx
  cmp $40,%edx
  jne fail
  mov $0x4000,%edi
  movl $0x77,(%rdi)
  rorx $4,(%rdi),%eax
ok:
  lea text(%rip),%rsi
print:
  lodsb
  test %al,%al
  jz done
  call putc
  jmp print
done:
  mov $0x31,%al
  out %al,$0xf4
echo:
  mov $0x3fd,%dx
  in %dx,%al
  pause
  test $1,%al
  jz echo
  mov $0x3f8,%dx
  in %dx,%al
  cmp $0x71,%al
  je poweroff
  call putc
  jmp echo
poweroff:
  # q35: PM1a control at 0x604, S5
  mov $0x604,%dx
  mov $0x2000,%ax
  out %ax,%dx
fail:
  mov $0x32,%al
  out %al,$0xf4
halt:
  hlt
  jmp halt
putc:
  mov %al,%ah
  mov $0x3fd,%dx
busy:
  in %dx,%al
  test $0x20,%al
  jz busy
  mov %ah,%al
  mov $0x3f8,%dx
  out %al,%dx
  ret
text: .asciz "collective probe: long mode\r\n"
.balign 8
gdt:
  .quad 0
  .quad 0x00209a0000000000
gdtr:
  .word 15
  .long 0x7c00+gdt-start
.org 510
  .word 0xaa55
