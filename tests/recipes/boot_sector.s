# SPDX-License-Identifier: BSD-3-Clause
# A boot sector that loads sector 4096 by the BIOS and writes the text in it to the serial line.
.code16
.globl _start
_start:
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%ss
  mov $0x7c00,%sp
  mov $packet,%si
  mov $0x42,%ah
  int $0x13
  jc stop
  mov $0x8000,%si
again:
  lodsb
  test %al,%al
  jz stop
  mov %al,%bl
wait:
  mov $0x3fd,%dx
  in %dx,%al
  test $0x20,%al
  jz wait
  mov %bl,%al
  mov $0x3f8,%dx
  out %al,%dx
  jmp again
stop:
  mov $0x2000,%ax   # ACPI shutdown of the machine "pc"
  mov $0x604,%dx
  out %ax,%dx
  hlt
packet:
  .byte 16,0,1,0
  .word 0x8000,0
  .quad 4096
.org 510
.byte 0x55,0xaa
