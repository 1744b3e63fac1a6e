# Roro's script for U-Boot (2020.01 or later, hush shell). To be compiled: mkimage -A arm64 -T script -d u-boot.cmd boot.scr
#
# It knows the variables of RAUC's convention: BOOT_ORDER ("A B"), BOOT_A_LEFT, BOOT_B_LEFT (starts left, hexadecimal;
# x1 to x6: starts beyond that), and roro_trial=a|b while a bank is tried. It promises: a bank is started only after the start was
# counted, and beyond the starts that are left only where no other has any; a trial whose count cannot be saved is not started;
# whatever is torn or gone, some bank is started, and its initrd decides by the record; nothing is ever written but to the
# partition for it. When nothing starts, or nothing comes up in 6 starts beyond, it says so and ends in the recovery command or in a
# reset after 5 minutes: it never spins.
#
# Where the variables lie: in U-Boot's own environment (roro_native=1; `saveenv` must work and be redundant), or in two copies on the
# raw partition `loader` (format: docs/boot.md), for boards whose U-Boot stores no environment or one copy only. There the older copy
# is written, never the newer one. How to lay out a disk: docs/loaders/u-boot.md.
#
# A bank is a FAT partition with roro/linux, roro/boot.env (text, one line: cmdline=...), and perhaps roro/initrd and roro/dtb.
#
# The board may set, in its own environment:
#   roro_watchdog   a command that starts the watchdog, and pets it when it runs. It is run first, and every 2 seconds at the end.
#   roro_recovery   a command that starts the recovery system.

# --- settings ---------------------------------------------------------------------------------------------------------
# All numbers are hexadecimal. The disk: interface and number as the command `part list` wants them, then partition numbers.
roro_interface=mmc
roro_device=0
roro_part_loader=2
roro_part_a=3
roro_part_b=4
# 1: the variables are in U-Boot's own environment.
roro_native=0
# One copy on the partition `loader`, in bytes and in blocks of the disk. The second lies right behind the first.
roro_bytes=4000
roro_blocks=20
# 1 MiB of memory that this script and U-Boot itself do not lie in. Nothing there is needed any more when a kernel is loaded.
setexpr roro_n ${ramdisk_addr_r} - 100000
roro_memory=${roro_n}
# The device tree where the bank brings none.
roro_fdt=${fdtcontroladdr}
# The command that starts the kernel: booti, or bootz on 32-bit boards.
roro_boot=booti
# ----------------------------------------------------------------------------------------------------------------------

if test -n "${roro_watchdog}"; then run roro_watchdog; fi

# What the variables say where nothing says anything: both banks may be started.
order="A B"
left_a=3
left_b=3
trial=
recovery=${roro_recovery}
own_bootargs=${bootargs}

# In memory, each from a border of 4 KiB, as caches and some processors want it: a CRC as the command stores it, and behind it as a copy
# holds it; the copy that was read; U-Boot's own environment while another one is in its place; the copy to be written. That
# comes last: whatever size it is told, `env export` clears as much as U-Boot's own environment may be long.
setexpr roro_n ${roro_bytes} + fff
setexpr roro_n ${roro_n} / 1000
setexpr roro_n ${roro_n} * 1000
step=${roro_n}
sum=${roro_memory}
setexpr roro_n ${sum} + 40
crc=${roro_n}
setexpr roro_n ${sum} + 1000
copy=${roro_n}
setexpr roro_n ${copy} + ${step}
own=${roro_n}
env export -b ${own}
setexpr roro_n ${own} + ${filesize}
setexpr roro_n ${roro_n} + fff
setexpr roro_n ${roro_n} / 1000
setexpr roro_n ${roro_n} * 1000
new=${roro_n}
setexpr roro_n ${roro_bytes} - 5
data_bytes=${roro_n}
block_0=
block_newest=
serial=0

# roro_sum: the CRC of the copy at ${at}, little-endian, to ${crc}. The command stores it big-endian, or as a word of the processor where
# U-Boot was built without other digests: the CRC of a byte 0, d202ef8d, tells which.
setenv roro_sum 'setexpr roro_n ${at} + 5; crc32 ${roro_n} ${data_bytes} ${sum}; if test ${swapped} = 1; then setexpr roro_n ${sum} + 3; cp.b ${roro_n} ${crc} 1; setexpr roro_n ${sum} + 2; setexpr roro_m ${crc} + 1; cp.b ${roro_n} ${roro_m} 1; setexpr roro_n ${sum} + 1; setexpr roro_m ${crc} + 2; cp.b ${roro_n} ${roro_m} 1; setexpr roro_m ${crc} + 3; cp.b ${sum} ${roro_m} 1; else cp.b ${sum} ${crc} 4; fi'
mw.b ${copy} 0 1
crc32 ${copy} 1 ${sum}
setexpr.b roro_n *${sum}
swapped=1
if itest ${roro_n} == 8d; then swapped=0; fi

