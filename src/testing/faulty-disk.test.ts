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

test('with one seed, 100 runs end alike', async () => {
  const outcomes = new Set<string>();
  for (let run = 0; run < 100; run++) {
    const rules: FaultyDiskOptions['rules'] = [
      { event: 'none', ioTypes: ['write'], action: 'delay', delayMs: 5, jitterMs: 50, probability: 0.5 },
      { event: 'none', ioTypes: ['write'], action: 'reorder', probability: 0.3 },
      { event: 'none', ioTypes: ['read', 'write'], action: 'corrupt', probability: 0.2 },
      { event: 'none', ioTypes: ['write'], action: 'torn', bytes: 100, probability: 0.2 },
    ];
    const { disk, control, host } = await faultyDisk({ size: 16384, seed: 9, rules });
    const ended: string[] = [];
    const writes = Array.from({ length: 16 }, (_, i) =>
      disk.write(i * 768, new Uint8Array(1024).fill(i + 1)).then(
        () => ended.push(`${i} done`),
        (error) => ended.push(`${i} ${error.code}`),
      ),
    );
    await Promise.all(writes);
    await disk.flush();
    const content = Buffer.from(await disk.read(0, 16384)).toString('base64');
    outcomes.add(JSON.stringify([ended, content, control.rules().map(({ hits }) => hits), host.clock.now()]));
    await disk.close();
  }
  expect(outcomes.size).toBe(1);
  expect([...outcomes][0]).toMatch(/EIO/);
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
