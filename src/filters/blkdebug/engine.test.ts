/** Rules, state, active list, breakpoints, without a disk (BD-22 to BD-36). */
import { expect, test } from 'vitest';
import { Engine } from './engine.ts';
import type { DebugEvent } from './events.ts';
import { completeRule, type IoType, type RuleOptions } from './rules.ts';

/** Rules as they are added at opening, oldest first. */
function engineOf(...rules: RuleOptions[]): Engine {
  const engine = new Engine(rules.map(completeRule), 1);
  void engine.event('none');
  return engine;
}

const fail = (event: DebugEvent, errno: 'EIO' | 'ENOSPC' | 'EACCES' | undefined = 'EIO', more = {}): RuleOptions => ({
  event,
  errno,
  ...more,
});
const setState = (event: DebugEvent, newState: number, state = 0): RuleOptions => ({
  kind: 'set-state',
  event,
  state,
  newState,
});

/** What becomes of a request; undefined: nothing. */
const hit = (engine: Engine, type: IoType = 'read', offset = 0, length = 512) => {
  const rule = engine.decide(type, offset, length);
  return rule && (rule.errno ?? 'success');
};
function after(engine: Engine, event: DebugEvent, type: IoType = 'read') {
  void engine.event(event);
  return hit(engine, type);
}

test('BD-22: the state is 1 at first, and a rule of another state does not match', () => {
  const engine = engineOf(fail('read_aio', 'EIO', { state: 2 }), fail('write_aio', 'ENOSPC', { state: 1 }));
  expect(engine.state).toBe(1);
  expect(after(engine, 'read_aio')).toBeUndefined();
  expect(after(engine, 'write_aio')).toBe('ENOSPC');
});

test('BD-22: state 0 matches in every state', () => {
  const engine = engineOf(setState('pwritev', 9), fail('read_aio', 'EIO', { state: 0 }));
  void engine.event('pwritev');
  expect([engine.state, after(engine, 'read_aio')]).toEqual([9, 'EIO']);
});

test("BD-23: rules see the state of the event's start", () => {
  const engine = engineOf(setState('read_aio', 2), fail('read_aio', 'EIO', { state: 2 }));
  expect(after(engine, 'read_aio')).toBeUndefined();
  expect(after(engine, 'read_aio')).toBe('EIO');
});

test('BD-23: of several changes of state the one that was added first wins', () => {
  const engine = engineOf(setState('pwritev', 2), setState('pwritev', 3));
  void engine.event('pwritev');
  expect(engine.state).toBe(2);
});

test('BD-24: an error stays armed, whatever the event, until another event arms', () => {
  const engine = engineOf(fail('l2_load', 'EIO'), fail('write_aio', 'ENOSPC'));
  expect(after(engine, 'l2_load')).toBe('EIO');
  expect(after(engine, 'read_aio')).toBe('EIO');
  expect(hit(engine, 'write')).toBe('EIO');
  expect(after(engine, 'write_aio')).toBe('ENOSPC');
  expect(after(engine, 'pwritev')).toBe('ENOSPC');
});

test('BD-24: each matching rule is put before those that came before', () => {
  const engine = engineOf(fail('read_aio', 'ENOSPC'), fail('read_aio', 'EACCES'));
  expect(after(engine, 'read_aio')).toBe('ENOSPC');
});

test('BD-25: the first rule whose kind and place fit decides', () => {
  const engine = engineOf(
    fail('none', 'EIO'),
    fail('none', 'EACCES', { ioTypes: ['write'] }),
    fail('none', 'ENOSPC', { range: { offset: 1024, length: 1 } }),
  );
  expect(hit(engine, 'read', 0)).toBe('EIO');
  const ranged = engineOf(fail('none', 'ENOSPC', { range: { offset: 1024, length: 1 } }));
  expect(hit(ranged, 'read', 512, 512)).toBeUndefined();
  expect(hit(ranged, 'read', 512, 513)).toBe('ENOSPC');
  expect(hit(ranged, 'read', 1024, 1)).toBe('ENOSPC');
  expect(hit(ranged, 'read', 1025, 512)).toBeUndefined();
  expect(hit(ranged, 'flush', 0, 0)).toBeUndefined();
  expect(hit(ranged, 'flush', 1024, 0)).toBeUndefined();
  const typed = engineOf(fail('none', 'EACCES', { ioTypes: ['write'] }));
  expect([hit(typed, 'read'), hit(typed, 'write')]).toEqual([undefined, 'EACCES']);
});

