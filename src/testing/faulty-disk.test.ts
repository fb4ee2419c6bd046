import { expect, test } from 'vitest';
import { type FaultyDiskOptions, faultyDisk } from './index.ts';

const RULES: NonNullable<FaultyDiskOptions['rules']> = [
  { event: 'none', ioTypes: ['write'], action: 'delay', delayMs: 3600_000 },
  { event: 'none', ioTypes: ['write'], probability: 0.4, errno: 'EIO' },
];

/** Which of 40 writes fail. */
async function failures(seed: number): Promise<number[]> {
  const { disk } = await faultyDisk({ size: 65536, seed, rules: RULES });
  const failed: number[] = [];
  for (let i = 0; i < 40; i++) await disk.write(i * 512, new Uint8Array(512).fill(1)).catch(() => failed.push(i));
  await disk.close();
  return failed;
}

test('fails by its rules, the same for one seed, and hours of delay take no time', async () => {
  const first = await failures(5);
  expect(first.length).toBeGreaterThan(5);
  expect(first.length).toBeLessThan(35);
  expect(await failures(5)).toEqual(first);
  expect(await failures(6)).not.toEqual(first);
});

test('has content, a scenario, and rules that come and go', async () => {
  const { disk, control } = await faultyDisk({
    size: 4096,
    content: new Uint8Array(512).fill(9),
    scenario: ({ type, offset }) => (type === 'write' && offset === 1024 ? { kind: 'drop' } : undefined),
  });
  await disk.write(1024, new Uint8Array(512).fill(1));
  expect([(await disk.read(0, 1))[0], (await disk.read(1024, 1))[0]]).toEqual([9, 0]);
  const id = control.add({ event: 'none', errno: 'ENOSPC' });
  await expect(disk.write(0, new Uint8Array(512))).rejects.toMatchObject({ code: 'ENOSPC' });
  control.remove(id);
  await disk.write(0, new Uint8Array(512));
  await disk.close();
  await expect(faultyDisk({ size: 512, rules: [{ event: 'no-event' as 'none' }] })).rejects.toMatchObject({
    code: 'EINVAL',
  });
});
