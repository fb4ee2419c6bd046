import { describe, expect, test } from 'vitest';
import { Gate, Mutex, settled } from './gate.ts';

/** Whether the promise is resolved once all that can go on has gone on. */
async function isResolved(promise: Promise<unknown>): Promise<boolean> {
  let resolved = false;
  void promise.then(() => {
    resolved = true;
  });
  for (let i = 0; i < 20; i++) await Promise.resolve();
  return resolved;
}

describe('the gate', () => {
  test('closes once those inside have left', async () => {
    const gate = new Gate();
    const first = gate.enter();
    const second = gate.enter();
    const closed = gate.close();
    expect(gate.closed).toBe(true);
    gate.leave(first);
    expect(await isResolved(closed)).toBe(false);
    gate.leave(second);
    expect(await isResolved(closed)).toBe(true);
  });

  test('closes at once when nobody is inside', async () => {
    expect(await isResolved(new Gate().close())).toBe(true);
  });

  test('holds back who comes while it is closed, also when it closes again at once', async () => {
    const gate = new Gate();
    await gate.close();
    const waiting = gate.enterWhenOpen();
    expect(await isResolved(waiting)).toBe(false);
    gate.open();
    const again = gate.close();
    expect(await isResolved(waiting)).toBe(false);
    await again;
    gate.open();
    gate.leave(await waiting);
    expect(await isResolved(gate.close())).toBe(true);
  });

  test('a barrier waits for those inside, not for those who come later', async () => {
    const gate = new Gate();
    const before = gate.enter();
    const barrier = gate.barrier();
    const after = gate.enter();
    gate.leave(before);
    expect(await isResolved(barrier)).toBe(true);
    const second = gate.barrier();
    expect(await isResolved(second)).toBe(false);
    gate.leave(after);
    expect(await isResolved(second)).toBe(true);
  });

  test('a later barrier waits for earlier requests too', async () => {
    const gate = new Gate();
    const first = gate.enter();
    void gate.barrier();
    const second = gate.enter();
    const barrier = gate.barrier();
    gate.leave(second);
    expect(await isResolved(barrier)).toBe(false);
    gate.leave(first);
    expect(await isResolved(barrier)).toBe(true);
  });
});

describe('the mutex', () => {
  test('runs one after the other, also after failures', async () => {
    const mutex = new Mutex();
    const order: string[] = [];
    const step = (name: string, fails = false) =>
      mutex.run(async () => {
        order.push(`${name} begins`);
        await Promise.resolve();
        order.push(`${name} ends`);
        if (fails) throw new RangeError(name);
        return name;
      });
    const results = await Promise.allSettled([step('a'), step('b', true), step('c')]);
    expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
  });
});

describe('settled', () => {
  test('throws the first failure, but only when all are over', async () => {
    let over = false;
    const slow = (async () => {
      for (let i = 0; i < 5; i++) await Promise.resolve();
      over = true;
    })();
    await expect(settled([Promise.reject(new RangeError('first')), slow])).rejects.toThrow('first');
    expect(over).toBe(true);
  });
});
