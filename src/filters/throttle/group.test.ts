import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { LimitedKind } from '../../core/io-limiter.ts';
import { SimClock } from '../../testing/sim-clock.ts';
import { ThrottleGroup, type ThrottleMember } from './group.ts';
import { parseLimits } from './limits.ts';

const limitsOf = (given: Record<string, number>) =>
  parseLimits(Object.fromEntries(Object.entries(given).map(([name, value]) => [`limits.${name}`, value])));

function setUp(given: Record<string, number>) {
  const clock = new SimClock();
  const group = new ThrottleGroup('g0', limitsOf(given), clock);
  const log: string[] = [];
  const pending: Promise<void>[] = [];
  /** Notes `NAME TIME` when the request passes. */
  const ask = (name: string, member: ThrottleMember, kind: LimitedKind, bytes = 512) => {
    const note = () => {
      log.push(`${name} ${Math.round(clock.now())}`);
    };
    const turn = member.wait(kind, bytes);
    if (turn === undefined) note();
    else pending.push(turn.then(note));
  };
  return { clock, group, log, ask, all: () => Promise.all(pending) };
}

/** Sleeps that have not ended. */
class CountingClock extends SimClock {
  sleeping = 0;
  override async sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
    this.sleeping++;
    try {
      await super.sleep(milliseconds, signal);
    } finally {
      this.sleeping--;
    }
  }
}

