import { expect, test } from 'vitest';
import { loadKoffi } from '../node/koffi.ts';
import { transferBuffer } from './transfer-buffer.ts';

const linux = process.platform === 'linux';

test('has the length asked for, and is zero', () => {
  const buffer = transferBuffer(3 << 20);
  expect(buffer.length).toBe(3 << 20);
  expect(buffer.every((byte) => byte === 0)).toBe(true);
});

test.runIf(linux)('begins at a page, when it is large', () => {
  const koffi = loadKoffi();
  // Larger than what the allocator may have kept of what others gave back.
  const buffer = transferBuffer(300 << 20);
  expect(BigInt(koffi.address(buffer)) % 4096n).toBe(0n);
});