if test ${roro_native} = 1; then
  if test -n "${BOOT_ORDER}"; then order="${BOOT_ORDER}"; fi
  if test -n "${BOOT_A_LEFT}"; then left_a=${BOOT_A_LEFT}; fi
  if test -n "${BOOT_B_LEFT}"; then left_b=${BOOT_B_LEFT}; fi
  trial=${roro_trial}
else
  # Where the partition cannot be found nothing says where it lies: then nothing is read there, and above all nothing written.
  setenv roro_n
  if ${roro_interface} dev ${roro_device}; then
    if part start ${roro_interface} ${roro_device} ${roro_part_loader} roro_n; then block_0=${roro_n}; fi
  fi
  if test -n "${block_0}"; then
    setexpr roro_n ${block_0} + ${roro_blocks}
    block_1=${roro_n}
    at=${copy}
    for block in ${block_0} ${block_1}; do
      if ${roro_interface} read ${copy} ${block} ${roro_blocks}; then
        run roro_sum
        if itest.l *${copy} == *${crc}; then
          setexpr roro_n ${copy} + 4
          setexpr.b roro_n *${roro_n}
          # The newer serial counts, and 0 comes after ff, as in U-Boot itself.
          newer=0
          if test -z "${block_newest}"; then newer=1; else
            if itest ${roro_n} -gt ${serial}; then newer=1; fi
            if itest ${serial} == ff; then if itest ${roro_n} == 0; then newer=1; fi; fi
            if itest ${serial} == 0; then if itest ${roro_n} == ff; then newer=0; fi; fi
          fi
          if test ${newer} = 1; then block_newest=${block}; serial=${roro_n}; fi
        fi
      fi
    done
  else
    echo "Roro: partition ${roro_part_loader}, for the state of the boot loader, cannot be found; no start is counted"
  fi
  lost=1
  if test -n "${block_newest}"; then
    if ${roro_interface} read ${copy} ${block_newest} ${roro_blocks}; then lost=0; fi
  fi
  if test ${lost} = 0; then
    setexpr roro_n ${copy} + 5
    data=${roro_n}
    env export -b ${own}
    own_bytes=${filesize}
    env import -d -b ${data} ${data_bytes}
    if test -n "${BOOT_ORDER}"; then order="${BOOT_ORDER}"; fi
    if test -n "${BOOT_A_LEFT}"; then left_a=${BOOT_A_LEFT}; fi
    if test -n "${BOOT_B_LEFT}"; then left_b=${BOOT_B_LEFT}; fi
    trial=${roro_trial}
    if test -n "${roro_recovery}"; then recovery="${roro_recovery}"; fi
    env import -d -b ${own} ${own_bytes}
    if test -n "${recovery}"; then setenv roro_recovery "${recovery}"; fi
  else
    echo "Roro: the state of the boot loader is lost; the initrd decides"
  fi
fi

recovery_word=
if test -n "${recovery}"; then recovery_word=roro.recovery=1; fi