describe('throttle group (BL-MISC-2)', () => {
  test('without limits every request passes now, without a promise', () => {
    const { group } = setUp({});
    const member = group.join();
    expect(member.wait('read', 1e9)).toBeUndefined();
    expect(member.wait('write', 1e9)).toBeUndefined();
    expect(member.mayPass('read')).toBe(true);
  });

  test('a request within the limits passes without a promise too', () => {
    const { group } = setUp({ 'iops-total': 10 });
    const member = group.join();
    expect(member.mayPass('read')).toBe(true);
    expect(member.wait('read', 512)).toBeUndefined();
    expect(member.wait('read', 512)).toBeUndefined();
    expect(member.mayPass('read')).toBe(false);
    expect(member.wait('read', 512)).toBeInstanceOf(Promise);
  });

  test('reads and writes have limits of their own, and one of total does not tell them apart', async () => {
    const apart = setUp({ 'iops-read': 10, 'bps-write': 10240 });
    const member = apart.group.join();
    for (const name of ['r1', 'r2', 'r3', 'r4']) apart.ask(name, member, 'read', 65536);
    for (const name of ['w1', 'w2', 'w3']) apart.ask(name, member, 'write', 4096);
    await apart.all();
    expect(apart.log).toEqual(['r1 0', 'r2 0', 'w1 0', 'r3 100', 'r4 200', 'w2 300', 'w3 700']);

    const total = setUp({ 'iops-total': 10 });
    const shared = total.group.join();
    for (const name of ['r1', 'r2', 'r3', 'r4']) total.ask(name, shared, 'read');
    for (const name of ['w1', 'w2', 'w3']) total.ask(name, shared, 'write');
    await total.all();
    expect(total.log).toEqual(['r1 0', 'r2 0', 'r3 100', 'w1 200', 'r4 300', 'w2 400', 'w3 500']);
  });

  test('bytes and requests are both limited: the longer wait counts', async () => {
    const { group, log, ask, all } = setUp({ 'iops-total': 10, 'bps-total': 10240 });
    const member = group.join();
    for (const name of ['a', 'b', 'c']) ask(name, member, 'read', 4096);
    await all();
    expect(log).toEqual(['a 0', 'b 300', 'c 700']);
  });

  test.each([
    [256, [0, 0, 100, 200]],
    [512, [0, 0, 100, 200]],
    [768, [0, 50, 200, 350]],
    [1024, [0, 100, 300, 500]],
  ])(
    'iops-size 512: a request of %d bytes counts as often as it is as long, once at least',
    async (bytes, expected) => {
      const { group, log, ask, all } = setUp({ 'iops-total': 10, 'iops-size': 512 });
      const member = group.join();
      for (const _ of expected) ask('', member, 'read', bytes);
      await all();
      expect(log).toEqual(expected.map((time) => ` ${time}`));
    },
  );

  test('a request larger than the bucket passes once what was before it has leaked out', async () => {
    const { group, log, ask, all } = setUp({ 'bps-write': 1000 });
    const member = group.join();
    ask('small', member, 'write', 200);
    ask('large', member, 'write', 1e6);
    ask('after', member, 'write', 1);
    await all();
    expect(log).toEqual(['small 0', 'large 100', 'after 1000100']);
  });

  test('a wait of years is slept in one piece or many, but ends', async () => {
    const { group, log, ask, all } = setUp({ 'bps-total': 1 });
    const member = group.join();
    ask('a', member, 'write', 2 ** 40);
    ask('b', member, 'write', 1);
    await all();
    expect(log).toEqual(['a 0', `b ${2 ** 40 * 1000 - 100}`]);
  });

  test('members take turns, however much one of them asks for; each is served in order', async () => {
    const { group, log, ask, all } = setUp({ 'iops-read': 10 });
    const [greedy, second, third] = [group.join(), group.join(), group.join()];
    for (let i = 1; i <= 6; i++) ask(`g${i}`, greedy, 'read');
    for (let i = 1; i <= 2; i++) ask(`s${i}`, second, 'read');
    for (let i = 1; i <= 2; i++) ask(`t${i}`, third, 'read');
    await all();
    const order = log.map((line) => line.split(' ')[0]);
    expect(order).toEqual(['g1', 'g2', 'g3', 's1', 't1', 'g4', 's2', 't2', 'g5', 'g6']);
    expect(log.at(-1)).toBe('g6 800');
  });

  test('nobody overtakes those who wait, even when the limits would allow it', async () => {
    const { clock, group, log, ask, all } = setUp({ 'iops-read': 10 });
    const [first, second] = [group.join(), group.join()];
    for (const name of ['a', 'b', 'c', 'd']) ask(name, first, 'read');
    await clock.sleep(150);
    ask('late', second, 'read');
    await all();
    expect(log).toEqual(['a 0', 'b 0', 'c 100', 'd 200', 'late 300']);
  });

  test('nor at the very moment when the next of them may pass, before the timer has told', async () => {
    const { clock, group, log, ask, all } = setUp({ 'iops-read': 10 });
    const [first, second] = [group.join(), group.join()];
    const moment = clock.sleep(100);
    for (const name of ['a', 'b', 'c']) ask(name, first, 'read');
    await moment;
    expect(second.mayPass('read')).toBe(false);
    ask('late', second, 'read');
    await all();
    expect(log).toEqual(['a 0', 'b 0', 'c 100', 'late 200']);
  });

  test('a kind that only its own limit holds back does not hold back the other', async () => {
    const { group, log, ask, all } = setUp({ 'iops-read': 10 });
    const member = group.join();
    for (const name of ['a', 'b', 'c']) ask(name, member, 'read');
    ask('w', member, 'write');
    expect(log).toEqual(['a 0', 'b 0', 'w 0']);
    await all();
  });

  test('a kind with a limit of its own still gets its turn of a total', async () => {
    const { group, log, ask, all } = setUp({ 'bps-total': 1000, 'iops-read': 1 });
    const member = group.join();
    for (let i = 0; i < 40; i++) ask(`w${i}`, member, 'write', 100);
    for (let i = 0; i < 3; i++) ask(`r${i}`, member, 'read', 100);
    await all();
    const times = log.filter((line) => line.startsWith('r')).map((line) => Number(line.split(' ')[1]));
    expect(times[0]).toBeLessThanOrEqual(100);
    expect(times[1]).toBeLessThanOrEqual(1100);
    expect(times[2]).toBeLessThanOrEqual(2100);
  });
});