test('BD-25: one without an error lets requests succeed, hides those behind it, and is not used up', () => {
  const engine = engineOf({ event: 'none', errno: undefined, once: true }, fail('none', 'EIO'));
  expect([hit(engine), hit(engine)]).toEqual(['success', 'success']);
});

test('BD-25: block-status only where it is named', () => {
  expect(hit(engineOf(fail('none')), 'block-status')).toBeUndefined();
  expect(hit(engineOf(fail('none', 'EIO', { ioTypes: ['block-status'] })), 'block-status')).toBe('EIO');
});

test('BD-26: a rule with once is gone for good when it has hit', () => {
  const engine = engineOf(fail('read_aio', 'EIO', { once: true }));
  expect(after(engine, 'read_aio')).toBe('EIO');
  expect(hit(engine)).toBeUndefined();
  expect(after(engine, 'read_aio')).toBeUndefined();
  expect(engine.idle).toBe(true);
});

test('BD-28: the event none arms at opening, once', () => {
  const engine = engineOf(fail('none', 'EIO'), fail('pwritev', 'ENOSPC'));
  expect(hit(engine)).toBe('EIO');
  expect(after(engine, 'pwritev')).toBe('ENOSPC');
});

test('BD-30: a breakpoint of an unknown event', () => {
  const refused = expect.objectContaining({ code: 'ENOENT', message: "There is no event 'foo'" });
  expect(() => engineOf().breakpoint('foo', 'A')).toThrow(refused);
});

/** Whether a promise is settled, after all that can run now has run. */
async function settled(promise: Promise<unknown> | undefined): Promise<boolean> {
  let done = false;
  void promise?.then(() => {
    done = true;
  });
  for (let turns = 0; turns < 50; turns++) await Promise.resolve();
  return done;
}

test('BD-31: a request waits once, and state changes are seen meanwhile', async () => {
  const engine = engineOf(setState('pwritev', 5));
  const notices: string[] = [];
  engine.onSuspend = (tag) => notices.push(`suspended ${tag}`);
  engine.onResume = (tag) => notices.push(`resumed ${tag}`);
  engine.breakpoint('pwritev', 'A');
  const waiting = engine.event('pwritev');
  expect([engine.state, engine.isSuspended('A')]).toEqual([5, true]);
  expect(await settled(waiting)).toBe(false);
  expect(engine.event('pwritev')).toBeUndefined();
  engine.resume('A');
  expect(await settled(waiting)).toBe(true);
  expect(notices).toEqual(['suspended A', 'resumed A']);
});

test('BD-31: several breakpoints on one event each need a resume', async () => {
  const engine = engineOf();
  for (const tag of ['A', 'B', 'A']) engine.breakpoint('pwritev', tag);
  const waiting = engine.event('pwritev');
  for (const tag of ['B', 'A']) {
    engine.resume(tag);
    expect(await settled(waiting)).toBe(false);
  }
  engine.resume('A');
  expect(await settled(waiting)).toBe(true);
});