# First as long as starts are left. Then, as nothing better is there, six more (x1 to x6, which are 0 to a comparison: an initrd that runs has
# said its own end before, and knows more of it), the default bank before one on trial; and then the stated end. From there on one start between two ends, so that a cause that goes away heals.
end=0
first=
for pass in counted given_up; do
  if test ${pass} = given_up; then
    if test "${trial}" = a; then order="B A"; fi
    if test "${trial}" = b; then order="A B"; fi
    echo "Roro: no bank has starts left; trying all"
  fi
  for name in ${order}; do
    bank=
    if test ${name} = A; then bank=a; left=${left_a}; part=${roro_part_a}; fi
    if test ${name} = B; then bank=b; left=${left_b}; part=${roro_part_b}; fi
    go=0
    if test -n "${bank}"; then
      if test -z "${first}"; then first=${bank}; fi
      count=0
      if test ${pass} = given_up; then
        if test ${end} = 0; then
          go=1
          count=1
          next=x1
          is_next=0
          for step in x1 x2 x3 x4 x5 x6; do
            if test ${is_next} = 1; then next=${step}; fi
            is_next=0
            if test "${left}" = ${step}; then is_next=1; fi
          done
          # It was the last.
          if test ${is_next} = 1; then end=1; next=x5; fi
          left=${next}
        fi
      else
        if itest ${left} -gt 0; then
          go=1
          count=1
          setexpr roro_n ${left} - 1
          left=${roro_n}
        fi
      fi
      if test ${count} = 1; then
        setexpr roro_n ${serial} + 1
        setexpr roro_n ${roro_n} % 100
        serial=${roro_n}
        if test ${name} = A; then left_a=${left}; else left_b=${left}; fi
        saved=0
        if test ${roro_native} = 1; then
          setenv BOOT_${name}_LEFT ${left}
          setenv roro_n; setenv roro_m; setenv roro_sum
          if saveenv; then saved=1; fi
        else
          # The newest copy is read again: a kernel that was loaded in between may lie over it.
          ready=0
          at=${copy}
          old=${block_0}
          if test -n "${block_newest}"; then
            if test ${block_newest} = ${block_0}; then old=${block_1}; fi
            if ${roro_interface} read ${copy} ${block_newest} ${roro_blocks}; then
              run roro_sum
              if itest.l *${copy} == *${crc}; then ready=1; fi
            fi
          else
            # Where all is lost it begins with nothing, on the first copy.
            if test -n "${block_0}"; then
              mw.b ${copy} 0 ${roro_bytes}
              ready=1
            fi
          fi
          if test ${ready} = 1; then
            mw.b ${new} 0 ${roro_bytes}
            setexpr roro_n ${copy} + 5
            data=${roro_n}
            setexpr roro_n ${new} + 5
            at=${roro_n}
            # Nothing but the variables of the copy, all of them, and none of U-Boot's own.
            env export -b ${own}
            own_bytes=${filesize}
            env import -d -b ${data} ${data_bytes}
            setenv BOOT_${name}_LEFT ${left}
            env export -b -s ${data_bytes} ${at}
            env import -d -b ${own} ${own_bytes}
            at=${new}
            setexpr roro_n ${new} + 4
            mw.b ${roro_n} ${serial}
            run roro_sum
            cp.b ${crc} ${new} 4
            if ${roro_interface} write ${new} ${old} ${roro_blocks}; then
              if ${roro_interface} read ${copy} ${old} ${roro_blocks}; then
                if cmp.b ${new} ${copy} ${roro_bytes}; then saved=1; block_newest=${old}; fi
              fi
            fi
          fi
        fi
        if test ${saved} = 0; then
          # Where nothing can be counted the end would be for ever.
          end=0
          if test ${pass} = counted; then
            if test "${trial}" = "${bank}"; then
              go=0
              echo "Roro: the trial of bank ${bank} cannot be counted, so it is not started"
            fi
          fi
        fi
        if test ${end} = 1; then
          go=0
          echo "Roro: no bank comes up"
        fi
      fi
    fi
    if test ${go} = 1; then
      setenv cmdline
      initrd=-
      fdt=${roro_fdt}
      if load ${roro_interface} ${roro_device}:${part} ${roro_memory} roro/boot.env; then
        env import -t ${roro_memory} ${filesize} cmdline
        if test -n "${cmdline}"; then
          if load ${roro_interface} ${roro_device}:${part} ${kernel_addr_r} roro/linux; then
            if test -e ${roro_interface} ${roro_device}:${part} roro/initrd; then
              initrd=missing
              if load ${roro_interface} ${roro_device}:${part} ${ramdisk_addr_r} roro/initrd; then
                initrd=${ramdisk_addr_r}:${filesize}
              fi
            fi
            if test -e ${roro_interface} ${roro_device}:${part} roro/dtb; then
              fdt=missing
              if load ${roro_interface} ${roro_device}:${part} ${fdt_addr_r} roro/dtb; then fdt=${fdt_addr_r}; fi
            fi
            if test ${initrd} = missing -o ${fdt} = missing; then true; else
              words="roro.bank=${bank}"
              if test ${bank} != ${first}; then words="${words} roro.gave_up=${first}"; fi
              setenv bootargs "${cmdline} ${words} ${recovery_word}"
              echo "Roro: starting bank ${bank}"
              ${roro_boot} ${kernel_addr_r} ${initrd} ${fdt}
            fi
          fi
        fi
      fi
      echo "Roro: bank ${bank} cannot be started"
      # Nothing of it goes into an environment that is saved for the next bank.
      setenv cmdline
      setenv bootargs "${own_bootargs}"
    fi
  done
done

echo "Roro: no bank can be booted"
if test -n "${recovery}"; then
  echo "Roro: starting the recovery command in 10 seconds"
  for pets in 1 2 3 4 5; do
    if test -n "${roro_watchdog}"; then run roro_watchdog; fi
    sleep 2
  done
  run roro_recovery
fi
for minutes in 5 4 3 2 1; do
  echo "Roro: restarting in ${minutes} minutes"
  for pets in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    if test -n "${roro_watchdog}"; then run roro_watchdog; fi
    sleep 2
  done
done
reset