describe('throttle group: members', () => {
  test('disabling lets all that waits pass at once, in order, and counts it (BL-CLOSE-2, step 2)', async () => {
    const { clock, group, log, ask, all } = setUp({ 'iops-total': 10 });
    const [closing, other] = [group.join(), group.join()];
    for (let i = 1; i <= 20; i++) ask(`c${i}`, closing, i % 2 ? 'read' : 'write');
    ask('other', other, 'read');
    closing.disable();
    await Promise.resolve();
    await Promise.resolve();
    expect(log.filter((line) => line.startsWith('c') && line.endsWith(' 0'))).toHaveLength(20);
    const reads = log.filter((line) => /^c\d*[13579] /.test(line));
    expect(reads).toEqual(Array.from({ length: 10 }, (_, i) => `c${2 * i + 1} 0`));
    await all();
    // 20 requests less the one that the bucket holds, as qemu-io shows it.
    expect(log.at(-1)).toBe('other 1900');
    expect(clock.now()).toBeCloseTo(1900, 5);
  });

  test('a disabled member does not wait, and does again after as many enables', () => {
    const { group } = setUp({ 'iops-total': 10 });
    const member = group.join();
    member.disable();
    member.disable();
    for (let i = 0; i < 10; i++) expect(member.wait('read', 512)).toBeUndefined();
    expect(member.mayPass('read')).toBe(true);
    member.enable();
    expect(member.wait('read', 512)).toBeUndefined();
    member.enable();
    expect(member.mayPass('read')).toBe(false);
    expect(member.wait('read', 512)).toBeInstanceOf(Promise);
    member.leave();
  });

  test('leaving lets requests pass, at once and from then on, and is counted once', async () => {
    const { group, log, ask, all } = setUp({ 'iops-total': 1 });
    const [leaving, staying] = [group.join(), group.join()];
    expect(group.memberCount).toBe(2);
    for (const name of ['a', 'b', 'c']) ask(name, leaving, 'write');
    leaving.leave();
    leaving.leave();
    expect(group.memberCount).toBe(1);
    await all();
    expect(log).toEqual(['a 0', 'b 0', 'c 0']);
    expect(leaving.wait('write', 1e9)).toBeUndefined();
    expect(leaving.mayPass('write')).toBe(true);
    leaving.count('write', 1e9);
    ask('s', staying, 'write');
    await all();
    expect(log.at(-1)).toBe('s 2900');
  });

  test('requests that passed unasked count', async () => {
    const { group, log, ask, all } = setUp({ 'bps-read': 1000 });
    const member = group.join();
    member.count('read', 600);
    ask('a', member, 'read', 1);
    await all();
    expect(log).toEqual(['a 500']);
  });

  test('one timer at most, and none when nobody waits', async () => {
    const clock = new CountingClock();
    const group = new ThrottleGroup('g0', limitsOf({ 'iops-total': 10, 'bps-read': 100 }), clock);
    const members = [group.join(), group.join()];
    for (const member of members) {
      for (let i = 0; i < 5; i++) {
        member.wait('read', 512);
        member.wait('write', 512);
      }
    }
    await Promise.resolve();
    expect(clock.sleeping).toBe(1);
    for (const member of members) member.leave();
    for (let i = 0; i < 10; i++) await Promise.resolve();
    expect(clock.sleeping).toBe(0);
    expect(clock.now()).toBe(0);
  });
});

describe('throttle group: members that send one request after the other (BL-MISC-2)', () => {
  /** How many requests pass in a second, after the first moments, of members with so many writers, each of which takes so long for one. */
  async function passed(given: Record<string, number>, members: readonly { writers: number; takes: number }[]) {
    const clock = new SimClock();
    // Timers that come late, as those of a real machine do.
    const sleep = (milliseconds: number, signal?: AbortSignal) => clock.sleep(Math.ceil(milliseconds) + 1, signal);
    const late = { now: () => clock.now(), wall: () => clock.wall(), sleep };
    const group = new ThrottleGroup('g0', limitsOf(given), late);
    const counts = members.map(() => 0);
    const writer = async (index: number, member: ThrottleMember, takes: number) => {
      while (clock.now() < 1200) {
        await member.wait('write', 512);
        if (clock.now() >= 200 && clock.now() < 1200) counts[index] = (counts[index] ?? 0) + 1;
        await clock.sleep(takes);
      }
    };
    await Promise.all(
      members.flatMap(({ writers, takes }, index) => {
        const member = group.join();
        return Array.from({ length: writers }, () => writer(index, member, takes));
      }),
    );
    return counts;
  }

  test.each([
    { given: { 'iops-total': 700 }, total: 700 },
    { given: { 'iops-write': 3000 }, total: 3000 },
    { given: { 'bps-total': 512 * 900 }, total: 900 },
  ])('one writer gets as much as sixteen on another: $given', async ({ given, total }) => {
    const [many = 0, one = 0] = await passed(given, [
      { writers: 16, takes: 0.2 },
      { writers: 1, takes: 0.2 },
    ]);
    expect(one / many).toBeGreaterThan(0.95);
    expect(many + one).toBeGreaterThan(0.98 * total);
    expect(many + one).toBeLessThan(1.02 * total);
  });

  test('nor is anything lost by one who takes long, or who cannot have more', async () => {
    const [, slow = 0] = await passed({ 'iops-total': 2000 }, [
      { writers: 16, takes: 0.1 },
      { writers: 1, takes: 10 },
    ]);
    expect(slow).toBeGreaterThan(75);
    const [many = 0, one = 0] = await passed({ 'iops-total': 20_000 }, [
      { writers: 64, takes: 0.1 },
      { writers: 1, takes: 0.5 },
    ]);
    expect(one).toBeGreaterThan(500);
    expect(many + one).toBeGreaterThan(0.98 * 20_000);
  });
});

