/** Operation blockers: BL-BLOCK. */
import { expect, test } from 'vitest';
import { block, isBlocked, isUnblocked, OPERATIONS, requireUnblocked, unblock } from '../../src/core/blockers.ts';
import { graphOf, Storage, storageProtocol } from './storage.ts';

async function newNode() {
  return (await graphOf([storageProtocol(new Storage(512))]).open({ driver: 'store' }, { nodeName: 'n' })).node;
}

test('BL-BLOCK-1: the operations', () => {
  expect(OPERATIONS.join(', ')).toBe(
    'backup-source, backup-target, change, commit-source, commit-target, dataplane, drive-del, eject, external-snapshot, ' +
      'internal-snapshot, internal-snapshot-delete, mirror-source, mirror-target, resize, stream, replace',
  );
});

test('BL-BLOCK-2: reasons count one by one, and go together by identity, not by their text', async () => {
  const node = await newNode();
  const [mine, other] = [{ text: 'the same' }, { text: 'the same' }];
  block(node, mine, ['resize']);
  block(node, mine, ['resize']);
  block(node, other, ['resize']);
  unblock(node, mine, ['resize']);
  expect(isBlocked(node, 'resize')).toBe(true);
  unblock(node, other, ['resize']);
  expect([isBlocked(node, 'resize'), isUnblocked(node)]).toEqual([false, true]);
  unblock(node, other);
});

test('BL-BLOCK-2: all operations at once', async () => {
  const node = await newNode();
  const reason = { text: 'all' };
  block(node, reason);
  expect(OPERATIONS.every((operation) => isBlocked(node, operation))).toBe(true);
  unblock(node, reason, ['eject']);
  expect([isBlocked(node, 'eject'), isUnblocked(node)]).toEqual([false, false]);
  unblock(node, reason);
  expect(isUnblocked(node)).toBe(true);
});

test('BL-BLOCK-3: the message has the newest reason, and the device or the node', async () => {
  const node = await newNode();
  requireUnblocked(node, 'resize');
  block(node, { text: 'older' });
  block(node, { text: 'newer' }, ['resize']);
  const busy = (message: string) => expect.objectContaining({ code: 'EBUSY', message });
  expect(() => requireUnblocked(node, 'resize')).toThrow(busy("Node 'n' is busy: newer"));
  expect(() => requireUnblocked(node, 'stream')).toThrow(busy("Node 'n' is busy: older"));
  expect(() => requireUnblocked(node, 'stream', 'cd')).toThrow(busy("Node 'cd' is busy: older"));
});