test('BD-32: resume wakes the first of its tag; ENOENT when there is none', async () => {
  const engine = engineOf();
  engine.breakpoint('pwritev', 'A');
  const first = engine.event('pwritev');
  engine.breakpoint('pwritev', 'A');
  const second = engine.event('pwritev');
  engine.resume('A');
  expect([await settled(first), await settled(second)]).toEqual([true, false]);
  engine.resume('A');
  expect(() => engine.resume('A')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
});

test('BD-33: removing takes breakpoints and wakes all that wait; ENOENT when neither was there', async () => {
  const engine = engineOf();
  engine.breakpoint('pwritev', 'A');
  const waiting = engine.event('pwritev');
  engine.breakpoint('read_aio', 'A');
  engine.breakpoint('read_aio', 'B');
  engine.removeBreakpoint('A');
  expect(await settled(waiting)).toBe(true);
  expect(engine.isSuspended('A')).toBe(false);
  expect(() => engine.removeBreakpoint('A')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  expect(engine.event('read_aio')).toBeInstanceOf(Promise);
  expect(engine.isSuspended('B')).toBe(true);
});

test('BD-34: whether any request waits under a tag', () => {
  const engine = engineOf();
  engine.breakpoint('pwritev', 'A');
  expect(engine.isSuspended('A')).toBe(false);
  void engine.event('pwritev');
  expect([engine.isSuspended('A'), engine.isSuspended('B')]).toEqual([true, false]);
});

test('BD-36: what waits fails when the node is closed', async () => {
  const engine = engineOf();
  engine.breakpoint('pwritev', 'A');
  engine.breakpoint('read_aio', 'A');
  const waiting = engine.event('pwritev');
  engine.cancelAll();
  await expect(waiting).rejects.toMatchObject({ code: 'ECANCELED' });
  expect(engine.event('read_aio')).toBeUndefined();
});

test('BD-36: drains, one in another, let requests pass and leave breakpoints where they are', async () => {
  const engine = engineOf();
  engine.breakpoint('pwritev', 'A');
  const waiting = engine.event('pwritev');
  engine.breakpoint('pwritev', 'B');
  const ends = [engine.letPass(), engine.letPass()];
  expect(await settled(waiting)).toBe(true);
  for (const end of ends) {
    expect([engine.event('pwritev'), engine.passing]).toEqual([undefined, true]);
    end();
  }
  expect(engine.event('pwritev')).toBeInstanceOf(Promise);
  expect(engine.isSuspended('B')).toBe(true);
});

test('BD-60: live rules are listed with their hits, added, armed at once for none, and removed', () => {
  const engine = engineOf(fail('read_aio'), setState('pwritev', 2));
  void engine.event('pwritev');
  expect([after(engine, 'read_aio'), hit(engine)]).toEqual(['EIO', 'EIO']);
  expect(engine.rules().map(({ id, hits }) => [id, hits])).toEqual([
    [1, 2],
    [2, 1],
  ]);
  const id = engine.add(fail('none', 'ENOSPC', { ioTypes: ['write'] }));
  expect([hit(engine, 'write'), hit(engine, 'read')]).toEqual(['ENOSPC', 'EIO']);
  engine.remove(id);
  engine.remove(1);
  expect([hit(engine, 'write'), hit(engine, 'read')]).toEqual([undefined, undefined]);
  expect(() => engine.remove(id)).toThrow(
    expect.objectContaining({ code: 'ENOENT', message: `There is no rule ${id}` }),
  );
  expect(() => engine.add({ event: 'foo' as DebugEvent })).toThrow('invalid parameter value: foo');
});

test('BD-61: after and every choose among the requests that match', () => {
  const engine = engineOf(fail('none', 'EIO', { after: 2, every: 3, ioTypes: ['write'] }));
  const hits = Array.from({ length: 9 }, () => hit(engine, 'write') !== undefined);
  expect(hits).toEqual([false, false, true, false, false, true, false, false, true]);
  expect(hit(engine, 'read')).toBeUndefined();
});

test('BD-61: probability comes from the seed', () => {
  const run = (seed: number) => {
    const engine = new Engine([completeRule(fail('none', 'EIO', { probability: 0.25 }))], seed);
    void engine.event('none');
    return Array.from({ length: 4000 }, () => hit(engine) !== undefined);
  };
  expect(run(7)).toEqual(run(7));
  expect(run(7)).not.toEqual(run(8));
  expect(run(7).filter(Boolean).length).toBeGreaterThan(800);
  expect(run(7).filter(Boolean).length).toBeLessThan(1200);
});
