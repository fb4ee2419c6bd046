/** Durable writes through blkdebug (BD-8). */
import { expect, test } from 'vitest';
import { failure, ones, opened } from '../../../tests/support/blkdebug.ts';

const SIZE = 1 << 20;

test('BD-8: force-unit-access comes to a child that has it, on writes and zero writes, whatever befalls them', async () => {
  const { disk, node, control } = await opened({ 'opt-write-zero': 512 }, { driver: 'memory', size: SIZE });
  const child = node.filtered?.node.impl;
  if (child?.write === undefined || child.writeZeroes === undefined) throw new Error('memory can');
  const { write, writeZeroes } = child;
  const seen: string[] = [];
  const note = (kind: string, offset: number, length: number, { fua }: { readonly fua?: boolean }) =>
    seen.push(`${kind} ${offset}+${length}${fua ? ' fua' : ''}`);
  child.takesFua = () => true;
  child.flush = async () => void seen.push('flush');
  child.write = (offset, source, flags) => {
    note('write', offset, source.length, flags);
    return write(offset, source, flags);
  };
  child.writeZeroes = (offset, length, flags) => {
    note('zero', offset, length, flags);
    return writeZeroes(offset, length, flags);
  };
  const steps = async () => {
    await failure(disk.write(0, ones, { fua: true }));
    await failure(disk.writeZeroes(8192, 4096, { fua: true }));
  };
  await steps();
  expect(seen.splice(0)).toEqual(['write 0+4096 fua', 'zero 8192+4096 fua']);
  // A fault changes what is written, not how; what must be durable is not held back.
  for (const [rule, story] of [
    [{ action: 'torn', bytes: 1024 }, ['write 0+1024 fua', 'zero 8192+1024 fua']],
    [{ action: 'misdirect', target: 65536 }, ['write 65536+4096 fua', 'zero 65536+4096 fua']],
    [{ action: 'corrupt' }, ['write 0+4096 fua', 'zero 8192+4096 fua']],
    [{ action: 'reorder' }, ['write 0+4096 fua', 'zero 8192+4096 fua']],
    [{ action: 'drop' }, []],
  ] as const) {
    const id = control.add({ event: 'none', ...rule });
    await steps();
    control.remove(id);
    expect([rule.action, seen.splice(0)]).toEqual([rule.action, story]);
  }
  await disk.close();
});
