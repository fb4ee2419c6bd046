import { describe, expect, test } from 'vitest';
import { commandsOf } from './table.ts';
import { completions } from './terminal.ts';

const COMMANDS = commandsOf({ name: 'diskwright', qemu: false });

describe('completion', () => {
  test.each([
    ['len', ['length '], 'len'],
    ['aio_', ['aio_flush ', 'aio_read ', 'aio_write '], 'aio_'],
    ['help re', ['read ', 'readv ', 'remove_break ', 'reopen ', 'resume '], 're'],
    ['break flush_', ['flush_to_os ', 'flush_to_disk '], 'flush_'],
    ['fault r', ['remove '], 'r'],
    ['fault add  pwritev_d', ['pwritev_done '], 'pwritev_d'],
    ['fault add set-state l1_s', ['l1_shrink_write_table ', 'l1_shrink_free_l2_clusters '], 'l1_s'],
    ['read 0 5', [], '5'],
    ['zork', [], 'zork'],
  ])('%s', (line, candidates, last) => {
    expect(completions(line, COMMANDS)).toEqual([candidates, last]);
  });
});