describe('throttle group: change of limits', () => {
  test('lifting them lets what waits pass at once', async () => {
    const { group, log, ask, all } = setUp({ 'iops-total': 1 });
    const member = group.join();
    for (const name of ['a', 'b', 'c']) ask(name, member, 'read');
    group.limits = limitsOf({});
    await all();
    expect(log).toEqual(['a 0', 'b 0', 'c 0']);
    expect(group.limits['iops-total'].average).toBe(0);
  });

  test('a higher rate shortens a wait that has begun, a lower one lengthens it; what passed before counts', async () => {
    const faster = setUp({ 'bps-total': 100 });
    const member = faster.group.join();
    faster.ask('a', member, 'read', 1010);
    faster.ask('b', member, 'read', 1010);
    await faster.clock.sleep(5000);
    faster.group.limits = limitsOf({ 'bps-total': 1000 });
    await faster.all();
    // 510 are left after 5 s, 100 of which may stay.
    expect(faster.log).toEqual(['a 0', 'b 5410']);

    const slower = setUp({ 'bps-total': 1000 });
    const other = slower.group.join();
    slower.ask('a', other, 'read', 1100);
    slower.ask('b', other, 'read', 1);
    await slower.clock.sleep(500);
    slower.group.limits = limitsOf({ 'bps-total': 100 });
    await slower.all();
    expect(slower.log).toEqual(['a 0', 'b 6400']);
  });

  test('a limit that comes back starts with an empty bucket', () => {
    const { group } = setUp({ 'bps-total': 100 });
    const member = group.join();
    member.wait('read', 1e9);
    group.limits = limitsOf({});
    member.wait('read', 1e9);
    group.limits = limitsOf({ 'bps-total': 100 });
    expect(member.wait('read', 1)).toBeUndefined();
  });
});

test('whatever comes, when: all pass, each member in order, and never more than the limits allow', async () => {
  const step = fc.record({
    member: fc.integer({ min: 0, max: 2 }),
    kind: fc.constantFrom<LimitedKind>('read', 'write'),
    bytes: fc.integer({ min: 1, max: 400 }),
    pause: fc.constantFrom(0, 0, 0, 30, 500),
  });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 50, max: 1000 }), fc.array(step, { maxLength: 30 }), async (rate, steps) => {
      const { clock, group } = setUp({ 'bps-total': rate, 'iops-write': 5 });
      const members = [group.join(), group.join(), group.join()];
      const passed: { id: number; from: string; bytes: number; at: number }[] = [];
      const pending: Promise<void>[] = [];
      for (const [id, { member, kind, bytes, pause }] of steps.entries()) {
        if (pause > 0) await clock.sleep(pause);
        const note = () => {
          passed.push({ id, from: `${member}${kind}`, bytes, at: clock.now() });
        };
        const turn = members[member]?.wait(kind, bytes);
        if (turn === undefined) note();
        else pending.push(turn.then(note));
      }
      await Promise.all(pending);
      expect(passed).toHaveLength(steps.length);
      let sum = 0;
      for (const { bytes, at } of passed) {
        expect(sum).toBeLessThanOrEqual(rate / 10 + (rate * at) / 1000 + 0.01 * rate);
        sum += bytes;
      }
      for (const from of new Set(passed.map((each) => each.from))) {
        const ids = passed.filter((each) => each.from === from).map((each) => each.id);
        expect(ids).toEqual([...ids].sort((a, b) => a - b));
      }
    }),
    { numRuns: 60 },
  );
});
